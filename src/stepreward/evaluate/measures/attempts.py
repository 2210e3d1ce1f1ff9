"""Bounds of any choice among k attempts: pass@k above, pass^k below."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammaln

from stepreward.core.types import Floats


def pass_at_k(correct: ArrayLike, samples: ArrayLike, k: int) -> Floats:
    """Chance that at least one of k attempts is right, unbiased from n samples: the bound of every selector.

        1 - C(n - c, k) / C(n, k)    (arXiv:2107.03374, Eq. 1)

    Args:
        correct: c, right samples of each problem, any shape.
        samples: n, samples of each problem, same shape or one for all.
        k: attempts, from 1 to the fewest samples.

    Returns:
        Chances, one a problem; their mean over problems is the benchmark's pass@k.

    Raises:
        ValueError: k is not between 1 and n, or c is not between 0 and n.
    """
    c, n = _counts(correct, samples, k)
    return 1.0 - _share(n - c, n, k)


def all_at_k(correct: ArrayLike, samples: ArrayLike, k: int) -> Floats:
    """Chance that all of k attempts are right, "pass^k": what no selector can fall below, and how reliable an agent is.

        C(c, k) / C(n, k)    (arXiv:2406.12045)

    Args:
        correct: c, right samples of each problem, any shape.
        samples: n, samples of each problem, same shape or one for all.
        k: attempts, from 1 to the fewest samples.

    Returns:
        Chances, one a problem.

    Raises:
        ValueError: k is not between 1 and n, or c is not between 0 and n.
    """
    c, n = _counts(correct, samples, k)
    return _share(c, n, k)


def _counts(correct: ArrayLike, samples: ArrayLike, k: int) -> tuple[Floats, Floats]:
    c, n = np.broadcast_arrays(np.asarray(correct, np.float64), np.asarray(samples, np.float64))
    if k < 1 or (n < k).any():
        raise ValueError(f"k must be between 1 and the samples of every problem, got k = {k} with {n.min():g} samples")
    if (c < 0).any() or (c > n).any():
        raise ValueError("right samples must be between 0 and the samples of their problem")
    return c, n


def _share(of: Floats, n: Floats, k: int) -> Floats:
    """C(of, k) / C(n, k) without large numbers; 0 where `of` is less than k."""
    enough = of >= k
    # Where too few are left the share is 0, set below: k in their place keeps the logarithms finite.
    count = np.where(enough, of, float(k))
    logs = gammaln(count + 1) - gammaln(count - k + 1) - gammaln(n + 1) + gammaln(n - k + 1)
    return np.where(enough, np.exp(logs), 0.0)
