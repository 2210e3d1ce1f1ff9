"""STARC and EPIC: pseudometrics that see neither shaping nor scale, against hand-worked processes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.effort import scaled

from stepreward.core.errors import InputError
from stepreward.evaluate.measures.reward_distances import canonical, epic, starc, values

SEEDS = st.integers(0, 10_000)
NORMS = st.sampled_from(["l1", "l2", "max"])


def process(seed: int, states: int = 4, actions: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    transition = rng.dirichlet(np.ones(states), size=(states, actions))
    policy = rng.dirichlet(np.ones(actions), size=states)
    return transition, policy, rng.normal(size=(states, actions, states))


def shaped(reward: np.ndarray, potential: np.ndarray, discount: float) -> np.ndarray:
    return reward + discount * potential[None, None, :] - potential[:, None, None]


def test_values_of_a_process_worked_out() -> None:
    # State 0 goes to 1 and 1 stays; only leaving 0 pays 1. V(1) = 0, V(0) = 1.
    transition = np.zeros((2, 1, 2))
    transition[:, 0, 1] = 1
    reward = np.zeros((2, 1, 2))
    reward[0, 0, 1] = 1
    np.testing.assert_allclose(values(reward, transition, np.ones((2, 1)), discount=0.5), [1, 0])
    # Two steps of reward 1 for ever: 1 / (1 - 0.5).
    np.testing.assert_allclose(values(np.ones((2, 1, 2)), transition, np.ones((2, 1)), discount=0.5), [2, 2])
    # One action: nothing to choose, so the canonical reward is nothing.
    np.testing.assert_allclose(canonical(reward, transition, np.ones((2, 1)), discount=0.5), 0, atol=1e-12)


@given(seed=SEEDS, discount=st.sampled_from([0.0, 0.5, 0.95]), norm=NORMS)
@settings(max_examples=scaled(40))
def test_shaping_and_scale_do_not_count_and_the_opposite_is_farthest(seed: int, discount: float, norm: str) -> None:
    transition, policy, reward = process(seed)
    potential = np.random.default_rng(seed + 1).normal(size=4)
    have = {"policy": policy, "discount": discount, "norm": norm}
    other = 3.7 * shaped(reward, potential, discount)
    assert starc(reward, other, transition, **have) == pytest.approx(0, abs=1e-9)
    assert starc(reward, -other, transition, **have) == pytest.approx(1, abs=1e-9)
    # What is moved between next states with the same mean changes nothing either.
    moved = np.random.default_rng(seed + 2).normal(size=reward.shape)
    moved -= np.einsum("sat,sat->sa", transition, moved)[:, :, None]
    assert starc(reward, reward + moved, transition, **have) == pytest.approx(0, abs=1e-9)


@given(seed=SEEDS, norm=NORMS)
@settings(max_examples=scaled(40))
def test_it_is_a_pseudometric(seed: int, norm: str) -> None:
    transition, _, first = process(seed)
    second, third = process(seed + 1)[2], process(seed + 2)[2]

    def d(one: np.ndarray, other: np.ndarray) -> float:
        return starc(one, other, transition, norm=norm)

    assert d(first, first) == 0
    assert d(first, second) == pytest.approx(d(second, first))
    assert d(first, third) <= d(first, second) + d(second, third) + 1e-9
    assert 0 <= d(first, second) <= 1


def test_a_reward_without_preferences_is_half_way_from_any_other() -> None:
    transition, _, reward = process(3)
    assert starc(np.zeros_like(reward), reward, transition) == pytest.approx(0.5)
    assert starc(np.zeros_like(reward), np.full_like(reward, 7.0), transition) == 0
    assert epic(np.zeros_like(reward), reward) == pytest.approx(np.sqrt(0.5))
    assert epic(np.zeros_like(reward), np.ones_like(reward)) == 0


@given(seed=SEEDS, discount=st.sampled_from([0.0, 0.5, 1.0]))
@settings(max_examples=scaled(40))
def test_epic(seed: int, discount: float) -> None:
    reward, other = process(seed)[2], process(seed + 1)[2]
    potential = np.random.default_rng(seed).normal(size=4)
    same = 0.3 * shaped(reward, potential, discount) + 5
    assert epic(reward, same, discount=discount) == pytest.approx(0, abs=1e-6)
    assert epic(reward, -same, discount=discount) == pytest.approx(1, abs=1e-9)
    assert epic(reward, other, discount=discount) == pytest.approx(epic(other, reward, discount=discount))

    def slow(r: np.ndarray) -> np.ndarray:
        states, actions = r.shape[:2]
        made = np.empty_like(r)
        draws = [(a, t) for a in range(actions) for t in range(states)]
        for s, a, t in np.ndindex(r.shape):
            after = np.mean([r[t, x, y] for x, y in draws])
            before = np.mean([r[s, x, y] for x, y in draws])
            everywhere = np.mean([r[z, x, y] for z in range(states) for x, y in draws])
            made[s, a, t] = r[s, a, t] + discount * after - before - discount * everywhere
        return made

    correlation = np.corrcoef(slow(reward).ravel(), slow(other).ravel())[0, 1]
    assert epic(reward, other, discount=discount) == pytest.approx(np.sqrt((1 - correlation) / 2), abs=1e-9)


@pytest.mark.parametrize("wrong", ["shape", "transition", "policy", "discount"])
def test_what_is_no_process_is_an_error(wrong: str) -> None:
    transition, policy, reward = process(0)
    discount = 1.0 if wrong == "discount" else 0.5
    transition = transition * 2 if wrong == "transition" else transition
    policy = policy - 1 if wrong == "policy" else policy
    reward = reward[:2] if wrong == "shape" else reward
    with pytest.raises(InputError, match={"shape": "do not fit"}.get(wrong, wrong)):
        values(reward, transition, policy, discount=discount)
