"""Keyed random numbers: what is sampled depends on what it is for, never on when or with whom it is sampled.

A key is 64 bits derived from its parts by a hash, so batching, concurrency and resuming cannot change a sample.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class Key:
    """A point in the tree of random numbers; derive children with `fold`, never use one key for two draws."""

    bits: int
    """64 bits, unsigned."""

    @classmethod
    def seed(cls, seed: int) -> Key:
        """The root key of a run."""
        return cls(0).fold("seed", seed)

    def fold(self, *parts: str | int) -> Key:
        """The child key named by `parts`; equal parts give equal keys, on every machine and in every process."""
        return self.folding(*parts).key

    def folding(self, *parts: str | int) -> Folding:
        """The child key named by `parts` and by more parts that are given later."""
        return Folding(hashlib.blake2b(self.bits.to_bytes(8, "little"), digest_size=8)).fold(*parts)

    def rng(self) -> np.random.Generator:
        """A NumPy generator that draws from this key alone."""
        return np.random.Generator(np.random.Philox(key=self.bits))


class Folding:
    """A key that is being named part by part: prefixes that many names share are read once.

    Args:
        digest: of the parts so far.
    """

    def __init__(self, digest: hashlib.blake2b) -> None:
        self._digest = digest

    def fold(self, *parts: str | int) -> Folding:
        """With more parts behind those so far; itself it stays as it is."""
        digest = self._digest.copy()
        for part in parts:
            data = part.encode() if isinstance(part, str) else str(part).encode()
            digest.update(b"s" if isinstance(part, str) else b"i")
            digest.update(len(data).to_bytes(8, "little"))
            digest.update(data)
        return Folding(digest)

    @property
    def key(self) -> Key:
        """The key named by all parts so far."""
        return Key(int.from_bytes(self._digest.digest(), "little"))


def uniforms(bits: NDArray[np.uint64], position: NDArray[np.integer[Any]] | int) -> NDArray[np.float64]:
    """One uniform number in (0, 1) for each key and position, by SplitMix64: the hot path of token sampling.

    Args:
        bits: (N,) key bits.
        position: counter within the key's stream, (N,) or one for all.

    Returns:
        (N,) numbers, strictly inside (0, 1).
    """
    with np.errstate(over="ignore"):
        z = bits.astype(np.uint64) + _GOLDEN * (np.asarray(position).astype(np.uint64) + np.uint64(1))
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    # 52 bits and a half: 53 would round up to exactly 1 once in 2^53 draws.
    drawn: NDArray[np.float64] = ((z >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
    return drawn
