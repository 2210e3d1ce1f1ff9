"""Calibrators: known maps recovered, optima by brute force, limits, what rises stays rising, and held-out gains."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit, logit
from sklearn.base import clone
from tests.effort import scaled

from stepreward.core.catalog import calibrate
from stepreward.core.errors import InputError, ModelError, UnknownNameError
from stepreward.core.keys import Key
from stepreward.core.measure.step_metrics import brier, expected_calibration_error
from stepreward.core.method import Method
from stepreward.score.calibrate.calibrators import Beta, Calibrator, Histogram, Identity, Isotonic, Platt, Temperature

each = pytest.mark.parametrize("method", calibrate, ids=lambda m: m.name)
fitted_shape = pytest.mark.parametrize("method", [m for m in calibrate if m.name != "identity"], ids=lambda m: m.name)
unbiased = pytest.mark.parametrize(
    "method", [m for m in calibrate if m.name != "identity" and m().unbiased], ids=lambda m: m.name
)
Some = Method[..., Calibrator]


def nll(z: np.ndarray, y: np.ndarray) -> float:
    """Negative log-likelihood of logits."""
    return float(np.mean(y * np.logaddexp(0, -z) + (1 - y) * np.logaddexp(0, z)))


def world(n: int, key: Key, *, temperature: float = 1.0, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Scores whose true chance is sigmoid(logit(s) / T + shift), with sampled outcomes."""
    rng = key.rng()
    scores = expit(2.5 * rng.standard_normal(n))
    return scores, (rng.random(n) < expit(logit(scores) / temperature + shift)).astype(float)


def test_the_family_has_its_members() -> None:
    names = ["identity", "temperature", "platt", "beta", "isotonic", "histogram", "venn-abers", "quantile"]
    assert [m.name for m in calibrate] == names


# Oracles


@pytest.mark.parametrize("true", [0.5, 1.0, 3.0])
def test_temperature_recovers_the_one_that_outcomes_were_drawn_with(true: float) -> None:
    scores, outcome = world(20_000, Key.seed(1), temperature=true)
    found = Temperature().fit(scores, outcome).temperature_
    # Fisher information of the slope b = 1/T is sum z^2 q (1 - q); four standard errors of b, as the seed is fixed.
    z = logit(scores)
    q = expit(z / true)
    error = 1 / np.sqrt(np.sum(z**2 * q * (1 - q)))
    assert abs(1 / found - 1 / true) < 4 * error < 0.1 / true


def test_temperature_is_the_best_on_a_fine_grid() -> None:
    scores, outcome = world(300, Key.seed(2), temperature=2.0)
    grid = np.geomspace(0.1, 10, 20_001)
    losses = [nll(logit(scores) / t, outcome) for t in grid]
    assert Temperature().fit(scores, outcome).temperature_ == pytest.approx(grid[np.argmin(losses)], rel=5e-4)


def test_platt_is_the_optimum_that_another_solver_finds() -> None:
    scores, outcome = world(400, Key.seed(3), temperature=2.0, shift=-1.0)
    right, wrong = outcome.sum(), (1 - outcome).sum()
    target = np.where(outcome == 1, (right + 1) / (right + 2), 1 / (wrong + 2))
    z = logit(scores)
    slow = minimize(
        lambda t: nll(t[0] * z + t[1], target), [0.3, 0.3], method="Nelder-Mead",
        options={"xatol": 1e-10, "fatol": 1e-16, "maxiter": 5000},
    )  # fmt: skip
    found = Platt().fit(scores, outcome)
    np.testing.assert_allclose([found.slope_, found.shift_], slow.x, rtol=1e-5)


def test_platts_targets_by_hand() -> None:
    # Two distinct scores and two parameters: each score's probability is the mean of its targets.
    # N+ = 3, N- = 2: a success aims at 4/5, a failure at 1/4. At 0.2: (1/4 + 4/5)/2; at 0.7: (4/5 + 4/5 + 1/4)/3.
    found = Platt().fit([0.2, 0.2, 0.7, 0.7, 0.7], [0, 1, 1, 1, 0]).predict([0.2, 0.7])
    np.testing.assert_allclose(found, [0.525, 1.85 / 3], atol=1e-7)


