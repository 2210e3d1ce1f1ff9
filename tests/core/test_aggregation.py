"""Aggregates: hand-worked numbers, and what every member of the family must hold."""

from __future__ import annotations

import numpy as np
import pytest

from stepreward.core.catalog import aggregate
from stepreward.core.measure import aggregation
from stepreward.core.method import Method

SCORES = np.array([[0.5, 0.8, 0.0], [0.2, 0.9, 0.4], [0.7, 0.0, 0.0]])
MASK = np.array([[True, True, False], [True, True, True], [True, False, False]])


def test_hand_worked_numbers() -> None:
    assert aggregation.minimum(SCORES, MASK).tolist() == [0.5, 0.2, 0.7]
    assert aggregation.maximum(SCORES, MASK).tolist() == [0.8, 0.9, 0.7]
    assert aggregation.last(SCORES, MASK).tolist() == [0.8, 0.4, 0.7]
    np.testing.assert_allclose(aggregation.product(SCORES, MASK), [0.4, 0.072, 0.7])
    np.testing.assert_allclose(aggregation.mean(SCORES, MASK), [0.65, 0.5, 0.7])
    np.testing.assert_allclose(aggregation.total(SCORES, MASK), [1.3, 1.5, 0.7])
    np.testing.assert_allclose(aggregation.geometric_mean(SCORES, MASK), [0.4**0.5, 0.072 ** (1 / 3), 0.7])
    np.testing.assert_allclose(aggregation.log_odds(SCORES, MASK)[[0, 2]], [np.log(4), np.log(7 / 3)])
    weights = np.exp(-np.array([0.5, 0.8]))
    expected = (weights * [0.5, 0.8]).sum() / weights.sum()
    assert aggregation.soft_minimum(SCORES, MASK, temperature=1.0)[0] == pytest.approx(expected)


def test_limits_of_the_soft_minimum() -> None:
    np.testing.assert_allclose(aggregation.soft_minimum(SCORES, MASK, temperature=1e-4), [0.5, 0.2, 0.7])
    np.testing.assert_allclose(aggregation.soft_minimum(SCORES, MASK, temperature=1e5), [0.65, 0.5, 0.7], atol=1e-4)
    with pytest.raises(ValueError, match="positive"):
        aggregation.soft_minimum(SCORES, MASK, temperature=0)


@pytest.mark.parametrize("method", aggregate, ids=lambda m: m.name)
def test_the_contract_of_the_family(method: Method[..., np.ndarray]) -> None:
    before = SCORES.copy()
    totals = method(SCORES, MASK)
    np.testing.assert_array_equal(SCORES, before)
    wide = np.pad(SCORES, ((0, 0), (0, 2)), constant_values=9.0), np.pad(MASK, ((0, 0), (0, 2)))
    np.testing.assert_allclose(method(*wide), totals)
    padded = np.where(MASK, SCORES, np.nan)
    np.testing.assert_allclose(method(padded, MASK), totals)
    np.testing.assert_allclose(method(SCORES[::-1], MASK[::-1]), totals[::-1])
    np.testing.assert_allclose(method(SCORES.astype(np.float32), MASK), totals, rtol=1e-5)
    assert np.isnan(method(SCORES, np.zeros_like(MASK))).all()
    if method.name != "log-odds":
        assert totals[2] == pytest.approx(0.7)


def test_log_odds_of_certainty_are_finite_and_symmetric() -> None:
    totals = aggregation.log_odds(np.array([[1.0, 0.5], [0.0, 0.5]]), np.ones((2, 2), bool), floor=0.01)
    np.testing.assert_allclose(totals, [np.log(99), -np.log(99)])
