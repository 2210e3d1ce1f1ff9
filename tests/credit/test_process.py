"""Process credit and shapes against transcriptions of the published formulas, one step at a time."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.effort import scaled

from stepreward.core.catalog import credit, shape
from stepreward.core.errors import UnknownNameError
from stepreward.credit.verify import population, verify

LIBRARIES = pytest.mark.parametrize("give", [np.asarray, torch.as_tensor], ids=["numpy", "torch"])
NUMBERS = st.sampled_from([-1.0, -0.3, 0.0, 0.1, 0.4, 0.5, 0.8, 1.0])
STEPS = st.lists(st.tuples(NUMBERS, st.integers(1, 5), NUMBERS), min_size=1, max_size=4)
BATCH = st.lists(st.tuples(st.integers(0, 2), st.sampled_from([0.0, 1.0]), STEPS), min_size=2, max_size=7)
Batch = list[tuple[int, float, list[tuple[float, int, float]]]]


def data(batch: Batch) -> dict[str, np.ndarray]:
    flat = [step for _, _, steps in batch for step in steps]
    return {
        "group": np.array([g for g, _, _ in batch]), "outcome": np.array([o for _, o, _ in batch]),
        "offsets": np.cumsum([0, *(len(steps) for _, _, steps in batch)]), "rewards": np.array([s[0] for s in flat]),
        "lengths": np.array([s[1] for s in flat]), "values": np.array([s[2] for s in flat]),
        "state": np.array([s[1] % 3 for s in flat]), "node": np.array([s[1] for s in flat]),
        "edge": np.array([s[1] % 2 for s in flat]), "root": np.array([len(steps) % 2 for _, _, steps in batch]),
        "turn": np.array([k // 2 for _, _, steps in batch for k in range(len(steps))]),
        "entropy": np.array([abs(s[2]) for s in flat]), "duration": np.array([float(s[1]) for s in flat]),
        "agent": np.array([s[1] % 2 for s in flat]), "said": np.array([s[1] for s in flat]),
        "action_values": np.array([s[2] / 2 for s in flat]), "grounding": np.array([s[0] > 0 for s in flat], float),
    }  # fmt: skip


def soft(rewards: list[float], temperature: float = 0.1) -> list[float]:
    weights = np.exp(-np.array(rewards) / temperature)
    return list(weights / weights.sum() * rewards)


def mean(values: list[float], empty: float = 0.0) -> float:
    return sum(values) / len(values) if values else empty


def by_hand(name: str, batch: Batch) -> list[float]:
    made = []
    for i, (g, o, steps) in enumerate(batch):
        others = [row for j, row in enumerate(batch) if row[0] == g and j != i]
        r, tokens = [s[0] for s in steps], [s[1] for s in steps]
        base = o - mean([row[1] for row in others])
        for k in range(len(steps)):
            if name == "step-rloo":
                totals = [sum(s[0] for s in row[2]) + row[1] for row in others]
                made.append(sum(r[k:]) + o - mean(totals))
            elif name == "deepseekmath-process":
                every = [s[0] for row in batch if row[0] == g for s in row[2]]
                deviation = float(np.std(every, ddof=1)) if len(every) > 1 else 0.0
                made.append(sum((x - mean(every)) / (deviation + 1e-6) for x in r[k:]))
            elif name == "prime":
                per_token = mean([sum(s[0] for s in row[2]) / sum(s[1] for s in row[2]) for row in others])
                made.append(sum(r[j] - tokens[j] * per_token for j in range(k, len(r))) + base)
            elif name == "pure":
                rest = [soft([s[0] for s in row[2]]) for row in others]
                size = sum(s[1] for row in others for s in row[2])
                per_token = sum(map(sum, rest)) / size if size else 0.0
                moved = soft(r)
                made.append(sum(moved[j] - tokens[j] * per_token for j in range(k, len(r))) + base)
            elif name == "pure-strict":
                rest_means = [mean([min(s[0] for s in row[2][j:]) for j in range(len(row[2]))]) for row in others]
                made.append(min(r[k:]) - mean(rest_means) + base)
            elif name == "pav":
                before, after = steps[k][2], steps[k + 1][2] if k + 1 < len(steps) else o
                made.append(base + after - before)
    return made


@LIBRARIES
@pytest.mark.parametrize("name", ["step-rloo", "deepseekmath-process", "prime", "pure", "pure-strict", "pav"])
@given(batch=BATCH)
@settings(max_examples=scaled(40))
def test_advantages_are_those_of_the_formula(give: Callable[[Any], Any], name: str, batch: Batch) -> None:
    d = data(batch)
    if name == "deepseekmath-process" and any(
        # A deviation that is zero up to rounding over an epsilon of 1e-6 is noise on both sides.
        0 < np.std([s[0] for row in batch if row[0] == g for s in row[2]]) < 1e-9
        for g, _, _ in batch
    ):
        return
    found = np.asarray(credit[name].take({k: give(v) for k, v in d.items()}))
    np.testing.assert_allclose(found, by_hand(name, batch), rtol=1e-6, atol=1e-6)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", [method.name for method in credit])
@given(batch=BATCH, seed=st.integers(0, 99))
@settings(max_examples=scaled(10))
def test_the_order_of_trajectories_does_not_matter(name: str, batch: Batch, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(batch))

    def advantages(rows: Batch) -> list[np.ndarray]:
        d = data(rows)
        d["prior"] = d["outcome"] / 2
        d["components"] = np.stack([d["outcome"], [len(row[2]) for row in rows]], axis=1)
        return np.split(np.asarray(credit[name].take(d)), d["offsets"][1:-1])

    here, there = advantages(batch), advantages([batch[i] for i in order])
    for place, i in enumerate(order):
        np.testing.assert_allclose(there[place], here[i], atol=2e-5)


ROWS = [[0.9, 0.2, 0.6], [0.7], [0.4, 0.8]]


@LIBRARIES
@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("clip", {}, [[0, -0.3, 0], [0], [-0.1, 0]]),
        ("clip", {"ceiling": 1.0}, [[-0.1, -0.8, -0.4], [-0.3], [-0.6, -0.2]]),
        ("delta", {}, [[0.7, 0.2, 0], [0], [0.4, 0]]),
        ("clip-delta", {}, [[0.3, -0.3, 0], [0], [-0.1, 0]]),
        ("progress", {"start": 0.5}, [[0.4, -0.7, 0.4], [0.2], [-0.1, 0.4]]),
        ("potential", {}, [[0.9, -0.7, -0.2], [0], [0.4, -0.4]]),
        ("potential", {"discount": 0.5, "start": 0.2}, [[0.25, -0.8, -0.2], [-0.2], [0, -0.4]]),
    ],
)
def test_shapes_on_numbers_worked_out(
    give: Callable[[Any], Any], name: str, settings: dict[str, float], expected: list[list[float]]
) -> None:
    d = {"rewards": give(np.concatenate(ROWS)), "offsets": give(np.array([0, 3, 4, 6]))}
    np.testing.assert_allclose(np.asarray(shape[name].take(d, **settings)), np.concatenate(expected), atol=1e-12)


@LIBRARIES
@given(batch=BATCH, temperature=st.sampled_from([0.01, 0.1, 10.0]))
@settings(max_examples=scaled(30))
def test_the_soft_minimum_is_the_formula_and_tends_to_the_least(
    give: Callable[[Any], Any], batch: Batch, temperature: float
) -> None:
    d = data(batch)
    found = np.asarray(shape["soft-minimum"].take({k: give(v) for k, v in d.items()}, temperature=temperature))
    rows = [d["rewards"][a:b] for a, b in pairwise(d["offsets"])]
    np.testing.assert_allclose(found, np.concatenate([soft(list(row), temperature) for row in rows]), atol=1e-12)
    if temperature == 0.01:
        totals = np.add.reduceat(found, d["offsets"][:-1])
        np.testing.assert_allclose(totals, [row.min() for row in rows], atol=1e-3)


def test_delta_credits_a_step_with_its_own_score_and_potentials_with_nothing_in_all() -> None:
    d = {"rewards": np.concatenate(ROWS), "offsets": np.array([0, 3, 4, 6]), "group": np.zeros(3, int)}
    d["outcome"] = np.zeros(3)
    bare = credit["step-rloo"].take(d, shape="delta")
    baseline = np.repeat([0.2, 0.65, 0.45], [3, 1, 2])
    np.testing.assert_allclose(bare + baseline, [0.9, 0.2, 0, 0, 0.4, 0], atol=1e-12)
    made = shape["potential"].take(d, start=0.3)
    np.testing.assert_allclose(np.add.reduceat(made, [0, 3, 4]), -0.3)


def test_shapes_are_named_and_settings_checked() -> None:
    d = {"rewards": np.ones(1), "offsets": np.array([0, 1]), "group": np.zeros(1, int), "outcome": np.zeros(1)}
    with pytest.raises(UnknownNameError, match="clip"):
        credit["step-rloo"].take(d, shape="clp")
    with pytest.raises(UnknownNameError, match="ceiling"):
        credit["step-rloo"].take(d, shape="clip", shape_settings={"celing": 1})
    with pytest.raises(ValueError, match="positive"):
        shape["soft-minimum"].take(d, temperature=0)


EMPTY = {
    "rewards": np.array([0.9, 0.2, 0.6]), "outcome": np.array([1.0, 0.0, 0.0]), "group": np.zeros(3, int),
    "offsets": np.array([0, 2, 2, 3]), "lengths": np.array([1, 2, 4]),
}  # fmt: skip


@pytest.mark.parametrize("name", ["prime", "pure-strict"])
def test_a_trajectory_without_steps_has_no_mean_score(name: str) -> None:
    # Its outcome counts, a score of 0 that nobody gave does not: raising all scores by one half still changes nothing.
    base = np.asarray(credit[name].take(EMPTY))
    lengths = EMPTY["lengths"] if name == "prime" else np.ones(3)
    raised = credit[name].take({**EMPTY, "rewards": EMPTY["rewards"] + 0.5 * lengths})
    np.testing.assert_allclose(raised, base, atol=1e-12)
    if name == "prime":
        # Means per token 1.1 / 3 and 0.15: 1.1 - 3 (0.15) + 1, 0.2 - 2 (0.15) + 1, and 0.6 - 4 (1.1 / 3) - 1 / 2.
        np.testing.assert_allclose(base, [1.65, 0.9, 0.6 - 4.4 / 3 - 0.5])


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("pure", {"baseline": "tokens"}), ("gigpo", {"scale": "sd"}), ("gigpo", {"over": "step"}),
        ("gigpo", {"alone": "Raw"}), ("hgpo", {"scale": "sd"}), ("grpo", {"alone": "one"}),
    ],
)  # fmt: skip
def test_a_setting_that_names_no_option_is_told(name: str, settings: dict[str, str]) -> None:
    ((setting, value),) = settings.items()
    with pytest.raises(UnknownNameError, match=f"no value of {setting} is called '{value}'"):
        credit[name].take({**EMPTY, "state": np.zeros(3, int)}, **settings)


@given(batch=BATCH, by=NUMBERS)
@settings(max_examples=scaled(30), deadline=None)
def test_prime_does_not_see_what_is_added_to_every_token(batch: Batch, by: float) -> None:
    d = data(batch)
    compared = np.array([sum(row[0] == g for row in batch) > 1 for g, _, _ in batch])
    compared = np.repeat(compared, np.diff(d["offsets"]))
    base = credit["prime"].take(d)
    raised = credit["prime"].take({**d, "rewards": d["rewards"] + by * d["lengths"]})
    np.testing.assert_allclose(raised[compared], base[compared], atol=1e-9)


def test_steps_of_the_process_that_verifies_differ_in_length() -> None:
    # With equal ones, PRIME passed for invariant to raising all step scores.
    p = population(1)
    assert len(set(p.lengths.tolist())) == 3
    assert {name for name, holds in verify(credit["prime"], n=2).invariant.items() if holds} == set()
