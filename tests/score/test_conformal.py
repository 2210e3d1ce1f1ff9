"""Guarantees that hold for any score: by brute force, by their own definition, and by how often they fail."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression

from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.score.calibrate.calibrators import Calibrator
from stepreward.score.calibrate.conformal import Quantile, VennAbers, lower_bounds, select


def world(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Overconfident scores and sampled outcomes."""
    scores = expit(2 * rng.standard_normal(n))
    return scores, (rng.random(n) < expit(logit(scores) / 3)).astype(float)


def test_venn_abers_is_two_isotonic_fits_with_the_pair_added() -> None:
    rng = Key.seed(1).rng()
    scores, outcome = world(40, rng)
    scores = np.round(scores, 1)
    asked = np.array([0.0, 0.05, 0.3, 0.35, 1.0])
    low, high = VennAbers().fit(scores, outcome).interval(asked)
    for s, *both in zip(asked, low, high, strict=True):
        for y, found in zip((0.0, 1.0), both, strict=True):
            fit = IsotonicRegression(y_min=0, y_max=1).fit(np.r_[scores, s], np.r_[outcome, y])
            assert found == pytest.approx(fit.predict([s])[0], abs=1e-12)


def test_venn_abers_holds_the_truth_and_narrows_with_data() -> None:
    rng = Key.seed(2).rng()
    asked = np.linspace(0.1, 0.9, 9)
    width = []
    for n in (30, 300, 3000):
        low, high = VennAbers().fit(*world(n, rng)).interval(asked)
        assert (low <= high).all()
        assert (np.diff(low) >= 0).all()
        assert (np.diff(high) >= 0).all()
        width.append((high - low).mean())
    assert width[0] > 2 * width[1] > 4 * width[2]
    merged = VennAbers().fit(*world(3000, rng)).predict(asked)
    assert np.abs(merged - expit(logit(asked) / 3)).max() < 0.1


def test_venn_abers_is_saved_as_it_is() -> None:
    made = VennAbers().fit(*world(50, Key.seed(3).rng()))
    again = Calibrator.from_json(made.to_json())
    asked = np.array([0.2, np.nan, 0.9])
    np.testing.assert_array_equal(again.predict(asked), made.predict(asked))


@pytest.mark.sampled(3)
@pytest.mark.parametrize("level", [0.1, 0.5, 0.9])
def test_that_share_of_success_rates_lies_below_the_quantile(level: float) -> None:
    rng = Key.seed(4).rng()
    scores = rng.random(4000)
    rates = np.clip(0.2 + 0.6 * scores + 0.1 * rng.standard_normal(4000), 0, 1)
    below = (rates < Quantile(level=level).fit(scores, rates).predict(scores)).mean()
    assert abs(below - level) < 4 * np.sqrt(level * (1 - level) / 4000)


def test_a_falling_line_is_the_quantile_of_all() -> None:
    scores = np.linspace(0, 1, 101)
    made = Quantile(level=0.5).fit(scores, 1 - scores)
    assert np.ptp(made.predict(scores)) == 0
    assert made.predict([0.3])[0] == pytest.approx(0.5, abs=0.01)
    with pytest.raises(ValueError, match="level"):
        Quantile(level=1.0).fit(scores, scores)


def test_a_bound_fails_as_often_as_it_may() -> None:
    """Exactly ceil((n+1)(1-e))/(n+1) of the draws hold: 18/20 at n = 19 and e = 0.1."""
    rng = Key.seed(5).rng()
    rounds, held = 20_000, 0
    for _ in range(rounds):
        values = rng.random(20)
        scores = np.clip(values + 0.3 * rng.standard_normal(20), 0, 1) + 1e-9 * rng.random(20)
        held += values[-1] >= lower_bounds(scores[:-1], values[:-1], scores[-1:], error=0.1)[0]
    assert abs(held / rounds - 0.9) < 4 * np.sqrt(0.09 / rounds)


def test_too_little_data_bounds_nothing() -> None:
    assert lower_bounds([0.5], [0.5], [0.5], error=0.1)[0] == -np.inf
    assert lower_bounds([0.5] * 9, [0.25] * 9, [[0.5]], error=0.1).tolist() == [[0.25]]


@pytest.mark.parametrize("error", [0.1, 0.3])
def test_of_those_selected_at_most_so_many_are_wrong_on_average(error: float) -> None:
    rng = Key.seed(6).rng()
    wrong_share, right_share = [], []
    for _ in range(600):
        scores, outcome = world(250, rng)
        chosen = select(scores[:200], outcome[:200], scores[200:], error=error)
        right = outcome[200:] == 1
        wrong_share.append((chosen & ~right).sum() / max(chosen.sum(), 1))
        right_share.append((chosen & right).sum() / right.sum())
    slack = 4 * np.std(wrong_share) / np.sqrt(600)
    assert np.mean(wrong_share) <= error + slack
    assert error < 0.2 or np.mean(right_share) > 0.1, "it selects something"


def test_selection_by_hand() -> None:
    """Three wrong of nine: p = (1 + wrong at least as good) / 10 = 0.1, 0.2, 0.4; at 0.3 the two best pass."""
    scores, right = [0.1, 0.5, 0.9, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8], [0, 0, 0, 1, 1, 1, 1, 1, 1]
    assert select(scores, right, [0.95, 0.9, 0.05], error=0.3).tolist() == [True, True, False]
    assert select(scores, right, [0.95, 0.9, 0.05], error=0.2).tolist() == [False, False, False]
    assert select(scores, right, [], error=0.2).tolist() == []


def test_errors_say_what_came() -> None:
    with pytest.raises(InputError, match="2 scores and 1 outcomes"):
        select([0.1, 0.2], [1], [0.5])
    with pytest.raises(InputError, match="nothing to calibrate on"):
        lower_bounds([np.nan], [1.0], [0.5])
    with pytest.raises(ValueError, match="error must be in"):
        select([0.1], [1], [0.5], error=0.0)


def test_a_solution_without_a_score_is_never_selected() -> None:
    # Of 40 calibrated on the 20 wrong ones score at most 0.19: 0.9 has p = 1/41, and NaN must not sort above it.
    scores = np.concatenate([np.arange(20) / 100, 0.8 + np.arange(20) / 100])
    outcome = np.concatenate([np.zeros(20), np.ones(20)])
    assert select(scores, outcome, [0.9, np.nan, 0.95], error=0.2).tolist() == [True, False, True]
