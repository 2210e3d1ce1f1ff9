"""Read solutions as the arrays that selection and evaluation take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stepreward.core.catalog import aggregate
from stepreward.core.errors import MissingDataError
from stepreward.core.measure.aggregation import totals_of
from stepreward.core.measure.selection import answer_ids
from stepreward.core.measure.step_metrics import ragged
from stepreward.core.types import Floats, Steps, Trajectory
from stepreward.evaluate.data.scoring import numbered


def score_rows(items: Sequence[Trajectory], name: str) -> Floats:
    """(B, S) recorded scores of one verifier, NaN at padding and where not recorded.

    Raises:
        MissingDataError: a solution has none of that name.
    """
    for item in items:
        if name not in item.scores:
            raise MissingDataError("score_rows", [name], item.scores)
    return ragged([item.scores[name] for item in items])


def first_errors(items: Sequence[Trajectory]) -> NDArray[np.int64]:
    """(B,) first wrong step, -1 where none.

    Raises:
        MissingDataError: a solution does not say.
    """
    found = [item.first_error for item in items]
    if any(first is None for first in found):
        raise MissingDataError("first_errors", ["first_error"], ["labels"])
    return np.array(found, dtype=np.int64)


@dataclass(frozen=True)
class Pool:
    """M samples of each of G problems, to select among."""

    answers: NDArray[np.int64]
    """(G, M) ids, equal within a problem iff the answers are; -1 for none."""
    outcome: Floats
    """(G, M) 1 right, 0 wrong, NaN where it could not be graded."""
    totals: Mapping[str, Floats] = field(default_factory=dict)
    """(G, M) one score a sample, by name (an aggregate, a scorer)."""

    def shaped(self, totals: Floats) -> Floats:
        """(B,) numbers of the samples, all of a problem's together, as (G, M)."""
        return totals.reshape(self.outcome.shape)


def pool_of_solutions(items: Sequence[Trajectory]) -> Pool:
    """Solutions of one pool, grouped by problem, without totals.

    Raises:
        ValueError: problems differ in their number of samples, or one problem's are not together.
    """
    ids = [item.problem.id for item in items]
    problems = dict.fromkeys(ids)
    samples = len(ids) // max(len(problems), 1)
    if ids != [problem for problem in problems for _ in range(samples)]:
        raise ValueError("every problem needs the same number of samples, one after the other")
    shape = (len(problems), samples)
    answers = answer_ids([item.answer for item in items], ids).reshape(shape)
    return Pool(answers, np.array([item.outcome for item in items]).reshape(shape))


def filled_pool(
    group: Sequence[int], answers: Sequence[str | None], outcome: ArrayLike, scores: Steps, shape: tuple[int, int]
) -> Pool:
    """Samples as a pool with totals by every aggregate.

    Args:
        group: (B,) problem of each sample, below G.
        answers: (B,) its answer.
        outcome: (B,) its grade.
        scores: (B, S) its step scores, NaN where there is none.
        shape: (G, M). A problem with fewer than M samples is filled with empty ones: no answer, no total, outcome 0.
    """
    cell = np.array(group, np.int64), numbered(group)[1]

    def matrix(values: ArrayLike, empty: float) -> Floats:
        made = np.full(shape, empty)
        made[cell] = values
        return made

    totals = {method.name: matrix(totals_of(scores, method.name), np.nan) for method in aggregate}
    return Pool(matrix(answer_ids(answers, group), -1).astype(np.int64), matrix(outcome, 0.0), totals)
