"""How well samples balance exploring and exploiting: many right ones of a problem, and few wrong ones beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stepreward.core.catalog import keep
from stepreward.core.types import SCORE, Floats, Trajectory
from stepreward.core.vocabulary import Count

_STEPS = 201
"""Thresholds that are tried: from -1 to 1 by 0.01."""


@dataclass(frozen=True)
class Balance:
    """The best of all thresholds of some samples."""

    score: float
    """Mean over problems of `balance_of`; NaN where there is none."""
    threshold: float
    """The least that is best: totals must exceed it."""
    kept: NDArray[np.bool_]
    """(B,) the samples that it keeps."""


def balance_of(right: int, kept: int, enough: int = 8) -> float:
    """How good the kept samples of one problem are to learn from.

        min(1, c / enough) c / k    of k kept samples with c right ones;  0 where none is kept

    Args:
        right: c.
        kept: k.
        enough: right samples of a problem above which more are not better.
    """
    return min(1.0, right / enough) * right / kept if kept else 0.0


def best_balance(
    trajectories: Sequence[Trajectory], *, column: str = SCORE, weight: float = 0.2, enough: int = 8, most: int = 64
) -> Balance:
    """The threshold on a sample's total whose kept samples balance best.

        total = [outcome > 1/2] + weight min_s score_s,    kept: the `most` highest totals of each problem above it

    Samples without scores have none to add. Of equal thresholds the least counts, of equal totals the first sample.
    """
    group = np.unique([one.problem.id for one in trajectories], return_inverse=True)[1]
    right = np.array([one.outcome > 0.5 for one in trajectories], bool)
    least = [float(np.nanmin(s, initial=np.inf)) for s in (one.column(column) for one in trajectories)]
    totals = right + weight * np.where(np.isinf(least), 0.0, least)
    order = np.lexsort((np.arange(len(totals)), -totals))
    found = Balance(float("nan"), -1.0, np.zeros(len(totals), bool))
    for threshold in np.linspace(-1.0, 1.0, _STEPS).round(2).tolist() if len(totals) else ():
        kept = _above(totals, threshold, group, order, most)
        scores = [
            balance_of(int(right[kept & (group == g)].sum()), int(kept[group == g].sum()), enough)
            for g in range(int(group.max()) + 1)
        ]
        if not np.mean(scores) <= found.score:  # the first one, against NaN, is better
            found = Balance(float(np.mean(scores)), threshold, kept)
    return found


def _above(
    totals: Floats, threshold: float, group: NDArray[np.int64], order: NDArray[np.int64], most: int
) -> NDArray[np.bool_]:
    """(B,) the highest totals of each problem above a threshold."""
    kept, counts = np.zeros(len(totals), bool), np.zeros(int(group.max()) + 1, np.int64)
    for row in order:
        if totals[row] > threshold and counts[group[row]] < most:
            kept[row] = True
            counts[group[row]] += 1
    return kept


@keep.method(
    "balance-score",
    note="the rule of repository B-STaR, train_code/determine_hyper.py: its samples count with the official solution, "
    "which always counts as right, and the number of a problem grows until a target is met",
)
def balance_score(
    trajectories: Sequence[Trajectory],
    *,
    column: str = SCORE,
    weight: float = 0.2,
    enough: Count = 8,
    most: Count = 64,
) -> NDArray[np.bool_]:
    """Keeps the samples above the threshold at which right and wrong ones of all problems balance best.

    Args:
        trajectories: graded, of any problems; better with scores.
        column: of the scores.
        weight: of the least step score beside the outcome, 1 where it is right.
        enough: right samples of a problem above which more are not better.
        most: samples of a problem.

    Returns:
        (B,) True to keep.
    """
    return best_balance(trajectories, column=column, weight=weight, enough=enough, most=most).kept
