"""Accuracy against cost and bounds of choice: enumeration, hand-worked fronts, literal loops."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.effort import scaled

from stepreward.core.keys import Key
from stepreward.evaluate.measures.attempts import all_at_k, pass_at_k
from stepreward.evaluate.measures.costs import Spending, accuracy_against_cost, pareto
from stepreward.report.cost_table import cost_plot
from stepreward.report.svg import Series

KEY = Key.seed(0)


@given(outcomes=st.lists(st.booleans(), min_size=1, max_size=7), k=st.integers(1, 7))
def test_bounds_are_shares_of_all_subsets(outcomes: list[bool], k: int) -> None:
    if k > len(outcomes):
        with pytest.raises(ValueError, match="k must be between 1"):
            pass_at_k(sum(outcomes), len(outcomes), k)
        return
    subsets = list(combinations(outcomes, k))
    assert pass_at_k(sum(outcomes), len(outcomes), k) == pytest.approx(np.mean([any(s) for s in subsets]), abs=1e-12)
    assert all_at_k(sum(outcomes), len(outcomes), k) == pytest.approx(np.mean([all(s) for s in subsets]), abs=1e-12)


def test_bounds_of_many_problems_and_large_numbers() -> None:
    # As the authors' code multiplies it out: 1 - prod_{i = n - c + 1}^{n} (1 - k / i).
    n, k = 1000, 100
    for c in (0, 1, 37, 950, 1000):
        plain = 1.0 if n - c < k else 1 - float(np.prod(1 - k / np.arange(n - c + 1, n + 1)))
        assert pass_at_k(c, n, k) == pytest.approx(plain, abs=1e-12)
    np.testing.assert_allclose(pass_at_k([0, 1, 2], [2, 2, 2], 1), [0, 0.5, 1])
    with pytest.raises(ValueError, match="between 0 and the samples"):
        pass_at_k(3, 2, 1)


def test_a_front_worked_out() -> None:
    #            cheap and bad, dearer and better, dearer and worse, as dear as the second and as good
    cost, accuracy = np.array([1.0, 2.0, 3.0, 2.0]), np.array([0.5, 0.7, 0.6, 0.7])
    assert pareto(cost, accuracy).tolist() == [True, True, False, True]


@given(points=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=8))
def test_a_front_is_what_no_point_dominates(points: list[tuple[int, int]]) -> None:
    found = pareto(np.array([float(c) for c, _ in points]), np.array([float(a) for _, a in points]))
    for (c, a), on_front in zip(points, found, strict=True):
        dominated = any(c2 <= c and a2 >= a and (c2, a2) != (c, a) for c2, a2 in points)
        assert on_front == (not dominated)


def spent(name: str, budget: float, correct: list[float], cost: list[float]) -> Spending:
    return Spending(name, budget, np.array(correct), np.array(cost))


def test_gains_at_equal_cost_worked_out() -> None:
    made = accuracy_against_cost(
        [
            spent("beam", 4, [1, 1, 1, 0], [3, 3, 3, 3]),
            spent("vote", 8, [1, 1, 0, 0], [4, 4, 4, 4]),
            spent("vote", 2, [1, 0, 0, 0], [2, 2, 2, 2]),
            spent("greedy", 1, [0, 0, 0, 0], [1, 1, 1, 1]),
            spent("dear", 1, [1, 1, 1, 0], [9, 9, 9, 9]),
        ],
        KEY,
        reference="vote",
    )
    by_name = {(point.algorithm, point.budget): point for point in made.points}
    # Half way between 1/4 at cost 2 and 2/4 at cost 4 the vote has 3/8; beam has 3/4.
    assert by_name["beam", 4].gain is not None
    assert by_name["beam", 4].gain.value == pytest.approx(3 / 4 - 3 / 8)
    assert by_name["dear", 1].gain is not None
    assert by_name["dear", 1].gain.value == pytest.approx(3 / 4 - 2 / 4)  # beyond the dearest vote: as that vote
    assert by_name["greedy", 1].gain is not None
    assert np.isnan(by_name["greedy", 1].gain.value)  # cheaper than any vote
    assert by_name["vote", 8].gain is None
    assert [(point.algorithm, point.budget) for point in made.front] == [("greedy", 1), ("vote", 2), ("beam", 4)]
    assert [point.budget for point in made.points if point.algorithm == "vote"] == [2, 8]
    row = made.to_json()
    assert row["reference"] == "vote"
    assert len(row["points"]) == 5


def test_intervals_are_paired_and_match_a_plain_loop() -> None:
    rng = np.random.default_rng(0)
    hard = rng.random(40)
    base = (hard > 0.5).astype(float)
    better = np.maximum(base, hard > 0.45)
    cost = np.ones(40)
    made = accuracy_against_cost(
        [Spending("base", 1, base, cost), Spending("better", 1, better, cost)], KEY, reference="base", draws=400
    )
    gain = next(point.gain for point in made.points if point.gain is not None)
    # Literally: the same problems for both, 400 times.
    index = KEY.rng().integers(0, 40, size=(400, 40))
    plain = [better[rows].mean() - base[rows].mean() for rows in index]
    assert gain.value == pytest.approx((better - base).mean())
    np.testing.assert_allclose([gain.low, gain.high], np.quantile(plain, [0.025, 0.975]), atol=1e-12)
    # Paired: far narrower than either accuracy's own interval.
    accuracy = made.points[0].accuracy
    assert gain.high - gain.low < (accuracy.high - accuracy.low) / 2
    best = next(point for point in made.points if point.algorithm == "better")
    assert best.front_share == 1


@pytest.mark.parametrize(
    ("spendings", "reference", "message"),
    [
        ([], None, "same problems"),
        ([spent("a", 1, [1], [1]), spent("b", 1, [1, 0], [1, 1])], None, "same problems"),
        ([spent("a", 1, [1], [-1])], None, "at least 0"),
        ([spent("a", 1, [float("nan")], [1])], None, "must be numbers"),
        ([spent("a", 1, [1], [1])], "b", "no spending is of the reference 'b'; there are a"),
    ],
)
def test_errors_say_what_is_wrong(spendings: list[Spending], reference: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        accuracy_against_cost(spendings, KEY, reference=reference)


@given(seed=st.integers(0, 1000))
@settings(max_examples=scaled(15), deadline=None)
def test_more_algorithms_never_bring_a_point_back_to_the_front(seed: int) -> None:
    rng = np.random.default_rng(seed)
    every = [Spending(f"a{i}", 1, rng.integers(0, 2, 6).astype(float), rng.integers(1, 5, 6) * 1.0) for i in range(5)]
    few = {point.algorithm: point.on_front for point in accuracy_against_cost(every[:3], KEY, draws=10).points}
    many = {point.algorithm: point.on_front for point in accuracy_against_cost(every, KEY, draws=10).points}
    assert all(few[name] or not many[name] for name in few)


def test_the_plot_names_everything() -> None:
    made = accuracy_against_cost(
        [spent("beam", 4, [1, 0], [3, 3]), spent("vote", 8, [1, 1], [4, 4]), spent("vote", 2, [0, 0], [2, 2])], KEY
    )
    figure = cost_plot(made, cost_label="tokens", oracle=Series("oracle", [2, 4], [0.5, 1.0]))
    for name in ("beam", "vote", "Pareto front", "oracle", "tokens"):
        assert name in figure
    free = accuracy_against_cost([spent("nothing", 0, [1, 0], [0, 0]), spent("vote", 1, [1, 1], [1, 1])], KEY)
    assert "<svg" in cost_plot(free, cost_label="tokens")  # a cost of 0 has no logarithm
