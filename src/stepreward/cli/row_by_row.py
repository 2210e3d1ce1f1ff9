"""A scorer that a row cannot stop: what it cannot score is named and left without a score, and progress is shown."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from stepreward.cli.progress import SECONDS_TO_JUDGE, StageProgress
from stepreward.core.errors import InputError
from stepreward.core.runtime.flows import Score, Scored, Scorer

Place = tuple[object, int | None]
"""A file, and a row in it where that is known."""
TOLD = 10
GIVEN_UP = 16
"""Rows in a row that fail, from the first on, before it is held to be no row's fault."""


def tell_left_out(bad: Sequence[InputError], by: str = "", *, more: int = 0) -> None:
    """Says on standard error which rows are left out, the first ones in full."""
    of = f" {by}" if by else ""
    for error in bad[:TOLD]:
        print(f"stepreward: left out{of}: {error}", file=sys.stderr)
    rest = len(bad[TOLD:]) + more
    if rest:
        print(f"stepreward: left out{of}: {rest:,} more rows", file=sys.stderr)


def tell_blank(steps: int) -> None:
    """Says on standard error how many steps hold no text."""
    if steps:
        print(f"stepreward: {steps:,} steps hold no text: context, without label or score", file=sys.stderr)


def shown(progress: StageProgress, stage: str, total: int) -> Callable[[int], None]:
    """Tells a stage of questions as they are answered, unless that takes no time worth telling."""
    began = time.monotonic()

    def told(done: int) -> None:
        if time.monotonic() - began > SECONDS_TO_JUDGE:
            progress(stage, done, max(total, done), "")

    return told


class RowByRow:
    """Scores in parts; a question that cannot be scored gets NaN and is counted; a `core.runtime.flows.Scorer`.

    Args:
        scorer: who scores.
        places: where questions come from, by the problem's id and steps, or by the id alone.
        told: called with the number of questions answered after each part.
        strict: raise at the first that cannot be scored, with its place.
    """

    def __init__(
        self,
        scorer: Scorer,
        places: Mapping[Any, Place],
        *,
        told: Callable[[int], None] = lambda done: None,
        strict: bool = False,
    ) -> None:
        self.scorer, self.places, self.told, self.strict = scorer, places, told, strict
        self.name, self.batch_size = scorer.name, scorer.batch_size
        self.bad: list[InputError] = []
        """What was wrong with each question that has no score."""
        self.done = 0
        """Questions answered."""

    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        """The scorer's answers, NaN for questions that it refuses as somebody's input.

        Raises:
            InputError: strict, or the scorer refuses all that it is asked.
        """
        size, made = max(self.batch_size, 32), list[Scored]()
        for at in range(0, len(questions), size):
            part = questions[at : at + size]
            made += self._answered(part)
            self.done += len(part)
            self.told(self.done)
        return made

    def _answered(self, questions: Sequence[Score]) -> list[Scored]:
        """Answers to a part; where it is refused, to each half, down to the question that is at fault."""
        try:
            return self.scorer.score_many(questions)
        except InputError as error:
            if len(questions) > 1:
                half = len(questions) // 2
                return [*self._answered(questions[:half]), *self._answered(questions[half:])]
            located = self._located(error, questions[0])
            self.bad.append(located)
            if self.strict or (not self.done and len(self.bad) >= GIVEN_UP):
                raise located from error
            return [Scored(np.full(len(questions[0].steps), np.nan))]

    def _located(self, error: InputError, question: Score) -> InputError:
        name = question.problem.id
        source, row = self.places.get((name, question.steps)) or self.places.get(name) or (None, None)
        return InputError(error.problem, source=source, row=row, remedy=error.remedy)
