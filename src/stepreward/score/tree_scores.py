"""Scores as a column of a tree, and the thin layer that answers questions about trajectories with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from stepreward.core.runtime.flows import Score, Scored
from stepreward.core.tree import StepTree, trees_of
from stepreward.core.types import Floats, Trajectory

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TreeScores:
    """Scores of a tree's nodes and what they cost. Axes: n nodes, B trajectories."""

    scores: Floats
    """(n,) NaN at the root, at observations and where a trajectory is too long."""
    tokens: Counts
    """(B,) tokens encoded for each trajectory that no earlier one had paid for."""
    tokens_unshared: Counts
    """(B,) tokens that encoding each trajectory by itself costs."""
    columns: Mapping[str, Floats] = field(default_factory=dict)
    """(n,) further numbers of the nodes, by name."""


def token_costs(tree: StepTree, length: Counts, new: NDArray[np.bool_] | None = None) -> tuple[Counts, Counts]:
    """(B,) tokens that each trajectory pays for, and (B,) its tokens: the first trajectory through a node pays for it.

    Args:
        tree: the tree.
        length: (n,) tokens of each node.
        new: (n,) whether a node was encoded now; all of them if None.
    """
    # The first place of a node, reading trajectory by trajectory, is where it is paid for.
    mask = tree.mask
    flat = tree.paths[mask]
    first = np.zeros(mask.shape, bool)
    first[mask] = np.isin(np.arange(len(flat)), np.unique(flat, return_index=True)[1])
    lengths = np.where(mask, length[tree.paths], 0)
    counted = first if new is None else first & new[tree.paths]
    paid, whole = (lengths * counted).sum(axis=1), lengths.sum(axis=1) + length[0]
    # Paths leave out the root: the prompt is paid for by the first trajectory.
    paid[:1] += length[0] if new is None or new[0] else 0
    return paid, whole


def by_problem(questions: Sequence[Score]) -> list[list[int]]:
    """The questions of each problem, by their numbers."""
    groups: dict[tuple[str, str, str | None, str], list[int]] = {}
    for i, question in enumerate(questions):
        groups.setdefault(question.problem.read_by_scorers, []).append(i)
    return list(groups.values())


def answer_by_trees(
    score_trees: Callable[[Sequence[StepTree]], Sequence[TreeScores]], questions: Sequence[Score]
) -> list[Scored]:
    """Answers questions in order: one tree a problem, whose column each trajectory reads at its own nodes."""
    groups = by_problem(questions)
    trees = trees_of([[Trajectory(questions[i].problem, questions[i].steps) for i in rows] for rows in groups])
    answers: dict[int, Scored] = {}
    for rows, tree, made in zip(groups, trees, score_trees(trees), strict=True):
        for i, path, paid, whole in zip(rows, tree.paths, made.tokens, made.tokens_unshared, strict=True):
            nodes = path[path >= 0]
            columns = {name: values[nodes] for name, values in made.columns.items()}
            answers[i] = Scored(made.scores[nodes], int(paid), int(whole), columns)
    return [answers[i] for i in range(len(questions))]
