"""Reward over-optimisation: what the gold reward does while more and more is selected by a proxy.

Selection is best-of-n by the proxy. From one pool of M samples a problem the expectation over all subsets of n samples
is taken exactly, for every n at once, instead of drawing subsets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.special import gammaln

from stepreward.core.files.atomic_files import plain
from stepreward.core.keys import Key
from stepreward.core.measure.statistics import Estimate, bootstrap
from stepreward.core.types import Floats


@dataclass(frozen=True)
class Overoptimisation:
    """Gold and proxy reward against how hard was selected; one entry a size."""

    sizes: tuple[int, ...]
    divergence: tuple[float, ...]
    """KL of best-of-n from the policy, in nats: log n - (n - 1) / n, an upper bound where scores are tied."""
    gold: tuple[Estimate, ...]
    proxy: tuple[Estimate, ...]
    peak: int
    """The size at which the gold reward is highest: past it, more selection by the proxy hurts."""

    def to_json(self) -> dict[str, Any]:
        """Plain numbers."""
        made: dict[str, Any] = plain(asdict(self))
        return made


def chance_of_rank(samples: int, n: int) -> Floats:
    """(M,) chance that the sample of each rank by the proxy, 0 the best, is the best of n drawn without replacement.

        p_r = C(M - 1 - r, n - 1) / C(M, n)

    Args:
        samples: M, samples of the pool.
        n: drawn, from 1 to M.

    Raises:
        ValueError: n is not between 1 and M.
    """
    if not 1 <= n <= samples:
        raise ValueError(f"n must be between 1 and the {samples} samples of the pool, got {n}")
    below = samples - 1 - np.arange(samples)
    enough = below >= n - 1
    # Where too few are left the chance is 0, set below: n - 1 in their place keeps the logarithms finite.
    left = np.where(enough, below, n - 1)

    def log_choose(top: Any, k: int) -> Floats:
        made: Floats = gammaln(top + 1.0) - gammaln(k + 1.0) - gammaln(top - k + 1.0)
        return made

    return np.where(enough, np.exp(log_choose(left, n - 1) - log_choose(samples, n)), 0.0)


def overoptimisation(
    proxy: Floats, gold: Floats, sizes: Sequence[int], key: Key, *, draws: int = 2000
) -> Overoptimisation:
    """Measures gold and proxy reward of best-of-n by the proxy (arXiv:2210.10760, sections 3.1 and 3.3).

    Samples with equal proxy scores share their ranks evenly.

    Args:
        proxy: (G, M) scores that select.
        gold: (G, M) what is meant.
        sizes: numbers of samples n, each at most M.
        key: randomness of the bootstrap over problems.
        draws: bootstrap resamples.

    Raises:
        ValueError: shapes differ, there is no size, or one is not between 1 and M.
    """
    if proxy.shape != gold.shape or proxy.ndim != 2 or not len(sizes):
        raise ValueError(f"proxy and gold must be (G, M) alike with at least one size, got {proxy.shape}, {gold.shape}")
    order = np.argsort(-proxy, axis=1, kind="stable")
    ranked = [np.take_along_axis(_shared(proxy, part), order, axis=1) for part in (gold, proxy)]
    made: list[list[Estimate]] = [[], []]
    for n in sizes:
        chances = chance_of_rank(proxy.shape[1], n)
        for kind, rows in enumerate(ranked):
            made[kind].append(bootstrap(rows @ chances, key.fold(n, kind), draws=draws, bounds=None))
    best = int(np.argmax([one.value for one in made[0]]))
    divergence = tuple(float(np.log(n) - (n - 1) / n) for n in sizes)
    return Overoptimisation(tuple(sizes), divergence, tuple(made[0]), tuple(made[1]), int(sizes[best]))


def _shared(proxy: Floats, part: Floats) -> Floats:
    """(G, M) values averaged over the samples of equal proxy."""
    made = np.empty(part.shape)
    for row, (scores, numbers) in enumerate(zip(proxy, part, strict=True)):
        _, index = np.unique(scores, return_inverse=True)
        made[row] = (np.bincount(index, weights=numbers) / np.bincount(index))[index]
    return made
