"""From the outputs of a head to scores."""

from __future__ import annotations

import torch

from stepreward.score.encode.record import EncoderRecord


def read_out(record: EncoderRecord, logits: torch.Tensor) -> torch.Tensor:
    """(Q,) float32 scores of logits (Q, n_labels), by the record's readout."""
    z = logits.float()
    if record.readout in ("softmax", "difference"):
        right = z.softmax(-1)[:, [record.positive, *record.also]].sum(-1)
        return right if record.readout == "softmax" else 2 * right - 1
    if record.readout == "mean-sigmoid":
        return z.sigmoid().mean(-1)
    value = z[:, record.positive]
    if record.readout == "tanh":
        return value.tanh()
    return value.sigmoid() if record.readout == "sigmoid" else value
