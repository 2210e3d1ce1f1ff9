"""Exact truth for arithmetic word problems: the grader of outcomes and the checker of steps."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stepreward.core.catalog import check as checkers
from stepreward.core.step_check import StepCheck
from stepreward.core.types import Problem, Step
from stepreward.tasks.arithmetic import Amount, Operator, apply, quantities_of

_EQUATION = re.compile(r"(\d{1,9}) ([-+*/]) (\d{1,9}) = (\d{1,9})")
_ANSWER = re.compile(r"Answer: (\d{1,9})")


class ArithmeticGrader:
    """Grades a solution 1 if its last line states the right answer, else 0."""

    name = "arithmetic"

    def grade(self, problem: Problem, steps: Sequence[Step]) -> float:
        """1.0 or 0.0; NaN for a problem without a reference."""
        if problem.reference is None:
            return float("nan")
        return float(self.answer(problem, steps) == problem.reference)

    def answer(self, problem: Problem, steps: Sequence[Step]) -> str | None:
        """The number after "Answer:" in the last step, without leading zeros; None if there is none."""
        found = _ANSWER.fullmatch(steps[-1].text.strip()) if steps else None
        return str(int(found[1])) if found else None


@checkers.method("arithmetic", note="ours: the exact checker of the built-in word problems")
def check(problem: Problem, steps: Sequence[Step]) -> list[StepCheck]:
    """Says of each step of a built-in word problem whether it is right, and what is wrong with it.

    An equation is right if it computes a quantity of the problem from quantities that are given or were derived in
    earlier right steps, in any order that the problem permits; sums and products may swap their operands. An answer is
    right if it is the target quantity, derived by a right step before. Kinds
    of errors: `malformed` (no equation, no answer), `arithmetic` (the equation is false), `operand` (a number that is
    not among the quantities known so far), `operation` (known numbers that the problem does not combine in this way),
    `early answer` (right number, not derived yet), `wrong answer`, `follows` (true in itself, built on an earlier wrong
    number).

    Args:
        problem: of this world.
        steps: of one solution.

    Returns:
        One verdict a step.

    Raises:
        InputError: the problem is none of this world.
    """
    state = _Known(quantities_of(problem))
    return [state.judge(step.text.strip()) for step in steps]


def truth(problem: Problem, steps: Sequence[Step]) -> NDArray[np.float64]:
    """(S,) exact step labels in the ProcessBench sense: 1 before the first wrong step, 0 from it on."""
    right = np.array([verdict.right for verdict in check(problem, steps)], dtype=np.float64)
    labels: NDArray[np.float64] = np.minimum.accumulate(right) if right.size else right
    return labels


class _Known:
    """What the steps so far have established."""

    def __init__(self, quantities: list[Amount]) -> None:
        self.quantities = quantities
        self.known = {i for i, q in enumerate(quantities) if q.operator is None}
        self.wrong_values: set[int] = set()

    def judge(self, line: str) -> StepCheck:
        """The verdict on a line; right lines add to what is known."""
        if found := _ANSWER.fullmatch(line):
            return self._judge_answer(int(found[1]))
        if not (found := _EQUATION.fullmatch(line)):
            return StepCheck(False, "malformed")
        left, operator, right, result = int(found[1]), found[2], int(found[3]), int(found[4])
        verdict = self._judge_equation(left, operator, right, result)  # type: ignore[arg-type]
        # Later steps that are true in themselves and use this number follow from the error.
        if not verdict.right:
            self.wrong_values.add(result)
        return verdict

    def _judge_answer(self, value: int) -> StepCheck:
        target = len(self.quantities) - 1
        if value != self.quantities[target].value:
            return StepCheck(False, "follows" if value in self.wrong_values else "wrong answer")
        return StepCheck(True) if target in self.known else StepCheck(False, "early answer")

    def _judge_equation(self, left: int, operator: Operator, right: int, result: int) -> StepCheck:
        if apply(operator, left, right) != result:
            return StepCheck(False, "arithmetic")
        matching = [i for i, q in enumerate(self.quantities) if self._computes(q, left, operator, right)]
        # Two quantities of a problem may have the same definition: both are known then.
        if matching:
            self.known.update(matching)
            return StepCheck(True)
        values = {self.quantities[i].value for i in self.known}
        if {left, right} <= values:
            return StepCheck(False, "operation")
        return StepCheck(False, "follows" if {left, right} <= values | self.wrong_values else "operand")

    def _computes(self, q: Amount, left: int, operator: Operator, right: int) -> bool:
        """True if the equation's left side is the operation that defines the quantity, on known operands."""
        if q.operator != operator or not {q.left, q.right} <= self.known:
            return False
        operands = (self.quantities[q.left].value, self.quantities[q.right].value)
        return operands == (left, right) or (operator in "+*" and operands == (right, left))
