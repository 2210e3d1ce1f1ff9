"""Data of an objective that a tree has for each trajectory or for pairs of them, by name."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepreward.core.keys import Key
from stepreward.core.tree import StepTree
from stepreward.core.types import LABEL
from stepreward.train.data.factors import Factor, better_by
from stepreward.train.objective import Objective

ANNOTATOR = "annotator"
"""Fact of a solution: who compared it with others."""


def of_rows(tree: StepTree, name: str, objective: Objective | None = None) -> NDArray[Any]:
    """Data of a tree's trajectories by name: (B,), (B, K), pairs of rows or of sibling nodes (P, 2), theirs (P,)."""
    if name in ("siblings", "gap"):
        nodes, gap = _siblings(tree, LABEL if objective is None else objective.labels)
        return nodes if name == "siblings" else gap
    if name == "draws":
        mine = Key.seed(0).fold("draws", tree.problem.id).rng().random(1 if objective is None else objective.n_outputs)
        return np.tile(mine, (len(tree.ends), 1))
    if name == "outcome":
        return tree.outcomes
    if name == "group":
        return np.zeros(len(tree.ends), np.int64)
    pairs = pairs_of(tree, objective)
    if name == "pairs":
        return pairs
    if name == "annotator":
        numbers = {one: i for i, one in enumerate(objective.annotators if objective else ())}
        return np.array([numbers.get(one, -1) for one in annotators_of(tree)], np.int64)[pairs[:, 0]]
    values = _facts(tree, "strength" if name == "strength" else "log_weight")
    return values[pairs[:, 0]] if name == "strength" else values


def pairs_of(tree: StepTree, objective: Objective | None = None) -> NDArray[np.int64]:
    """(P, 2) a better and a worse trajectory, wherever two of a problem have different outcomes or decisive factors.

    What one annotator said is not compared with what another said.
    """
    factors = (objective.factors if objective else ()) or (Factor("outcome"),)
    values = [tree.outcomes if one.name == "outcome" else _facts(tree, one.name) for one in factors]
    names = np.array(annotators_of(tree), np.str_)
    better, worse = np.nonzero(better_by(factors, values) & (names[:, None] == names))
    return np.stack([better, worse], 1).astype(np.int64)


def _facts(tree: StepTree, name: str) -> NDArray[np.float64]:
    """(B,) a fact of each trajectory that is a number, NaN where it is none."""
    return np.array([_number(one.facts.get(name)) for one in tree.attempts] or [np.nan] * len(tree.ends))


def annotators_of(tree: StepTree) -> list[str]:
    """(B,) who judged each trajectory, "" where nobody is named."""
    return [str(one.facts.get(ANNOTATOR) or "") for one in tree.attempts] or [""] * len(tree.ends)


def _siblings(tree: StepTree, column: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(P, 2) nodes of a better and of a worse step behind the same prefix, and (P,) the difference of their labels."""
    label = tree.scatter_mean(tree.step_column(column))
    nodes = np.flatnonzero(np.isfinite(label) & tree.action)
    above = tree.parent[nodes]
    better, worse = np.nonzero((above[:, None] == above) & (label[nodes][:, None] > label[nodes]))
    pairs = np.stack([nodes[better], nodes[worse]], 1).astype(np.int64)
    return pairs, label[pairs[:, 0]] - label[pairs[:, 1]]


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else np.nan
