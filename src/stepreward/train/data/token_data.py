"""Tokens of the steps of a training batch: what objectives of log-ratios read beside the steps themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from stepreward.score.encode.packing import PackedBatch, StepTokens, step_tokens


def with_step_tokens(
    batch: PackedBatch, reference: Sequence[NDArray[np.float32]], rows: Sequence[Sequence[int]]
) -> PackedBatch:
    """A packed batch with the tokens of its steps and their log-probabilities by the reference.

    Args:
        batch: the batch.
        reference: (T,) log-probabilities of each tree's tokens; empty for 0.
        rows: which trees share a row, by index.
    """
    said = step_tokens(batch)
    return replace(batch, said=replace(said, reference=of_step_tokens(batch, said, reference, rows)))


def of_step_tokens(
    batch: PackedBatch, said: StepTokens, values: Sequence[NDArray[np.float32]], rows: Sequence[Sequence[int]]
) -> torch.Tensor:
    """(N,) numbers of step tokens, from (T,) for each tree as `pack` lays trees out; 0 where there are none."""
    flat = np.zeros(batch.input_ids.shape, np.float32)
    for at, row in enumerate(rows if values else ()):
        joined = np.concatenate([values[i] for i in row])
        flat[at, : len(joined)] = joined
    return torch.from_numpy(flat)[said.row, said.column]


def token_index(said: StepTokens, read: NDArray[np.int64], mask: NDArray[np.bool_]) -> torch.Tensor:
    """(B, L) the tokens of each trajectory's steps in order, -1 behind them."""
    # The tokens of a step follow one another.
    first, count = np.unique(said.read.numpy(), return_index=True, return_counts=True)[1:]
    paths = [
        np.concatenate([np.empty(0, np.int64), *(np.arange(first[q], first[q] + count[q]) for q in row[real])])
        for row, real in zip(read, mask, strict=True)
    ]
    index = np.full((len(paths), max(map(len, paths), default=0)), -1, np.int64)
    for row, path in zip(index, paths, strict=True):
        row[: len(path)] = path
    return torch.from_numpy(index)


def at_tokens(token: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """(B, L) numbers of each trajectory's tokens from (N,), NaN at padding."""
    made = torch.full(token.shape, torch.nan)
    real = token >= 0
    made[real] = values[token[real]]
    return made
