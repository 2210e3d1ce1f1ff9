"""Calibration of step scores as a benchmark: do scores mean what they say?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from stepreward.core.catalog import bench
from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.measure.aggregation import totals_of
from stepreward.core.measure.statistics import Estimate, resamples
from stepreward.core.measure.step_metrics import auroc, brier, expected_calibration_error, ragged
from stepreward.core.runtime.flows import Scorer
from stepreward.core.types import Floats, Trajectory
from stepreward.core.vocabulary import Count
from stepreward.evaluate.data.result import BenchResult
from stepreward.evaluate.data.scoring import step_scores
from stepreward.evaluate.measures.counts import bootstrap_sums, interval, ratio

DRAWS = 300
METRICS = ("brier", "positive_brier", "ece", "adaptive_ece", "auroc")


def positive_brier(scores: Floats, labels: Floats) -> float:
    """Mean squared over-estimation: like Brier's score, but only where a score is above its label."""
    real = ~(np.isnan(scores) | np.isnan(labels))
    return float(np.mean(np.maximum(scores[real] - labels[real], 0.0) ** 2)) if real.any() else float("nan")


@bench.method(
    "calibration",
    paper="arXiv:2506.09338",
    equation="section 3: Brier, positive Brier and calibration error of step scores",
)
def calibration(scorer: Scorer, data: Sequence[Trajectory], *, bins: Count = 10, seed: int = 0) -> BenchResult:
    """Brier score, over-estimation, calibration errors and discrimination of step scores against labels.

    The groups are the bins of the reliability diagram: mean score, mean label and share of the steps in each. Steps
    without a score are left out; `unscored` counts the solutions that have some.

    Args:
        scorer: whose scores are measured; they must be in [0, 1].
        data: solutions with labels: 0 or 1, or the share of rollouts that succeeded.
        bins: of the calibration errors.
        seed: of the bootstrap over solutions.

    Raises:
        InputError: no step is labelled, or a score is outside [0, 1].
    """
    labels = ragged([item.labels for item in data])
    if not data or np.isnan(labels).all():
        raise InputError("no step is labelled", remedy="pass data with step labels")
    scores, unit = step_scores(scorer, data), np.arange(len(data))
    return _measured("calibration", "Step scores", scorer, scores, labels, unit, bins, seed)


@bench.method(
    "outcome-calibration",
    paper="arXiv:2506.09338",
    equation="section 3, with whole solutions in place of prefixes",
    note="the chance that a solution is right, as the total of its step scores states it",
)
def outcome_calibration(
    scorer: Scorer, data: Sequence[Trajectory], *, aggregate: str = "last", bins: Count = 10, seed: int = 0
) -> BenchResult:
    """The same of whole solutions: is the total of the step scores the chance that the solution is right?

    Args:
        scorer: whose scores are measured; their totals must be in [0, 1].
        data: graded solutions.
        aggregate: how the scores of a solution's steps become one.
        bins: of the calibration errors.
        seed: of the bootstrap, over problems: their solutions share what is hard about them.

    Raises:
        InputError: no solution is graded, or a total is outside [0, 1].
        UnknownNameError: no such aggregation.
    """
    outcome = np.array([[item.outcome] for item in data], np.float64)
    if not data or np.isnan(outcome).all():
        raise InputError("no solution has an outcome", remedy="pass graded solutions")
    rows = step_scores(scorer, data)
    totals = totals_of(rows, aggregate)
    _, unit = np.unique([item.problem.id for item in data], return_inverse=True)
    name = f"Totals ({aggregate})"
    return _measured("outcome-calibration", name, scorer, totals[:, None], outcome, unit, bins, seed)


def _measured(
    name: str, what: str, scorer: Scorer, scores: Floats, labels: Floats, unit: NDArray[np.int64], bins: int, seed: int
) -> BenchResult:
    known = scores[~np.isnan(scores)]
    if known.size and (known.min() < 0 or known.max() > 1):
        problem = f"scores of {scorer.name} reach from {known.min():.3g} to {known.max():.3g}"
        raise InputError(problem, remedy="calibrate them first, so that they are in [0, 1]")
    key = Key.seed(seed).fold(name)
    # Rows of one unit lie together: a bootstrap sample takes whole units.
    order, starts = np.argsort(unit, kind="stable"), np.unique(np.sort(unit), return_index=True)[1]
    members = np.split(order, starts[1:])
    every = np.concatenate(members)
    values = [_values(scores[every], labels[every], bins)]
    for chosen in resamples(len(members), DRAWS, key):
        rows = np.concatenate([members[at] for at in chosen])
        values.append(_values(scores[rows], labels[rows], bins))
    columns = np.array(values).T
    metrics = {metric: interval(column, len(members)) for metric, column in zip(METRICS, columns, strict=True)}
    protocol = (
        f"{what} against labels in [0, 1], pooled; {bins} bins, listed with their mean score and mean label. "
        "Intervals: percentile bootstrap over solutions, or over problems that have several. Calibration errors are "
        "biased upwards in small samples, and so are their intervals."
    )
    groups = _reliability(scores, labels, unit, bins, key.fold("reliability"))
    return BenchResult(
        name, "brier", metrics, protocol, groups, unscored=int((np.isnan(scores) & ~np.isnan(labels)).any(axis=1).sum())
    )


def _values(scores: Floats, labels: Floats, bins: int) -> list[float]:
    return [
        brier(scores, labels),
        positive_brier(scores, labels),
        expected_calibration_error(scores, labels, bins=bins),
        expected_calibration_error(scores, labels, bins=bins, adaptive=True),
        auroc(scores, labels),
    ]


def _reliability(
    scores: Floats, labels: Floats, unit: NDArray[np.int64], bins: int, key: Key
) -> dict[str, Mapping[str, Estimate]]:
    """Bins that are not empty: mean score, mean label, and the share of all steps, with intervals over units.

    Args:
        scores, labels: (B, S).
        unit: (B,) unit of each row, below U: what is drawn together by the bootstrap.
        bins: of equal width over [0, 1]; a score on a border belongs to the lower one.
        key: of the bootstrap.
    """
    real = ~(np.isnan(scores) | np.isnan(labels))
    # (M,) score, label, unit and bin of the M steps that have both.
    score, label, unit_of = scores[real], labels[real], np.repeat(unit, real.sum(axis=1))
    bin_of = np.clip(np.ceil(score * bins).astype(np.int64) - 1, 0, bins - 1)
    # (U, bins, 3) sum of scores, sum of labels and number of steps of each unit in each bin.
    sums = np.zeros((int(unit.max()) + 1, bins, 3))
    np.add.at(sums, (unit_of, bin_of), np.stack([score, label, np.ones_like(score)], axis=1))
    # (1 + DRAWS, bins) each: the first row is of all units, each other one of a bootstrap sample of them.
    score_sum, label_sum, count = np.moveaxis(bootstrap_sums(sums, key, draws=DRAWS), 2, 0)
    parts = {
        "score": ratio(score_sum, count, empty=np.nan),
        "label": ratio(label_sum, count, empty=np.nan),
        "share": ratio(count, count.sum(axis=1, keepdims=True)),
    }
    return {
        f"{b / bins:.2g}-{(b + 1) / bins:.2g}": {
            metric: interval(values[:, b], int(count[0, b]), bounds=None if metric == "score" else (0.0, 1.0))
            for metric, values in parts.items()
        }
        for b in range(bins)
        if count[0, b]
    }
