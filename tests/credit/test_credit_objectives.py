"""What each estimator says of itself, held against enumeration."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from stepreward.core.catalog import credit
from stepreward.core.method import Method
from stepreward.credit.verify import CHANGES, NOTHING, Population, cosine, exact_gradient, population, verify

METHODS = list(credit)
LOGITS = np.log([0.25, 0.25, 0.5])


@pytest.mark.sampled(4)
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_its_expected_gradient_climbs_what_it_states(method: Method) -> None:
    if method.objective == NOTHING:
        # Then no objective may fit by chance, or it should be stated.
        assert max(verify(method).limit.values()) < 0.9999
        return
    # In the limit of large groups; what small groups add is published beside it.
    assert verify(method).limit[method.objective] >= 0.999


@pytest.mark.sampled(4)
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_it_is_invariant_to_what_it_states_and_to_nothing_else(method: Method) -> None:
    measured = {name for name, holds in verify(method).invariant.items() if holds}
    assert measured == set(method.invariant) <= set(CHANGES)


def chances(logits: np.ndarray) -> dict[str, float]:
    """Probability of every trajectory under logits (states, 3), written out by hand."""
    root, after_a, after_b = (np.exp(row) / np.exp(row).sum() for row in logits)
    return {
        "z": root[2], "az": root[0] * after_a[2], "bz": root[1] * after_b[2],
        "aaz": root[0] * after_a[0], "abz": root[0] * after_a[1],
        "baz": root[1] * after_b[0], "bbz": root[1] * after_b[1],
    }  # fmt: skip


def objective_values(name: str) -> dict[str, float]:
    reward = {"a": 0.9, "b": 0.4, "z": 0.7}
    paths = ["z", "az", "bz", "aaz", "abz", "baz", "bbz"]
    outcome = dict.fromkeys(paths, 0.0) | dict.fromkeys(["az", "aaz", "baz"], 1.0)
    made = {
        "outcome": outcome,
        "process": {path: sum(reward[step] for step in path) for path in paths},
        "minimum": {path: min(reward[step] for step in path) for path in paths},
    }
    made["return"] = {path: made["process"][path] + outcome[path] for path in paths}
    return made[name]


@pytest.mark.parametrize("name", ["outcome", "process", "minimum", "return"])
def test_exact_gradients_are_numerical_derivatives(name: str) -> None:
    worth = objective_values(name)
    start = np.tile(LOGITS, (3, 1))
    slope = np.empty(9)
    for i in range(9):
        ends = []
        for sign in (1, -1):
            moved = start.copy()
            moved.flat[i] += sign * 1e-5
            chance = chances(moved)
            ends.append(sum(chance[path] * worth[path] for path in worth))
        slope[i] = (ends[0] - ends[1]) / 2e-5
    p = population(1)
    found = exact_gradient(p, name)
    # The process's states in order of first visit: the root, after a, after b, then four that have no choice.
    np.testing.assert_allclose(found[:9], slope, atol=1e-9)
    np.testing.assert_allclose(found[9:], 0)


def test_the_population_holds_every_group_once() -> None:
    one, two = population(1), population(2)
    assert len(one.outcome) == 16
    assert len(two.outcome) == 2 * 16**2
    expected = sum(chances(np.tile(LOGITS, (3, 1)))[path] for path in ("az", "aaz", "baz"))
    assert one.outcome.mean() == two.outcome.mean() == expected
    lengths = np.diff(two.offsets).reshape(-1, 2)
    single = np.diff(one.offsets)
    assert sorted(map(tuple, lengths)) == sorted(itertools.product(single, repeat=2))


def test_values_are_expected_outcomes() -> None:
    p = population(1)
    reached = p.outcome[p.of]
    for state in np.unique(p.state):
        here = p.state == state
        assert p.values[here] == pytest.approx(reached[here].mean())


@pytest.mark.parametrize("name", CHANGES)
def test_changes_leave_the_policy_and_the_outcomes_alone(name: str) -> None:
    p = population(2)
    changed: Population = CHANGES[name][1](p)
    np.testing.assert_array_equal(changed.outcome, p.outcome)
    assert changed.offsets[-1] == len(changed.rewards) == len(changed.score) == len(changed.state)
    for objective in ("outcome",):
        np.testing.assert_allclose(exact_gradient(changed, objective), exact_gradient(p, objective), atol=1e-12)
    added = {"shift": 0.5 * np.diff(p.offsets), "split": p.total(p.rewards), "neutral": 0.0}[name]
    np.testing.assert_allclose(changed.total(changed.rewards), p.total(p.rewards) + added)


def test_cosines() -> None:
    assert cosine(np.array([1.0, 0.0]), np.array([2.0, 0.0])) == 1
    assert cosine(np.array([1.0, 0.0]), np.zeros(2)) == 0
    assert cosine(np.zeros(2), np.full(2, 1e-15)) == 1
