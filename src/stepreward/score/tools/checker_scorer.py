"""Any checker of steps as a scorer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from stepreward.core.catalog import check
from stepreward.core.runtime.flows import Score, Scored
from stepreward.core.step_verdicts import numbers_of, verdicts
from stepreward.score.short_call import ShortCall

CHECK = "check:"
"""Names of scorers that start like this are checkers: `check:equations+algebra`."""


@dataclass
class CheckerScorer(ShortCall):
    """Scores a step 1 if it is right and 0 if it is wrong for a checker, and `neutral` where that says nothing.

    Raises:
        UnknownNameError: there is no such checker.
    """

    checker: str
    """Of the family check; several with a plus sign."""
    neutral: float = 0.8
    """Score of a step of which no checker says anything, in [0, 1]; as that of the scorer `tool`."""
    batch_size: int = 1024
    name: str = field(init=False)
    """Identity for caches and provenance."""

    def __post_init__(self) -> None:
        if not 0 <= self.neutral <= 1:
            raise ValueError(f"neutral must be in [0, 1], got {self.neutral}")
        for one in self.checker.split("+"):
            check[one]
        self.name = f"{CHECK}{self.checker}(neutral={self.neutral:g})"

    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        """Scores of each question's steps, in order; NaN at observations. No token is encoded."""
        made = []
        for question in questions:
            said = numbers_of(verdicts(self.checker, question.problem, question.steps))
            scores = np.where(np.isnan(said), self.neutral, said)
            scores[[step.kind != "action" for step in question.steps]] = np.nan
            made.append(Scored(scores))
        return made
