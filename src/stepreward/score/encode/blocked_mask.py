"""Attention of packed rows on a CPU: blocks of tokens, each with the tokens that it sees.

PyTorch's attention on a CPU computes all T x T pairs of a row and hides some of them. Of a tree's pairs most are
hidden: no solution sees another one. Here every block of queries has its own, short list of keys.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import scaled_dot_product_attention
from torch.utils._pytree import tree_map_only

_BLOCK = 128
"""Queries of a block: more of them see more keys that are not theirs, fewer cost more calls."""
_METADATA = {
    *(getattr(torch.Tensor, name).__get__ for name in ("shape", "ndim", "dtype", "device", "requires_grad")),
    *(torch.Tensor.size, torch.Tensor.dim, torch.Tensor.__len__, torch.Tensor.is_floating_point),
    torch.is_floating_point,
}
"""What a mask answers without its numbers."""


class BlockedMask(torch.Tensor):
    """A mask (R, 1, T, T) for `scaled_dot_product_attention`, which computes it block by block.

    Attention modules of transformers hand the mask on to that function, which lets a class of tensors take over. Every
    other function gets the dense mask, so that a backbone with an attention of its own computes the same as before.
    """

    dense: Callable[[], torch.Tensor]
    """Gives (R, 1, T, T) bool, computed at the first call."""
    parts: Sequence[tuple[torch.Tensor, torch.Tensor]]
    """Of each block, in order of row and column: the keys (k,) as row * T + column, and (q, k) True where seen."""

    @classmethod
    def of(
        cls, enter: NDArray[np.int64], leave: NDArray[np.int64], dense: Callable[[], torch.Tensor]
    ) -> BlockedMask | None:
        """The mask of packed rows; None where blocks would save less than half of the pairs.

        Args:
            enter, leave: (R, T) depth-first numbers, as of a `PackedBatch`.
            dense: gives the mask as bool (R, 1, T, T).
        """
        rows, width = enter.shape
        spans = [(row, at, min(at + _BLOCK, width)) for row in range(rows) for at in range(0, width, _BLOCK)]
        found = [_seen_by(enter[row], leave[row], at, end) for row, at, end in spans]
        if 2 * sum(seen.size for _, seen in found) > rows * width**2:
            return None
        # One number, however many the shape says.
        made = torch.zeros((), dtype=torch.bool).expand(rows, 1, width, width).as_subclass(cls)
        made.dense = cache(dense)
        made.parts = [
            (torch.from_numpy(keys + row * width), torch.from_numpy(seen))
            for (row, _, _), (keys, seen) in zip(spans, found, strict=True)
        ]
        return made

    def attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, options: Mapping[str, Any]
    ) -> torch.Tensor:
        """(R, heads, T, width) attention of (R, heads, T, width) queries, keys and values."""
        rows, _, width, _ = query.shape
        every, counts = torch.cat([keys for keys, _ in self.parts]), [len(keys) for keys, _ in self.parts]
        # One gather of all keys: the gradient of many would add up as many tensors of all tokens.
        keys, values = (torch.split(_by_token(one).index_select(0, every), counts) for one in (key, value))
        queries = torch.split(_by_token(query), [len(seen) for _, seen in self.parts])
        made = [
            scaled_dot_product_attention(_heads(q), _heads(k), _heads(v), attn_mask=seen, **options)
            for q, k, v, (_, seen) in zip(queries, keys, values, self.parts, strict=True)
        ]
        tokens = torch.cat([one[0].transpose(0, 1) for one in made])
        return tokens.view(rows, width, *tokens.shape[1:]).transpose(1, 2)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        mask = kwargs.get("attn_mask")
        if func is scaled_dot_product_attention and isinstance(mask, cls) and len(args) == 3:
            query, key, value = args
            return mask.attend(query, key, value, {name: kwargs[name] for name in kwargs.keys() - {"attn_mask"}})
        with torch._C.DisableTorchFunctionSubclass():
            if func in _METADATA:
                return func(*args, **kwargs)
            # Modules take the slice of all keys, as there may be a cache of fewer than the mask has.
            slices = (
                func is torch.Tensor.__getitem__ and isinstance(args[1], tuple) and {*map(type, args[1])} == {slice}
            )
            if slices and func(*args).shape == args[0].shape:
                return args[0]
        plain_args, plain_kwargs = tree_map_only(cls, lambda one: one.dense(), (args, kwargs))
        return func(*plain_args, **plain_kwargs)


def _seen_by(
    enter: NDArray[np.int64], leave: NDArray[np.int64], begin: int, end: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """(k,) the columns of a row that a block of its tokens sees any of, and (q, k) which token sees which."""
    query = np.arange(begin, end)[:, None]
    number = enter[query]
    # A key is seen from the depth-first numbers in [enter, leave): those of the block lie between two.
    keys = np.flatnonzero((enter[:end] <= number.max()) & (leave[:end] > number.min()))
    return keys, (keys <= query) & (enter[keys] <= number) & (number < leave[keys])


def _by_token(heads: torch.Tensor) -> torch.Tensor:
    """(R * T, heads, width) from (R, heads, T, width)."""
    return heads.transpose(1, 2).flatten(0, 1)


def _heads(tokens: torch.Tensor) -> torch.Tensor:
    """(1, heads, k, width) from (k, heads, width)."""
    return tokens.transpose(0, 1)[None]
