"""Intervals and paired tests: every number that claims something comes with how far it can be trusted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from stepreward.core.keys import Key
from stepreward.core.types import Floats


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its interval."""

    value: float
    low: float
    high: float
    n: int
    """Independent units (problems, solutions) behind the number."""

    def to_json(self) -> dict[str, float | int | None]:
        """Plain numbers; NaN becomes None."""
        row = {"value": self.value, "low": self.low, "high": self.high}
        return {name: None if np.isnan(v) else float(v) for name, v in row.items()} | {"n": self.n}


def wilson(correct: ArrayLike, n: ArrayLike, *, confidence: float = 0.95) -> tuple[Floats, Floats]:
    """Wilson's score interval of proportions, for arrays (Wilson 1927; Brown, Cai and DasGupta 2001, Eq. 4).

    Args:
        correct: successes, any shape.
        n: trials, same shape; where it is 0 the interval is NaN.
        confidence: nominal coverage in (0, 1).

    Returns:
        Lower and upper ends.
    """
    k, trials = np.asarray(correct, np.float64), np.asarray(n, np.float64)
    z = float(stats.norm.ppf(0.5 + confidence / 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        p = k / trials
        centre = (p + z * z / (2 * trials)) / (1 + z * z / trials)
        half = z / (1 + z * z / trials) * np.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials))
    low, high = np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)
    return np.where(trials > 0, low, np.nan), np.where(trials > 0, high, np.nan)


def proportion(correct: int, n: int, *, confidence: float = 0.95) -> Estimate:
    """A share with its Wilson interval; NaN where `n` is 0."""
    low, high = wilson(correct, n, confidence=confidence)
    return Estimate(correct / n if n else float("nan"), float(low), float(high), n)


def mean_of(parts: Sequence[Estimate]) -> Estimate:
    """Plain mean of independent estimates; the half-widths of their intervals add in squares.

    Args:
        parts: at least one, such as a benchmark's subsets.
    """
    value = float(np.mean([one.value for one in parts]))
    down = float(np.sqrt(sum((one.value - one.low) ** 2 for one in parts))) / len(parts)
    up = float(np.sqrt(sum((one.high - one.value) ** 2 for one in parts))) / len(parts)
    return Estimate(value, value - down, value + up, sum(one.n for one in parts))


def resamples(n: int, draws: int, key: Key) -> NDArray[np.int64]:
    """(draws, n) indices drawn with replacement from n units."""
    return key.rng().integers(0, n, size=(draws, n))


