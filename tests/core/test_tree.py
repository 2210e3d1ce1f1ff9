"""The step tree against a slow and obvious version: prefixes as tuples in a dictionary."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepreward.core.prefix_names import Prefix
from stepreward.core.tree import StepTree, group_trees
from stepreward.core.types import Problem, Provenance, Step, Trajectory

PROBLEM = Problem("p", "What is 1 + 1?")
STEPS = st.builds(Step, st.sampled_from("abc"), st.sampled_from(["action", "observation"]))
TRAJECTORIES = st.lists(
    st.builds(
        lambda steps, outcome, terminal: Trajectory(PROBLEM, tuple(steps), outcome, terminal),
        st.lists(STEPS, max_size=5),
        st.sampled_from([0.0, 0.5, 1.0, math.nan]),
        st.booleans(),
    ),
    min_size=1,
    max_size=8,
)
SEEDS = st.integers(0, 1000)


def same(a: Trajectory, b: Trajectory) -> bool:
    outcomes = a.outcome == b.outcome or (math.isnan(a.outcome) and math.isnan(b.outcome))
    return outcomes and replace(a, outcome=0.0) == replace(b, outcome=0.0)


def slow_prefixes(trajectories: list[Trajectory]) -> set[tuple[Step, ...]]:
    return {t.steps[:k] for t in trajectories for k in range(len(t) + 1)}


@given(TRAJECTORIES)
def test_a_tree_has_one_node_a_prefix_and_gives_its_trajectories_back(trajectories: list[Trajectory]) -> None:
    tree = StepTree.from_trajectories(trajectories)
    assert {tree.prefix(i) for i in range(tree.n)} == slow_prefixes(trajectories)
    assert tree.n == len(slow_prefixes(trajectories))
    assert all(map(same, tree.trajectories(), trajectories))
    assert (tree.parent[1:] < np.arange(1, tree.n)).all()
    assert tree.parent[0] == -1


def test_the_bridge_loses_nothing_and_brings_step_columns_back() -> None:
    """Two trajectories share a step, and differ in all that is measured of it."""
    by = (Provenance("hand"),)
    shared = [Step("a", logprobs=(-0.5,), meta={"n": 1}), Step("a", logprobs=(-2.0,))]
    given = [
        Trajectory(
            PROBLEM,
            (shared[0], Step("b")),
            1.0,
            answer="b",
            first_error=1,
            columns={"label": np.array([1.0, 0.0])},
            facts={"weight": 2},
            provenance=by,
        ),
        Trajectory(PROBLEM, (shared[1],), terminal=False, columns={"label": np.array([0.25])}),
    ]
    tree = StepTree.from_trajectories(given)
    assert tree.trajectories() == given
    assert [t.steps[0].logprobs for t in tree.trajectories()] == [(-0.5,), (-2.0,)]
    np.testing.assert_array_equal(tree.step_column("label"), [[1.0, 0.0], [0.25, math.nan]])
    assert np.isnan(tree.step_column("score")).all()
    first, second = tree.with_step_column("score", [[0.1, 0.2], [0.3, 9.0]]).trajectories()
    assert (first.answer, first.first_error, dict(first.facts), first.provenance) == ("b", 1, {"weight": 2}, by)
    np.testing.assert_array_equal(first.column("score"), [0.1, 0.2])
    np.testing.assert_array_equal(second.column("score"), [0.3])
    np.testing.assert_array_equal(second.labels, [0.25])
    with pytest.raises(ValueError, match=r"step column 'score' needs shape \(2, 2\)"):
        tree.with_step_column("score", [[0.1, 0.2]])


@given(TRAJECTORIES, SEEDS)
def test_some_rows_are_the_tree_of_those_trajectories_with_their_step_columns(
    trajectories: list[Trajectory], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    tree = StepTree.from_trajectories(trajectories)
    tree = tree.with_step_column("label", rng.random(tree.paths.shape))
    keep = rng.permutation(len(trajectories))[: rng.integers(1, len(trajectories) + 1)].tolist()
    part, alone = tree.rows(keep), StepTree.from_trajectories([trajectories[i] for i in keep])
    assert [part.prefix(i) for i in range(part.n)] == [alone.prefix(i) for i in range(alone.n)]
    for row, (i, one) in enumerate(zip(keep, part.trajectories(), strict=True)):
        assert same(one, trajectories[i])
        np.testing.assert_array_equal(one.labels, tree.step_column("label")[i, : len(one)])
        assert np.isnan(part.step_column("label")[row, len(one) :]).all()


@given(TRAJECTORIES)
def test_structure_equals_the_obvious(trajectories: list[Trajectory]) -> None:
    tree = StepTree.from_trajectories(trajectories)
    prefixes = [tree.prefix(i) for i in range(tree.n)]
    for i, prefix in enumerate(prefixes):
        assert tree.depth[i] == len(prefix)
        assert prefixes[tree.parent[i]] == prefix[:-1] or i == 0
        assert tree.names[i] == Prefix(prefix).name
        assert tree.action[i] == bool(prefix and prefix[-1].kind == "action")
        assert tree.terminal[i] == any(t.steps == prefix and t.terminal for t in trajectories)
        graded = [t.outcome for t in trajectories if t.steps == prefix and not math.isnan(t.outcome)]
        np.testing.assert_allclose(tree.outcome[i], np.mean(graded) if graded else math.nan)
        if i:
            assert tree.step(i) == prefix[-1]


@given(TRAJECTORIES, SEEDS)
def test_gather_and_scatter_are_a_bridge(trajectories: list[Trajectory], seed: int) -> None:
    tree = StepTree.from_trajectories(trajectories)
    values = np.random.default_rng(seed).normal(size=tree.n)
    arrays = tree.gather(values)
    assert arrays.shape == tree.mask.shape
    for row, trajectory in enumerate(trajectories):
        assert tree.mask[row].sum() == len(trajectory)
        assert np.isnan(arrays[row, len(trajectory) :]).all()
    back = tree.scatter_mean(arrays)
    np.testing.assert_allclose(back[1:], values[1:])
    assert math.isnan(back[0])
    noisy = np.random.default_rng(seed).normal(size=arrays.shape)
    means = tree.scatter_mean(noisy)
    for i in range(1, tree.n):
        np.testing.assert_allclose(means[i], noisy[tree.paths == i].mean())


@given(TRAJECTORIES)
def test_a_tree_from_named_prefixes_is_that_of_the_trajectories(trajectories: list[Trajectory]) -> None:
    slow = StepTree.from_trajectories(trajectories)
    steps = [t.steps for t in trajectories]
    tree = StepTree.from_prefixes(PROBLEM, steps, [t.terminal for t in trajectories])
    assert [tree.step(i) for i in range(1, tree.n)] == [slow.step(i) for i in range(1, slow.n)]
    for name in ("parent", "ends", "complete", "depth"):
        np.testing.assert_array_equal(getattr(tree, name), getattr(slow, name))
    assert tree.names == slow.names
    assert np.isnan(tree.outcomes).all()
    assert StepTree.from_prefixes(PROBLEM, steps).complete.all()


def test_grouping_makes_one_tree_a_problem() -> None:
    other = Problem("q", "?")
    rows = [Trajectory(PROBLEM, (Step("a"),)), Trajectory(other, ()), Trajectory(PROBLEM, (Step("b"),))]
    assert [(t.problem.id, t.n, len(t.ends)) for t in group_trees(rows)] == [("p", 3, 2), ("q", 1, 1)]


def test_bad_input_is_named() -> None:
    tree = StepTree.from_trajectories([Trajectory(PROBLEM, (Step("a"),))])
    with pytest.raises(ValueError, match=r"needs shape \(2,\)"):
        tree.with_column("value", [1.0])
    with pytest.raises(KeyError, match="no column 'value'"):
        tree.column("value")
    with pytest.raises(IndexError, match="node 0 is the problem"):
        tree.step(0)
    with pytest.raises(ValueError, match="'p' and 'q'"):
        StepTree.from_trajectories([Trajectory(PROBLEM, ()), Trajectory(Problem("q", ""), ())])
    with pytest.raises(ValueError, match="padding"):
        StepTree.from_arrays(PROBLEM, np.array([[-1, 0]]), [Step("a")])
    with pytest.raises(ValueError, match="at least one trajectory"):
        StepTree.from_trajectories([])
