"""Metrics of step scores against truth; arrays in, numbers out. NaN entries are not measured and are left out."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stepreward.core.measure.first_error import first_error
from stepreward.core.types import Floats, Steps

_SIDES: tuple[Literal["left"], Literal["right"]] = ("left", "right")
_AT_ONCE = 1 << 18
"""Entries that a metric makes temporary arrays of: each would have 80 MB of ten million steps."""


def _measured(scores: ArrayLike, labels: ArrayLike) -> tuple[Steps, Steps]:
    p, y = np.asarray(scores).ravel(), np.asarray(labels).ravel()
    if p.shape != y.shape:
        raise ValueError(f"scores and labels must match: got {p.size} and {y.size}")
    lacking = np.isnan(p) | np.isnan(y)
    # Copies only where something is left out: scores of many steps are most of the memory.
    return (p[~lacking], y[~lacking]) if lacking.any() else (p, y)


def _parts(count: int) -> list[slice]:
    return [slice(at, at + _AT_ONCE) for at in range(0, count, _AT_ONCE)]


def brier(scores: ArrayLike, labels: ArrayLike) -> float:
    """Mean squared distance of scores from labels (Brier 1950); 0 is perfect, 0.25 is always saying 1/2."""
    p, y = _measured(scores, labels)
    total = sum(float(np.square(np.subtract(p[part], y[part], dtype=np.float64)).sum()) for part in _parts(p.size))
    return total / p.size if p.size else float("nan")


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
    count, score, label = _by_count(p, y, bins) if adaptive else _by_width(p, y, bins)
    full = count > 0
    return Reliability(score[full] / count[full], label[full] / count[full], count[full])


_Sums = tuple[NDArray[np.int64], Floats, Floats]
"""(bins,) number of steps, sum of their scores, sum of their labels."""


def _by_width(p: Steps, y: Steps, bins: int) -> _Sums:
    count, score, label = np.zeros(bins, np.int64), np.zeros(bins), np.zeros(bins)
    for part in _parts(p.size):
        scores, labels = p[part].astype(np.float64), y[part].astype(np.float64)
        # Bins are open below and closed above, as in Guo et al.; 0 belongs to the first.
        at = np.clip(np.ceil(scores * bins).astype(np.int64) - 1, 0, bins - 1)
        count += np.bincount(at, minlength=bins)
        # Adds one after the other, so that the parts do not show in the last digit, as sums of parts would.
        np.add.at(score, at, scores)
        np.add.at(label, at, labels)
    return count, score, label


def _by_count(p: Steps, y: Steps, bins: int) -> _Sums:
    """The same of bins of equal counts. Sorted scores alone are kept: an index of each step would be twice as large."""
    ordered = np.sort(p)
    edge = -(-np.arange(bins + 1) * p.size // bins)
    full = edge[:-1] < edge[1:]
    # Scores at the ends of bins, whose ties can reach into several bins. Those between two ends are all of one bin.
    ends = np.unique(np.concatenate([ordered[edge[:-1][full]], ordered[edge[1:][full] - 1]]))
    label = np.zeros(2 * len(ends) + 1)
    for part in _parts(p.size):
        # Cell 2k + 1 is equal to the end k, cell 2k lies between the ends k - 1 and k.
        at = np.searchsorted(ends, p[part], "left") + np.searchsorted(ends, p[part], "right")
        np.add.at(label, at, y[part].astype(np.float64))
    places = [np.searchsorted(ordered, ends, side) for side in _SIDES]
    start = np.concatenate([[0], np.stack(places, axis=1).ravel(), [p.size]])
    # Ties share their mean label, whichever bin they are counted in.
    label /= np.maximum(np.diff(start), 1)
    shared = np.minimum.outer(edge[1:], start[1:]) - np.maximum.outer(edge[:-1], start[:-1])
    score = np.array([ordered[low:high].sum(dtype=np.float64) for low, high in itertools.pairwise(edge)])
    return np.diff(edge), score, np.maximum(shared, 0) @ label


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
    right, wrong = p[y > 0.5], p[y <= 0.5]
    right.sort()
    wrong.sort()
    pairs = right.size * wrong.size
    # Wrong ones below each right one, and those at most as high: their mean counts a tie as one half.
    won = sum(int(np.searchsorted(wrong, right[part], side).sum()) for part in _parts(right.size) for side in _SIDES)
    return won / 2 / pairs if pairs else float("nan")


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


class ThresholdSearch:
    """Finds the threshold with the highest F1 of solutions that come in parts; of equals the lowest.

    Step t of a trajectory is the predicted first error for thresholds in [its score, the lowest score before it), so
    each accuracy is a step function of the threshold that changes at scores alone: two sorted event lists,
    O(B S log B S). Of a solution two numbers are kept, and each score that is not yet among those seen.
    """

    def __init__(self) -> None:
        none = np.zeros(0)
        self._low, self._high, self._lowest, self._candidates = [none], [none], [none], [none]
        self._wrong = 0

    def add(self, scores: Floats, gold: ArrayLike) -> None:
        """Takes more solutions: (B, S) scores, NaN at padding, and (B,) first errors, -1 where there is none."""
        truth = np.asarray(gold, np.int64)
        wrong = truth >= 0
        filled = np.where(np.isnan(scores), np.inf, scores)
        before = np.minimum.accumulate(np.c_[np.full(len(filled), np.inf), filled], axis=1)
        rows = np.flatnonzero(wrong)
        low, high = filled[rows, truth[rows]], before[rows, truth[rows]]
        # A step that scores no less than an earlier one is first at no threshold.
        found = low < high
        self._low.append(low[found])
        self._high.append(high[found])
        self._lowest.append(before[~wrong, -1])
        self._candidates.append(np.unique(filled[np.isfinite(filled)]))
        self._wrong += len(rows)

    def best(self) -> FirstError:
        """The threshold, and its numbers. A score is returned, or less than all of them where F1 is 0 at each.

        Raises:
            ValueError: wrong or right solutions are absent, so that F1 is undefined.
        """
        low, high, lowest = (np.sort(np.concatenate(some)) for some in (self._low, self._high, self._lowest))
        if not self._wrong or not lowest.size:
            raise ValueError("choosing a threshold needs wrong and right solutions: this split has only one kind")
        candidates = np.unique(np.concatenate(self._candidates))
        candidates = np.r_[np.nextafter(candidates[0], -np.inf), candidates] if candidates.size else np.array([0.5])
        tops = []
        for part in _parts(candidates.size):
            some = candidates[part]
            hits = np.searchsorted(low, some, "right") - np.searchsorted(high, some, "right")
            erroneous = hits / self._wrong
            correct = (lowest.size - np.searchsorted(lowest, some, "right")) / lowest.size
            total = erroneous + correct
            f1 = np.where(total > 0, 2 * erroneous * correct / np.where(total > 0, total, 1), 0.0)
            at = int(np.argmax(f1))
            tops.append(FirstError(float(f1[at]), float(erroneous[at]), float(correct[at]), float(some[at])))
        return max(tops, key=lambda one: one.f1)


def best_threshold(scores: Floats, gold: ArrayLike) -> FirstError:
    """The threshold with the highest F1, and its numbers, as `ThresholdSearch` finds them.

    Args:
        scores: (B, S), NaN at padding.
        gold: (B,) index of the first wrong step, -1 where all are right.

    Raises:
        ValueError: wrong or right solutions are absent, so that F1 is undefined.
    """
    search = ThresholdSearch()
    search.add(scores, gold)
    return search.best()


def ragged(rows: Sequence[ArrayLike]) -> Floats:
    """Rows of different lengths as one (B, S) array, NaN at padding."""
    arrays = [np.asarray(row, np.float64) for row in rows]
    made = np.full((len(arrays), max(map(len, arrays), default=0)), np.nan)
    for i, row in enumerate(arrays):
        made[i, : len(row)] = row
    return made
