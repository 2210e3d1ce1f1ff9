"""Resampling: how often each particle is continued, without bias.

Every resampler draws `n` indices so that index i is drawn n w_i times on average; they differ in variance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np

from stepreward.core.errors import UnknownNameError
from stepreward.core.keys import Key, uniforms
from stepreward.core.types import Floats

Resampler = Callable[[Floats, int, Key], list[int]]


def normalised(logs: Sequence[float]) -> Floats:
    """Weights out of their logarithms, summing to 1; even ones where none is finite."""
    values = np.array([-np.inf if np.isnan(log) else log for log in logs], np.float64)
    top = values.max(initial=-np.inf)
    if not np.isfinite(top):
        return np.full(len(values), 1 / max(len(values), 1))
    mass = np.exp(values - top)
    made: Floats = mass / mass.sum()
    return made


def effective_size(weights: Floats) -> float:
    """Number of equal weights with the same variance: 1 / sum w^2, from 1 to their number."""
    return float(1 / np.square(weights).sum())


def _draws(key: Key, n: int) -> Floats:
    return uniforms(np.full(n, key.bits, np.uint64), np.arange(n))


def _indices_at(weights: Floats, points: Floats) -> list[int]:
    """The index of the share of [0, 1) that contains each point."""
    edges = np.cumsum(weights)
    # Rounding may leave the last edge below 1, and an index of weight 0 has no share.
    found = np.searchsorted(edges / edges[-1], points, side="right")
    last = int(np.flatnonzero(weights)[-1])
    return [min(int(i), last) for i in found]


def multinomial(weights: Floats, n: int, key: Key) -> list[int]:
    """Draws each index by itself. Gordon, Salmond and Smith (1993)."""
    return _indices_at(weights, _draws(key, n))


def stratified(weights: Floats, n: int, key: Key) -> list[int]:
    """Draws one point in each of n equal parts of [0, 1). Kitagawa (1996)."""
    return _indices_at(weights, (np.arange(n) + _draws(key, n)) / n)


def systematic(weights: Floats, n: int, key: Key) -> list[int]:
    """Moves a comb of n teeth by one draw: floor(n w_i) or ceil(n w_i) of index i. Carpenter et al. (1999)."""
    return _indices_at(weights, (np.arange(n) + _draws(key, 1)[0]) / n) if n else []


def residual(weights: Floats, n: int, key: Key) -> list[int]:
    """Gives each index floor(n w_i) places and draws the rest by what is left of the weights. Liu and Chen (1998)."""
    # A weight of k / n gets k places although rounding may leave n w just below k.
    sure = np.floor(n * weights + 1e-9).astype(np.int64)
    rest = n - int(sure.sum())
    indices = np.repeat(np.arange(len(weights)), sure).tolist()
    left = np.maximum(n * weights - sure, 0.0)
    return [*indices, *(multinomial(left / left.sum(), rest, key) if rest else [])]


Name = Literal["multinomial", "systematic", "stratified", "residual"]
RESAMPLERS: Mapping[Name, Resampler] = {
    "multinomial": multinomial,
    "systematic": systematic,
    "stratified": stratified,
    "residual": residual,
}
"""By name."""


def resampler(name: Name) -> Resampler:
    """A resampler by name.

    Raises:
        UnknownNameError: there is none of that name.
    """
    if name not in RESAMPLERS:
        raise UnknownNameError("resampler", name, RESAMPLERS)
    return RESAMPLERS[name]
