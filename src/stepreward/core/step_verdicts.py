"""What checkers of the family `check` say of the steps of a solution, one or several together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stepreward.core.catalog import check
from stepreward.core.errors import InputError
from stepreward.core.step_check import StepCheck
from stepreward.core.types import Floats, Problem, Step


def verdicts(checker: str, problem: Problem, steps: Sequence[Step]) -> list[tuple[str, StepCheck]]:
    """What is said of each step, and by which checker.

    Of several, the first that finds an error decides, else the first that says anything. Observations are unknown.

    Args:
        checker: of the family check; several with a plus sign, such as `equations+algebra`.
        problem, steps: of one solution.

    Raises:
        InputError: a checker does not say one thing of each step.
        UnknownNameError: there is no such checker.
    """
    names = checker.split("+")
    found = [_said(name, problem, steps) for name in names]
    made = []
    for at, step in enumerate(steps):
        said = [(name, one[at]) for name, one in zip(names, found, strict=True) if one[at].right is not None]
        wrong = [pair for pair in said if not pair[1].right]
        decided = [*wrong, *said] if step.kind == "action" else []
        made.append(decided[0] if decided else (names[0], StepCheck(None, found[0][at].kind)))
    return made


def numbers_of(said: Sequence[tuple[str, StepCheck]]) -> Floats:
    """(S,) 1 where a step is right, 0 where it is wrong, NaN where nothing is known."""
    return np.array([np.nan if one.right is None else float(one.right) for _, one in said], np.float64)


def _said(name: str, problem: Problem, steps: Sequence[Step]) -> list[StepCheck]:
    made: list[StepCheck] = check[name].take({"problem": problem, "steps": tuple(steps)})
    if len(made) != len(steps):
        what = f"the checker {name} said {len(made)} things of {len(steps)} steps of problem {problem.id!r}"
        raise InputError(what, remedy="return one StepCheck a step")
    return made
