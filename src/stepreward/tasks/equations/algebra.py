"""The checker of steps that calculate with letters."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from stepreward.core.catalog import check
from stepreward.core.optional import require_installed
from stepreward.core.sandbox.bounded import Bounded, Unbounded
from stepreward.core.step_check import StepCheck
from stepreward.core.types import Problem, Step
from stepreward.tasks.equations.algebra_judge import judge_steps

SECONDS = 10.0
"""Time limit of one solution."""


@check.method("algebra", note="ours: identities at random points; ideals of polynomials by SymPy's Groebner bases")
def check_algebra(problem: Problem, steps: Sequence[Step]) -> list[StepCheck]:
    r"""Checks the equations that steps write in LaTeX or on lines of their own, also those with letters.

    An equation is right if both sides have one value, wherever their letters are, or if it follows from earlier
    equations of the solution and the problem; it need not say anything new. It is wrong if it has no letters and the
    sides differ (`arithmetic`), if it rewrites an equation of the same step and both together have no solution
    (`contradiction`), or if it stands in the middle of a chain, nothing else is known of its letters, and the sides
    differ (`algebra`). What is only tried (`if x = 2`), inequalities and words are not judged.

    The text is read by our own reader, in a process with limits of time and memory; a solution that reaches one is
    unknown, with the kind `limit`.

    Args:
        problem: its equations may be used.
        steps: of one solution.

    Raises:
        ModelError: SymPy is not installed.
    """
    require_installed("sympy")
    at = [index for index, step in enumerate(steps) if step.kind == "action"]
    made = [StepCheck(None)] * len(steps)
    try:
        said = _judged()({"problem": problem.text, "steps": [steps[index].text for index in at]})
    except Unbounded:
        said = [(None, "limit", "")] * len(at)
    for index, (right, kind, claim) in zip(at, said, strict=True):
        made[index] = StepCheck(right, "" if right else kind, "" if right else claim)
    return made


@cache
def _judged() -> Bounded:
    return Bounded(judge_steps, seconds=SECONDS)
