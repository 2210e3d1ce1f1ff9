"""Intervals cover at their nominal rate; paired tests agree with enumeration."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from scipy import stats

from stepreward.core.keys import Key
from stepreward.core.measure.statistics import (
    bootstrap,
    crossed_mean,
    known_mean,
    paired_difference,
    percentile_interval,
    proportion,
    resampled_means,
    resamples,
    wilson,
)

KEY = Key.seed(0)


@pytest.mark.parametrize(("k", "n"), [(0, 10), (3, 10), (10, 10), (50, 81)])
def test_wilson_equals_scipy(k: int, n: int) -> None:
    low, high = wilson([k], [n])
    expected = stats.binomtest(k, n).proportion_ci(method="wilson")
    assert (low[0], high[0]) == pytest.approx((expected.low, expected.high))


def test_wilson_without_trials_is_not_measured() -> None:
    assert np.isnan(wilson([0], [0])).all()
    assert np.isnan(proportion(0, 0).value)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_wilson_covers_exactly_computed_at_about_95_percent(p: float) -> None:
    """Mean coverage over n = 20..40 by summing the binomial law, not by simulation."""
    coverage = []
    for n in range(20, 41):
        low, high = wilson(np.arange(n + 1), np.full(n + 1, n))
        law = np.array([comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)])
        coverage.append(law[(low <= p) & (p <= high)].sum())
    assert np.mean(coverage) == pytest.approx(0.95, abs=0.02)


def test_means_of_samples_drawn_in_parts_are_those_of_all_at_once() -> None:
    values = np.arange(7.0)
    whole = values[resamples(7, 50, KEY)].mean(axis=1)
    for cells in (1, 20, 1 << 22):
        np.testing.assert_array_equal(resampled_means(values, 50, KEY, cells=cells), whole)


def test_bootstrap_covers_the_mean() -> None:
    """400 samples of 60 exponentials: coverage 95 % less the known shortfall for skew; standard error 1.1 %."""
    rng = np.random.default_rng(1)
    inside = 0
    for i in range(400):
        interval = bootstrap(rng.exponential(size=60), KEY.fold(i), draws=500)
        inside += interval.low <= 1.0 <= interval.high
    assert 0.89 <= inside / 400 <= 0.98


def test_bootstrap_is_keyed_and_takes_a_statistic() -> None:
    values = np.random.default_rng(0).normal(size=50)
    assert bootstrap(values, KEY) == bootstrap(values, KEY) != bootstrap(values, KEY.fold(1))
    assert bootstrap(values, KEY, statistic=lambda s: np.median(s, axis=1)).value == np.median(values)
    with pytest.raises(ValueError, match="at least one unit"):
        bootstrap([], KEY)


@pytest.mark.parametrize("n", [1, 3, 40])
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_units_that_all_agree_have_the_interval_of_wilson(share: float, n: int) -> None:
    """Three of three solved is no certainty: Wilson's 95 % interval of 3 of 3 begins at 3 / (3 + 1.96^2) = 0.4385."""
    made, (low, high) = bootstrap(np.full(n, share), KEY), wilson(share * n, n)
    np.testing.assert_allclose((made.low, made.high), (low, high), atol=1e-12)
    if (n, share) == (3, 1.0):
        assert made.low == pytest.approx(3 / (3 + 1.959964**2), abs=1e-6)


def test_differences_that_are_all_zero_reach_as_far_as_unseen_units_may() -> None:
    """Each unseen unit differs by at most 1, and at most the share z^2 / (n + z^2) of units is unseen."""
    most = 1.959964**2 / (20 + 1.959964**2)
    made = paired_difference(np.ones(20), np.ones(20), KEY)
    assert (made.value, made.low, made.high) == (0.0, pytest.approx(-most, abs=1e-6), pytest.approx(most, abs=1e-6))
    assert bootstrap(np.full(9, 412.0), KEY).low == 412.0  # tokens have no bounds to reach
    assert bootstrap(np.full(9, 0.5), KEY, bounds=None).low == 0.5
    assert percentile_interval(0.5, np.array([np.nan]), 4).to_json() == {
        "value": 0.5,
        "low": None,
        "high": None,
        "n": 4,
    }


def test_pairing_narrows_the_interval() -> None:
    rng = np.random.default_rng(0)
    hard = rng.normal(size=300)
    paired = paired_difference(hard + 0.1 + 0.01 * rng.normal(size=300), hard, KEY)
    assert 0.09 < paired.low < 0.1 < paired.high < 0.11
    with pytest.raises(ValueError, match="must match"):
        paired_difference([1, 2], [1], KEY)


def test_what_is_unknown_is_left_out_and_counted_neither_way() -> None:
    made = known_mean([1.0, np.nan, 0.0, 1.0, np.nan], KEY)
    assert (made.value, made.n) == (pytest.approx(2 / 3), 3)
    nothing = known_mean([np.nan], KEY)
    assert np.isnan(nothing.value)
    assert nothing.n == 0
    paired = paired_difference([1.0, np.nan, 1.0], [0.0, 1.0, 1.0], KEY)
    assert (paired.value, paired.n) == (0.5, 2)
    assert paired_difference([np.nan], [1.0], KEY).n == 0


def test_the_interval_over_crossed_units_holds_the_variance_of_both() -> None:
    rng = np.random.default_rng(2)
    rows, columns = rng.normal(0, 0.2, 40), rng.normal(0.3, 0.5, 400)
    made = crossed_mean(rows[:, None] + columns, KEY)
    # Of a sum of a row's and a column's part, the drawn means have variance var(rows) / 40 + var(columns) / 400.
    half = 1.96 * np.sqrt(rows.var() / 40 + columns.var() / 400)
    assert made.value == pytest.approx(rows.mean() + columns.mean())
    assert (made.high - made.low) / 2 == pytest.approx(half, rel=0.05)
    assert made.n == 400


def test_equal_rows_have_the_interval_of_one_and_unknown_columns_are_left_out() -> None:
    units = np.random.default_rng(3).random(200)
    one, three = bootstrap(units, KEY), crossed_mean([units] * 3, KEY)
    assert [three.low, three.high] == pytest.approx([one.low, one.high], abs=0.005)
    assert crossed_mean([[0.5, np.nan, 1.0], [0.5, 0.0, 0.0]], KEY).value == 0.5
    assert crossed_mean([[np.nan]], KEY).n == 0
    with pytest.raises(ValueError, match=r"got shape \(3,\)"):
        crossed_mean(np.zeros(3), KEY)
