"""Credit by states, trees, turns with critics and matched calls, against loops that know trajectories as lists."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.effort import scaled

from stepreward.core.catalog import credit
from stepreward.credit.rules.matching import assigned, similarities, similarity, transported

LIBRARIES = pytest.mark.parametrize("give", [np.asarray, torch.as_tensor], ids=["numpy", "torch"])
NUMBERS = st.sampled_from([0.0, 0.1, 0.4, 0.5, 0.8, 1.0])
ACTIONS = st.lists(st.tuples(st.integers(0, 1), NUMBERS, NUMBERS), min_size=1, max_size=4)
BATCH = st.lists(st.tuples(st.integers(0, 1), NUMBERS, ACTIONS), min_size=2, max_size=7)
Row = tuple[int, float, list[tuple[int, float, float]]]
Batch = list[Row]


def path(row: Row, k: int) -> tuple[int, ...]:
    """Actions up to and with step k."""
    return tuple(step[0] for step in row[2][: k + 1])


def state(row: Row, k: int) -> int:
    """The action before, 9 at the start: many ways lead to one state."""
    return row[2][k - 1][0] if k else 9


def data(batch: Batch) -> dict[str, np.ndarray]:
    places = [(row, k) for row in batch for k in range(len(row[2]))]
    names: dict[Any, int] = {}

    def name(*what: Any) -> int:
        return names.setdefault(what, len(names))

    return {
        "group": np.array([g for g, _, _ in batch]), "outcome": np.array([o for _, o, _ in batch]),
        "offsets": np.cumsum([0, *(len(row[2]) for row in batch)]),
        "rewards": np.array([row[2][k][1] for row, k in places]),
        "values": np.array([row[2][k][2] for row, k in places]),
        "action_values": np.array([row[2][k][1] - row[2][k][2] for row, k in places]),
        "grounding": np.array([float(row[2][k][0]) for row, k in places]),
        "state": np.array([state(row, k) for row, k in places]), "turn": np.array([k // 2 for _, k in places]),
        "edge": np.array([name("edge", state(row, k), row[2][k][0]) for row, k in places]),
        "node": np.array([name("node", path(row, k)) for row, k in places]),
        "root": np.array([len(row[2]) % 2 for row in batch]),
    }  # fmt: skip


def z(value: float, others: list[float], epsilon: float) -> float:
    return 0.0 if len(others) < 2 else (value - float(np.mean(others))) / (float(np.std(others, ddof=1)) + epsilon)


def through(group: list[Row], k: int, prefix: tuple[int, ...]) -> list[Row]:
    return [row for row in group if len(row[2]) > k and path(row, k) == prefix]


def value(group: list[Row], row: Row, k: int) -> float:
    """Mean outcome below the node that step k leads to; that of the root before the first."""
    below = group if k < 0 else through(group, k, path(row, k))
    return float(np.mean([o for _, o, _ in below]))


def going(row: Row, discount: float) -> list[float]:
    paid = [step[1] for step in row[2]]
    paid[-1] += row[1]
    return [sum(discount ** (j - k) * paid[j] for j in range(k, len(paid))) for k in range(len(paid))]


def tree_by_hand(name: str, group: list[Row], row: Row, k: int) -> float:
    mine, before, root = value(group, row, k), value(group, row, k - 1), value(group, row, -1)
    shared = len(through(group, k, path(row, k)))
    outcomes = [o for _, o, _ in group]
    if name == "node-differences":
        return mine - before
    if name == "treerl":
        return ((mine - root) + (mine - before)) / shared**0.5
    if name == "tree-grpo":
        tree = [o for _, o, steps in group if len(steps) % 2 == len(row[2]) % 2]
        return z(row[1], outcomes, 1e-6) + z(row[1], tree, 1e-6)
    if name == "fork-and-trajectory":
        parents = [r for r in group if len(r[2]) > k and (k == 0 or path(r, k - 1) == path(row, k - 1))]
        children = {path(r, k): value(group, r, k) for r in parents}
        return 0.5 * (mine - float(np.mean([*children.values()]))) + 2.0 * (row[1] - root)
    assert name == "lambda-grpo"
    return z(row[1], outcomes, 1e-4) / shared


def state_by_hand(name: str, group: list[Row], row: Row, k: int, scale: str = "none") -> float:
    every = [(r, j) for r in group for j in range(len(r[2]))]
    if name == "shared-edges":
        outcomes = [o for _, o, _ in group]
        same = [r for r, j in every if (state(r, j), r[2][j][0]) == (state(row, k), row[2][k][0])]
        return float(np.mean([z(r[1], outcomes, 1e-4) for r in same]))
    assert name == "hgpo"

    terms = []
    for length in range(1, min(k + 1, 3) + 1):
        history = [state(row, k - i) for i in range(length)]
        same = [
            going(r, 0.9)[j]
            for r, j in every
            if j + 1 >= length and [state(r, j - i) for i in range(length)] == history
        ]
        if len(same) > 1:
            spread = float(np.std(same)) + 1e-6 if scale == "std" else 1.0
            terms.append((length**2, (going(row, 0.9)[k] - float(np.mean(same))) / spread))
    return sum(w * a for w, a in terms) / sum(w for w, _ in terms) if terms else 0.0


SETTINGS: dict[str, dict[str, Any]] = {
    "node-differences": {}, "treerl": {}, "tree-grpo": {}, "fork-and-trajectory": {"fork": 0.5, "trajectory": 2.0},
    "lambda-grpo": {}, "shared-edges": {}, "hgpo": {"discount": 0.9, "power": 2.0},
}  # fmt: skip


@LIBRARIES
@pytest.mark.parametrize("name", SETTINGS)
@given(batch=BATCH)
@settings(max_examples=scaled(40), deadline=None)
def test_places_are_credited_as_by_the_loop(give: Callable[[Any], Any], name: str, batch: Batch) -> None:
    by_hand = state_by_hand if name in ("shared-edges", "hgpo") else tree_by_hand
    expected = [
        by_hand(name, [r for r in batch if r[0] == row[0]], row, k) for row in batch for k in range(len(row[2]))
    ]
    found = credit[name].take({k: give(v) for k, v in data(batch).items()}, **SETTINGS[name])
    np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-6, atol=1e-6)


@given(batch=BATCH)
@settings(max_examples=scaled(30), deadline=None)
def test_histories_are_weighed_by_their_length_under_deviations_too(batch: Batch) -> None:
    found = credit["hgpo"].take(data(batch), discount=0.9, power=2.0, scale="std")
    expected = [
        state_by_hand("hgpo", [r for r in batch if r[0] == row[0]], row, k, "std")
        for row in batch for k in range(len(row[2]))
    ]  # fmt: skip
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_a_history_that_no_other_shares_takes_no_weight_from_those_that_are_shared() -> None:
    # State 5 after 1 and after 2: the histories 1-5 and 2-5 are each alone, the state 5 is shared.
    d = {
        "rewards": np.zeros(4), "outcome": np.array([1.0, 0.0]), "group": np.zeros(2, int),
        "offsets": np.array([0, 2, 4]), "state": np.array([1, 5, 2, 5]),
    }  # fmt: skip
    np.testing.assert_allclose(credit["hgpo"].take(d), [0, 0.5, 0, -0.5])


@given(batch=BATCH)
@settings(max_examples=scaled(30), deadline=None)
def test_verl_agent_s_gigpo_counts_rows_of_steps(batch: Batch) -> None:
    found = credit["gigpo-verl-agent"].take(data(batch))
    expected = []
    for row in batch:
        group = [r for r in batch if r[0] == row[0]]
        rows = [sum(s[1] for s in r[2]) + r[1] for r in group for _ in r[2]]
        total = sum(s[1] for s in row[2]) + row[1]
        for k in range(len(row[2])):
            same = [going(r, 0.95)[j] for r in group for j in range(len(r[2])) if state(r, j) == state(row, k)]
            local = going(row, 0.95)[k] - float(np.mean(same)) if len(same) > 1 else 0.0
            expected.append((total - float(np.mean(rows)) if len(rows) > 1 else total) + local)
    np.testing.assert_allclose(found, expected, atol=1e-9)


@LIBRARIES
@given(batch=BATCH, decay=st.sampled_from([0.0, 0.7, 1.0]))
@settings(max_examples=scaled(40), deadline=None)
def test_turns_are_estimated_first_and_then_their_steps(give: Callable[[Any], Any], batch: Batch, decay: float) -> None:
    expected = []
    for _, outcome, steps in batch:
        turns = [steps[a : a + 2] for a in range(0, len(steps), 2)]
        paid = [sum(s[1] for s in turn) for turn in turns]
        paid[-1] += outcome
        high = [0.0] * (len(turns) + 1)
        ends = [turn[-1][2] for turn in turns] + [0.0]
        for i in reversed(range(len(turns))):
            high[i] = paid[i] + 0.9 * ends[i + 1] - ends[i] + 0.9 * decay * high[i + 1]
        for i, turn in enumerate(turns):
            low = [0.0] * len(turn)
            low[-1] = high[i]
            for j in reversed(range(len(turn) - 1)):
                low[j] = 0.8 * turn[j + 1][2] - turn[j][2] + 0.8 * decay * low[j + 1]
            expected += low
    given_data = {k: give(v) for k, v in data(batch).items()}
    found = credit["bi-level-gae"].take(given_data, turn_discount=0.9, discount=0.8, decay=decay)
    np.testing.assert_allclose(np.asarray(found), expected, atol=1e-9)


def test_a_turn_without_reward_keeps_its_place() -> None:
    # RAGEN's code finds turns by rewards that are not zero, and fails where the last one is zero.
    d = {
        "rewards": np.array([0.0, 0.0, 1.0, 0.0]), "outcome": np.zeros(1), "values": np.zeros(4),
        "turn": np.array([0, 0, 1, 2]), "offsets": np.array([0, 4]),
    }  # fmt: skip
    np.testing.assert_allclose(credit["bi-level-gae"].take(d), [1, 1, 1, 0])


@given(batch=BATCH)
@settings(max_examples=scaled(30), deadline=None)
def test_attributed_progress_is_estimated_from_parts_and_grounding(batch: Batch) -> None:
    found = credit["spa"].take(data(batch), weight=2.0, grounded=0.25, discount=0.9, decay=0.8)
    expected = []
    for _, _, steps in batch:
        paid = [2.0 * reward + 0.25 * action for action, reward, _ in steps]
        made = [0.0] * (len(steps) + 1)
        for k in reversed(range(len(steps))):
            after = steps[k + 1][2] if k + 1 < len(steps) else 0.0
            made[k] = paid[k] + 0.9 * after - steps[k][2] + 0.9 * 0.8 * made[k + 1]
        expected += made[:-1]
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_a_critic_s_word_on_the_action_less_that_on_the_state() -> None:
    made = credit["archer"].take({"action_values": np.array([0.5, 0.25]), "values": np.array([0.25, 0.5])})
    assert made.tolist() == [0.25, -0.25]


def test_calls_are_alike_by_name_arguments_and_values() -> None:
    gold = ("search", {"query": "cats", "limit": 5})
    # 1 for the name, 1 of 3 names shared, 1 equal value, over 2 + 2.
    assert similarity(("search", {"query": "cats", "page": 2}), gold) == pytest.approx((1 + 1 / 3 + 1) / 4)
    assert similarity(gold, gold) == 1
    assert similarity(("stop", {}), ("stop", {})) == 1
    assert similarity(("stop", {}), gold) == 0
    # The same arguments to another tool do something else.
    assert similarity(("find", {"query": "cats", "limit": 5}), gold) == 0


TABLES = st.integers(1, 4).flatmap(
    lambda m: st.integers(1, 4).flatmap(
        lambda k: st.lists(st.lists(NUMBERS, min_size=k, max_size=k), min_size=m, max_size=m)
    )
)


@given(table=TABLES)
@settings(max_examples=scaled(60), deadline=None)
def test_the_assignment_is_the_best_of_all(table: list[list[float]]) -> None:
    scores = np.array(table)
    m, k = scores.shape
    wide = scores if m <= k else scores.T
    best = max(sum(wide[i, j] for i, j in enumerate(choice)) for choice in permutations(range(max(m, k)), min(m, k)))
    found = assigned(scores)
    assert found.shape == (m,)
    assert found.sum() == pytest.approx(best)


def test_greedy_matching_would_have_missed_it() -> None:
    scores = [[0.9, 0.8], [0.8, 0.0]]
    assert assigned(scores).tolist() == [0.8, 0.8]


@given(table=TABLES)
@settings(max_examples=scaled(30), deadline=None)
def test_transport_keeps_its_margins_and_tends_to_the_assignment(table: list[list[float]]) -> None:
    scores = np.array(table)
    soft = transported(scores, regularisation=1000.0)
    np.testing.assert_allclose(soft, scores.mean(axis=1), atol=1e-3)
    if scores.shape[0] == scores.shape[1]:
        sharp = transported(scores, regularisation=0.005, rounds=5000)
        assert sharp.sum() == pytest.approx(assigned(scores).sum(), abs=0.05)
    assert transported(np.zeros((2, 0))).tolist() == [0, 0]
    with pytest.raises(ValueError, match="regularisation"):
        transported(scores, regularisation=0.0)


def test_a_table_of_calls() -> None:
    made = similarities([("a", {}), ("b", {"x": 1})], [("b", {"x": 1})])
    np.testing.assert_allclose(made, [[0.0], [1.0]])
