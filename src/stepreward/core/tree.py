"""The step tree: all trajectories of one problem as arrays, each shared prefix once.

Node 0 is the bare problem. Every other node is a step; `parent[i] < i`, so one pass in either direction visits parents
before or after their children. Columns (`value`, `label`, `score`, ...) hold one float a node.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stepreward.core.tree_arrays import (
    Backup,
    Floats,
    Index,
    backup,
    depths,
    mean_at,
    merge_prefixes,
    merge_trees,
    paths_to,
)
from stepreward.core.types import Problem, Step, StepMask, Steps, Trajectory


@dataclass(frozen=True)
class StepTree:
    """Trajectories of one problem, merged where their prefixes are equal.

    Axes: n nodes, B trajectories, S steps. Do not write into the arrays; `with_column` and the other operations return
    new trees that share what did not change.
    """

    problem: Problem
    parent: Index
    """(n,) parent of each node, -1 at the root; smaller than the node's own index."""
    step_id: Index
    """(n,) index into `steps` of each node's step, -1 at the root: equal steps are stored once."""
    steps: Sequence[Step]
    """The distinct steps."""
    ends: Index
    """(B,) node where each trajectory ends; 0 for one without steps."""
    outcomes: Floats
    """(B,) outcome of each trajectory, NaN where not measured."""
    complete: NDArray[np.bool_]
    """(B,) False where a trajectory was cut before its end."""
    columns: dict[str, Floats] = field(default_factory=dict)
    """Named (n,) columns; NaN where not measured."""

    @classmethod
    def from_trajectories(cls, trajectories: Sequence[Trajectory], problem: Problem | None = None) -> StepTree:
        """Merges the equal prefixes of one problem's trajectories; steps are equal if their `identity` is.

        The measurements of a step (`logprobs`, `meta`) are those of its first occurrence.

        Raises:
            ValueError: no trajectory and no problem is given, or they belong to different problems.
        """
        if problem is None and not trajectories:
            raise ValueError("a tree needs a problem or at least one trajectory of it")
        problem = problem if problem is not None else trajectories[0].problem
        ids, steps = _interned(trajectories, problem)
        outcomes = np.array([t.outcome for t in trajectories], np.float64)
        matrix = _padded(ids, [len(t) for t in trajectories])
        return cls.from_arrays(problem, matrix, steps, outcomes, np.array([t.terminal for t in trajectories], bool))

    @classmethod
    def from_arrays(
        cls,
        problem: Problem,
        step_ids: NDArray[np.integer[Any]],
        steps: Sequence[Step],
        outcomes: ArrayLike | None = None,
        complete: ArrayLike | None = None,
    ) -> StepTree:
        """Builds a tree from interned steps, level by level on pairs (parent, step), by array operations.

        Args:
            step_ids: (B, S) index of each trajectory's steps into `steps`, -1 at padding, which follows the steps.
            steps: the distinct steps.
            outcomes, complete: (B,); NaN and True where None.

        Raises:
            ValueError: a step follows padding.
        """
        rows = len(step_ids)
        parent, ids, ends, _ = merge_prefixes(step_ids, np.zeros(rows, np.int32), 1)
        return cls(
            problem,
            parent,
            ids,
            steps,
            ends,
            np.full(rows, np.nan) if outcomes is None else np.asarray(outcomes, np.float64),
            np.ones(rows, bool) if complete is None else np.asarray(complete, bool),
        )

    @property
    def n(self) -> int:
        """Number of nodes, the root included."""
        return len(self.parent)

    @cached_property
    def depth(self) -> Index:
        """(n,) number of steps above and at each node: 0 at the root."""
        return depths(self.parent)

    @cached_property
    def action(self) -> NDArray[np.bool_]:
        """(n,) True at steps that are scored and trained on; False at the root and at observations."""
        kinds = np.array([step.kind == "action" for step in self.steps] + [False], bool)
        return kinds[self.step_id]

    @cached_property
    def paths(self) -> Index:
        """(B, S) nodes of each trajectory in order, the root left out, -1 at padding."""
        return paths_to(self.ends, self.parent, self.depth)

    @property
    def mask(self) -> StepMask:
        """(B, S), True where a step is real."""
        return self.paths >= 0

    @cached_property
    def terminal(self) -> NDArray[np.bool_]:
        """(n,) True where a complete trajectory ends."""
        terminal = np.zeros(self.n, bool)
        terminal[self.ends[self.complete]] = True
        return terminal

    @cached_property
    def outcome(self) -> Floats:
        """(n,) mean outcome of the trajectories that end in each node, NaN elsewhere."""
        return mean_at(self.ends, self.outcomes, self.n)

    @cached_property
    def leaves(self) -> Index:
        """Nodes without children."""
        return np.flatnonzero(self.n_children == 0).astype(np.int32)

    @cached_property
    def n_children(self) -> Index:
        """(n,) number of children."""
        return np.bincount(self.parent[1:], minlength=self.n).astype(np.int32)

    @property
    def forks(self) -> Index:
        """Nodes with more than one child: where trajectories part."""
        return np.flatnonzero(self.n_children > 1).astype(np.int32)

    @cached_property
    def child_order(self) -> tuple[Index, NDArray[np.int64]]:
        """Nodes sorted by parent, and (n + 1,) offsets: the children of i are `order[offsets[i]:offsets[i + 1]]`."""
        order = np.argsort(self.parent[1:], kind="stable").astype(np.int32) + 1
        return order.astype(np.int32), np.r_[0, np.cumsum(self.n_children, dtype=np.int64)]

    def children_of(self, node: int) -> Index:
        """Children of a node, in order of first appearance."""
        order, offsets = self.child_order
        children: Index = np.asarray(order[offsets[node] : offsets[node + 1]])
        return children

    def siblings(self, node: int) -> Index:
        """The other children of a node's parent; none for the root."""
        if node == 0:
            return np.empty(0, np.int32)
        family = self.children_of(int(self.parent[node]))
        return np.asarray(family[family != node])

    def step(self, node: int) -> Step:
        """The step of a node other than the root.

        Raises:
            IndexError: the node is the root or does not exist.
        """
        if not 0 < node < self.n:
            raise IndexError(f"node {node} is no step: steps are nodes 1 to {self.n - 1}, node 0 is the problem")
        return self.steps[int(self.step_id[node])]

    def prefix(self, node: int) -> tuple[Step, ...]:
        """The steps from the root to a node, its own included."""
        steps = []
        while node > 0:
            steps.append(self.steps[self.step_id[node]])
            node = int(self.parent[node])
        return tuple(reversed(steps))

    def trajectories(self) -> list[Trajectory]:
        """The trajectories that the tree was built from, in their order."""
        made, known = [], list(self.steps)
        for row, path in enumerate(self.paths):
            steps = tuple(known[i] for i in self.step_id[path[path >= 0]])
            made.append(Trajectory(self.problem, steps, float(self.outcomes[row]), bool(self.complete[row])))
        return made

    def column(self, name: str) -> Floats:
        """A column by name.

        Raises:
            KeyError: there is no such column; those there are are named.
        """
        if name not in self.columns:
            raise KeyError(f"the tree of problem {self.problem.id!r} has no column {name!r}: it has {[*self.columns]}")
        return self.columns[name]

    def with_column(self, name: str, values: ArrayLike) -> StepTree:
        """The tree with a column set.

        Raises:
            ValueError: there is not one value a node.
        """
        column = np.asarray(values, np.float64)
        if column.shape != (self.n,):
            raise ValueError(f"column {name!r} needs shape ({self.n},), one value a node; got {column.shape}")
        made = replace(self, columns={**self.columns, name: column})
        # What follows from the tree's shape (`depth`, `paths`, ...) holds for the new one and is not worked out again.
        vars(made).update({name: value for name, value in vars(self).items() if name not in vars(made)})
        return made

    def gather(self, values: Floats) -> Steps:
        """Node values as step arrays (B, S), NaN at padding."""
        return np.where(self.mask, values[self.paths], np.nan)

    def scatter_mean(self, values: Steps) -> Floats:
        """Step arrays back to nodes: (n,) means over the trajectories through each node, NaN where there is none."""
        mask = self.mask
        return mean_at(self.paths[mask], values[mask], self.n)

    def backup(self, values: Floats, how: Backup = "mean", *, temperature: float = 1.0) -> Floats:
        """Values of inner nodes from their children's, leaves keep their own: from the deepest level up.

            mean, max, min over children; softmax: tau log mean exp(v / tau)

        Args:
            values: (n,); NaN where not measured. A child with NaN does not count; a node none of whose children counts
                keeps its own value.
            how: the operator.
            temperature: tau > 0 of softmax; tau -> 0 tends to max, tau -> infinity to mean.

        Returns:
            (n,) values.

        Raises:
            ValueError: unknown operator, or `temperature` not positive.
        """
        return backup(self.parent, self.depth, values, how, temperature)

    def prune(self, keep: NDArray[np.bool_]) -> StepTree:
        """The tree of the nodes kept; a node whose ancestor goes, goes too, and so does a trajectory that ends in one.

        Args:
            keep: (n,), True for nodes to keep; the root always stays.
        """
        kept = keep.copy()
        kept[0] = True
        above = np.maximum(self.parent, 0)
        while above.any():
            # Before round k, `kept` answers for 2^k ancestors and `above` is the next one.
            kept, above = kept & kept[above], above[above]
        new = np.cumsum(kept, dtype=np.int32) - 1
        parent = np.where(self.parent[kept] >= 0, new[self.parent[kept]], -1).astype(np.int32)
        stays = kept[self.ends]
        return StepTree(
            self.problem,
            parent,
            self.step_id[kept],
            self.steps,
            new[self.ends[stays]].astype(np.int32),
            self.outcomes[stays],
            self.complete[stays],
            {name: column[kept] for name, column in self.columns.items()},
        )

    def merge(self, other: StepTree) -> StepTree:
        """Both trees' trajectories in one tree; columns are kept where a node is in either, the first tree's winning.

        Raises:
            ValueError: the trees belong to different problems.
        """
        merged = StepTree.from_trajectories([*self.trajectories(), *other.trajectories()], self.problem)
        columns: dict[str, Floats] = {}
        for tree, paths in ((other, merged.paths[len(self.ends) :]), (self, merged.paths[: len(self.ends)])):
            nodes, own = paths[:, : tree.paths.shape[1]][tree.mask], tree.paths[tree.mask]
            for name, values in tree.columns.items():
                column = columns.setdefault(name, np.full(merged.n, np.nan))
                known = ~np.isnan(values[own])
                column[nodes[known]] = values[own][known]
                if not np.isnan(values[0]):
                    column[0] = values[0]
        return replace(merged, columns=columns)


