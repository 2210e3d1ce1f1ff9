"""Read-outs of trees: the numbers that papers and released code give, and what must hold for every tree."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepreward.label.trees.readouts import (
    any_right,
    best_leaf,
    discounted_leaves,
    distance_values,
    leaf_share,
    scaled,
)

NAN = float("nan")


def ends(n: int, **outcomes: float) -> np.ndarray:
    made = np.full(n, NAN)
    for node, outcome in outcomes.items():
        made[int(node[1:])] = outcome
    return made


def test_process_values_of_rest_mcts_by_hand() -> None:
    # root - a(1) - b(2) - c(3, right); a - d(4, wrong); root - e(5, wrong); root - f(6), which leads to no end.
    parent = np.array([-1, 0, 1, 2, 1, 0, 0])
    made = distance_values(parent, ends(7, n3=1, n4=0, n5=0))
    np.testing.assert_allclose(made, [0, 1 / 3, 2 / 3, 1, 1 / 9, 0, NAN])


@pytest.mark.parametrize("length", [1, 2, 5])
def test_on_a_right_chain_the_process_value_is_the_share_of_steps_done(length: int) -> None:
    made = distance_values(np.arange(-1, length), ends(length + 1, **{f"n{length}": 1.0}))
    np.testing.assert_allclose(made, np.arange(length + 1) / length)


def test_a_tree_without_a_right_end_has_no_process_values() -> None:
    assert np.isnan(distance_values(np.array([-1, 0, 0]), ends(3, n1=0, n2=0))).all()


def test_q_of_qlass_and_its_scaling_by_hand() -> None:
    # root - p(1) - leaves .4 and 1; root - leaf .2
    parent = np.array([-1, 0, 1, 1, 0])
    made = best_leaf(parent, ends(5, n2=0.4, n3=1.0, n4=0.2), discount=0.9)
    np.testing.assert_allclose(made, [0.81, 0.9, 0.4, 1.0, 0.2])
    np.testing.assert_allclose(scaled(made)[[1, 2]], [0.875, 0.25])
    np.testing.assert_array_equal(scaled(np.array([0.3, NAN, 0.3])), [0, NAN, 0])


def test_discounted_leaves_of_portool_by_hand() -> None:
    # Outcomes 1 at distance 2 and 0: (0.95^2 + 0) / 2.
    made = discounted_leaves(np.array([-1, 0, 1, 0]), ends(4, n2=1, n3=0), np.ones(4), discount=0.95)
    assert made[0] == pytest.approx(0.45125)
    assert made[1] == pytest.approx(0.95)


def test_the_share_of_leaves_counts_samples_and_is_hrms_without_equal_ones() -> None:
    parent = np.array([-1, 0, 1, 1, 1, 1])
    outcome = ends(6, n2=1, n3=0, n4=0, n5=0)
    np.testing.assert_allclose(leaf_share(parent, outcome, np.ones(6))[:2], 0.25)
    np.testing.assert_allclose(leaf_share(parent, outcome, np.array([1, 1, 3, 1, 1, 1]))[:2], 0.5)


@st.composite
def trees(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    n = draw(st.integers(2, 24))
    parent = np.array([-1, *(draw(st.integers(0, i - 1)) for i in range(1, n))])
    outcome = np.full(n, NAN)
    for node in set(range(n)) - set(parent.tolist()):
        outcome[node] = draw(st.sampled_from([0.0, 1.0, 0.3, NAN]))
    return parent, outcome, np.array([draw(st.integers(1, 3)) for _ in range(n)])


def below(parent: np.ndarray, node: int) -> list[tuple[int, int]]:
    """All nodes at or below a node with their distance, one by one."""
    made = []
    for other in range(len(parent)):
        at, distance = other, 0
        while at > node:
            at, distance = int(parent[at]), distance + 1
        made += [(other, distance)] if at == node else []
    return made


@given(trees())
def test_read_outs_are_what_a_walk_over_all_ends_below_says(tree: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    parent, outcome, samples = tree
    weight = np.ones(len(parent))
    for node in range(len(parent)):
        at = node
        while at > 0:
            weight[node] *= samples[at]
            at = int(parent[at])
    weight *= samples[0]
    share, discounted = leaf_share(parent, outcome, samples), discounted_leaves(parent, outcome, samples, discount=0.9)
    right, best = any_right(parent, outcome), best_leaf(parent, outcome, discount=0.9)
    for node in range(len(parent)):
        known = [(end, d) for end, d in below(parent, node) if not np.isnan(outcome[end])]
        if not known:
            assert np.isnan([share[node], discounted[node], right[node], best[node]]).all()
            continue
        whole = sum(weight[end] for end, _ in known)
        assert share[node] == pytest.approx(sum(weight[end] for end, _ in known if outcome[end] > 0.5) / whole)
        assert discounted[node] == pytest.approx(sum(weight[e] * 0.9**d * outcome[e] for e, d in known) / whole)
        assert right[node] == any(outcome[end] > 0.5 for end, _ in known)
        assert best[node] == pytest.approx(max(0.9**d * outcome[end] for end, d in known))


@given(trees())
def test_process_values_rise_towards_a_right_end_and_stay_between_0_and_1(
    tree: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    parent, outcome, _ = tree
    made = distance_values(parent, outcome)
    known = ~np.isnan(made)
    assert ((made[known] >= 0) & (made[known] <= 1 + 1e-12)).all()
    right = any_right(parent, outcome)
    for node in np.flatnonzero(known)[1:]:
        above = made[parent[node]]
        assert (made[node] > above) if right[node] and above < 1 else (made[node] <= above)
    np.testing.assert_allclose(made[(np.nan_to_num(outcome) > 0.5) & known], 1.0)
