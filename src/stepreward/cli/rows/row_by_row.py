"""A scorer that a row cannot stop: what it cannot score is named and left without a score, and progress is shown."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from stepreward.cli.terminal.progress import SECONDS_TO_JUDGE, StageProgress
from stepreward.core.errors import InputError
from stepreward.core.failures import Failures
from stepreward.core.runtime.flows import Score, Scored, Scorer
from stepreward.core.runtime.refused_scores import scores_or_errors

Place = tuple[object, int | None]
"""A file, and a row in it where that is known."""
GIVEN_UP = 16
"""Rows that fail one after another from the first on, before the fault is taken to be no row's."""


def shown(progress: StageProgress, stage: str, total: int) -> Callable[[int], None]:
    """Reports a stage of questions as they are answered, unless they take less than a second."""
    began = time.monotonic()

    def report(done: int) -> None:
        if time.monotonic() - began > SECONDS_TO_JUDGE:
            progress(stage, done, max(total, done), "")

    return report


class RowByRow:
    """Scores in parts; a question that cannot be scored gets NaN and is counted; a `core.runtime.flows.Scorer`.

    Args:
        scorer: who scores.
        places: where questions come from, by the problem's id and steps, or by the id alone.
        on_progress: called with the number of questions answered after each part.
        strict: raise at the first that cannot be scored, with its place.
    """

    def __init__(
        self,
        scorer: Scorer,
        places: Mapping[Any, Place],
        *,
        on_progress: Callable[[int], None] = lambda done: None,
        strict: bool = False,
    ) -> None:
        self.scorer, self.places, self.on_progress, self.strict = scorer, places, on_progress, strict
        self.name, self.batch_size = scorer.name, scorer.batch_size
        self.bad = Failures()
        """What was wrong with each question that has no score."""
        self.done = 0
        """Questions answered."""

    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        """The scorer's answers, NaN for questions that it refuses as bad input.

        Raises:
            InputError: strict, or the scorer refuses all questions.
        """
        size, made = max(self.batch_size, 32), list[Scored]()
        for at in range(0, len(questions), size):
            part = questions[at : at + size]
            for question, answer in zip(part, scores_or_errors(self.scorer, part), strict=True):
                if isinstance(answer, InputError):
                    name = question.problem.id
                    source, row = self.places.get((name, question.steps)) or self.places.get(name) or (None, None)
                    located = InputError(answer.problem, source=source, row=row, remedy=answer.remedy)
                    self.bad.append((name, located))
                    # Many refusals and no answer so far: the fault is the model's or a setting's, and no row's.
                    if self.strict or (not self.done and len(self.bad) >= GIVEN_UP):
                        raise located from answer
                    answer = Scored(np.full(len(question.steps), np.nan))
                made.append(answer)
            self.done += len(part)
            self.on_progress(self.done)
        return made
