"""Read solutions as the arrays that selection and evaluation take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stepreward.core.annotations import Annotated
from stepreward.core.errors import MissingDataError
from stepreward.core.measure.selection import answer_ids
from stepreward.core.measure.step_metrics import ragged

Floats = NDArray[np.float64]


def score_rows(items: Sequence[Annotated], name: str) -> Floats:
    """(B, S) recorded scores of one verifier, NaN at padding and where not recorded.

    Raises:
        MissingDataError: a solution has none of that name.
    """
    for item in items:
        if name not in item.scores:
            raise MissingDataError("score_rows", [name], item.scores)
    return ragged([item.scores[name] for item in items])


def first_errors(items: Sequence[Annotated]) -> NDArray[np.int64]:
    """(B,) first wrong step, -1 where none.

    Raises:
        MissingDataError: a solution does not say.
    """
    found = [item.first_error for item in items]
    if any(first is None for first in found):
        raise MissingDataError("first_errors", ["first_error"], ["labels"])
    return np.array(found, dtype=np.int64)


@dataclass(frozen=True)
class Sampled:
    """M samples of each of G problems, in the order of the file."""

    problems: tuple[str, ...]
    answers: NDArray[np.int64]
    """(G, M) ids, equal within a problem iff the answers are; -1 for none."""
    outcome: Floats
    """(G, M) 1 right, 0 wrong."""
    lengths: NDArray[np.int64]
    """(G, M) steps."""

    def shaped(self, totals: Floats) -> Floats:
        """(B,) numbers of the samples as (G, M)."""
        return totals.reshape(self.outcome.shape)


def sampled(items: Sequence[Annotated]) -> Sampled:
    """Solutions of one pool, grouped by problem.

    Raises:
        ValueError: problems differ in their number of samples, or one problem's are not together.
    """
    ids = [item.trajectory.problem.id for item in items]
    problems = tuple(dict.fromkeys(ids))
    samples = len(ids) // max(len(problems), 1)
    if ids != [problem for problem in problems for _ in range(samples)]:
        raise ValueError("every problem needs the same number of samples, one after the other")
    shape = (len(problems), samples)
    return Sampled(
        problems,
        answer_ids([item.answer for item in items], ids).reshape(shape),
        np.array([item.trajectory.outcome for item in items]).reshape(shape),
        np.array([len(item.trajectory) for item in items], dtype=np.int64).reshape(shape),
    )
