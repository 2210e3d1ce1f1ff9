"""Metrics of step scores against truth; arrays in, numbers out. NaN entries are not measured and are left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stepreward.core.measure.first_error import first_error
from stepreward.core.types import Floats


def _measured(scores: ArrayLike, labels: ArrayLike) -> tuple[Floats, Floats]:
    p, y = np.asarray(scores, np.float64).ravel(), np.asarray(labels, np.float64).ravel()
    if p.shape != y.shape:
        raise ValueError(f"scores and labels must match: got {p.size} and {y.size}")
    real = ~(np.isnan(p) | np.isnan(y))
    return p[real], y[real]


def brier(scores: ArrayLike, labels: ArrayLike) -> float:
    """Mean squared distance of scores from labels (Brier 1950); 0 is perfect, 0.25 is always saying 1/2."""
    p, y = _measured(scores, labels)
    return float(np.mean((p - y) ** 2)) if p.size else float("nan")


@dataclass(frozen=True, slots=True)
class Reliability:
    """Bins of a reliability diagram; arrays have one entry a bin that is not empty."""

    score: Floats
    """Mean score."""
    label: Floats
    """Mean label: how often it came true."""
    count: NDArray[np.int64]


def reliability(scores: ArrayLike, labels: ArrayLike, *, bins: int = 15, adaptive: bool = False) -> Reliability:
    """Mean score and mean label by bins of the score.

    Args:
        scores: in [0, 1].
        labels: in [0, 1].
        bins: number of bins.
        adaptive: bins of equal counts instead of equal widths. Equal scores may be parted, and share their mean label,
            so that the order of rows does not matter.
    """
    p, y = _measured(scores, labels)
    if adaptive and p.size:
        _, same = np.unique(p, return_inverse=True)
        # Equal scores share their mean label, whichever bin the sort puts them in.
        y = (np.bincount(same, weights=y) / np.bincount(same))[same]
        at = np.empty(p.size, np.int64)
        at[np.argsort(p, kind="stable")] = np.arange(p.size) * bins // p.size
    else:
        # Bins are open below and closed above, as in Guo et al.; 0 belongs to the first.
        at = np.clip(np.ceil(p * bins).astype(np.int64) - 1, 0, bins - 1)
    count = np.bincount(at, minlength=bins)
    full = count > 0
    means = [np.bincount(at, weights=v, minlength=bins)[full] / count[full] for v in (p, y)]
    return Reliability(means[0], means[1], count[full])


def expected_calibration_error(
    scores: ArrayLike, labels: ArrayLike, *, bins: int = 15, adaptive: bool = False
) -> float:
    """Mean distance of score and frequency over bins, weighted by count (Guo et al. 2017, Eq. 3); NaN if empty."""
    table = reliability(scores, labels, bins=bins, adaptive=adaptive)
    if not table.count.size:
        return float("nan")
    return float(np.average(np.abs(table.score - table.label), weights=table.count))


def auroc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Chance that a right step (label above 1/2) outscores a wrong one, ties one half; NaN if one kind is absent.

    The statistic U of Mann and Whitney (1947) as a share of all pairs.
    """
    p, y = _measured(scores, labels)
    right = y > 0.5
    n, pairs = int(right.sum()), int(right.sum()) * int((~right).sum())
    _, value, count = np.unique(p, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(count) - (count - 1) / 2)[value]  # Equal scores share the mean of their ranks.
    return float((ranks[right].sum() - n * (n + 1) / 2) / pairs) if pairs else float("nan")


@dataclass(frozen=True, slots=True)
class FirstError:
    """The ProcessBench numbers (arXiv:2412.06559, section 3)."""

    f1: float
    """Harmonic mean of the two accuracies; 0 if either is 0, NaN if either kind of solution is absent."""
    erroneous: float
    """Share of wrong solutions whose first error is found exactly."""
    correct: float
    """Share of right solutions in which no error is found."""
    threshold: float


def first_error_scores(scores: Floats, gold: ArrayLike, *, threshold: float = 0.5) -> FirstError:
    """How exactly first errors are found, by the ProcessBench protocol.

    Args:
        scores: (B, S), NaN at padding.
        gold: (B,) index of the first wrong step, -1 where all are right.
        threshold: scores at or below it say "wrong".
    """
    truth = np.asarray(gold)
    hit, wrong = first_error(scores, threshold) == truth, truth >= 0
    erroneous = float(hit[wrong].mean()) if wrong.any() else float("nan")
    correct = float(hit[~wrong].mean()) if (~wrong).any() else float("nan")
    return FirstError(harmonic(erroneous, correct), erroneous, correct, threshold)


def harmonic(a: float, b: float) -> float:
    """Harmonic mean; 0 where both are 0."""
    return 0.0 if a + b == 0 else 2 * a * b / (a + b)


def best_threshold(scores: Floats, gold: ArrayLike) -> FirstError:
    """The threshold with the highest F1, and its numbers; of equals the lowest.

    Step t of a trajectory is the predicted first error for thresholds in [its score, the lowest score before it), so
    each accuracy is a step function of the threshold that changes at scores alone: two sorted event lists,
    O(B S log B S). A score of the split is returned, or less than all of them where F1 is 0 at each.

    Raises:
        ValueError: wrong or right solutions are absent, so that F1 is undefined.
    """
    truth = np.asarray(gold, np.int64)
    wrong = truth >= 0
    if not wrong.any() or wrong.all():
        raise ValueError("choosing a threshold needs wrong and right solutions: this split has only one kind")
    filled = np.where(np.isnan(scores), np.inf, scores)
    before = np.minimum.accumulate(np.c_[np.full(len(filled), np.inf), filled], axis=1)
    rows = np.flatnonzero(wrong)
    low, high = filled[rows, truth[rows]], before[rows, truth[rows]]
    lowest = before[~wrong, -1]
    candidates = np.unique(filled[np.isfinite(filled)])
    candidates = np.r_[np.nextafter(candidates[0], -np.inf), candidates] if candidates.size else np.array([0.5])
    # A step that scores no less than an earlier one is first at no threshold.
    found = low < high
    hits = np.searchsorted(np.sort(low[found]), candidates, "right") - np.searchsorted(
        np.sort(high[found]), candidates, "right"
    )
    erroneous = hits / wrong.sum()
    correct = (lowest.size - np.searchsorted(np.sort(lowest), candidates, "right")) / lowest.size
    total = erroneous + correct
    f1 = np.where(total > 0, 2 * erroneous * correct / np.where(total > 0, total, 1), 0.0)
    at = int(np.argmax(f1))
    return FirstError(float(f1[at]), float(erroneous[at]), float(correct[at]), float(candidates[at]))


def ragged(rows: Sequence[ArrayLike]) -> Floats:
    """Rows of different lengths as one (B, S) array, NaN at padding."""
    arrays = [np.asarray(row, np.float64) for row in rows]
    made = np.full((len(arrays), max(map(len, arrays), default=0)), np.nan)
    for i, row in enumerate(arrays):
        made[i, : len(row)] = row
    return made
