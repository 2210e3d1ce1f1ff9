"""The forest: step trees of many problems as concatenated arrays, so that one array operation works on all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stepreward.core.step_table import StepTable
from stepreward.core.tree import StepTree
from stepreward.core.tree_arrays import Backup, Floats, Index, backup, depths, mean_at, merge_trees, paths_to
from stepreward.core.types import Problem, StepMask, Steps

Offsets = NDArray[np.int64]


@dataclass(frozen=True)
class Forest:
    """Step trees one after the other.

    Axes: P problems (one tree each), N nodes, B trajectories of all trees, M distinct steps. Nodes of a tree are
    numbered within the tree, as in `StepTree`; do not write into the arrays.
    """

    problems: Sequence[Problem]
    """(P,) one a tree."""
    node_offset: Offsets
    """(P + 1,) nodes `node_offset[i]:node_offset[i + 1]` are tree i's, its root first."""
    row_offset: Offsets
    """(P + 1,) the same for trajectories."""
    step_offset: Offsets
    """(P + 1,) the same for distinct steps."""
    parent: Index
    """(N,) parent within the tree, -1 at roots."""
    step_id: Index
    """(N,) index among the tree's distinct steps, -1 at roots."""
    steps: StepTable
    """(M,) the distinct steps of each tree."""
    ends: Index
    """(B,) node within the tree where each trajectory ends."""
    outcomes: Floats
    """(B,) outcome, NaN where not measured."""
    complete: NDArray[np.bool_]
    """(B,) False where a trajectory was cut before its end."""
    columns: dict[str, Floats] = field(default_factory=dict)
    """Named (N,) columns; NaN where not measured."""

    @classmethod
    def from_trees(cls, trees: Sequence[StepTree]) -> Forest:
        """Trees one after the other; a column that some trees lack is NaN there."""
        names = dict.fromkeys(name for tree in trees for name in tree.columns)
        columns = {
            name: joined([tree.columns.get(name, np.full(tree.n, np.nan)) for tree in trees], np.float64)
            for name in names
        }
        tables = [t.steps if isinstance(t.steps, StepTable) else StepTable.from_steps(t.steps) for t in trees]
        return cls(
            [tree.problem for tree in trees],
            offsets([tree.n for tree in trees]),
            offsets([len(tree.ends) for tree in trees]),
            offsets([len(table) for table in tables]),
            joined([tree.parent for tree in trees], np.int32),
            joined([tree.step_id for tree in trees], np.int32),
            StepTable.concatenate(tables),
            joined([tree.ends for tree in trees], np.int32),
            joined([tree.outcomes for tree in trees], np.float64),
            joined([tree.complete for tree in trees], bool),
            columns,
        )

    @classmethod
    def from_arrays(
        cls,
        problems: Sequence[Problem],
        row_offset: Offsets,
        step_ids: NDArray[np.integer[Any]],
        step_offset: Offsets,
        steps: StepTable,
        outcomes: ArrayLike | None = None,
        complete: ArrayLike | None = None,
    ) -> Forest:
        """Builds all trees together from interned steps: the result is that of `StepTree.from_arrays` on each.

        Args:
            row_offset, step_offset: (P + 1,) which trajectories and which distinct steps belong to which problem.
            step_ids: (B, S) index of each trajectory's steps among its problem's, -1 at padding, which follows.
            outcomes, complete: (B,); NaN and True where None.

        Raises:
            ValueError: a step follows padding, or an offset does not fit.
        """
        rows, count = len(step_ids), len(problems)
        for name, offset, end in (("row", row_offset, rows), ("step", step_offset, len(steps))):
            if len(offset) != count + 1 or offset[-1] != end:
                raise ValueError(
                    f"{name}_offset needs {count + 1} numbers, one a problem and {end} at the end; "
                    f"got {len(offset)} that end in {offset[-1:]}"
                )
        tree = np.repeat(np.arange(count, dtype=np.int32), np.diff(row_offset))
        node_offset, parent, ids, ends = merge_trees(step_ids, tree, count)
        return cls(
            problems,
            node_offset,
            row_offset,
            step_offset,
            parent,
            ids,
            steps,
            ends,
            np.full(rows, np.nan) if outcomes is None else np.asarray(outcomes, np.float64),
            np.ones(rows, bool) if complete is None else np.asarray(complete, bool),
        )

    def __len__(self) -> int:
        """Number of trees."""
        return len(self.problems)

    @property
    def n(self) -> int:
        """Number of nodes of all trees, roots included."""
        return len(self.parent)

    def __getitem__(self, tree: int) -> StepTree:
        """One tree; its arrays are views of the forest's.

        Raises:
            IndexError: there is no such tree.
        """
        tree = range(len(self))[tree]
        nodes, rows = slice(*self.node_offset[tree : tree + 2]), slice(*self.row_offset[tree : tree + 2])
        return StepTree(
            self.problems[tree],
            self.parent[nodes],
            self.step_id[nodes],
            self.steps[slice(*self.step_offset[tree : tree + 2].tolist())],
            self.ends[rows],
            self.outcomes[rows],
            self.complete[rows],
            {name: column[nodes] for name, column in self.columns.items()},
        )

    def __iter__(self) -> Iterator[StepTree]:
        return (self[tree] for tree in range(len(self)))

    @cached_property
    def tree_of_node(self) -> Index:
        """(N,) index of each node's tree."""
        return np.repeat(np.arange(len(self), dtype=np.int32), np.diff(self.node_offset))

    @cached_property
    def tree_of_row(self) -> Index:
        """(B,) index of each trajectory's tree: the `group` of the other families."""
        return np.repeat(np.arange(len(self), dtype=np.int32), np.diff(self.row_offset))

    @cached_property
    def global_parent(self) -> NDArray[np.int64]:
        """(N,) parent among all nodes, -1 at roots."""
        return np.where(self.parent < 0, -1, self.parent + self.node_offset[self.tree_of_node])

    @cached_property
    def depth(self) -> Index:
        """(N,) steps above and at each node: 0 at roots."""
        return depths(self.global_parent)

    @cached_property
    def paths(self) -> NDArray[np.int64]:
        """(B, S) nodes of each trajectory among all nodes, roots left out, -1 at padding."""
        return paths_to(self.ends + self.node_offset[self.tree_of_row], self.global_parent, self.depth)

    @property
    def mask(self) -> StepMask:
        """(B, S), True where a step is real."""
        return self.paths >= 0

    def gather(self, values: Floats) -> Steps:
        """Node values (N,) as step arrays (B, S), NaN at padding; `tree_of_row` is their `group`."""
        return np.where(self.mask, values[self.paths], np.nan)

    def scatter_mean(self, values: Steps) -> Floats:
        """Step arrays back to nodes: (N,) means over the trajectories through each node, NaN where there is none."""
        mask = self.mask
        return mean_at(self.paths[mask], values[mask], self.n)

    @cached_property
    def outcome(self) -> Floats:
        """(N,) mean outcome of the trajectories that end in each node, NaN elsewhere."""
        return mean_at(self.ends + self.node_offset[self.tree_of_row], self.outcomes, self.n)

    @cached_property
    def action(self) -> NDArray[np.bool_]:
        """(N,) True at steps that are scored and trained on; False at roots and at observations."""
        action = np.r_[self.steps.action, False]
        at = np.where(self.step_id < 0, len(self.steps), self.step_id + self.step_offset[self.tree_of_node])
        return np.asarray(action[at])

    def backup(self, values: Floats, how: Backup = "mean", *, temperature: float = 1.0) -> Floats:
        """`StepTree.backup` of all trees at once: (N,) to (N,)."""
        return backup(self.global_parent, self.depth, values, how, temperature)

    def select(self, trees: ArrayLike) -> Forest:
        """The forest of some trees, in the order asked for.

        Args:
            trees: their indices, or (P,) True for those to keep.

        Raises:
            IndexError: there is no such tree.
        """
        chosen = np.arange(len(self))[np.asarray(trees, None if np.size(trees) else np.int64)]
        nodes, rows = spans(self.node_offset, chosen), spans(self.row_offset, chosen)
        return Forest(
            [self.problems[tree] for tree in chosen],
            offsets(np.diff(self.node_offset)[chosen]),
            offsets(np.diff(self.row_offset)[chosen]),
            offsets(np.diff(self.step_offset)[chosen]),
            self.parent[nodes],
            self.step_id[nodes],
            self.steps.take(spans(self.step_offset, chosen)),
            self.ends[rows],
            self.outcomes[rows],
            self.complete[rows],
            {name: column[nodes] for name, column in self.columns.items()},
        )

    def column(self, name: str) -> Floats:
        """A column by name.

        Raises:
            KeyError: there is no such column; those there are are named.
        """
        if name not in self.columns:
            raise KeyError(f"the forest has no column {name!r}: it has {[*self.columns]}")
        return self.columns[name]

    def with_column(self, name: str, values: ArrayLike) -> Forest:
        """The forest with a column set.

        Raises:
            ValueError: there is not one value a node.
        """
        column = np.asarray(values, np.float64)
        if column.shape != (self.n,):
            raise ValueError(f"column {name!r} needs shape ({self.n},), one value a node; got {column.shape}")
        return replace(self, columns={**self.columns, name: column})


def offsets(sizes: ArrayLike) -> Offsets:
    """(P + 1,) where each of P parts of these sizes begins, and where the last one ends."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)])


def spans(offset: Offsets, parts: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """What stands in some parts, one part after the other: `offset[i]:offset[i + 1]` for each i."""
    start = offsets(np.diff(offset)[parts])
    return np.asarray(np.arange(start[-1]) + np.repeat(offset[:-1][parts] - start[:-1], np.diff(start)))


def joined(parts: Sequence[NDArray[Any]], kind: Any) -> NDArray[Any]:
    """Arrays one after the other, of one dtype; possibly none."""
    return np.concatenate([np.empty(0, kind), *parts]).astype(kind, copy=False)