def resampled_means(values: ArrayLike, draws: int, key: Key, *, cells: int = 1 << 20) -> Floats:
    """(draws,) means of bootstrap samples of (n,) values, as `values[resamples(n, draws, key)].mean(axis=1)` has them.

    Args:
        values: at least one.
        draws: bootstrap samples.
        key: their randomness.
        cells: indices that are in memory at the same time, at least one sample's.
    """
    every, rng = np.asarray(values), key.rng()
    # Drawn in parts, from one stream: the result is that of one large draw, in bounded memory.
    at_once = max(cells // len(every), 1)
    sizes = [min(at_once, draws - at) for at in range(0, draws, at_once)]
    return np.concatenate([every[rng.integers(0, len(every), size=(some, len(every)))].mean(axis=1) for some in sizes])


def percentile_interval(
    value: float,
    drawn: Floats,
    n: int,
    *,
    bounds: tuple[float, float] | None = (0.0, 1.0),
    confidence: float = 0.95,
    expanded: bool = False,
) -> Estimate:
    """A number with the percentile interval of its bootstrap draws; widened where the draws all agree.

    Three problems, all solved, draw 100 % for ever, which says nothing about the fourth. Where nothing varies, a share
    of at most u of all units is unlike those seen, u the upper end of Wilson's interval of 0 of n, and such a unit may
    lie anywhere in the bounds: [v - u (v - lowest), v + u (highest - v)]. For a share this is Wilson's interval.

    Args:
        value: v, of the units as they are.
        drawn: (draws,) of bootstrap samples; NaN draws are left out.
        n: independent units.
        bounds: lowest and highest value of one unit; None, or a value outside, widens nothing.
        confidence: nominal coverage.
        expanded: for few units. Draws of n units vary less than units do, by (n - 1) / n, and as if their variance were
            known: the tails are Phi(-sqrt(n / (n - 1)) t), t the quantile of Student's distribution with n - 1 degrees.
    """
    real = drawn[~np.isnan(drawn)]
    if not real.size:
        return Estimate(float(value), float("nan"), float("nan"), n)
    if bounds is not None and bounds[0] <= value <= bounds[1] and np.ptp(real) <= 1e-12:
        unlike = float(wilson(0, n, confidence=confidence)[1])
        return Estimate(float(value), value - unlike * (value - bounds[0]), value + unlike * (bounds[1] - value), n)
    tail = (1 - confidence) / 2
    if expanded and n > 1:
        tail = float(stats.norm.cdf(np.sqrt(n / (n - 1)) * stats.t.ppf(tail, n - 1)))
    low, high = np.quantile(real, [tail, 1 - tail])
    return Estimate(float(value), float(low), float(high), n)


def bootstrap(
    units: ArrayLike,
    key: Key,
    *,
    statistic: Callable[[NDArray[Any]], Floats] | None = None,
    draws: int = 2000,
    bounds: tuple[float, float] | None = (0.0, 1.0),
    confidence: float = 0.95,
    expanded: bool = False,
) -> Estimate:
    """Percentile bootstrap over independent units (Efron 1979).

    Args:
        units: (n, ...) one entry an independent unit: give problems, not samples, where samples share a problem.
        key: randomness.
        statistic: takes (draws, n, ...) and returns (draws,); the mean over units where None.
        draws: resamples.
        bounds: lowest and highest value of the statistic, for samples without variation (`percentile_interval`).
        confidence: nominal coverage.
        expanded: for few units (`percentile_interval`).

    Returns:
        The statistic of the units as given, with its interval.

    Raises:
        ValueError: there is no unit.
    """
    values = np.asarray(units)
    if not len(values):
        raise ValueError("a bootstrap needs at least one unit")
    of = statistic or (lambda sample: sample.mean(axis=1))
    plain = statistic is None and values.ndim == 1
    drawn = resampled_means(values, draws, key) if plain else of(values[resamples(len(values), draws, key)])
    value = float(of(values[None])[0])
    return percentile_interval(value, drawn, len(values), bounds=bounds, confidence=confidence, expanded=expanded)


def known_mean(outcomes: ArrayLike, key: Key) -> Estimate:
    """Mean of (n,) outcomes in [0, 1] with its bootstrap interval, over the units whose outcome is known (not NaN).

    NaN over 0 units where none is: what could not be graded is neither right nor wrong.
    """
    values = np.asarray(outcomes, np.float64)
    known = values[~np.isnan(values)]
    return bootstrap(known, key) if known.size else Estimate(float("nan"), float("nan"), float("nan"), 0)


def crossed_mean(
    table: ArrayLike,
    key: Key,
    *,
    draws: int = 5000,
    bounds: tuple[float, float] | None = (-1.0, 1.0),
) -> Estimate:
    """Mean over two crossed kinds of units, such as training seeds and problems, with its 95 % bootstrap interval.

        drawn = mean of table[rows][:, columns],   rows and columns drawn with replacement, independently

    This is the pigeonhole bootstrap (Owen 2007, Annals of Applied Statistics 1(2)). K rows show at most (K - 1) / K of
    the variance between rows, so few of them make the interval too narrow.

    Args:
        table: (K, n). A column with a NaN is left out; the estimate is NaN where that leaves none.
        key: randomness.
        draws: resamples.
        bounds: lowest and highest value of one unit, for units that do not differ (`percentile_interval`).

    Raises:
        ValueError: the table is not two-dimensional or has no entry.
    """
    values = np.asarray(table, np.float64)
    if values.ndim != 2 or not values.size:
        raise ValueError(f"expected a table of at least one row and one column, got shape {values.shape}")
    values = values[:, ~np.isnan(values).any(axis=0)]
    count = values.shape[1]
    if not count:
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    # Means of each row over the drawn columns, (K, draws): rows are then drawn among these.
    by_row = values[:, resamples(count, draws, key.fold("columns"))].mean(axis=2)
    rows = resamples(len(values), draws, key.fold("rows"))
    drawn = by_row[rows.T, np.arange(draws)].mean(axis=0)
    return percentile_interval(float(values.mean()), drawn, count, bounds=bounds)


def paired_difference(
    first: ArrayLike,
    second: ArrayLike,
    key: Key,
    *,
    draws: int = 5000,
    bounds: tuple[float, float] | None = (-1.0, 1.0),
) -> Estimate:
    """Mean of `first - second` over paired units, with its 95 % bootstrap interval.

    Units in which one of the two is NaN (unknown) are left out; the estimate is NaN where that leaves none.

    Args:
        first: (n,) of one way.
        second: (n,) of the other, same units.
        key: randomness.
        draws: resamples.
        bounds: lowest and highest difference, for units that do not differ (`percentile_interval`).

    Raises:
        ValueError: the two differ in length or are empty.
    """
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if a.shape != b.shape:
        raise ValueError(f"paired units must match: got shapes {a.shape} and {b.shape}")
    known = ~np.isnan(a - b)
    if a.size and not known.any():
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    return bootstrap((a - b)[known], key, draws=draws, bounds=bounds)
