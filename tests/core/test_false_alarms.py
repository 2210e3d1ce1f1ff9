"""Bounds of false alarms: exact over every order of the problems, at any time, and by simulation."""

from __future__ import annotations

from math import ceil, floor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.measure.false_alarms import AlarmBound, ExchangeabilityTest, Guarantee, run_maxima
from stepreward.core.measure.statistics import wilson

PROBLEMS = st.lists(st.lists(st.integers(-3, 3), min_size=1, max_size=4), min_size=2, max_size=12)
"""Maxima of the good runs of each problem; whole numbers, so that many are equal."""


def bound_of(problems: list[list[int]], without: int = -1) -> AlarmBound:
    pairs = [(m, k) for k, runs in enumerate(problems) if k != without for m in runs]
    return AlarmBound([float(m) for m, _ in pairs], [k for _, k in pairs])


@given(PROBLEMS, st.floats(0.01, 0.99))
def test_of_any_problems_each_as_the_new_one_few_are_alarmed_of(problems: list[list[int]], alpha: float) -> None:
    # Exchangeable problems come in each order equally often: the mean over which is the new one is the chance itself.
    rates = [np.mean(bound_of(problems, k).alarming(runs, alpha)) for k, runs in enumerate(problems)]
    assert np.mean(rates) <= alpha + 1e-9


@given(PROBLEMS, st.floats(0.1, 10))
def test_of_any_problems_the_evidence_is_one_in_expectation(problems: list[list[int]], tilt: float) -> None:
    mean = np.mean([np.mean(bound_of(problems, k).e_values(runs, tilt)) for k, runs in enumerate(problems)])
    assert mean <= 1 + 1e-9
    if all(len(runs) == 1 for runs in problems):
        assert mean == pytest.approx(1)


@given(PROBLEMS, st.floats(0.01, 0.99), st.floats(-4, 4))
def test_an_alarm_is_a_value_above_the_level(problems: list[list[int]], alpha: float, value: float) -> None:
    bound = bound_of(problems)
    assert bool(bound.alarming(value, alpha)) == (value > bound.level(alpha))


@given(PROBLEMS, st.lists(st.floats(-4, 4), min_size=1, max_size=5))
def test_p_values_and_evidence_are_those_of_slow_loops(problems: list[list[int]], values: list[float]) -> None:
    bound = bound_of(problems)
    for value, p, e in zip(values, bound.p_values(values), bound.e_values(values, 0.5), strict=True):
        shares = [sum(m >= value for m in runs) / len(runs) for runs in problems]
        assert p == pytest.approx((1 + sum(shares)) / (len(problems) + 1))
        weights = [np.mean([np.exp(m / 2) for m in runs]) for runs in problems]
        own = np.exp(value / 2)
        assert e == pytest.approx((len(problems) + 1) * own / (own + sum(weights)))


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.25, 0.5])
@pytest.mark.parametrize("count", [8, 19, 50])
def test_with_one_run_a_problem_the_level_is_split_conformal_s(count: int, alpha: float) -> None:
    maxima = Key.seed(count).rng().normal(size=count)
    rank = ceil((count + 1) * (1 - alpha) - 1e-9)
    expected = np.sort(maxima)[rank - 1] if rank <= count else np.inf
    assert AlarmBound(maxima, np.arange(count)).level(alpha) == expected


def test_too_few_problems_never_raise_an_alarm() -> None:
    bound = AlarmBound(np.arange(8.0), np.arange(8))
    assert bound.level(0.1) == np.inf
    assert not bound.alarming(1e9, 0.1)
    assert bound.alarming(1e9, 1 / 9)
    assert bound.e_values(1e9) == pytest.approx(9)


def test_a_run_that_was_not_looked_at_is_no_evidence() -> None:
    bound = AlarmBound([-np.inf, -np.inf, 1.0], [0, 1, 2])
    assert bound.e_values(-np.inf) == 0
    assert bound.p_values(-np.inf) == 1
    assert bound.p_values(0.0) == pytest.approx(2 / 4)
    assert run_maxima(np.array([np.nan, 3.0, 1.0, np.nan]), np.array([0, 3, 3, 4])).tolist() == [3, -np.inf, -np.inf]


SIDE = 19
"""Problems that simulations calibrate on."""


def simulated(rng: np.random.Generator, problems: int) -> list[list[np.ndarray]]:
    """Random walks of random length; runs of a problem share its drift and its length, one to four of them."""
    made = []
    for _ in range(problems):
        drift, length = rng.normal(), rng.integers(1, 30)
        made.append([np.cumsum(rng.normal(drift, 1, length)) for _ in range(rng.integers(1, 5))])
    return made


@pytest.mark.parametrize("guarantee", ["p-value", "e-value", "confidence"])
def test_a_good_run_is_ever_stopped_with_a_chance_of_at_most_alpha(guarantee: Guarantee) -> None:
    alpha, rounds, rng = 0.1, 600, Key.seed(3).rng()
    stopped = naive = 0
    for _ in range(rounds):
        *old, new = simulated(rng, SIDE + 1)
        runs = [(run, k) for k, some in enumerate(old) for run in some]
        values = np.concatenate([run for run, _ in runs])
        offsets = np.cumsum([0, *(len(run) for run, _ in runs)])
        bound = AlarmBound(run_maxima(values, offsets), [k for _, k in runs])
        watched = new[rng.integers(len(new))]
        # Turn by turn, as an agent is watched: the verdict may come at any of them.
        stopped += bool(bound.alarming(np.maximum.accumulate(watched), alpha, guarantee).any())
        naive += bool((watched > np.quantile(values, 1 - alpha)).any())
    low, high = wilson(stopped, rounds)
    assert low <= alpha
    if guarantee == "p-value":
        assert high >= floor(alpha * (SIDE + 1)) / (SIDE + 1) * 0.8, "the rate is used, not only kept"
    # A level for single turns does not hold for runs: this is what the maxima are for.
    assert wilson(naive, rounds)[0] > alpha


