"""The key-value cache of running rows: dense, written in place, each row at its own position."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache

ALIGN = 16
"""Columns and rows are padded to multiples of this, so that kernels sum each row in the same order in any batch."""


def aligned(size: int) -> int:
    """The smallest multiple of `ALIGN` that holds `size`."""
    return -(-size // ALIGN) * ALIGN


class PrefillCache(Cache):  # type: ignore[misc]  # transformers is untyped
    """Keeps the keys and values of one forward pass over whole prefixes, as they come."""

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.states: list[tuple[Tensor, Tensor]] = []
        """Keys and values of each layer, (rows, heads, length, width)."""

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Keeps a layer's states and returns them."""
        if layer_idx != len(self.states):
            raise RuntimeError(f"expected states of layer {len(self.states)}, got layer {layer_idx}")
        self.states.append((keys, values))
        return keys, values

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Nothing was there before."""
        return 0

    def get_query_offset(self, layer_idx: int = 0) -> int:
        """Nothing was there before."""
        return 0

    def get_mask_sizes(self, queries: int | Tensor, layer_idx: int) -> tuple[int, int]:
        """Length and offset of the keys; `queries` is their number or, in transformers 5.2, their positions."""
        return len(queries) if isinstance(queries, Tensor) else queries, 0


class RowCache(Cache):  # type: ignore[misc]  # transformers is untyped
    """Keys and values of rows of uneven length: token p of a row is in column p, independent of the other rows.

    Each layer's tensors, (rows, heads, columns, width), are allocated ahead and written in place; they grow by half
    when full. There is no padding on the left, so a row's numbers are those of the row alone. Unwritten cells are
    zeros, as a masked weight of exactly 0 times an uninitialised cell could be NaN.
    """

    def __init__(self) -> None:
        super().__init__(layers=[])
        self._states: list[list[Tensor]] = []
        self._rows = torch.empty(0, dtype=torch.long)
        self._at = torch.empty(0, dtype=torch.long)
        self._seen = 0

    @property
    def capacity(self) -> tuple[int, int]:
        """Rows and columns allocated."""
        return (self._states[0][0].shape[0], self._states[0][0].shape[2]) if self._states else (0, 0)

    def place(self, positions: Tensor, seen: int) -> None:
        """Sets the column of the next token of rows 0 to n-1, row i at `positions[i]`; all read `seen` columns."""
        self._rows = torch.arange(positions.shape[0], device=positions.device)
        self._at = positions
        self._seen = seen

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Writes one token of each row, (rows, heads, 1, width), and returns the columns that the rows may read."""
        own_keys, own_values = self._states[layer_idx]
        own_keys[self._rows, :, self._at] = keys[:, :, 0]
        own_values[self._rows, :, self._at] = values[:, :, 0]
        n = keys.shape[0]
        return own_keys[:n, :, : self._seen], own_values[:n, :, : self._seen]

    def reserve(self, rows: int, columns: int, used: int) -> None:
        """Enlarges the tensors, keeping the first `used` rows. Before the first `admit` there are none."""
        have = self.capacity
        if not self._states or (rows <= have[0] and columns <= have[1]):
            return
        shape = max(rows, have[0]), aligned(max(columns, have[1] * 3 // 2) if columns > have[1] else have[1])
        for pair in self._states:
            for i, old in enumerate(pair):
                pair[i] = old.new_zeros((shape[0], old.shape[1], shape[1], old.shape[3]))
                pair[i][:used, :, : have[1]] = old[:used]

    def admit(self, first: int, prefill: PrefillCache, source: Tensor, columns: int) -> None:
        """Copies the states of the prefixes `source` of a prefill to rows first, first+1, ...

        Args:
            first: rows in use before.
            prefill: states of distinct prefixes.
            source: (rows,) index into the prefill: samples of one prefix share its encoding.
            columns: room to leave for each row.
        """
        if not self._states:
            self._states = [
                [s.new_zeros((aligned(len(source)), s.shape[1], aligned(columns), s.shape[3])) for s in pair]
                for pair in prefill.states
            ]
        self.reserve(aligned(first + len(source)), columns, first)
        for own, new in zip(self._states, prefill.states, strict=True):
            for cells, states in zip(own, new, strict=True):
                cells[first : first + len(source), :, : states.shape[2]] = states[source]

    def move(self, holes: Tensor, movers: Tensor, columns: int) -> None:
        """Overwrites rows `holes` by rows `movers`, of which only the first `columns` columns matter."""
        for pair in self._states:
            for cells in pair:
                cells[holes, :, :columns] = cells[movers, :, :columns]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Columns already there before this pass."""
        return self._seen - 1

    def get_query_offset(self, layer_idx: int = 0) -> int:
        """Columns already there before this pass."""
        return self._seen - 1

    def get_mask_sizes(self, queries: int | Tensor, layer_idx: int) -> tuple[int, int]:
        """Length and offset of the keys."""
        return self._seen, 0
