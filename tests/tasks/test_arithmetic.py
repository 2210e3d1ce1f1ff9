"""Arithmetic problems: the text read by a slow oracle, splits, and each verdict of the checker."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from fractions import Fraction
from itertools import permutations
from string import Formatter

import numpy as np
import pytest

from stepreward.core.types import Problem, Step
from stepreward.tasks.arithmetic import Amount, Difficulty, apply, bucket, generate, quantities_of, solution
from stepreward.tasks.arithmetic_truth import ArithmeticGrader, check, truth
from stepreward.tasks.wording import CHANGES, COMPARISONS, SHARES, TOTALS

HARD = Difficulty(operations=(5, 9), largest_value=2000)
OPERATIONS = {"+": Fraction.__add__, "-": Fraction.__sub__, "*": Fraction.__mul__, "/": Fraction.__truediv__}
GRADER = ArithmeticGrader()


def steps(*lines: str) -> tuple[Step, ...]:
    return tuple(Step(f"{line}\n") for line in lines)


def graph(*rows: Amount) -> Problem:
    return Problem(
        "by hand", "", str(rows[-1].value), {"quantities": [asdict(q) for q in rows], "target": len(rows) - 1}
    )


def kinds(problem: Problem, *lines: str) -> list[str]:
    return [verdict.kind for verdict in check(problem, steps(*lines))]


CHAIN = graph(Amount(7), Amount(5), Amount(12, "+", 0, 1), Amount(3), Amount(36, "*", 2, 3))
"""(7 + 5) * 3 = 36."""
TWO_HANDS = graph(
    *(
        Amount(8),
        Amount(2),
        Amount(10, "+", 0, 1),
        Amount(20),
        Amount(4),
        Amount(5, "/", 3, 4),
    ),
    Amount(15, "+", 2, 5),
)
"""(8 + 2) + (20 / 4) = 15: the two parentheses do not need each other."""


def reader(template: str) -> re.Pattern[str]:
    """A pattern for the sentences that a template writes."""
    kind = {"name": r"(?P<name>\w+)", "other": r"(?P<other>\w+)", "n": r"(?P<n>\d+)", "item": "ITEM"}
    seen: set[str] = set()
    made = ""
    for text, field, _, _ in Formatter().parse(template):
        made += re.escape(text) + (f"(?P={field})" if field in seen and field != "item" else kind.get(field or "", ""))
        seen.add(field or "")
    return re.compile(made.replace("ITEM", r"[a-z]+") + r"(?: |$)")


TEMPLATES = [
    (reader(template), operator, what)
    for what, table in [("change", CHANGES), ("compare", COMPARISONS), ("change", SHARES), ("total", {"+": TOTALS})]
    for operator, templates in table.items()
    for template in templates
]


def read(text: str) -> Fraction:
    """The answer, from the words alone: who holds how many, sentence by sentence, in exact fractions."""
    start = re.match(r"(\w+) has (\d+) [a-z]+\. ", text)
    assert start, text
    holds, at, result = {start[1]: Fraction(start[2])}, start.end(), Fraction(0)
    while at < len(text):
        matching = [(m, operator, what) for p, operator, what in TEMPLATES if (m := p.match(text, at))]
        # A comparison tells of a new person by a known one: "A has 3 more than B" may tell of either.
        matching = [x for x in matching if x[2] != "compare" or (x[0]["other"] in holds and x[0]["name"] not in holds)]
        assert len({(operator, m.end()) for m, operator, _ in matching}) == 1, text[at:]
        found, operator, what = matching[0]
        if what == "total":
            result = holds[found["name"]] + holds[found["other"]]
        else:
            source = found["other"] if what == "compare" else found["name"]
            result = holds[found["name"]] = OPERATIONS[operator](holds[source], Fraction(found["n"]))
        at = found.end()
    return result


@pytest.mark.parametrize("difficulty", [Difficulty(), HARD])
def test_the_text_the_graph_and_the_reference_say_the_same(difficulty: Difficulty) -> None:
    operators = set()
    for problem in generate("train", 150, seed=1, difficulty=difficulty):
        quantities = quantities_of(problem)

        def evaluate(i: int, rows: Sequence[Amount] = quantities) -> Fraction:
            q = rows[i]
            if q.operator is None:
                return Fraction(q.value)
            return OPERATIONS[q.operator](evaluate(q.left, rows), evaluate(q.right, rows))

        assert [evaluate(i) for i in range(len(quantities))] == [q.value for q in quantities]
        assert read(problem.text) == int(problem.reference or "") == quantities[-1].value
        made = [q for q in quantities if q.operator is not None]
        assert difficulty.operations[0] <= len(made) <= difficulty.operations[1]
        assert all(0 < q.value <= difficulty.largest_value for q in made)
        operators |= {q.operator for q in made}
    assert operators == set("+-*/")


@pytest.mark.sampled(2)
@pytest.mark.parametrize("difficulty", [Difficulty(), HARD])
def test_reference_solutions_are_right_in_every_step_and_graded_1(difficulty: Difficulty) -> None:
    for problem in generate("validation", 100, difficulty=difficulty):
        reference = solution(problem)
        assert all(verdict.right and not verdict.kind for verdict in check(problem, reference))
        assert truth(problem, reference).tolist() == [1.0] * len(reference)
        assert GRADER.grade(problem, reference) == 1.0
        assert GRADER.answer(problem, reference) == problem.reference
        assert GRADER.grade(problem, reference[:-1]) == 0.0
        # No line can be left out: the next that needs it, or the answer, is wrong without it.
        for gone in range(len(reference) - 1):
            assert not all(v.right for v in check(problem, reference[:gone] + reference[gone + 1 :]))


def test_splits_share_no_graph_and_seeds_give_the_same_problems() -> None:
    graphs = {
        split: {bucket(quantities_of(p)) for seed in range(2) for p in generate(split, 100, seed=seed)}
        for split in ("train", "validation", "held_out")
    }
    assert max(graphs["held_out"]) < 10 <= min(graphs["validation"])
    assert max(graphs["validation"]) < 20 <= min(graphs["train"])
    assert list(generate("train", 20, seed=4)) == list(generate("train", 20, seed=4))
    assert [p.id for p in generate("train", 20, seed=4)] != [p.id for p in generate("train", 20, seed=5)]
    assert list(generate("train", 30, seed=4))[:20] == list(generate("train", 20, seed=4))
    assert len({p.id for p in generate("train", 300)}) == 300


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["7 + 5 = 12", "12 * 3 = 36", "Answer: 36"], ["", "", ""]),
        (["seven and five", "12 * 3 = 36"], ["malformed", "operand"]),
        (["7+5=12"], ["malformed"]),
        (["7 + 5 = 12 = 12"], ["malformed"]),
        (["7 + 5 = 13", "13 * 3 = 39", "Answer: 39"], ["arithmetic", "follows", "follows"]),
        (["7 + 6 = 13", "13 * 3 = 39"], ["operand", "follows"]),
        (["7 - 5 = 2", "2 * 3 = 6", "Answer: 6"], ["operation", "follows", "follows"]),
        (["7 * 3 = 21"], ["operation"]),
        (["12 * 3 = 36"], ["operand"]),
        (["Answer: 36"], ["early answer"]),
        (["7 + 5 = 12", "Answer: 36"], ["", "early answer"]),
        (["7 + 5 = 12", "12 * 3 = 36", "Answer: 12"], ["", "", "wrong answer"]),
        (["7 + 5 = 12", "12 * 3 = 35", "Answer: 35"], ["", "arithmetic", "follows"]),
        (["7 + 5 = 13", "7 + 5 = 12", "12 * 3 = 36", "Answer: 36"], ["arithmetic", "", "", ""]),
        (["7 / 5 = 1"], ["arithmetic"]),
        (["7 / 0 = 0"], ["arithmetic"]),
    ],
)
def test_each_kind_of_error_is_named(lines: list[str], expected: list[str]) -> None:
    assert kinds(CHAIN, *lines) == expected
    right = [kind == "" for kind in expected]
    assert [v.right for v in check(CHAIN, steps(*lines))] == right
    assert truth(CHAIN, steps(*lines)).tolist() == np.cumprod(right).tolist()


def test_errors_injected_into_generated_solutions_are_found_where_they_are() -> None:
    for problem in generate("train", 100, seed=7, difficulty=Difficulty(operations=(3, 5))):
        lines = [step.text.strip() for step in solution(problem)]
        for t in range(len(lines) - 1):
            left, operator, right, _, result = lines[t].split()
            for bad, kind in [
                (f"{left} {operator} {right} = {int(result) + 1}", "arithmetic"),
                (f"{left} + 987654 = {int(left) + 987654}", "operand"),
                (f"{left} {operator} {right}", "malformed"),
            ]:
                made = kinds(problem, *lines[:t], bad, *lines[t + 1 :])
                assert made[: t + 1] == [""] * t + [kind]
                assert truth(problem, steps(*lines[:t], bad, *lines[t + 1 :])).tolist() == [1.0] * t + [0.0] * (
                    len(lines) - t
                )
        assert kinds(problem, *lines[:-1], "Answer: 987654")[-1] == "wrong answer"
        assert kinds(problem, lines[-1]) == ["early answer"]


def test_independent_steps_may_come_in_any_order_and_dependent_ones_may_not() -> None:
    lines = ["8 + 2 = 10", "20 / 4 = 5", "10 + 5 = 15"]
    for order in permutations(range(3)):
        made = kinds(TWO_HANDS, *(lines[i] for i in order), "Answer: 15")
        assert all(kind == "" for kind in made) == (order[2] == 2)
    compare = graph(
        Amount(30),
        Amount(6),
        Amount(24, "-", 0, 1),
        Amount(2),
        Amount(60, "*", 0, 3),
    )
    assert kinds(compare, "30 - 6 = 24", "30 * 2 = 60") == kinds(compare, "30 * 2 = 60", "30 - 6 = 24") == ["", ""]


def test_sums_and_products_may_swap_their_operands_and_no_others() -> None:
    assert kinds(CHAIN, "5 + 7 = 12", "3 * 12 = 36", "Answer: 36") == ["", "", ""]
    apart = graph(Amount(4), Amount(4), Amount(1, "/", 0, 1), Amount(9), Amount(8, "-", 3, 2))
    assert kinds(apart, "4 / 4 = 1", "9 - 1 = 8", "Answer: 8") == ["", "", ""]
    # Differences and quotients of integers that are also integers when swapped: 0 - and 1 / are the only ones.
    assert kinds(graph(Amount(3), Amount(6), Amount(2, "/", 1, 0)), "3 / 6 = 0", "6 / 3 = 2") == [
        "arithmetic",
        "",
    ]
    assert kinds(graph(Amount(3), Amount(9), Amount(6, "-", 1, 0)), "3 - 9 = 6") == ["arithmetic"]


def test_answers_are_read_from_the_last_line_without_leading_zeros() -> None:
    assert GRADER.answer(CHAIN, steps("Answer: 0036")) == "36"
    assert GRADER.grade(CHAIN, steps("Answer: 0036")) == 1.0
    assert GRADER.answer(CHAIN, steps("Answer: 36", "7 + 5 = 12")) is None
    assert GRADER.answer(CHAIN, ()) is None
    assert check(CHAIN, ()) == []
    assert truth(CHAIN, ()).shape == (0,)


def test_exact_division_and_clear_errors() -> None:
    assert (apply("/", 12, 4), apply("/", 12, 5), apply("/", 12, 0)) == (3, None, None)
    assert [apply(operator, 7, 3) for operator in ("+", "-", "*")] == [10, 4, 21]
    with pytest.raises(ValueError, match="no graph"):
        quantities_of(Problem("other", ""))
    for wrong in [(0, 2), (3, 2)]:
        with pytest.raises(ValueError, match="operations"):
            next(generate("train", 1, difficulty=Difficulty(operations=wrong)))
