"""Counts of steps, or of solutions, called right or wrong, and the scores that benchmarks make of them.

Counts are the last axis, (..., 4): true positives, false positives, false negatives, true negatives. "Positive" is a
step called valid. A share of nothing is 0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.measure.statistics import Estimate, percentile_interval, resamples
from stepreward.core.types import Floats

DRAWS = 1000


def confusion(said: NDArray[np.bool_], right: NDArray[np.bool_]) -> Floats:
    """(..., 4) one count of each: called valid or not, and valid or not."""
    parts = (said & right, said & ~right, ~said & right, ~said & ~right)
    return np.stack(parts, axis=-1).astype(np.float64)


def step_counts(scores: Floats, labels: Floats, threshold: float) -> Floats:
    """(B, 4) counts over each solution's labelled steps.

    Args:
        scores: (B, S), NaN at padding.
        labels: (B, S), above 1/2 for a valid step, NaN where not labelled.
        threshold: a step is called valid if its score is above it.

    Raises:
        InputError: a labelled step has no score.
    """
    real = ~np.isnan(labels)
    if np.isnan(scores[real]).any():
        raise InputError("a labelled step has no score", remedy="raise the scorer's limit on length")
    made: Floats = (confusion(scores > threshold, labels > 0.5) * real[..., None]).sum(axis=1)
    return made


def ratio(above: Floats, below: Floats, empty: float = 0.0) -> Floats:
    """Elementwise `above / below`; `empty` where `below` is 0."""
    return np.where(below > 0, above / np.where(below > 0, below, 1.0), empty)


def f1_scores(counts: Floats) -> tuple[Floats, Floats]:
    """F1 of valid and of wrong steps; 0 where nothing of a kind is found."""
    tp, fp, fn, tn = np.moveaxis(counts, -1, 0)
    return ratio(2 * tp, 2 * tp + fp + fn), ratio(2 * tn, 2 * tn + fn + fp)


def prm_score(counts: Floats) -> Floats:
    """The mean of both F1, F1 of valid steps alone where no step is wrong (arXiv:2501.03124, Eq. 4)."""
    positive, negative = f1_scores(counts)
    wrong = counts[..., 1] + counts[..., 3] > 0
    return np.where(wrong, (positive + negative) / 2, positive)


def recalls(counts: Floats) -> tuple[Floats, Floats]:
    """Share of valid steps called valid, and of wrong steps called wrong."""
    tp, fp, fn, tn = np.moveaxis(counts, -1, 0)
    return ratio(tp, tp + fn), ratio(tn, tn + fp)


def balanced_f1(counts: Floats) -> Floats:
    """Harmonic mean of both recalls (arXiv:2510.13744)."""
    valid, wrong = recalls(counts)
    return ratio(2 * valid * wrong, valid + wrong)


def macro_f1(counts: Floats) -> Floats:
    """Mean of both F1."""
    positive, negative = f1_scores(counts)
    return (positive + negative) / 2


def matthews(counts: Floats) -> Floats:
    """Matthews' correlation; 0 where a margin is empty, as MR-Ben has it (arXiv:2406.13975)."""
    tp, fp, fn, tn = np.moveaxis(counts, -1, 0)
    product = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    return ratio(tp * tn - fp * fn, np.sqrt(product))


def bootstrap_sums(units: Floats, key: Key, *, draws: int = DRAWS) -> Floats:
    """(1 + draws, ...) sums over the units, then over bootstrap samples of them.

    Args:
        units: (n, ...) counts of each independent unit, mostly solutions.
        key: randomness.
        draws: resamples.
    """
    # How often each unit is drawn, then one product: no (draws, n, ...) array.
    index = resamples(len(units), draws, key) + len(units) * np.arange(draws)[:, None]
    times = np.bincount(index.ravel(), minlength=draws * len(units)).reshape(draws, len(units))
    flat = units.reshape(len(units), -1)
    sums = np.concatenate([flat.sum(axis=0, keepdims=True), times @ flat])
    return sums.reshape(1 + draws, *units.shape[1:])


def interval(values: Floats, n: int, *, bounds: tuple[float, float] | None = (0.0, 1.0)) -> Estimate:
    """The first value, with the percentile interval of the others; `bounds` as in `percentile_interval`."""
    return percentile_interval(float(values[0]), values[1:], n, bounds=bounds)


def step_metrics_of(pooled: Floats, n: int) -> dict[str, Estimate]:
    """Every score of pooled counts.

    Args:
        pooled: (1 + draws, 4) counts, as `bootstrap_sums` returns them.
        n: number of solutions that they count.
    """
    positive, negative = f1_scores(pooled)
    valid, wrong = recalls(pooled)
    made = {
        "prm_score": prm_score(pooled),
        "f1": positive,
        "negative_f1": negative,
        "accuracy": ratio(pooled[:, 0] + pooled[:, 3], pooled.sum(axis=1)),
        "valid_recall": valid,
        "wrong_recall": wrong,
        "balanced_f1": balanced_f1(pooled),
        "macro_f1": macro_f1(pooled),
        "mcc": matthews(pooled),
    }
    lowest = {"mcc": -1.0}
    return {name: interval(values, n, bounds=(lowest.get(name, 0.0), 1.0)) for name, values in made.items()}
