"""The tree of Monte Carlo searches: rules, walks, back-ups and read-out worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from stepreward.core.search_tree import SearchTree, puct, ucb1, ucb_smoothed


def small() -> SearchTree[str]:
    """The bare problem, below it `a` (0.6) and `b` (0.55), below `a` its children `aa` (0.2) and `ab` (0.4)."""
    tree = SearchTree("")
    assert tree.expand(0, ["a", "b"], [b"a", b"b"], [0.6, 0.55]).tolist() == [1, 2]
    assert tree.expand(1, ["aa", "ab"], [b"aa", b"ab"], [0.2, 0.4], [0.25, 0.75]).tolist() == [3, 4]
    return tree


def test_children_are_added_behind_those_there_are() -> None:
    tree = small()
    tree.expand(1, ["ac"], [b"ac"], [0.3])
    below = tree.children[1]
    assert below is not None
    assert below.tolist() == [3, 4, 5]
    assert tree.path(5) == [0, 1, 5]
    assert tree.items == ["", "a", "b", "aa", "ab", "ac"]
    assert tree.prior.tolist() == [1.0, 0.5, 0.5, 0.25, 0.75, 1.0]


def test_a_walk_in_flight_counts_as_a_loss_until_it_is_backed_up() -> None:
    tree = SearchTree("")
    tree.expand(0, ["a", "b"], [b"a", b"b"], [0.6, 0.55])
    assert tree.descend(puct) == 1
    tree.in_flight[tree.path(1)] += 1
    assert tree.descend(puct) == 2
    tree.in_flight[tree.path(1)] -= 1
    tree.back_up(1, 0.6)
    np.testing.assert_array_equal(tree.visits, [1, 1, 0])
    assert tree.total[1] == 0.6
    # Visited once with 0.6, and once more in flight: a mean of 0.3.
    tree.in_flight[tree.path(1)] += 1
    seen: list[float] = []

    def watch(parent: float, visits: np.ndarray, values: np.ndarray, priors: np.ndarray) -> np.ndarray:
        seen.extend([parent, *visits, *values])
        return values

    assert tree.choose(watch, 0) == 2
    assert seen == pytest.approx([2, 2, 0, 0.3, 0.55])


def test_a_node_is_worth_the_mean_of_the_walks_through_it() -> None:
    tree = small()
    tree.back_up(3, 0.2)
    tree.back_up(4, 0.4)
    tree.back_up(2, 1.2, visits=3)
    # a: (0.2 + 0.4) / 2; the problem: (0.2 + 0.4 + 1.2) / 5; b: 1.2 / 3.
    assert tree.value.tolist() == pytest.approx([0.36, 0.3, 0.4, 0.2, 0.4])
    assert tree.visits.tolist() == [5, 2, 3, 1, 1]
    assert tree.most_visited() == 2


def test_a_node_is_worth_the_mean_of_its_visited_children() -> None:
    tree = small()
    tree.visits[[1, 3]] = [1, 2]
    tree.back_up_children(1)
    # a: 2 visits of aa, 0.2, none of ab; then the problem: 2 visits of a, none of b.
    assert tree.value.tolist() == pytest.approx([0.2, 0.2, 0.55, 0.2, 0.4])
    assert tree.visits.tolist() == [1, 2, 0, 2, 0]
    tree.back_up_children(2)
    # b has no children and keeps 0.55: (2 x 0.2 + 1 x 0.55) / 3.
    assert tree.value[[0, 2]].tolist() == pytest.approx([0.95 / 3, 0.55])


def test_what_is_read_out_by_name() -> None:
    tree = small()
    tree.back_up(3, 0.2)
    names = [b"b", b"", b"unknown", b"aa"]
    assert tree.nodes(names).tolist() == [2, 0, -1, 3]
    made = tree.columns(names)
    np.testing.assert_array_equal(made["visits"], [0, 1, np.nan, 1])
    np.testing.assert_array_equal(made["value"], [np.nan, 0.2, np.nan, 0.2])
    np.testing.assert_array_equal(tree.columns(names, unvisited=True)["value"], [0.55, 0.2, np.nan, 0.2])


def test_rules_of_finite_bonus_worked_out() -> None:
    visits, values, priors = np.array([2.0, 0.0]), np.array([0.5, 0.4]), np.ones(2)
    np.testing.assert_allclose(
        ucb1(4.0, visits, values, priors, exploration=0.5, unvisited=0.9), [0.5 + 0.5 * math.sqrt(math.log(4)), 1.3]
    )
    made = ucb_smoothed(4.0, visits, values, priors, exploration=0.5, floor=0.5)
    np.testing.assert_allclose(
        made, [0.5 + 0.5 * math.sqrt((1 + math.log(4)) / 2.5), 0.4 + 0.5 * math.sqrt((1 + math.log(4)) / 0.5)]
    )


def test_of_equally_visited_children_the_walks_agree_on_the_more_valuable() -> None:
    tree = small()
    tree.back_up(3, 0.2)
    tree.back_up(4, 0.4)
    assert tree.items[tree.most_visited()] == "ab"