def group_trees(trajectories: Iterable[Trajectory]) -> list[StepTree]:
    """One tree a problem, in order of each problem's first trajectory."""
    groups: dict[str, list[Trajectory]] = {}
    for trajectory in trajectories:
        groups.setdefault(trajectory.problem.id, []).append(trajectory)
    return trees_of(list(groups.values()))


def trees_of(groups: Sequence[Sequence[Trajectory]], *, cells: int = 1 << 22) -> list[StepTree]:
    """One tree a group, as `StepTree.from_trajectories` makes of each, by array operations over many groups at once.

    Args:
        groups: trajectories of one problem each, at least one.
        cells: trajectories times the steps of the longest that are worked on together, at least one group.

    Raises:
        ValueError: a group is empty, or holds several problems.
    """
    made: list[StepTree] = []
    start, rows, longest = 0, 0, 0
    for at, group in enumerate(groups):
        longest_now = max(longest, *map(len, group)) if group else longest
        if at > start and (rows + len(group)) * longest_now > cells:
            made += _together(groups[start:at])
            start, rows, longest_now = at, 0, max(map(len, group), default=0)
        rows, longest = rows + len(group), longest_now
    return made + _together(groups[start:])


def _together(groups: Sequence[Sequence[Trajectory]]) -> list[StepTree]:
    """The trees of some groups, out of one matrix of steps."""
    if any(not group for group in groups):
        raise ValueError("a tree needs at least one trajectory: leave empty groups out")
    every = [t for group in groups for t in group]
    owner = np.repeat(np.arange(len(groups), dtype=np.int32), [len(group) for group in groups])
    interned = [_interned(group, group[0].problem) for group in groups]
    lengths = np.array([len(t) for t in every], np.int64)
    matrix = _padded([i for ids, _ in interned for i in ids], lengths)
    offset, parent, ids, ends = merge_trees(matrix, owner, len(groups))
    above = np.where(parent < 0, -1, parent + np.repeat(offset[:-1], np.diff(offset)))
    depth, start = depths(above), offset[owner]
    paths = paths_to(ends + start, above, depth)
    paths = np.where(paths >= 0, paths - start[:, None], -1).astype(np.int32)
    outcomes = np.array([t.outcome for t in every], np.float64)
    complete = np.array([t.terminal for t in every], bool)
    made, last = [], 0
    for i, (group, (_, steps)) in enumerate(zip(groups, interned, strict=True)):
        nodes, rows = slice(offset[i], offset[i + 1]), slice(last, last + len(group))
        tree = StepTree(group[0].problem, parent[nodes], ids[nodes], steps, ends[rows], outcomes[rows], complete[rows])
        # Where the cached properties look first.
        vars(tree).update(depth=depth[nodes], paths=paths[rows, : lengths[rows].max()].copy())
        made.append(tree)
        last = rows.stop
    return made


def _interned(trajectories: Sequence[Trajectory], problem: Problem) -> tuple[list[int], list[Step]]:
    """Indices of all steps, one trajectory after the other, into the distinct ones.

    Raises:
        ValueError: a trajectory is of another problem.
    """
    known: dict[tuple[object, ...], int] = {}
    ids: list[int] = []
    steps: list[Step] = []
    for trajectory in trajectories:
        if trajectory.problem.id != problem.id:
            other = trajectory.problem.id
            raise ValueError(f"a tree holds one problem; got {problem.id!r} and {other!r}: group trajectories first")
        for step in trajectory.steps:
            at = known.setdefault(step.identity, len(steps))
            if at == len(steps):
                steps.append(step)
            ids.append(at)
    return ids, steps


def _padded(ids: Sequence[int], lengths: ArrayLike) -> Index:
    """Rows of these lengths out of what stands one after the other, -1 at padding."""
    each = np.asarray(lengths, np.int64)
    matrix = np.full((len(each), int(each.max(initial=0))), -1, np.int32)
    matrix[np.arange(matrix.shape[1]) < each[:, None]] = ids
    return matrix
