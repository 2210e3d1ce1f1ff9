"""The result of a training, and its file in the finished checkpoint."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from stepreward.core.files.atomic_files import to_disk, write_json
from stepreward.core.files.hub import name_of
from stepreward.score.model.log_ratio_model import Trainable
from stepreward.score.model.step_reward_model import StepRewardModel
from stepreward.score.model.without_bars import without_bars
from stepreward.train.checkpoints import clear_write_errors
from stepreward.train.settings import RESULT_FILE, TrainSettings


@dataclass
class TrainResult:
    """The result of training."""

    folder: Path
    """A checkpoint that `stepreward.load` accepts; its `training.json` holds the fields below."""
    history: list[dict[str, float]] = field(default_factory=list)
    """Metrics by step: loss, and the evaluations (`eval_` and the metric's name); undefined ones are left out."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Metrics of the kept model, by `evaluation.evaluate_batches`; undefined ones are left out."""
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    """95 % intervals of metrics over held-out problems, by `evaluation.Readings.intervals`."""
    tokens: int = 0
    """Tokens of one pass over the data, each shared prefix once."""
    seconds: float = 0.0
    """Wall time of this call."""
    steps: int = 0
    """Steps of the optimizer, those before a resume included."""
    domains: dict[str, dict[str, float]] = field(default_factory=dict)
    """By domain, where the data has several: its `tokens` in the whole training, its last `weight` where domains are
    weighed, and the metrics of the kept model."""


def save_result(
    result: TrainResult,
    model: Trainable,
    state: Mapping[str, torch.Tensor] | None,
    settings: TrainSettings,
    identity: Mapping[str, Any],
    sizes: Mapping[str, Mapping[str, int]],
) -> None:
    """Writes the finished checkpoint.

    Args:
        result: what was measured.
        model: trained.
        state: all its weights, where processes hold a part each.
        settings: of the training.
        identity: what decides the weights, as `saved_result` compares it.
        sizes: problems and solutions of each part of the data.

    Raises:
        StoreError: the folder cannot be written.
    """
    with without_bars(), clear_write_errors(result.folder):
        model.eval().save_pretrained(result.folder, state)
        if settings.merge:
            _merge(result.folder)
        for path in result.folder.iterdir():
            if path.is_file():
                to_disk(path)
    about = {"backbone": name_of(model.backbone.config.name_or_path), "sizes": dict(sizes), "identity": dict(identity)}
    row = {"version": 1, "settings": asdict(settings), **asdict(result), **about}
    del row["folder"]
    write_json(result.folder / RESULT_FILE, row)


def _merge(folder: Path) -> None:
    """Replaces a checkpoint of adapters by one of whole weights."""
    # In the numbers that the base was saved in, to which each sum is rounded once.
    StepRewardModel.from_pretrained(folder, dtype="auto").save_pretrained(folder)


def saved_result(out: Path, identity: Mapping[str, Any]) -> TrainResult | None:
    """The result in the folder of a finished training; None where there is none, or it has another identity."""
    try:
        row = json.loads((out / RESULT_FILE).read_text(encoding="utf-8"))
        if row["identity"] != json.loads(json.dumps(identity)):
            return None
        return TrainResult(
            out,
            *(row[name] for name in ("history", "metrics", "intervals", "tokens", "seconds", "steps", "domains")),
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def finite(numbers: Mapping[str, float]) -> dict[str, float]:
    """The finite numbers: JSON has no NaN."""
    return {name: float(value) for name, value in numbers.items() if math.isfinite(value)}