def test_beta_is_the_optimum_that_another_solver_finds() -> None:
    scores, outcome = world(400, Key.seed(4), shift=1.0)
    right, wrong = outcome.sum(), (1 - outcome).sum()
    target = np.where(outcome == 1, (right + 1) / (right + 2), 1 / (wrong + 2))
    slow = minimize(
        lambda t: nll(t[0] * np.log(scores) - t[1] * np.log1p(-scores) + t[2], target), [0.5, 0.5, 0.5],
        method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-16, "maxiter": 20_000, "maxfev": 20_000},
    )  # fmt: skip
    found = Beta().fit(scores, outcome)
    assert slow.x[:2].min() > 0
    np.testing.assert_allclose([found.low_, found.high_, found.shift_], slow.x, rtol=1e-4)


def test_beta_recovers_scores_that_are_beta_distributed() -> None:
    # s | y=1 ~ Beta(4, 2) and s | y=0 ~ Beta(2, 3), equally often: the posterior log odds are, by Bayes,
    # (4 - 2) ln s + (2 - 3) ln(1 - s) + ln B(2, 3) - ln B(4, 2), with B(2, 3) = 1/12 and B(4, 2) = 1/20.
    rng, n = Key.seed(5).rng(), 100_000
    scores, outcome = np.r_[rng.beta(4, 2, n), rng.beta(2, 3, n)], np.repeat([1.0, 0.0], n)
    found = Beta().fit(scores, outcome)
    # Standard errors here are about 0.015; five of them.
    np.testing.assert_allclose([found.low_, found.high_, found.shift_], [2.0, 1.0, np.log(20 / 12)], atol=0.075)


@pytest.mark.parametrize("seed", range(5))
def test_isotonic_is_the_best_of_all_rising_functions(seed: int) -> None:
    rng = Key.seed(seed).fold("isotonic").rng()
    scores, outcome, weights = rng.permutation(np.arange(1, 7) / 7), rng.integers(0, 2, 6), rng.integers(1, 4, 6)
    found = Isotonic().fit(scores, outcome, weights).predict(scores)
    order = np.argsort(scores)
    # A best rising function is constant on blocks with the block's mean: try all 32 ways to cut six points in blocks.
    best, least = None, np.inf
    for cuts in itertools.product([False, True], repeat=5):
        block = np.r_[0, np.cumsum(cuts)]
        mean = np.array([np.average(outcome[order][block == b], weights=weights[order][block == b]) for b in block])
        error = float(weights[order] @ (outcome[order] - mean) ** 2)
        if (np.diff(mean) >= 0).all() and error < least - 1e-12:
            best, least = mean, error
    np.testing.assert_allclose(found[order], best, atol=1e-9)


def test_isotonic_between_and_outside_what_it_has_seen() -> None:
    # 0.3 and 0.4 go down, so they pool to 1/2; between 0.4 and 0.8 it rises in a line to 1.
    found = Isotonic().fit([0.2, 0.3, 0.4, 0.8], [0, 1, 0, 1])
    np.testing.assert_allclose(found.predict([0.0, 0.2, 0.3, 0.35, 0.4, 0.6, 0.8, 1.0]),
                               [0.0, 0.0, 0.5, 0.5, 0.5, 0.75, 1.0, 1.0])  # fmt: skip


def test_histogram_by_hand() -> None:
    # Two bins of mass 3: {0.1, 0.1, 0.2} with one success, {0.6, 0.7, 0.9} with two; a score belongs to the bin that
    # begins at or below it.
    found = Histogram(bins=2).fit([0.7, 0.1, 0.6, 0.1, 0.2, 0.9], [1, 0, 0, 0, 1, 1])
    np.testing.assert_allclose(found.predict([0.0, 0.2, 0.59, 0.6, 1.0]), [1 / 3, 1 / 3, 1 / 3, 2 / 3, 2 / 3])
    # Equal scores are never parted: with four of five pairs at 0.5 there are two bins, not five.
    for bins in (2, 5):
        tied = Histogram(bins=bins).fit([0.5, 0.5, 0.5, 0.5, 0.9], [0, 1, 0, 0, 1])
        np.testing.assert_allclose(tied.predict([0.5, 0.9]), [0.25, 1.0])
    assert Histogram(bins=1).fit([0.1, 0.5, 0.9], [0, 1, 1]).predict(0.5) == pytest.approx(2 / 3)


