"""Coarser steps as further training data: two steps in a row taught as one, with what is known of the later one.

A correction right behind a slip is then seen together with it (HRM, arXiv:2503.13551). The published construction
(`self-training/construct_hrm_train_data.py`) also levels the number of examples of each label at each depth, which is
left out here, and writes step numbers into the texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from stepreward.core.keys import Key
from stepreward.core.prefix_names import prefix_of
from stepreward.core.segment.merging import joined, same_speaker
from stepreward.core.tree import StepTree
from stepreward.core.types import Floats, Step, Trajectory
from stepreward.train.data.domains import DOMAIN


def with_merged_steps(rows: Sequence[Trajectory], *, share: float = 1.0, key: Key | None = None) -> list[Trajectory]:
    """The rows, and for pairs of neighbouring steps a row that ends with the two as one step.

    The new row has the steps before the pair, unsupervised, and then the merged step with the numbers of the later one
    in every column; it has no outcome and of the facts only the domain, so that objectives on whole solutions do not
    see it. Only actions of one role and agent are merged. Equal prefixes are drawn alike.

    Args:
        rows: of one problem.
        share: of the pairs, in [0, 1].
        key: the randomness of the draw; the seed 0 where None.

    Raises:
        ValueError: the share is outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise ValueError(f"the share of merged steps must be in [0, 1], got {share}")
    key, made = key or Key.seed(0), list(rows)
    for one in rows:
        names = prefix_of(one.steps).names
        drawn = (later for later in range(1, len(one)) if key.fold(names[later].hex()).rng().random() < share)
        made += [_merged(one, later) for later in drawn if _can_merge(one, later)]
    return made


def with_compressed_nodes(
    rows: Sequence[Trajectory], *, labels: str = "label", least: int = 4, key: Key | None = None
) -> list[Trajectory]:
    """The rows in a tree in which some nodes have passed a child to their parent, merged with their own step.

    Level by level, a node with at least `least` children passes on the first of them for which a fair coin falls so; a
    child of a passed node is never passed. The merged step keeps the child's label, whose subtree it takes along. The
    node that loses it is labelled anew, with the mean outcome of the solutions that stay below it: that is the
    published order, in which labels are counted after the move. `with_merged_steps` keeps all labels. HRM is trained on
    the rows of both trees. These have no outcomes and of the facts only the domain.

    Args:
        rows: of one problem, with outcomes.
        labels: the step column that is counted anew.
        least: children of a node that passes one on.
        key: the randomness of the coins; the seed 0 where None.
    """
    tree, key = StepTree.from_trajectories(rows), key or Key.seed(0)
    passed = _passed_children(tree, least, key)
    values = _mean_outcomes(tree, passed)
    given_up = {int(tree.parent[child]) for child in passed}
    made, merged = [], dict[int, Trajectory]()
    for one, path in zip(rows, tree.paths, strict=True):
        column = one.column(labels).copy()
        for s, node in enumerate(path[: len(one)].tolist()):
            if node in given_up:
                column[s] = values[node]
            if node in passed and _can_merge(one, s):
                merged.setdefault(node, _merged(one, s))
                column[s] = np.nan
        made.append(replace(one.with_columns({labels: column}), outcome=np.nan, facts=_domain(one)))
    return [*made, *merged.values()]


def _passed_children(tree: StepTree, least: int, key: Key) -> set[int]:
    """The nodes that are merged with their parents."""
    children: dict[int, list[int]] = {}
    for node in range(1, tree.n):
        children.setdefault(int(tree.parent[node]), []).append(node)
    passed: set[int] = set()
    # Nodes are numbered level by level.
    for node in range(1, tree.n):
        below = children.get(node, [])
        if node in passed or len(below) < least:
            continue
        for child in below:
            if key.fold(tree.names[child].hex()).rng().random() < 0.5:
                passed.add(child)
                break
    return passed


def _mean_outcomes(tree: StepTree, passed: set[int]) -> Floats:
    """(n,) mean outcome of the solutions below each node, those below a child that it has passed on left out."""
    total, count = np.zeros(tree.n), np.zeros(tree.n)
    for path, outcome in zip(tree.paths, tree.outcomes, strict=True):
        if np.isnan(outcome):
            continue
        nodes = path[path >= 0].tolist()
        for node, below in zip(nodes, [*nodes[1:], -1], strict=True):
            if below not in passed:
                total[node] += outcome
                count[node] += 1
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _can_merge(one: Trajectory, later: int) -> bool:
    pair = one.steps[later - 1 : later + 1]
    return len(pair) == 2 and all(step.kind == "action" for step in pair) and same_speaker(*pair)


def _merged(one: Trajectory, later: int) -> Trajectory:
    """The prefix that ends with a step and the one before it as one step."""
    steps = (*one.steps[: later - 1], _as_one(*one.steps[later - 1 : later + 1]))
    columns = {name: np.r_[np.full(later - 1, np.nan), values[later]] for name, values in one.columns.items()}
    facts = _domain(one)
    return Trajectory(one.problem, steps, terminal=False, columns=columns, facts=facts, provenance=one.provenance)


def _domain(one: Trajectory) -> dict[str, Any]:
    """The one fact that a changed row keeps."""
    return {name: value for name, value in one.facts.items() if name == DOMAIN}


def _as_one(first: Step, second: Step) -> Step:
    # Lists of steps often have no line breaks at their ends: the words of two steps must not run together.
    if not first.text[-1:].isspace():
        first = replace(first, text=first.text + "\n", tokens=None, logprobs=None)
    return joined([first, second])
