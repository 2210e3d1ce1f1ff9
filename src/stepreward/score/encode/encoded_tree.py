"""Step trees as tokens, and the tree of the reversed trajectories beside them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepreward.core.tree import StepTree

Paths = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class EncodedTree:
    """A step tree as tokens in depth-first order, each node's tokens once.

    Axes: n nodes, T tokens.
    """

    ids: NDArray[np.int64]
    """(T,) token ids."""
    position: NDArray[np.int64]
    """(T,) position of each token on its own trajectory, from 0."""
    enter: NDArray[np.int64]
    """(T,) depth-first number of the token's node."""
    leave: NDArray[np.int64]
    """(T,) depth-first number after the last node below the token's node: token i sees j <= i iff
    `enter[j] <= enter[i] < leave[j]`."""
    first: NDArray[np.int64]
    """(T,) index of the first token of the token's step; a token of the prompt is its own."""
    read: NDArray[np.int64]
    """(n,) token at which each node is read, -1 where it is not (root, observations, steps too long)."""
    length: NDArray[np.int64]
    """(n,) tokens of each node."""
    nodes: int = field(default=0)
    """Depth-first numbers in use: n for a tree of steps."""
    pairs: NDArray[np.int64] | None = None
    """(N, 4) trajectory, step, node and node in the reversed tree of each step that is read both ways, in order of
    trajectory and step; None where steps are read one way."""

    def __len__(self) -> int:
        return len(self.ids)


def reversed_tree(tree: StepTree) -> StepTree:
    """The tree of the same trajectories with their steps from the last to the first."""
    ids = np.where(tree.mask, tree.step_id[tree.paths], -1)
    lengths = tree.mask.sum(1)
    place = lengths[:, None] - 1 - np.arange(ids.shape[1])
    backward = np.where(place >= 0, np.take_along_axis(ids, np.maximum(place, 0), 1), -1)
    return StepTree.from_arrays(tree.problem, backward, tree.steps)


def side_by_side(forward: EncodedTree, backward: EncodedTree, paths: Paths, reversed_paths: Paths) -> EncodedTree:
    """Two trees that do not see each other as one: nodes of the second are numbered behind those of the first.

    Args:
        forward: the tree.
        backward: that of the reversed trajectories.
        paths: (B, S) nodes of each trajectory in the first, -1 at padding.
        reversed_paths: (B, S) the same in the second.
    """
    nodes, tokens = len(forward.read), len(forward)
    pairs = []
    for b, path in enumerate(paths):
        steps = path[path >= 0]
        twins = reversed_paths[b][: len(steps)][::-1]
        read = (forward.read[steps] >= 0) & (backward.read[twins] >= 0)
        s = np.flatnonzero(read)
        pairs.append(np.stack([np.full(len(s), b), s, steps[s], twins[s] + nodes], -1).reshape(-1, 4))
    return EncodedTree(
        np.r_[forward.ids, backward.ids],
        np.r_[forward.position, backward.position],
        np.r_[forward.enter, backward.enter + forward.nodes],
        np.r_[forward.leave, backward.leave + forward.nodes],
        np.r_[forward.first, backward.first + tokens],
        np.r_[forward.read, np.where(backward.read >= 0, backward.read + tokens, -1)],
        np.r_[forward.length, backward.length],
        forward.nodes + backward.nodes,
        np.concatenate([np.empty((0, 4), np.int64), *pairs]).astype(np.int64),
    )