# Limits


@each
def test_all_outcomes_equal_and_one_score(method: Some) -> None:
    rng = Key.seed(6).rng()
    scores = rng.uniform(0.05, 0.95, 50)
    for outcome in (0.0, 1.0):
        made = method().fit(scores, np.full(50, outcome)).predict(scores)
        assert ((made >= 0) & (made <= 1)).all()
        if method.name in ("platt", "beta"):
            # (N + 1) / (N + 2) of Platt's targets, for every score
            np.testing.assert_allclose(made, 51 / 52 if outcome else 1 / 52, atol=1e-4)
        if method.name in ("isotonic", "histogram"):
            np.testing.assert_allclose(made, outcome)
    one = method().fit([0.3, 0.3, 0.3, 0.3], [1, 1, 1, 0]).predict([0.3])
    # T and the identity cannot move 0.3 across 1/2; three of four, with smoothed targets (3 * 4/5 + 1/3) / 4.
    expected = {"identity": 0.3, "temperature": expit(logit(0.3) / 100), "isotonic": 0.75, "histogram": 0.75}
    # p_0 = 3/5 and p_1 = 4/5 with the pair added
    expected["venn-abers"] = 0.8 / (1 - 0.6 + 0.8)
    # The lower decile of 0, 1, 1, 1.
    expected["quantile"] = 0.0
    assert one[0] == pytest.approx(expected.get(method.name, (3 * 0.8 + 1 / 3) / 4), abs=1e-6)


@pytest.mark.parametrize("kind", [Platt, Beta])
def test_one_score_leaves_the_order_of_others(kind: type[Calibrator]) -> None:
    made = kind().fit([0.3, 0.3], [1, 0]).predict([0.1, 0.3, 0.9])
    assert made[0] < made[1] < made[2]


def test_temperature_where_the_scores_say_nothing_or_everything() -> None:
    assert Temperature().fit([0.5, 0.5], [1, 0]).temperature_ == 1.0
    apart = Temperature().fit([0.1, 0.9], [0, 1])
    assert 0.01 <= apart.temperature_ < 0.1
    np.testing.assert_allclose(apart.predict([0.1, 0.9]), [0, 1], atol=1e-9)
    assert Temperature().fit([0.1, 0.9], [1, 0]).temperature_ == pytest.approx(100.0)


@pytest.mark.parametrize("kind", [Platt, Beta, Isotonic])
def test_scores_that_rank_the_wrong_way_round_give_the_base_rate(kind: type[Calibrator]) -> None:
    made = kind().fit([0.1, 0.2, 0.8, 0.9], [1, 1, 0, 0]).predict([0.0, 0.1, 0.5, 0.9, 1.0])
    np.testing.assert_allclose(made, 0.5, atol=1e-6)


@each
def test_extreme_scores_are_finite(method: Some) -> None:
    made = method().fit([0.0, 1.0, 0.0, 1.0, 1e-300], [0, 1, 1, 0, 0]).predict([0.0, 1.0, 5e-324, 0.5])
    assert np.isfinite(made).all()


@each
def test_not_measured_is_left_out_and_stays_not_measured(method: Some) -> None:
    scores, outcome = world(200, Key.seed(7), temperature=2.0)
    clean = method().fit(scores, outcome).predict(scores)
    nan = float("nan")
    gaps = method().fit(np.r_[scores, nan, 0.99, nan], np.r_[outcome, 1.0, nan, nan])
    np.testing.assert_allclose(gaps.predict(scores), clean, atol=1e-12)
    shaped = gaps.predict(np.r_[scores[:3], nan].reshape(2, 2))
    assert shaped.shape == (2, 2)
    assert np.isnan(shaped).tolist() == [[False, False], [False, True]]


