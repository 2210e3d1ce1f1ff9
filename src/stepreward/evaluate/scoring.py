"""Scores for benchmarks: asked of a scorer, or read where a data set has recorded them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

import stepreward.core.aggregation  # noqa: F401 - fills the family aggregate
from stepreward.core.annotations import Annotated, Comparison
from stepreward.core.catalog import aggregate as aggregates
from stepreward.core.errors import InputError
from stepreward.core.flows import Score, Scored, Scorer
from stepreward.core.metrics import ragged

Floats = NDArray[np.float64]
AT_ONCE = 256
"""Solutions given to a scorer in one call."""


class RecordedScorer:
    """Answers with the step scores that a data set recorded; a `core.flows.Scorer`.

    Args:
        data: solutions or comparisons with recorded scores.
        name: of the verifier.
    """

    batch_size = 1 << 16

    def __init__(self, data: Sequence[Annotated], name: str) -> None:
        self.name = name
        self._scores = {
            (item.trajectory.problem.id, item.trajectory.steps): item.scores[name]
            for item in data
            if name in item.scores
        }

    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        """The recorded scores.

        Raises:
            InputError: a solution has none.
        """
        made = []
        for question in questions:
            key = (question.problem.id, question.steps)
            if key not in self._scores:
                what = f"no score of {self.name} is recorded for a solution of problem {question.problem.id!r}"
                raise InputError(what, remedy="evaluate only solutions that have one")
            made.append(Scored(self._scores[key]))
        return made


def step_scores(scorer: Scorer, data: Sequence[Annotated]) -> Floats:
    """(B, S) scores of every solution's steps, NaN at padding and observations."""
    questions = [Score(item.trajectory.problem, item.trajectory.steps) for item in data]
    return ragged([row for part in _parts(questions) for row in (answer.scores for answer in scorer.score_many(part))])


def candidate_scores(scorer: Scorer, data: Sequence[Comparison], aggregation: str) -> list[Floats]:
    """(k,) one score for each candidate of each comparison: recorded under the scorer's name, or asked for.

    Args:
        scorer: any scorer.
        data: comparisons.
        aggregation: how the scores of a candidate's steps become one, by its registered name.
    """
    if all(scorer.name in item.scores for item in data):
        return [np.array(item.scores[scorer.name], np.float64) for item in data]
    questions = [Score(item.problem, one.steps) for item in data for one in item.candidates]
    rows = ragged([answer.scores for part in _parts(questions) for answer in scorer.score_many(part)])
    totals = aggregates[aggregation].take({"scores": np.nan_to_num(rows), "mask": ~np.isnan(rows)})
    return np.split(totals, np.cumsum([len(item.candidates) for item in data])[:-1])


def rows_by(data: Sequence[Annotated | Comparison], name: str) -> dict[str, list[int]]:
    """Places of the rows of each category, which `meta` names; "" where it does not."""
    return _places([str(item.meta.get(name, "")) for item in data])


def rows_of_subsets(data: Sequence[Comparison]) -> dict[str, list[int]]:
    """Places of the comparisons of each subset."""
    return _places([item.subset for item in data])


def _places(names: Sequence[str]) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = defaultdict(list)
    for row, name in enumerate(names):
        rows[name].append(row)
    return dict(rows)


def _parts(questions: Sequence[Score]) -> list[Sequence[Score]]:
    return [questions[at : at + AT_ONCE] for at in range(0, len(questions), AT_ONCE)]
