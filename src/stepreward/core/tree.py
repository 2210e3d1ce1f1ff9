"""The step tree: all trajectories of one problem as arrays, each shared prefix once.

Node 0 is the bare problem. Every other node is a step; `parent[i] < i`, so one pass in either direction visits parents
before or after their children. Columns (`value`, `score`, `visits`, ...) hold one float a node: what belongs to a
prefix, whichever trajectory passes it. Step columns (`label`, ...) hold one float for each step of each trajectory:
what two trajectories may say differently of a prefix that they share.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stepreward.core.html_table import html_table
from stepreward.core.optional import optional
from stepreward.core.prefix_names import TOP, Name, below, prefix_of
from stepreward.core.tree_arrays import Index, depths, mean_at, merge_prefixes, merge_trees, paths_to
from stepreward.core.types import Floats, Problem, Step, StepMask, Steps, Trajectory


@dataclass(frozen=True)
class StepTree:
    """Trajectories of one problem, merged where their prefixes are equal; `trajectories()` gives them back.

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
    step_columns: dict[str, Floats] = field(default_factory=dict)
    """Named (B, S) columns that were set on the tree; NaN at padding and where not measured."""
    attempts: tuple[Trajectory, ...] = ()
    """(B,) the trajectories that were merged, with all their measurements; empty for a tree built from arrays."""

    @classmethod
    def from_trajectories(cls, trajectories: Sequence[Trajectory], problem: Problem | None = None) -> StepTree:
        """Merges the equal prefixes of one problem's trajectories; steps are equal if their `identity` is.

        Raises:
            ValueError: no trajectory and no problem is given, or they belong to different problems.
        """
        if problem is None and not trajectories:
            raise ValueError("a tree needs a problem or at least one trajectory of it")
        problem = problem if problem is not None else trajectories[0].problem
        ids, steps = _distinct_steps(trajectories, problem)
        outcomes = np.array([t.outcome for t in trajectories], np.float64)
        complete = np.array([t.terminal for t in trajectories], bool)
        tree = cls.from_arrays(problem, _padded(ids, [len(t) for t in trajectories]), steps, outcomes, complete)
        return replace(tree, attempts=tuple(trajectories))

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
        graded = np.full(rows, np.nan) if outcomes is None else np.asarray(outcomes, np.float64)
        ended = np.ones(rows, bool) if complete is None else np.asarray(complete, bool)
        return cls(problem, parent, ids, steps, ends, graded, ended)

    @classmethod
    def from_prefixes(
        cls, problem: Problem, prefixes: Sequence[Sequence[Step]], complete: ArrayLike | None = None
    ) -> StepTree:
        """Builds the tree of `from_trajectories` from prefixes with names: each node is read once.

        The candidates of a search share most of their steps: this takes time in the nodes, not in all candidates.

        Args:
            prefixes: (B,) steps of each trajectory.
            complete: (B,) False where one was cut before its end; True where None.
        """
        node_of: dict[Name, int] = {TOP: 0}
        distinct: dict[tuple[object, ...], int] = {}
        steps: list[Step] = []
        rows = [(-1, 0, -1)]  # parent, depth and step of each node
        ends = []
        for prefix in map(prefix_of, prefixes):
            # The longest part of the prefix that is in the tree already.
            known = len(prefix)
            while known and prefix.names[known - 1] not in node_of:
                known -= 1
            node = node_of[prefix.names[known - 1]] if known else 0
            for depth in range(known, len(prefix)):
                step = distinct.setdefault((prefix[depth].identity, repr(prefix[depth].meta)), len(steps))
                if step == len(steps):
                    steps.append(prefix[depth])
                rows.append((node, depth + 1, step))
                node = node_of[prefix.names[depth]] = len(rows) - 1
            ends.append(node)
        parent, depths_, step_id = np.array(rows, np.int32).T
        # Nodes are renumbered level by level, as `from_arrays` numbers them.
        order = np.argsort(depths_, kind="stable")
        new = np.empty(len(order), np.int32)
        new[order] = np.arange(len(order))
        above = np.where(order > 0, new[parent[order]], -1).astype(np.int32)
        finished = np.ones(len(ends), bool) if complete is None else np.asarray(complete, bool)
        outcomes = np.full(len(ends), np.nan)
        tree = cls(problem, above, step_id[order], steps, new[np.array(ends, np.int64)], outcomes, finished)
        names = list(node_of)
        # This fills the cache of the property `names`, which would hash every step again.
        vars(tree)["names"] = [names[node] for node in order.tolist()]
        return tree

    def __repr__(self) -> str:
        said = f"StepTree of {self.problem.id!r}: {self.n:,} nodes, {len(self.ends):,} trajectories"
        said += f", at most {int(self.depth.max())} steps"
        return f"<{said}; columns: {', '.join(self.columns) or 'none'}>"

    def _repr_html_(self) -> str:
        return html_table(("node", "parent", "step", *self.columns), self._rows(), caption=repr(self)[1:-1])

    def to_pandas(self) -> Any:
        """A pandas data frame with one row a node, node 0 (the problem) included: `parent`, `text`, every column.

        The index is the node.

        Raises:
            ModelError: pandas is not installed.
        """
        made = optional("pandas").DataFrame(self._rows(), columns=["node", "parent", "text", *self.columns])
        return made.set_index("node")

    def _rows(self) -> Iterator[tuple[object, ...]]:
        """One tuple a node: its index, parent and text, and its number in each column."""
        columns = [values.tolist() for values in self.columns.values()]
        for node, parent in enumerate(self.parent.tolist()):
            text = self.step(node).text if node else self.problem.text
            yield (node, parent, text, *(column[node] for column in columns))

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
        # The root's step id is -1: it reads the last entry, which is False.
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
    def names(self) -> list[Name]:
        """(n,) name of each node's prefix: equal in every tree where the steps are."""
        names = [TOP] * self.n
        for node in range(1, self.n):
            names[node] = below(names[self.parent[node]], self.step(node))
        return names

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
        """The trajectories that the tree was built from, in their order, with the step columns that were set since."""
        made = list(self.attempts)
        if not made:
            known = list(self.steps)
            for row, path in enumerate(self.paths):
                steps = tuple(known[i] for i in self.step_id[path[path >= 0]])
                made.append(Trajectory(self.problem, steps, float(self.outcomes[row]), bool(self.complete[row])))
        if not self.step_columns:
            return made
        return [
            one.with_columns({name: values[row, : len(one)] for name, values in self.step_columns.items()})
            for row, one in enumerate(made)
        ]

    def rows(self, keep: Sequence[int]) -> StepTree:
        """The tree of some of the trajectories, with their step columns; node columns are left out."""
        chosen = list(keep)
        paths = self.paths[chosen]
        ids = np.where(paths >= 0, self.step_id[paths], -1)
        # The part numbers its nodes anew: node columns of the whole would not fit it.
        part = self.from_arrays(self.problem, ids, self.steps, self.outcomes[chosen], self.complete[chosen])
        width = part.paths.shape[1]
        columns = {name: values[chosen, :width] for name, values in self.step_columns.items()}
        return replace(part, step_columns=columns, attempts=tuple(self.attempts[i] for i in chosen if self.attempts))

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
        return self._with(columns={**self.columns, name: column})

    def step_column(self, name: str) -> Floats:
        """(B, S) a step column: the one that was set, else that of the trajectories; NaN where not measured."""
        if name in self.step_columns:
            return self.step_columns[name]
        made = np.full(self.paths.shape, np.nan)
        for row, one in zip(made, self.attempts, strict=False):
            row[: len(one)] = one.column(name)
        return made

    def with_step_column(self, name: str, values: ArrayLike) -> StepTree:
        """The tree with a step column set, which its `trajectories()` have then too.

        Raises:
            ValueError: there is not one value for each entry of `paths`.
        """
        column = np.asarray(values, np.float64)
        if column.shape != self.paths.shape:
            what = f"shape {self.paths.shape}, one value a step and trajectory"
            raise ValueError(f"step column {name!r} needs {what}; got {column.shape}")
        return self._with(step_columns={**self.step_columns, name: np.where(self.mask, column, np.nan)})

    def _with(self, **columns: Any) -> StepTree:
        made = replace(self, **columns)
        # Cached properties (`depth`, `paths`, ...) depend on the shape alone: the new tree takes them over.
        vars(made).update({name: value for name, value in vars(self).items() if name not in vars(made)})
        return made

    def gather(self, values: Floats) -> Steps:
        """Node values as step arrays (B, S), NaN at padding."""
        # Paths are -1 at padding, which reads the last node: the mask replaces it.
        return np.where(self.mask, values[self.paths], np.nan)

    def scatter_mean(self, values: Steps) -> Floats:
        """Step arrays back to nodes: (n,) means over the trajectories through each node, NaN where there is none."""
        mask = self.mask
        return mean_at(self.paths[mask], values[mask], self.n)


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
        # Groups of one matrix are padded to the longest trajectory among them: `cells` bounds that matrix.
        longest_now = max(longest, *map(len, group)) if group else longest
        if at > start and (rows + len(group)) * longest_now > cells:
            made += _merge_groups(groups[start:at])
            start, rows, longest_now = at, 0, max(map(len, group), default=0)
        rows, longest = rows + len(group), longest_now
    return made + _merge_groups(groups[start:])


