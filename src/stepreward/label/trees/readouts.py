"""Values of the nodes of a grown tree from the ends below them: pure functions of arrays.

Nodes are numbered so that a parent comes before its children; node 0 is the bare problem. `ends` has the outcome of
each end, NaN at inner nodes and at ends whose outcome is not known, which count for nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from stepreward.core.tree_arrays import depths
from stepreward.core.types import Floats

Parents = NDArray[np.integer]
RIGHT = 0.5
"""An outcome above it is right."""


def leaf_share(parent: Parents, ends: Floats, samples: Floats) -> Floats:
    """(n,) share of right ends among the known ends below each node, each as often as it was sampled.

    HRM (arXiv:2503.13551), whose trees have a node for each sample; TreePS-RAG and others state the same. An end counts
    as the product of the samples of the nodes on its path. Where each prefix was sampled equally often and each end is
    equally deep, it is unbiased for the chance that the policy succeeds; with distinct ends instead it is not.

    Args:
        parent: (n,) parent of each node, -1 at the root.
        ends: (n,) outcomes of ends.
        samples: (n,) equal samples of each node's last step.
    """
    weight = _downward(parent, samples.astype(np.float64), np.multiply)
    known = ~np.isnan(ends)
    right = _upward(parent, np.where(known, weight * (np.nan_to_num(ends) > RIGHT), 0.0), np.add)
    return _share(right, _upward(parent, weight * known, np.add))


def discounted_leaves(parent: Parents, ends: Floats, samples: Floats, *, discount: float = 0.95) -> Floats:
    """(n,) mean of `discount^distance outcome` over the known ends below each node, each as often as it was sampled.

    PORTool (arXiv:2510.26020) without its format term.
    """
    weight, depth = _downward(parent, samples.astype(np.float64), np.multiply), depths(parent)
    known = ~np.isnan(ends)
    # The distance to an end is a difference of depths: the node's own is divided out behind the sum.
    worth = _upward(parent, np.where(known, weight * np.nan_to_num(ends) * discount**depth, 0.0), np.add)
    return _share(worth / discount**depth, _upward(parent, weight * known, np.add))


def any_right(parent: Parents, ends: Floats) -> Floats:
    """(n,) 1 where a right end is at or below a node, 0 where known ends are all wrong, NaN where none is known."""
    return np.where(np.isnan(best := best_leaf(parent, ends)), np.nan, best > RIGHT)


def best_leaf(parent: Parents, ends: Floats, *, discount: float = 1.0) -> Floats:
    """(n,) Q = discount max over children, the outcome at ends, NaN where no known end is below: QLASS.

    arXiv:2502.02584, with rewards at ends alone.
    """
    depth = depths(parent)
    worth = np.where(np.isnan(ends), -np.inf, np.nan_to_num(ends) * discount**depth)
    best = _upward(parent, worth, np.maximum)
    return np.where(np.isinf(best), np.nan, best / discount**depth)


def scaled(value: Floats) -> Floats:
    """(n,) values of a tree from 0, its least, to 1, its largest; 0 everywhere where all are equal: QLASS's labels."""
    known = value[~np.isnan(value)]
    if not known.size or known.max() == known.min():
        return np.where(np.isnan(value), np.nan, 0.0)
    made: Floats = (value - known.min()) / (known.max() - known.min())
    return made


def distance_values(parent: Parents, ends: Floats) -> Floats:
    """(n,) ReST-MCTS*'s process values, by the distance to the nearest right end.

        m = 1 at a right end,  1 + min m over children that lead to one,  else m of the nearest ancestor that does
        v = max(0, v_parent + r (1 - v_parent) / m),   r = 1 where a right end is below, else -1;   v = 0 at the root

    arXiv:2406.03816: its quality values with m for m_k + 1, as the released code has it. NaN at nodes that lead to no
    known end, and everywhere in a tree without a right end.

    Args:
        parent: (n,) parent of each node, -1 at the root.
        ends: (n,) outcomes of ends.
    """
    depth, leads = depths(parent), ~np.isnan(best_leaf(parent, ends))
    right = np.where(np.isnan(ends), False, np.nan_to_num(ends) > RIGHT)
    # The depth of the nearest right end below, from which the node's own depth is the distance.
    nearest = _upward(parent, np.where(right, depth.astype(np.float64), np.inf), np.minimum)
    alive = np.isfinite(nearest)
    value = np.full(len(parent), np.nan)
    if not alive[0]:
        return value
    steps = np.where(alive, nearest - depth + 1, np.nan)
    value[0] = 0.0
    for level in range(1, int(depth.max()) + 1):
        at = np.flatnonzero((depth == level) & leads)
        above = parent[at]
        steps[at] = np.where(alive[at], steps[at], steps[above])
        moved = np.where(alive[at], 1.0, -1.0) * (1 - value[above]) / steps[at]
        value[at] = np.maximum(0.0, value[above] + moved)
    return value


def _share(part: Floats, whole: Floats) -> Floats:
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1.0), np.nan)


def _upward(parent: Parents, values: Floats, join: np.ufunc) -> Floats:
    """(n,) each node's value joined with those of all nodes below it."""
    made, depth = values.astype(np.float64), depths(parent)
    for level in range(int(depth.max(initial=0)), 0, -1):
        at = np.flatnonzero(depth == level)
        join.at(made, parent[at], made[at])
    return made


def _downward(parent: Parents, values: Floats, join: Callable[[Floats, Floats], Floats]) -> Floats:
    """(n,) each node's value joined with those of all nodes above it."""
    made, depth = values.astype(np.float64), depths(parent)
    for level in range(1, int(depth.max(initial=0)) + 1):
        at = np.flatnonzero(depth == level)
        made[at] = join(made[parent[at]], made[at])
    return made