@each
def test_a_weight_counts_a_pair_so_many_times(method: Some) -> None:
    scores, outcome = world(60, Key.seed(8), shift=0.5)
    weights = Key.seed(9).rng().integers(0, 4, 60)
    weighted = method().fit(scores, outcome, weights).predict(scores)
    repeated = method().fit(np.repeat(scores, weights), np.repeat(outcome, weights)).predict(scores)
    np.testing.assert_allclose(weighted, repeated, atol=1e-5)
    one = method().fit([0.4, 0.4], [1, 0], [3, 1]).predict([0.4])
    np.testing.assert_allclose(one, method().fit([0.4] * 4, [1, 1, 1, 0]).predict([0.4]), atol=1e-6)


@pytest.mark.parametrize("kind", [Temperature, Isotonic, Histogram])
def test_a_soft_outcome_is_that_many_of_each(kind: type[Calibrator]) -> None:
    soft = kind().fit([0.2, 0.6, 0.8], [0.25, 0.5, 1.0]).predict([0.2, 0.6, 0.8])
    scores = np.repeat([0.2, 0.6, 0.8], 4)
    hard = kind().fit(scores, [1, 0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 1]).predict([0.2, 0.6, 0.8])
    np.testing.assert_allclose(soft, hard, atol=1e-6)


# Errors


@each
def test_errors_say_what_came_and_what_to_do(method: Some) -> None:
    with pytest.raises(InputError, match=r"every score must be in \[0, 1\] or NaN, got -2.5; .*sigmoid"):
        method().fit([0.5, -2.5], [1, 0])
    with pytest.raises(InputError, match=r"every outcome must be in \[0, 1\] or NaN, got 2"):
        method().fit([0.5, 0.5], [1, 2])
    with pytest.raises(InputError, match=r"got inf"):
        method().fit([0.5, np.inf], [1, 0])
    with pytest.raises(InputError, match=r"shapes \(2,\), \(1,\) and \(2,\)"):
        method().fit([0.5, 0.5], [1])
    with pytest.raises(InputError, match=r"nothing to calibrate on: 2 pairs"):
        method().fit([0.5, np.nan], [np.nan, 1])
    with pytest.raises(InputError, match="nothing to calibrate on: 0 pairs"):
        method().fit([], [])
    with pytest.raises(InputError, match="not negative, got -1"):
        method().fit([0.5, 0.5], [1, 0], [1, -1])
    with pytest.raises(InputError, match=r"got 1\.5"):
        method().fit([0.4, 0.5], [1, 0]).predict([1.5])


@fitted_shape
def test_not_fitted(method: Some) -> None:
    with pytest.raises(ModelError, match="is not fitted"):
        method().predict([0.5])
    with pytest.raises(ModelError, match="cannot be saved"):
        method().to_json()


@pytest.mark.parametrize("kind", [Temperature, Platt, Beta])
@pytest.mark.parametrize("floor", [0.0, 0.5, -1.0])
def test_floor_out_of_range(kind: type[Any], floor: float) -> None:
    with pytest.raises(ValueError, match="floor must be in"):
        kind(floor=floor).fit([0.2, 0.5], [1, 0])
    with pytest.raises(ValueError, match="bins must be at least 1"):
        Histogram(bins=0).fit([0.5], [1])


# Properties


pairs = st.lists(
    st.tuples(st.floats(0, 1), st.sampled_from([0.0, 1.0]), st.integers(1, 3)), min_size=1, max_size=12
)  # fmt: skip


@each
@settings(max_examples=scaled(40), deadline=None)
@given(pairs=pairs, asked=st.lists(st.floats(0, 1), min_size=2, max_size=8))
def test_probabilities_that_keep_the_order_of_scores(method: Some, pairs: list[Any], asked: list[float]) -> None:
    scores, outcome, weights = (np.array(column) for column in zip(*pairs, strict=True))
    made = method().fit(scores, outcome, weights)
    found = made.predict(np.sort(asked))
    assert ((found >= 0) & (found <= 1)).all()
    if made.monotone:
        assert (np.diff(found) >= -1e-12).all()


