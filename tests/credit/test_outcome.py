"""Outcome credit against transcriptions of the published formulas, one trajectory at a time."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.effort import scaled

from stepreward.core.catalog import credit
from stepreward.core.errors import MissingDataError
from stepreward.credit.outcome import MovingThreshold

BATCH = st.lists(
    st.tuples(
        st.integers(0, 2), st.sampled_from([0.0, 1.0, 0.25]), st.lists(st.integers(1, 5), min_size=1, max_size=4)
    ),
    min_size=2, max_size=9,
)  # fmt: skip
LIBRARIES = pytest.mark.parametrize("give", [np.asarray, torch.as_tensor], ids=["numpy", "torch"])


def data(batch: list[Any]) -> dict[str, np.ndarray]:
    group, outcome, tokens = zip(*batch, strict=True)
    lengths = np.concatenate([np.array(t) for t in tokens])
    rng = np.random.default_rng(len(lengths))
    return {
        "group": np.array(group), "outcome": np.array(outcome), "lengths": lengths,
        "offsets": np.cumsum([0, *map(len, tokens)]), "rewards": rng.random(len(lengths)),
        "values": rng.random(len(lengths)), "components": np.stack([outcome, rng.random(len(batch))], axis=1),
    }  # fmt: skip


def by_trajectory(name: str, d: dict[str, np.ndarray]) -> list[float]:
    """The advantage of each trajectory, from the formulas alone."""
    o, g = d["outcome"], d["group"]
    size = [int(d["lengths"][a:b].sum()) for a, b in zip(d["offsets"][:-1], d["offsets"][1:], strict=True)]
    made = []
    for i in range(len(o)):
        mine = [j for j in range(len(o)) if g[j] == g[i]]
        others = [j for j in mine if j != i]
        mean = sum(o[j] for j in mine) / len(mine)
        deviation = float(np.std(o[mine], ddof=1)) if others else 0.0
        made.append({
            "grpo": (o[i] - mean) / (deviation + 1e-4),
            "grpo-verl": (o[i] - mean) / (deviation + 1e-6) if others else o[i],
            "grpo-openrlhf": (o[i] - mean) / (deviation + 1e-9),
            "lite-ppo": (o[i] - mean) / (float(np.std(o, ddof=1)) + 1e-4),
            "dr-grpo": o[i] - mean,
            "minirl": o[i] - mean,
            "rloo": o[i] - sum(o[j] for j in others) / len(others) if others else 0.0,
            "likelihood": o[i] - sum(o[j] for j in others) / len(others) if others else 0.0,
            "rloo-verl": o[i] - sum(o[j] for j in others) / len(others) if others else o[i],
            "reinforce++": o[i],
            "reinforce++-baseline": o[i] - mean,
            "opo": o[i] - sum(size[j] * o[j] for j in mine) / sum(size[j] for j in mine),
        }[name])  # fmt: skip
    if name.startswith("reinforce++"):
        tokens = np.repeat(made, size)
        spread = tokens.var(ddof=1) if len(tokens) > 1 else 0.0
        made = [float((one - tokens.mean()) / np.sqrt(spread + 1e-8)) for one in made]
    return made


@LIBRARIES
@pytest.mark.parametrize(
    "name",
    [
        "grpo",
        "grpo-verl",
        "grpo-openrlhf",
        "lite-ppo",
        "dr-grpo",
        "minirl",
        "rloo",
        "likelihood",
        "rloo-verl",
        "reinforce++",
        "reinforce++-baseline",
        "opo",
    ],
)
@given(batch=BATCH)
@settings(max_examples=scaled(30))
def test_every_step_gets_the_advantage_of_the_formula(give: Callable[[Any], Any], name: str, batch: list[Any]) -> None:
    d = data(batch)
    found = np.asarray(credit[name].take({k: give(v) for k, v in d.items()}))
    expected = np.repeat(by_trajectory(name, d), np.diff(d["offsets"]))
    # An epsilon of 1e-9 over a deviation that is zero up to rounding leaves noise of up to 1e-7.
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@LIBRARIES
def test_parts_of_the_reward_are_standardised_before_they_are_added(give: Callable[[Any], Any]) -> None:
    parts = np.array([[0.0, 10.0], [1.0, 10.0], [1.0, 40.0], [0.0, 20.0]])
    d = {"components": give(parts), "group": give(np.zeros(4, int)), "offsets": give(np.arange(5))}
    z = (parts - parts.mean(axis=0)) / (parts.std(axis=0, ddof=1) + 1e-4)
    total = 2 * z[:, 0] + 0.5 * z[:, 1]
    expected = total / (total.std(ddof=1) + 1e-4)
    np.testing.assert_allclose(np.asarray(credit["gdpo"].take(d, weights=(2.0, 0.5))), expected)
    with pytest.raises(ValueError, match="1 weights for 2 components"):
        credit["gdpo"].take(d, weights=(1.0,))
    for shape in ((4,), (4, 0)):
        with pytest.raises(ValueError, match=re.escape(f"got shape {shape}")):
            credit["gdpo"].take({**d, "components": give(np.zeros(shape))})


@LIBRARIES
@given(batch=BATCH, discount=st.sampled_from([1.0, 0.9]), decay=st.sampled_from([0.0, 0.7, 1.0]))
@settings(max_examples=scaled(30))
def test_gae_is_the_recursion(give: Callable[[Any], Any], batch: list[Any], discount: float, decay: float) -> None:
    d = data(batch)
    expected = np.empty(len(d["rewards"]))
    for b, (start, end) in enumerate(zip(d["offsets"][:-1], d["offsets"][1:], strict=True)):
        running, after = 0.0, 0.0
        for k in reversed(range(start, end)):
            reward = d["rewards"][k] + (d["outcome"][b] if k == end - 1 else 0.0)
            running = reward + discount * after - d["values"][k] + discount * decay * running
            after = d["values"][k]
            expected[k] = running
    found = credit["gae"].take({k: give(v) for k, v in d.items()}, discount=discount, decay=decay)
    np.testing.assert_allclose(np.asarray(found), expected, atol=1e-12)


@LIBRARIES
def test_reasoning_is_paid_for_what_it_adds_to_the_reference_s_probability(give: Callable[[Any], Any]) -> None:
    d = {
        "outcome": give(np.array([0.9, 0.2, 0.5, 0.5, 0.6])), "prior": give(np.array([0.3, 0.3, 0.3, 0.5, 0.5])),
        "group": give(np.array([0, 0, 0, 1, 1])), "offsets": give(np.array([0, 1, 3, 4, 5, 6])),
    }  # fmt: skip
    # Gains 0.6, 0, 0.2 of mean 4/15; the second group's deviation is 0.1 / sqrt(2), below the threshold.
    gains = np.array([0.6, 0.0, 0.2])
    z = (gains - 4 / 15) / (gains.std(ddof=1) + 1e-6)
    found = np.asarray(credit["rlpr"].take(d, least=0.08))
    np.testing.assert_allclose(found, [z[0], z[1], z[1], z[2], 0, 0], atol=1e-9)
    assert np.asarray(credit["rlpr"].take(d, least=0.07))[4:].any()


@LIBRARIES
def test_the_threshold_is_a_share_of_the_moving_average_of_deviations(give: Callable[[Any], Any]) -> None:
    def see(spread: float) -> None:
        # Two groups of two: gains 0 and `spread`, of deviation spread / sqrt(2), and an unscored trajectory.
        outcome, prior = np.array([0.5, 0.5, 0.4, 0.3 + spread, np.nan]), np.array([0.5, 0.5 - spread, 0.5, 0.3, 0.5])
        threshold.update(give(outcome), give(prior), give(np.array([0, 0, 1, 1, 1])))

    threshold = MovingThreshold(start=2)
    see(0.2)
    assert threshold.least == 0
    see(0.4)
    assert threshold.least == pytest.approx(0.5 * 0.3 / np.sqrt(2))
    see(0.1)
    assert threshold.least == pytest.approx(0.5 * (0.99 * 0.3 + 0.01 * 0.1) / np.sqrt(2))
    threshold.update(give(np.full(2, np.nan)), give(np.zeros(2)), give(np.zeros(2, int)))
    assert threshold.seen == 3


def test_what_is_missing_is_named() -> None:
    with pytest.raises(MissingDataError, match="lengths"):
        credit["opo"].take({"outcome": np.ones(1), "group": np.zeros(1, int), "offsets": np.array([0, 1])})
