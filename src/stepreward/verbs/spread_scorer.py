"""A scorer whose questions are answered in parts by workers, each of which holds the scorer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from stepreward.core.errors import InputError
from stepreward.core.runtime.flows import Score, Scored, Scorer
from stepreward.core.runtime.made_in_parts import Engine, Workers
from stepreward.score.capabilities import ScoreUse, use_of

_PARTS_AT_ONCE = 32
"""Parts of a batch: enough for workers to be busy, few enough that all texts of a batch are in memory."""
_LEAST = 32
"""Questions of a part of a scorer whose batches are smaller, as where rows are scored one by one."""
_About = tuple[str, ScoreUse | None, int]


@dataclass(frozen=True)
class ScoreQuestions:
    """Scores lists of questions, wherever it is called: loads the scorer there, once. None asks about the scorer."""

    scorer: Callable[[], Scorer]

    def __call__(self) -> Callable[[list[Score] | None], list[Scored] | InputError | _About]:
        """What scores a list; the error where the scorer refuses it."""
        return partial(_answer, self.scorer())


class SpreadScorer:
    """Scores by workers; a `core.runtime.flows.Scorer`.

    A part is a full batch of the scorer, so that batches, on which the last digits of a model's scores depend, are
    those of one process that sends it full batches.

    Args:
        workers: that were started with `ScoreQuestions`.
    """

    name: str
    """That of the scorer."""
    use: ScoreUse | None
    """How its scores are used."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        ((_, (self.name, self.use, batch)),) = workers.made([None])
        self._part = max(batch, _LEAST)
        self.batch_size = self._part * _PARTS_AT_ONCE

    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        """The scorer's answers, in order.

        Raises:
            InputError: the scorer refuses a question.
        """
        parts = [list(questions[at : at + self._part]) for at in range(0, len(questions), self._part)]
        made = dict(self._workers.made(parts))
        for index in range(len(parts)):
            if isinstance(made[index], InputError):
                raise made[index]
        return [one for index in range(len(parts)) for one in made[index]]


@contextmanager
def spread_over(scorer: Callable[[], Scorer], engine: Engine | None) -> Iterator[Scorer]:
    """The scorer, held by workers of an engine, who end with the context; in this process where there is none."""
    if engine is None:
        yield scorer()
        return
    with engine.open(ScoreQuestions(scorer)) as workers:
        yield SpreadScorer(workers)


def _answer(scorer: Scorer, questions: list[Score] | None) -> list[Scored] | InputError | _About:
    if questions is None:
        return scorer.name, use_of(scorer), scorer.batch_size
    try:
        return scorer.score_many(questions)
    except InputError as error:
        return error
