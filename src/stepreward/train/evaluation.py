"""Metrics of a step reward model on labelled trees, measured during training."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stepreward.core.keys import Key
from stepreward.core.measure.first_error import first_error
from stepreward.core.measure.statistics import percentile_interval, resamples
from stepreward.core.measure.step_metrics import (
    auroc,
    best_threshold,
    brier,
    expected_calibration_error,
    first_error_scores,
    ragged,
)
from stepreward.core.types import Floats
from stepreward.score.model.log_ratio_model import Trainable
from stepreward.train.data.training_batch import TrainingBatch
from stepreward.train.objective import Objective
from stepreward.train.objectives.loss import Loss

_DRAWS = 400
"""Bootstrap samples of the held-out problems."""


@dataclass(frozen=True)
class Readings:
    """What a model says of labelled batches. Axes: B trajectories, S steps."""

    scores: Floats
    """(B, S), NaN where not supervised."""
    labels: Floats
    """(B, S), NaN where not known."""
    problems: tuple[str, ...]
    """(B,) id of each trajectory's problem."""
    loss: float | None
    """Of the objective, NaN where nothing is supervised; None without one."""
    probability: bool
    """Whether scores are probabilities."""

    def metrics(self) -> dict[str, float]:
        """`f1` of the first error at the `threshold` that is best for these very trajectories (so optimistic), `auroc`,
        `brier`, `ece`, and `loss` if there is an objective.

        NaN where one is not defined: f1 and AUROC need wrong and right trajectories or steps; Brier and ECE need scores
        that are probabilities.
        """
        # F1 of the first error needs trajectories of both kinds, right ones and wrong ones.
        gold = first_error(self.labels)
        both = bool((gold >= 0).any() and (gold < 0).any())
        threshold = best_threshold(self.scores, gold).threshold if both else float("nan")
        made = {"f1": float("nan"), "threshold": threshold, **self._at(slice(None), threshold)}
        return made if self.loss is None else made | {"loss": self.loss}

    def intervals(self) -> dict[str, tuple[float, float]]:
        """95 % bootstrap intervals of f1, auroc, brier and ece over problems, where they are defined.

        The threshold of f1 stays that of all trajectories.
        """
        found = self.metrics()
        _, unit = np.unique(np.array(self.problems, np.str_), return_inverse=True)
        rows = [np.flatnonzero(unit == i) for i in range(int(unit.max(initial=-1)) + 1)]
        if not rows:
            return {}
        drawn = [
            self._at(np.concatenate([rows[i] for i in some]), found["threshold"])
            for some in resamples(len(rows), _DRAWS, Key.seed(0).fold("held out"))
        ]
        made = {}
        for name in ("f1", "auroc", "brier", "ece"):
            values = np.array([one.get(name, np.nan) for one in drawn])
            interval = percentile_interval(found[name], values, len(rows))
            if np.isfinite([found[name], interval.low, interval.high]).all():
                made[name] = (interval.low, interval.high)
        return made

    def _at(self, rows: slice | NDArray[np.int64], threshold: float) -> dict[str, float]:
        """Metrics of some trajectories; without f1 where the threshold is NaN."""
        scores, labels, nan = self.scores[rows], self.labels[rows], float("nan")
        of_steps = {
            "auroc": auroc(scores, labels),
            "brier": brier(scores, labels) if self.probability else nan,
            "ece": expected_calibration_error(scores, labels) if self.probability else nan,
        }
        if np.isnan(threshold):
            return of_steps
        return {"f1": first_error_scores(scores, first_error(labels), threshold=threshold).f1, **of_steps}


@torch.inference_mode()
def read_batches(model: Trainable, batches: Iterable[TrainingBatch], objective: Objective | None = None) -> Readings:
    """Scores of a model on labelled batches beside the labels; the model is left in evaluation mode."""
    model.eval()
    device = next(model.parameters()).device
    scores: list[NDArray[np.float64]] = []
    labels: list[NDArray[np.float64]] = []
    problems: list[str] = []
    totals: Any = 0.0
    counts: Any = 0.0
    for batch in batches:
        here = batch.to(device)
        outputs = model(here.packed)
        supervised = (here.mask & ~here.data["labels"].isnan()).cpu().numpy()
        reads = model.step_outputs(outputs, here.packed)
        scored = model.record.readout.combined(model.score_parts(reads), batch.previous)
        scores += list(np.where(supervised, scored[batch.read.numpy()], np.nan) if len(scored) else supervised * np.nan)
        labels += list(batch.data["labels"].double().numpy())
        problems += batch.problems
        if objective is not None:
            # The mean over all units, not over batches: the last batch may be small.
            loss = objective(model, outputs, here)
            totals, counts = totals + loss.totals.double().cpu(), counts + loss.counts.cpu()
    learned = torch.is_tensor(counts) and bool((counts > 0).any())
    mean = float(Loss(totals, counts)) if learned else float("nan")
    return Readings(
        ragged(scores),
        ragged(labels),
        tuple(problems),
        None if objective is None else mean,
        model.record.readout.is_probability,
    )


def evaluate_batches(
    model: Trainable, batches: Iterable[TrainingBatch], objective: Objective | None = None
) -> dict[str, float]:
    """Step metrics of a model on labelled batches, see `Readings.metrics`; the model is left in evaluation mode."""
    return read_batches(model, batches, objective).metrics()
