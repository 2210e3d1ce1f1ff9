"""Scans: accumulations from each entry of a flat array to the end of its segment, in linear time.

Neighbours are joined into pairs, pairs into fours, and so on: the joined array is half as long each time, and what it
accumulates says what each pair is followed by. Rounds are as many as powers of two below the longest segment; each is a
few vector operations, and no value of another segment, not even NaN, enters a sum.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from array_api_compat import array_namespace

Array = Any
"""A NumPy array or a torch tensor."""
Join = Callable[[Array, Array, Array, int], Array]
"""`(entries, their followers, whether both are of one segment, distance)` -> accumulations."""


def sums_to_go(values: Array, ends: Array, longest: int, *, discount: float = 1.0) -> Array:
    """(N,) sum from each entry to the end of its segment: s_k = v_k + discount s_{k+1}.

    Args:
        values: (N,) floats.
        ends: (N,) True at the last entry of each segment.
        longest: entries of the longest segment.
        discount: of later entries.
    """
    xp = array_namespace(values)
    nothing = xp.zeros_like(values[:1])

    def join(values: Array, later: Array, same: Array, apart: int) -> Array:
        weight = discount**apart
        return values + xp.where(same, later if weight == 1.0 else weight * later, nothing)

    return _accumulated(values, ~ends, longest, join)


def least_to_go(values: Array, ends: Array, longest: int) -> Array:
    """(N,) the least value from each entry to the end of its segment; NaN where one of them is.

    Args:
        values: (N,) floats.
        ends: (N,) True at the last entry of each segment.
        longest: entries of the longest segment.
    """
    xp = array_namespace(values)

    def join(values: Array, later: Array, same: Array, apart: int) -> Array:
        return xp.minimum(values, xp.where(same, later, values))

    return _accumulated(values, ~ends, longest, join)


def _accumulated(values: Array, same: Array, longest: int, join: Join, size: int = 1) -> Array:
    """Accumulates from each block of `size` entries to the end of its segment.

    Args:
        values: (M,) sum of each block, up to the end of its first entry's segment.
        same: (M,) True where a block ends in the segment that it begins in, and the next one goes on with it.
        longest: entries of the longest segment.
        join: of a block with what follows it.
        size: entries of a block.
    """
    xp = array_namespace(values)
    if size >= longest or values.shape[0] < 2:
        return values
    # An odd entry at the end gets a partner that no segment reaches, and which is removed again.
    if values.shape[0] % 2:
        padded = xp.concat([values, values[-1:]]), xp.concat([same, xp.zeros_like(same[-1:])])
        return _accumulated(*padded, longest, join, size)[:-1]
    first, second = values[0::2], values[1::2]
    pairs = _accumulated(join(first, second, same[0::2], size), same[0::2] & same[1::2], longest, join, 2 * size)
    # `pairs` holds the results of even entries; an odd entry is followed by the even one after it.
    following = xp.concat([pairs[1:], pairs[-1:]])
    return xp.reshape(xp.stack([pairs, join(second, following, same[1::2], size)], axis=1), (-1,))
