"""Writers who slip: how often they are right, the ways they are wrong, and that they go on from what they wrote."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache

import numpy as np
import pytest

from stepreward.core.types import Problem
from stepreward.tasks.arithmetic import Difficulty, Operator, generate, quantities_of, solution
from stepreward.tasks.arithmetic_truth import ArithmeticGrader, check
from stepreward.tasks.arithmetic_writers import RARE, without_carry, written_solution

GRADER = ArithmeticGrader()


@cache
def problems() -> list[Problem]:
    return list(generate("train", 1500, seed=3, difficulty=Difficulty(operations=(1, 5))))


def test_a_writer_who_never_slips_writes_the_reference_solution() -> None:
    rng = np.random.default_rng(0)
    assert all(written_solution(p, rng, 0.0) == solution(p) for p in problems())


@pytest.mark.parametrize(
    ("operator", "left", "right", "result"),
    [
        ("+", 58, 27, 75),
        ("+", 95, 47, 132),
        ("+", 7, 34, 31),
        ("+", 31, 26, 57),
        ("-", 42, 17, 35),
        ("-", 105, 8, 103),
        ("-", 49, 17, 32),
        ("*", 38, 2, 66),
        ("*", 126, 3, 368),
        ("*", 12, 4, 48),
        ("*", 12, 11, 132),
        ("/", 84, 4, 21),
        ("/", 85, 4, None),
    ],
)
def test_a_lost_carry_changes_the_digits_above_it_alone(
    operator: Operator, left: int, right: int, result: int | None
) -> None:
    assert without_carry(operator, left, right) == result


def carries(problem: Problem) -> list[bool]:
    """Whether each equation of the reference solution has a carry to lose, by adding digits of its operands."""
    made = []
    for step in solution(problem)[:-1]:
        left, operator, right = step.text.split()[:3]
        a, b = [int(d) for d in left[::-1]], [int(d) for d in right[::-1]]
        if operator == "*":
            # The top place writes its carry down.
            made.append(any(d * b[0] > 9 for d in a[:-1]))
        else:
            longest = max(len(a), len(b))
            a, b = a + [0] * (longest - len(a)), b + [0] * (longest - len(b))
            lost = (
                any(x + y > 9 for x, y in zip(a[:-1], b[:-1], strict=True)),
                any(x < y for x, y in zip(a, b, strict=True)),
            )
            made.append({"+": lost[0], "-": lost[1], "/": False}[operator])
    return made


def test_the_share_of_right_solutions_follows_from_the_slip_rate() -> None:
    rng = np.random.default_rng(1)
    for rate in (0.05, 0.3, 0.8):
        right = np.array([GRADER.grade(p, written_solution(p, rng, rate)) for p in problems()])
        unslipped = np.array([np.prod([1 - rate * (RARE + c) for c in carries(p)]) for p in problems()])
        # Few slips happen to give the right number, at most 1 in 20 here; 4 standard errors fail for 1 seed in 16000.
        error = 4 * np.sqrt((unslipped * (1 - unslipped)).mean() / len(problems()))
        assert -error < (right - unslipped).mean() < error + 0.05 * (1 - unslipped.mean())


def test_slips_are_of_many_kinds_as_the_checker_names_them() -> None:
    rng = np.random.default_rng(2)
    kinds = Counter(
        next((v.kind for v in check(p, written_solution(p, rng, 0.3)) if not v.right), "") for p in problems()
    )
    wrong = sum(kinds.values()) - kinds[""]
    # A fifth of the equations has no carry, and the four rare slips are a tenth as likely as the lost carry.
    assert kinds["arithmetic"] > 0.75 * wrong
    assert all(kinds[kind] > 0.005 * wrong for kind in ("operand", "operation", "wrong answer"))


def test_careless_writers_agree_on_a_wrong_answer_and_outvote_the_right_one() -> None:
    rng = np.random.default_rng(5)
    lost = 0
    for p in problems()[:200]:
        rates = np.where(rng.random(16) < 0.45, 0.05, 0.8)
        votes = Counter(GRADER.answer(p, written_solution(p, rng, float(rate))) for rate in rates)
        lost += votes.most_common(1)[0][0] != p.reference
    assert 0.1 < lost / 200 < 0.5


def test_left_operands_are_told_or_written_before() -> None:
    rng = np.random.default_rng(4)
    for p in problems():
        believed = {q.value for q in quantities_of(p) if q.operator is None}
        *lines, answer = (step.text for step in written_solution(p, rng, 0.5))
        for line in lines:
            left, result = map(int, re.fullmatch(r"(\d+) [-+*/] \d+ = (\d+)\n", line).groups())  # type: ignore[union-attr]
            assert left in believed
            believed.add(result)
        assert int(answer.removeprefix("Answer: ")) in believed
