"""The contract of a grader, checked by calling it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from stepreward.core.runtime.flows import Grader
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.testing.check_policy import PROBLEM
from stepreward.testing.rules import require, require_attributes

_EXAMPLES = [
    Trajectory(PROBLEM, tuple(map(Step, text.splitlines(keepends=True))))
    for text in (
        "12 + 5 = 17\nAnswer: 17",
        "12 + 5 = 16\nAnswer: 16",
        "12 + 5 = 17\nThe answer is \\boxed{17}.",
        "Well",
    )
]


def check_grader(grader: Grader, trajectories: Sequence[Trajectory] | None = None) -> None:
    """Checks that a grader keeps its contract: grades in [0, 1] or NaN, answers that agree with grades.

    Args:
        grader: what is checked.
        trajectories: solutions that it can grade, right and wrong ones; where `outcome` is known the grade must be
            equal to it. None takes solutions of a sum, whose grades are left to the grader.

    Raises:
        ContractError: a rule is broken; the message names the rule and the remedy.
    """
    require_attributes(grader)
    given = _EXAMPLES if trajectories is None else list(trajectories)
    grades = [_grade(grader, one.problem, one.steps) for one in given]
    answers = [_answer(grader, one) for one in given]
    for one, grade in zip(given, grades, strict=True):
        found = f"{one.text[-80:]!r} is graded {grade}, its outcome is {one.outcome}"
        same = math.isnan(one.outcome) or grade == one.outcome
        require(same, grader, "known outcomes", found, "grade by the reference")
    _check_agreement(grader, given, grades, answers)
    _check_own_answer(grader, given, grades, answers)
    for problem in {one.problem.id: one.problem for one in given}.values():
        for reference in (problem.reference, None):
            nothing = _grade(grader, replace(problem, reference=reference), ())
            found = f"no step at all is graded {nothing} where the reference is {reference!r}"
            require(not nothing > 0, grader, "nothing is not right", found, "give 0 where there is no answer, or NaN")
    with ThreadPoolExecutor(4) as threads:
        again = list(threads.map(lambda one: grader.grade(one.problem, one.steps), given * 2))
    what = "a solution got another grade the second time, in threads"
    remedy = "keep no state between calls: engines call it from several threads"
    require(np.array_equal(again, grades * 2, equal_nan=True), grader, "repeatable", what, remedy)


def _grade(grader: Grader, problem: Problem, steps: Sequence[Step]) -> float:
    grade = grader.grade(problem, tuple(steps))
    sane = isinstance(grade, float | int) and (math.isnan(grade) or 0 <= grade <= 1)
    require(sane, grader, "grades", f"a grade is {grade!r}", "return a float in [0, 1], NaN where it cannot tell")
    return float(grade)


def _answer(grader: Grader, one: Trajectory) -> str | None:
    answer = grader.answer(one.problem, one.steps)
    sane = answer is None or isinstance(answer, str)
    remedy = "return a text in a normal form, None where there is none"
    require(sane, grader, "answers", f"an answer is {answer!r}", remedy)
    return answer


def _check_agreement(
    grader: Grader, given: Sequence[Trajectory], grades: Sequence[float], answers: Sequence[str | None]
) -> None:
    """Votes count equal answers as one, so they must have one grade."""
    rule = "answers and grades agree"
    seen: dict[tuple[str, str], float] = {}
    for one, grade, answer in zip(given, grades, answers, strict=True):
        if answer is None:
            found = f"{one.text[-80:]!r} is graded {grade}, and answer is None"
            require(not grade > 0, grader, rule, found, "return the answer of every solution that can be right")
        elif not math.isnan(grade):
            first = seen.setdefault((one.problem.id, answer), grade)
            found = f"the answer {answer!r} is graded {first} and {grade}"
            require(first == grade, grader, rule, found, "answers are equal texts only if they are equally right")


def _check_own_answer(
    grader: Grader, given: Sequence[Trajectory], grades: Sequence[float], answers: Sequence[str | None]
) -> None:
    """A grader must be symmetric on itself: a right answer is right by itself as the reference."""
    for one, grade, answer in zip(given, grades, answers, strict=True):
        if grade == 1 and answer is not None:
            own = _grade(grader, replace(one.problem, reference=answer), one.steps)
            found = f"with the reference {answer!r}, its own answer, a right solution is graded {own}"
            require(own == 1, grader, "a right answer equals itself", found, "read references as answers are read")
