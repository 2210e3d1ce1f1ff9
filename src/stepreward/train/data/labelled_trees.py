"""Labelled trajectories as trees, each shared prefix once, with the step columns that an objective reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from stepreward.core.errors import InputError
from stepreward.core.tree import StepTree, group_trees
from stepreward.core.tree_arrays import mean_at
from stepreward.core.types import LABEL, Trajectory
from stepreward.train.data.row_data import of_rows
from stepreward.train.objective import Objective


def labelled_trees(rows: Iterable[Trajectory], objective: Objective | None = None) -> list[StepTree]:
    """One tree a problem, with the step columns (B, S) that an objective reads: what each trajectory teaches.

    Trajectories that share a step may label it differently; all of them then have the mean, weighted by rollouts (at
    least one each). A trajectory in which the step is not supervised does not teach it. The loss sees trajectories, so
    a step that m of them share weighs m times: the sum of gradients is that of training on each by itself.

    Args:
        rows: trajectories with the columns, outcomes or facts that the objective reads.
        objective: cross-entropy to the column `label` where None.

    Raises:
        InputError: there is nothing to learn from, or a label of a probability is outside [0, 1].
    """
    objective = objective or Objective.of("bce")
    trees = with_labels(group_trees(rows), objective)
    if not any(teaches(tree, objective) for tree in trees):
        raise nothing_to_learn(objective)
    return trees


def with_labels(trees: Sequence[StepTree], objective: Objective) -> list[StepTree]:
    """Trees of trajectories with the step columns that an objective reads, as `labelled_trees` says."""
    every = [one for tree in trees for one in tree.attempts]
    if objective.fits_probabilities and "labels" in objective.columns:
        _check_range(every, objective.labels)
    # The number of a cell has no mean.
    for name in {name for data, names in objective.columns.items() if data != "cells" for name in names}:
        trees = _with_means(trees, every, name)
    return list(trees)


def nothing_to_learn(objective: Objective) -> InputError:
    """The error for data in which nothing is supervised."""
    columns = [name for names in objective.columns.values() for name in names]
    if columns:
        what, remedy = "supervised step", f"pass a column {' or '.join(columns)} that is not all NaN"
        return InputError(f"there is no {what} to learn from", remedy=remedy)
    compares = "pairs" in objective.method.data
    what = "problem with a better and a worse solution" if compares else "known outcome"
    return InputError(f"there is no {what} to learn from", remedy="pass solutions with outcomes that were graded")


def _check_range(rows: Iterable[Trajectory], name: str) -> None:
    for one in rows:
        values = one.column(name)
        if (bad := values[(values < 0) | (values > 1)]).size:
            what = f"problem {one.problem.id!r} has a {name} of {bad[0]:g}"
            raise InputError(what, remedy="labels must be in [0, 1], or NaN")


def _with_means(trees: Sequence[StepTree], rows: Sequence[Trajectory], name: str) -> list[StepTree]:
    """The trees with a step column in which all that teach a node have the mean of what they say of it."""
    own = np.concatenate([one.column(name) for one in rows]) if rows else np.empty(0)
    rollouts = np.concatenate([one.column("n_rollouts") for one in rows]) if rows else np.empty(0)
    weight = np.where(np.isnan(own), np.nan, np.maximum(np.nan_to_num(rollouts), 1))
    # One mean over the nodes of all trees at once: node i of a tree is `start` of the tree + i.
    masks = [tree.mask for tree in trees]
    start = np.cumsum([0, *(tree.n for tree in trees)])
    nodes = [tree.paths[mask] + at for tree, mask, at in zip(trees, masks, start[:-1], strict=True)]
    node = np.concatenate(nodes) if nodes else np.empty(0, np.int64)
    mean = mean_at(node, weight * own, start[-1]) / mean_at(node, weight, start[-1])
    # A mean of equal numbers can leave their range, that of the node, by a rounding error.
    low, high = np.full(len(mean), np.nan), np.full(len(mean), np.nan)
    np.fmin.at(low, node, own)
    np.fmax.at(high, node, own)
    merged = np.where(np.isnan(own), np.nan, np.clip(mean, low, high)[node])
    made, last = [], 0
    for tree, mask in zip(trees, masks, strict=True):
        column = np.full(mask.shape, np.nan)
        size = int(mask.sum())
        column[mask] = merged[last : last + size]
        made.append(tree.with_step_column(name, column))
        last += size
    return made


def teach_something(rows: Iterable[Trajectory], objective: Objective) -> bool:
    """Whether an objective can learn something from trajectories."""
    return any(teaches(tree, objective) for tree in with_labels(group_trees(rows), objective))


def once_per_node(tree: StepTree, column: str = LABEL) -> StepTree:
    """The tree with each node supervised by its first trajectory alone, so that every node weighs the same.

    Only for objectives whose steps do not depend on each other.
    """
    labels = tree.step_column(column)
    flat = np.where(np.isnan(labels), -1, tree.paths).ravel()
    first = np.zeros(flat.size, bool)
    first[np.unique(flat, return_index=True)[1]] = True
    return tree.with_step_column(column, np.where(first.reshape(labels.shape), labels, np.nan))


def teaches(tree: StepTree, objective: Objective) -> bool:
    """Whether an objective can learn something from a tree."""
    for name in ("pairs", "siblings"):
        if name in objective.method.data:
            return len(of_rows(tree, name, objective)) > 0
    if objective.reads_next_tokens:
        return bool(tree.action.any())
    columns = [name for names in objective.columns.values() for name in names]
    if any(np.isfinite(tree.step_column(name)).any() for name in columns):
        return True
    rows = [of_rows(tree, name, objective) for name in ("outcome", "log_weights") if name in objective.method.data]
    return any(np.isfinite(values).any() for values in rows)
