"""Metrics of a step reward model on labelled trees, measured during training."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stepreward.core.measure.first_error import first_error
from stepreward.core.measure.step_metrics import auroc, best_threshold, brier, expected_calibration_error, ragged
from stepreward.score.model.step_reward_model import StepRewardModel
from stepreward.train.data import TrainingBatch
from stepreward.train.objective import Objective
from stepreward.train.objectives.loss import Loss


@torch.inference_mode()
def evaluate_batches(
    model: StepRewardModel, batches: Iterable[TrainingBatch], objective: Objective | None = None
) -> dict[str, float]:
    """Step metrics of a model on labelled batches; the model is left in evaluation mode.

    Returns:
        `f1` of the first error at the `threshold` that is best for these very batches (so optimistic), `auroc`,
        `brier`, `ece`, and `loss` if there is an objective. NaN where one is not defined: f1 and AUROC need wrong and
        right trajectories or steps; Brier and ECE need a readout that is a probability.
    """
    model.eval()
    device = next(model.parameters()).device
    scores: list[NDArray[np.float64]] = []
    labels: list[NDArray[np.float64]] = []
    totals: Any = 0.0
    counts: Any = 0.0
    for batch in batches:
        here = batch.to(device)
        reads = model(here.packed)
        supervised = (here.mask & ~here.data["labels"].isnan()).cpu().numpy()
        scored = model.record.readout.combined(model.score_parts(reads), batch.previous)
        scores += list(np.where(supervised, scored[batch.read.numpy()], np.nan) if len(scored) else supervised * np.nan)
        labels += list(batch.data["labels"].double().numpy())
        if objective is not None:
            # The mean over all units, not over batches: the last batch may be small.
            loss = objective(model, reads, here)
            totals, counts = totals + loss.totals.double().cpu(), counts + loss.counts.cpu()
    metrics = _step_metrics(ragged(scores), ragged(labels), probability=model.record.readout.is_probability)
    if objective is None:
        return metrics
    learned = torch.is_tensor(counts) and bool((counts > 0).any())
    return metrics | {"loss": float(Loss(totals, counts)) if learned else float("nan")}


def _step_metrics(scores: NDArray[np.float64], labels: NDArray[np.float64], *, probability: bool) -> dict[str, float]:
    # F1 of the first error needs trajectories of both kinds, right ones and wrong ones.
    gold = first_error(labels)
    both = bool((gold >= 0).any() and (gold < 0).any())
    nan = float("nan")
    first: dict[str, Any] = asdict(best_threshold(scores, gold)) if both else {"f1": nan, "threshold": nan}
    return {
        "f1": first["f1"],
        "threshold": first["threshold"],
        "auroc": auroc(scores, labels),
        "brier": brier(scores, labels) if probability else nan,
        "ece": expected_calibration_error(scores, labels) if probability else nan,
    }
