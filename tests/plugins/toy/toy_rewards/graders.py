"""A grader that reads the last word."""

from __future__ import annotations

from collections.abc import Sequence

from stepreward.core.types import Problem, Step


class LastWord:
    """The answer is the last word of a solution."""

    name = "last-word"

    def grade(self, problem: Problem, steps: Sequence[Step]) -> float:
        """1 where it is the reference."""
        return float(self.answer(problem, steps) == problem.reference)

    def answer(self, problem: Problem, steps: Sequence[Step]) -> str | None:
        """The last word of the last step."""
        words = steps[-1].text.split() if steps else []
        return words[-1].strip(".") if words else None
