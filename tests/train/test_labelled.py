"""Labelled trees of a whole data set are made together, and are those that a slow loop makes one by one."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepreward.core.errors import InputError
from stepreward.core.tree import StepTree, group_trees, trees_of
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.train.data.labelled_trees import labelled_trees

CHOICES = st.tuples(st.sampled_from("abc"), st.sampled_from(["action", "observation"]))
ROW = st.tuples(
    st.integers(0, 4),
    st.lists(st.tuples(CHOICES, st.sampled_from([np.nan, 0.0, 0.25, 1.0]), st.integers(0, 3)), max_size=5),
    st.sampled_from([np.nan, 0.0, 1.0]),
    st.booleans(),
)


def labels_of(
    problem: str, rows: list[tuple[tuple[str, str], float, int]], outcome: float, terminal: bool
) -> Trajectory:
    steps = tuple(Step(text, kind) for (text, kind), _, _ in rows)  # type: ignore[arg-type]
    label = np.array([label for _, label, _ in rows], np.float64)
    columns = {"label": label, "n_rollouts": np.array([n for *_, n in rows], np.float64)}
    return Trajectory(Problem(problem, "?"), steps, outcome, terminal, columns=columns)


def same(one: StepTree, other: StepTree) -> None:
    for field in fields(StepTree):
        if field.name not in ("problem", "steps", "columns", "step_columns", "attempts"):
            np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))
            assert getattr(one, field.name).dtype == getattr(other, field.name).dtype
    assert (one.problem, list(one.steps)) == (other.problem, list(other.steps))
    assert all(a is b for a, b in zip(one.attempts, other.attempts, strict=True))
    for name in ("depth", "paths", "action", "terminal", "outcome"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        assert getattr(one, name).dtype == getattr(other, name).dtype


def slow_means(group: list[Trajectory]) -> dict[tuple[tuple[str, str], ...], float]:
    """The label of each prefix: mean of its supervised labels, weighted by rollouts, at least one each."""
    sums: dict[tuple[tuple[str, str], ...], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for one in group:
        path: tuple[tuple[str, str], ...] = ()
        for step, label, n in zip(one.steps, one.labels, one.column("n_rollouts"), strict=True):
            path = (*path, (step.text, step.kind))
            if not np.isnan(label):
                sums[path][0] += max(1, n) * label
                sums[path][1] += max(1, n)
    return {path: total / weight for path, (total, weight) in sums.items()}


@given(st.lists(ROW, min_size=1, max_size=12), st.sampled_from([1, 7, 1 << 22]))
def test_trees_made_together_are_those_made_one_by_one(rows: list, cells: int) -> None:
    groups: dict[int, list[Trajectory]] = {}
    for problem, steps, outcome, terminal in rows:
        groups.setdefault(problem, []).append(labels_of(str(problem), steps, outcome, terminal))
    together = trees_of(list(groups.values()), cells=cells)
    for tree, group in zip(together, groups.values(), strict=True):
        same(tree, StepTree.from_trajectories(group))
        assert [t.steps for t in tree.trajectories()] == [t.steps for t in group]


@given(st.lists(ROW, min_size=1, max_size=12))
def test_labels_are_those_of_a_slow_loop(rows: list) -> None:
    every = [labels_of(str(problem), *rest) for problem, *rest in rows]
    groups: dict[str, list[Trajectory]] = {}
    for one in every:
        groups.setdefault(one.problem.id, []).append(one)
    if all(np.isnan(one.labels).all() for one in every):
        with pytest.raises(InputError, match="no supervised step"):
            labelled_trees(every)
        return
    for made, group in zip(labelled_trees(every), groups.values(), strict=True):
        same(made, StepTree.from_trajectories(list(group)))
        means = slow_means(group)
        for b, one in enumerate(group):
            path: tuple[tuple[str, str], ...] = ()
            for s, step in enumerate(one.steps):
                path = (*path, (step.text, step.kind))
                expected = np.nan if np.isnan(one.labels[s]) else means[path]
                np.testing.assert_allclose(made.step_column("label")[b, s], expected, rtol=1e-15)
            assert np.isnan(made.step_column("label")[b, len(one) :]).all()


def test_a_label_out_of_range_is_named_and_one_too_few_cannot_be_made() -> None:
    good = labels_of("p", [(("a", "action"), 1.0, 0)], 1.0, True)
    with pytest.raises(ValueError, match="problem 'p' has 1 steps and 2 entries in the column 'label'"):
        good.with_columns({"label": np.ones(2)})
    with pytest.raises(InputError, match=r"problem 'r' has a label of 1\.5"):
        labelled_trees([good, labels_of("r", [(("a", "action"), 1.5, 0)], 1.0, True)])


def test_groups_must_hold_one_problem_and_something() -> None:
    one, other = (labels_of(name, [], 1.0, True) for name in "pq")
    with pytest.raises(ValueError, match="got 'p' and 'q'"):
        trees_of([[one, other]])
    with pytest.raises(ValueError, match="at least one trajectory"):
        trees_of([[one], []])
    assert trees_of([]) == []
    assert [tree.problem.id for tree in group_trees([one, other, one])] == ["p", "q"]