def test_evidence_may_be_read_at_a_rate_chosen_after_the_run() -> None:
    # Who looks at E first, and then states the lowest of these rates at which it is an alarm, claims 1 / rate.
    rng, rounds = Key.seed(4).rng(), 1000
    claims = []
    for _ in range(rounds):
        values = rng.exponential(size=SIDE + 1)
        e = float(AlarmBound(values[:-1], np.arange(SIDE)).e_values(values[-1], 4.0))
        rate = next((rate for rate in (0.05, 0.1, 0.25, 0.5) if e >= 1 / rate), None)
        claims.append(0.0 if rate is None else 1 / rate)
    assert np.mean(claims) - 2 * np.std(claims) / np.sqrt(rounds) <= 1


def test_the_martingale_is_rarely_large_where_values_are_exchangeable() -> None:
    rng, rounds, large = Key.seed(5).rng(), 150, 0
    for at in range(rounds):
        test = ExchangeabilityTest(Key.seed(at))
        for value in rng.integers(0, 5, size=30):  # many are equal
            test.after(float(value))
        large += test.largest >= 4
    assert wilson(large, rounds)[0] <= 1 / 4
    assert large > 0


def test_the_martingale_grows_where_values_rise() -> None:
    rng, test = Key.seed(6).rng(), ExchangeabilityTest(Key.seed(0))
    for value in [*rng.normal(size=60), *rng.normal(2.0, 1, size=40)]:
        test.after(float(value))
    assert test.largest > 1000


def test_the_martingale_s_first_step_is_the_bets_on_one_uniform_number() -> None:
    test = ExchangeabilityTest(Key.seed(7))
    p = 1 - Key.seed(7).rng().random()
    powers = np.array([0.1, 0.25, 0.5, 0.75, 1.0])
    assert test.after(0.3) == pytest.approx(np.mean(powers * p ** (powers - 1)))


@pytest.mark.parametrize(
    ("maxima", "problem", "said"),
    [([], [], "no good run"), ([1.0], [0, 1], "one problem a run"), ([np.nan], [0], "NaN")],
)
def test_what_is_no_calibration_is_refused(maxima: list[float], problem: list[int], said: str) -> None:
    with pytest.raises(InputError, match=said):
        AlarmBound(maxima, problem)


def test_rates_out_of_range_are_refused() -> None:
    bound = AlarmBound([1.0], [0])
    for alpha in (0.0, 1.0):
        with pytest.raises(ValueError, match="must be in"):
            bound.level(alpha)
    with pytest.raises(ValueError, match="tilt"):
        bound.e_values(1.0, 0.0)
    with pytest.raises(InputError, match="guarantee"):
        bound.rates(1.0, "luck")  # type: ignore[arg-type]


def test_an_upper_rate_is_clopper_and_pearson_s() -> None:
    bound = AlarmBound(np.arange(20.0), np.arange(20))
    # Of 20, none and three come above 19 and 16.5: at these rates that few come with a chance of one in ten.
    none, three = bound.upper_rates([19.5, 16.5], 0.9)
    assert (1 - none) ** 20 == pytest.approx(0.1)
    assert stats.binom.cdf(3, 20, three) == pytest.approx(0.1)
    assert bound.upper_rates(-1.0) == 1
    # As many copies of each run say no more, and Chernoff's bound is above the exact one.
    twice = AlarmBound(np.repeat(np.arange(20.0), 2), np.repeat(np.arange(20), 2)).upper_rates([19.5, 16.5], 0.9)
    assert none <= twice[0] <= none + 0.01
    assert three < twice[1] < three + 0.1
    assert (1 - twice[0]) ** 20 == pytest.approx(0.1)


@given(PROBLEMS, st.floats(0.05, 0.95))
def test_upper_rates_fall_as_maxima_rise(problems: list[list[int]], confidence: float) -> None:
    rates = bound_of(problems).upper_rates(np.linspace(-4, 4, 17), confidence)
    assert (np.diff(rates) <= 1e-12).all()
    assert ((rates >= 0) & (rates <= 1)).all()


@pytest.mark.parametrize("runs", [1, 3])
def test_few_calibrations_have_a_rate_above_alpha(runs: int) -> None:
    # Runs of a problem share its level: the rate of a threshold c is the chance that a normal number is above it.
    alpha, confidence, rounds, rng = 0.2, 0.8, 400, Key.seed(8).rng()
    above = {"confidence": 0, "p-value": 0}
    for _ in range(rounds):
        maxima = (rng.normal(size=(40, 1)) + rng.normal(size=(40, runs))).ravel() / np.sqrt(2)
        bound = AlarmBound(maxima, np.repeat(np.arange(40), runs))
        for guarantee in above:
            alarmed = np.sort(maxima)[bound.alarming(np.sort(maxima), alpha, guarantee, confidence)]  # type: ignore[arg-type]
            # Alarms begin just above the highest maximum that raises none.
            level = np.sort(maxima)[-len(alarmed) - 1]
            above[guarantee] += bool(stats.norm.sf(level) > alpha)
    assert wilson(above["confidence"], rounds)[0] <= 1 - confidence
    assert above["confidence"] > 0 or runs > 1, "exact with one run a problem"
    assert wilson(above["p-value"], rounds)[0] > 1 - confidence, "on average is less than for each"
    with pytest.raises(ValueError, match="confidence"):
        bound.upper_rates(1.0, 1.0)
