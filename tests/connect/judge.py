"""A scorer whose scores are plain to see, which remembers what it was asked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stepreward.core.errors import InputError
from stepreward.core.runtime.flows import Score, Scored


class Judge:
    """Scores a step by what it says: 0.9 with a "17" in it, else 0.2; refuses what says "too long".

    Steps that say "skip" have no score.
    """

    name = "judge"
    batch_size = 8

    def __init__(self) -> None:
        self.asked: list[Score] = []
        self.calls: list[int] = []

    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        self.asked += questions
        self.calls.append(len(questions))
        if any("too long" in step.text for question in questions for step in question.steps):
            raise InputError("a trajectory has too many tokens")
        return [Scored(np.array([self.of(s.text, s.kind) for s in question.steps])) for question in questions]

    @staticmethod
    def of(text: str, kind: str) -> float:
        if kind != "action" or "skip" in text:
            return np.nan
        return 0.9 if "17" in text else 0.2