@fitted_shape
def test_inputs_are_untouched_and_the_order_of_pairs_does_not_matter(method: Some) -> None:
    scores, outcome = world(80, Key.seed(10))
    before = scores.copy(), outcome.copy()
    made = method().fit(scores, outcome).predict(scores)
    np.testing.assert_array_equal(scores, before[0])
    np.testing.assert_array_equal(outcome, before[1])
    order = Key.seed(11).rng().permutation(80)
    np.testing.assert_allclose(method().fit(scores[order], outcome[order]).predict(scores), made, atol=1e-6)
    rounded = scores.astype(np.float32)
    np.testing.assert_allclose(method().fit(rounded, outcome).predict(rounded), made, atol=1e-4)
    grid = method().fit(scores.reshape(8, 10), outcome.reshape(8, 10)).predict(scores.reshape(8, 10))
    np.testing.assert_array_equal(grid.ravel(), made)


@each
def test_json_gives_the_same_calibrator_back(method: Some) -> None:
    scores, outcome = world(100, Key.seed(12), temperature=3.0)
    made = method().fit(scores, outcome)
    text = json.dumps(made.to_json(), allow_nan=False)
    back = Calibrator.from_json(json.loads(text))
    assert type(back) is type(made)
    assert back.get_params() == made.get_params()
    np.testing.assert_array_equal(back.predict(scores), made.predict(scores))


def test_json_that_is_none_of_ours() -> None:
    row = Platt(floor=1e-3).fit([0.2, 0.8, 0.5], [0, 1, 1]).to_json()
    assert row["settings"] == {"floor": 1e-3}
    with pytest.raises(UnknownNameError, match="did you mean platt"):
        Calibrator.from_json({**row, "method": "plat"})
    for broken, words in (
        ({"method": "platt"}, "a saved calibrator has version, method"),
        ({**row, "version": 9}, "version 9"),
        ({**row, "learned": {"slope_": 1.0}}, "platt learns slope_, shift_; got slope_"),
        ({**row, "learned": {"slope_": "steep", "shift_": 0}}, "wrong values"),
        ({**row, "settings": {"ceiling": 1}}, "wrong values"),
    ):
        with pytest.raises(InputError, match=words):
            Calibrator.from_json(broken)
    with pytest.raises(ModelError, match=r"calibrate\.method"):
        type("Mine", (Identity,), {})().fit([0.5], [1]).to_json()


@each
def test_the_scikit_learn_contract(method: Some) -> None:
    made = method()
    assert made.get_params() == method.settings
    copy = clone(made.fit([0.2, 0.8], [0, 1]))
    assert type(copy) is type(made)
    assert not any(hasattr(copy, name) for name in copy.learned)
    assert made.fit([0.2, 0.8], [0, 1]) is made


# What they are for


@pytest.mark.sampled(4)
@unbiased
def test_held_out_scores_are_better_calibrated(method: Some) -> None:
    # Over-confident by T = 3: logits are three times too large. 4000 pairs to fit, 4000 to measure.
    scores, outcome = world(8000, Key.seed(13), temperature=3.0)
    fit, held = slice(0, 4000), slice(4000, None)
    made = method().fit(scores[fit], outcome[fit]).predict(scores[held])
    before, after = brier(scores[held], outcome[held]), brier(made, outcome[held])
    # The truth itself has the least possible Brier score; every calibrator is within 0.004 of it here.
    least = brier(expit(logit(scores[held]) / 3), outcome[held])
    assert before - least > 0.02
    assert after - least < 0.004
    assert expected_calibration_error(made, outcome[held]) < 0.4 * expected_calibration_error(
        scores[held], outcome[held]
    )


def test_a_temperature_cannot_cure_a_shift_and_platt_can() -> None:
    scores, outcome = world(8000, Key.seed(14), shift=2.0)
    fit, held = slice(0, 4000), slice(4000, None)
    gaps = {
        kind: expected_calibration_error(kind().fit(scores[fit], outcome[fit]).predict(scores[held]), outcome[held])
        for kind in (Temperature, Platt, Beta)
    }
    assert gaps[Temperature] > 0.1
    assert max(gaps[Platt], gaps[Beta]) < 0.03
