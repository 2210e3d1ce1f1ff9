"""Credit by turns and states against transcriptions of the published formulas, one step at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.effort import scaled

from stepreward.core.catalog import credit

LIBRARIES = pytest.mark.parametrize("give", [np.asarray, torch.as_tensor], ids=["numpy", "torch"])
NUMBERS = st.sampled_from([0.0, 0.1, 0.4, 0.5, 0.8, 1.0])
STEPS = st.lists(st.tuples(NUMBERS, st.integers(0, 2), NUMBERS), min_size=1, max_size=4)
BATCH = st.lists(st.tuples(st.integers(0, 1), st.sampled_from([0.0, 1.0]), STEPS), min_size=2, max_size=6)
Batch = list[tuple[int, float, list[tuple[float, int, float]]]]


def data(batch: Batch) -> dict[str, np.ndarray]:
    flat = [step for _, _, steps in batch for step in steps]
    return {
        "group": np.array([g for g, _, _ in batch]), "outcome": np.array([o for _, o, _ in batch]),
        "offsets": np.cumsum([0, *(len(steps) for _, _, steps in batch)]), "rewards": np.array([s[0] for s in flat]),
        "state": np.array([s[1] for s in flat]), "values": np.array([s[2] for s in flat]),
    }  # fmt: skip


def z(value: float, others: Sequence[float]) -> float:
    """Standard score among a group that holds the value; 0 where it is alone."""
    if len(others) < 2:
        return 0.0
    return (value - float(np.mean(others))) / (float(np.std(others, ddof=1)) + 1e-6)


def returns(steps: list[tuple[float, int, float]], outcome: float, discount: float) -> list[float]:
    paid = [s[0] for s in steps]
    paid[-1] += outcome
    return [sum(discount ** (j - k) * paid[j] for j in range(k, len(paid))) for k in range(len(paid))]


def by_hand(name: str, batch: Batch) -> list[float]:
    made = []
    for g, o, steps in batch:
        mine = [row for row in batch if row[0] == g]
        outcomes = [row[1] for row in mine]
        for k, (r, state, value) in enumerate(steps):
            later = [row for row in mine if len(row[2]) > k]
            after = steps[k + 1][2] if k + 1 < len(steps) else o
            if name == "gigpo":
                totals = [sum(s[0] for s in row[2]) + row[1] for row in mine]
                here = [returns(row[2], row[1], 0.9)[j] for row in mine for j, s in enumerate(row[2]) if s[1] == state]
                whole = sum(s[0] for s in steps) + o - np.mean(totals)
                made.append(whole + 0.5 * (returns(steps, o, 0.9)[k] - np.mean(here)))
            elif name == "mt-grpo":
                made.append(z(o, outcomes) + z(r, [row[2][k][0] for row in later]))
            elif name == "igpo":
                every = [x for row in mine for x in paid_of(row)]
                made.append(sum(0.9 ** (j - k) * z(paid_of((g, o, steps))[j], every) for j in range(k, len(steps))))
            elif name == "step-grpo":
                made.append(z(r, [s[0] for row in mine for s in row[2]]))
            elif name == "kevin":
                every = [x for row in mine for x in returns(row[2], row[1], 0.4)]
                made.append(z(returns(steps, o, 0.4)[k], every))
            elif name == "matchtir":
                level = z(returns(steps, o, 0.9)[k], [returns(row[2], row[1], 0.9)[k] for row in later])
                made.append((z(o, outcomes) + level) / 2)
            elif name == "turn-centred":
                short = [row[1] * 0.8 ** len(row[2]) for row in mine]
                every = [s[0] for row in mine for s in row[2]]
                made.append(o * 0.8 ** len(steps) - float(np.mean(short)) + 0.5 * (r - float(np.mean(every))))
            elif name == "vineppo":
                made.append(after - value)
    return made


def paid_of(row: tuple[int, float, list[tuple[float, int, float]]]) -> list[float]:
    paid = [s[0] for s in row[2]]
    paid[-1] += row[1]
    return paid


SETTINGS: dict[str, dict[str, Any]] = {
    "gigpo": {"discount": 0.9, "weight": 0.5}, "mt-grpo": {}, "igpo": {"discount": 0.9}, "step-grpo": {},
    "kevin": {"discount": 0.4}, "matchtir": {"discount": 0.9}, "vineppo": {},
    "turn-centred": {"weight": 0.5, "discount": 0.8},
}  # fmt: skip


@LIBRARIES
@pytest.mark.parametrize("name", SETTINGS)
@given(batch=BATCH)
@settings(max_examples=scaled(40), deadline=None)
def test_advantages_are_those_of_the_formula(give: Callable[[Any], Any], name: str, batch: Batch) -> None:
    d = data(batch)
    found = np.asarray(credit[name].take({k: give(v) for k, v in d.items()}, **SETTINGS[name]))
    # Deviations that are zero up to rounding over an epsilon of 1e-6 leave noise of about 1e-9.
    np.testing.assert_allclose(found, by_hand(name, batch), rtol=1e-6, atol=1e-6)


def test_states_of_different_problems_are_not_pooled() -> None:
    d = {
        "rewards": np.array([1.0, 0.0]), "outcome": np.zeros(2), "group": np.array([0, 1]),
        "offsets": np.array([0, 1, 2]), "state": np.array([5, 5]),
    }  # fmt: skip
    np.testing.assert_array_equal(credit["gigpo"].take(d), [0, 0])


def test_a_turn_that_only_one_trajectory_reaches_gets_no_bonus() -> None:
    d = {
        "rewards": np.array([0.2, 0.9, 0.2]), "outcome": np.array([1.0, 1.0]), "group": np.zeros(2, int),
        "offsets": np.array([0, 2, 3]),
    }  # fmt: skip
    assert credit["matchtir"].take(d)[1] == credit["mt-grpo"].take(d)[1] == 0