def _merge_groups(groups: Sequence[Sequence[Trajectory]]) -> list[StepTree]:
    """The trees of some groups, out of one matrix of steps."""
    if any(not group for group in groups):
        raise ValueError("a tree needs at least one trajectory: leave empty groups out")
    every = [t for group in groups for t in group]
    owner = np.repeat(np.arange(len(groups), dtype=np.int32), [len(group) for group in groups])
    interned = [_distinct_steps(group, group[0].problem) for group in groups]
    lengths = np.array([len(t) for t in every], np.int64)
    matrix = _padded([i for ids, _ in interned for i in ids], lengths)
    offset, parent, ids, ends = merge_trees(matrix, owner, len(groups))
    # Nodes numbered over all trees, so that one pass finds the depths and paths of all.
    above = np.where(parent < 0, -1, parent + np.repeat(offset[:-1], np.diff(offset)))
    depth, start = depths(above), offset[owner]
    paths = paths_to(ends + start, above, depth)
    paths = np.where(paths >= 0, paths - start[:, None], -1).astype(np.int32)
    outcomes = np.array([t.outcome for t in every], np.float64)
    complete = np.array([t.terminal for t in every], bool)
    made, last = [], 0
    for i, (group, (_, steps)) in enumerate(zip(groups, interned, strict=True)):
        nodes, rows = slice(offset[i], offset[i + 1]), slice(last, last + len(group))
        arrays = (parent[nodes], ids[nodes], steps, ends[rows], outcomes[rows], complete[rows])
        tree = StepTree(group[0].problem, *arrays, attempts=tuple(group))
        # This fills the caches of the properties `depth` and `paths`.
        vars(tree).update(depth=depth[nodes], paths=paths[rows, : lengths[rows].max()].copy())
        made.append(tree)
        last = rows.stop
    return made


def _distinct_steps(trajectories: Sequence[Trajectory], problem: Problem) -> tuple[list[int], list[Step]]:
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
    """(B, S) rows of these lengths out of ids one after the other, -1 at padding."""
    each = np.asarray(lengths, np.int64)
    matrix = np.full((len(each), int(each.max(initial=0))), -1, np.int32)
    matrix[np.arange(matrix.shape[1]) < each[:, None]] = ids
    return matrix
