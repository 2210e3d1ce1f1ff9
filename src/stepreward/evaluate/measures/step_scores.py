"""Step scores against the truth: first error, ranking, calibration."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepreward.core.files.atomic_files import plain
from stepreward.core.keys import Key
from stepreward.core.measure.first_error import first_error
from stepreward.core.measure.statistics import Estimate, percentile_interval, proportion, resampled_means
from stepreward.core.measure.step_metrics import (
    auroc,
    best_threshold,
    brier,
    expected_calibration_error,
    first_error_scores,
    harmonic,
    reliability,
)
from stepreward.core.types import Floats, Steps


@dataclass(frozen=True)
class FirstErrorResult:
    """First-error accuracy by the ProcessBench protocol (arXiv:2412.06559), with intervals."""

    f1: Estimate
    """Harmonic mean of the two accuracies; percentile bootstrap within each kind of solution."""
    erroneous: Estimate
    correct: Estimate
    threshold: float
    threshold_from: str
    """Where the threshold comes from."""

    def to_json(self) -> dict[str, Any]:
        """Plain numbers."""
        made: dict[str, Any] = plain(asdict(self))
        return made


def first_error_f1(
    scores: Floats,
    gold: NDArray[np.int64],
    key: Key,
    *,
    tune_on: tuple[Floats, NDArray[np.int64]] | None = None,
    threshold: float = 0.5,
    draws: int = 2000,
) -> FirstErrorResult:
    """How exactly first errors are found.

    Args:
        scores: (B, S), NaN at padding.
        gold: (B,) first wrong step, -1 where none.
        key: randomness of the bootstrap.
        tune_on: scores and gold of a separate split on which the threshold is chosen; none uses `threshold`.
        threshold: scores at or below it say "wrong".
        draws: bootstrap resamples.
    """
    origin = "given"
    if tune_on is not None:
        threshold, origin = best_threshold(*tune_on).threshold, best_f1_on(len(tune_on[1]))
    return found_f1(first_error(scores, threshold), gold, key, threshold, origin, draws=draws)


def best_f1_on(solutions: int) -> str:
    """Where a threshold comes from that was chosen on so many solutions."""
    return f"best F1 on {solutions} separate solutions"


def found_f1(
    found: NDArray[np.int64], gold: NDArray[np.int64], key: Key, threshold: float, origin: str, *, draws: int = 2000
) -> FirstErrorResult:
    """The same where the first errors are known that the scores state at the threshold: (B,), -1 where none."""
    hit, wrong = found == gold, gold >= 0
    parts = [hit[wrong], hit[~wrong]]
    accuracies = [proportion(int(part.sum()), len(part)) for part in parts]
    drawn = [
        resampled_means(part, draws, key.fold("first error", i)) if len(part) else np.full(draws, np.nan)
        for i, part in enumerate(parts)
    ]
    total = drawn[0] + drawn[1]
    # Of solutions of one kind alone there is no F1, and no interval of one.
    f1s = 2 * drawn[0] * drawn[1] / np.where(total == 0, 1, total)
    # Where nothing varies, the rarer kind of solution says the least.
    f1 = percentile_interval(harmonic(accuracies[0].value, accuracies[1].value), f1s, min(map(len, parts)))
    return FirstErrorResult(replace(f1, n=len(gold)), accuracies[0], accuracies[1], threshold, origin)


def step_metrics(scores: Steps, labels: Steps) -> dict[str, Any]:
    """AUROC, Brier score, calibration errors and the reliability curve of steps.

    Args:
        scores: in [0, 1], any shape, NaN at padding.
        labels: truth in [0, 1], same shape.
    """
    table = reliability(scores, labels, bins=10)
    return {
        "auroc": auroc(scores, labels),
        "brier": brier(scores, labels),
        "ece": expected_calibration_error(scores, labels),
        "adaptive_ece": expected_calibration_error(scores, labels, adaptive=True),
        "reliability": {name: getattr(table, name).tolist() for name in ("score", "label", "count")},
    }


def label_error(labels: Floats, truth: Floats) -> dict[str, float]:
    """How far labels are from the truth: mean absolute error over labelled steps, and first-error accuracy.

    The truth here is whether each step is right; a label is a policy's chance to succeed, so part of the error is the
    policy's own. First errors are compared at threshold 1/2 of hard labels.
    """
    real = ~np.isnan(labels)
    # A label above 0 says that some rollout succeeded, so the step is not the first error.
    hard = np.where(real, (labels > 0).astype(np.float64), np.nan)
    gold = first_error(truth)
    found = first_error_scores(hard, gold)
    return {
        "mean_absolute_error": float(np.abs(labels - truth)[real].mean()),
        "first_error_accuracy": float((first_error(hard, 0.5) == gold).mean()),
        "first_error_f1": found.f1,
    }
