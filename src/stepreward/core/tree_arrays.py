"""Arrays of nodes: operations for one tree, or for many whose nodes follow one another."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from stepreward.core.types import Floats, Steps

Index = NDArray[np.int32]
Whole = TypeVar("Whole", np.int32, np.int64)


def merge_prefixes(
    step_ids: NDArray[np.integer[Any]], roots: Index, n_roots: int
) -> tuple[Index, Index, Index, NDArray[np.int64]]:
    """Merges equal prefixes of rows that leave from the same root, level by level on pairs (parent, step).

    Args:
        step_ids: (B, S) steps of each row, -1 at padding, which follows.
        roots: (B,) the root, below `n_roots`, of each row.

    Returns:
        parent (n,), step id (n,), the node where each row ends (B,), and the first row through each node (n,); -1 at
        the roots, which come first. Nodes of a level are in order of first appearance.

    Raises:
        ValueError: a step follows padding.
    """
    real = step_ids >= 0
    if (real[:, 1:] & ~real[:, :-1]).any():
        raise ValueError("step_ids holds a step after padding: padding (-1) must come last")
    blank = np.full(n_roots, -1, np.int32)
    parents, ids, rows = [blank], [blank], [blank.astype(np.int64)]
    ends, n, distinct = roots.astype(np.int32), n_roots, int(step_ids.max(initial=0)) + 1
    for level in range(step_ids.shape[1]):
        alive = np.flatnonzero(real[:, level])
        # One integer a pair (parent, step): equal parents are one node by now, so equal pairs are equal prefixes.
        pairs = ends[alive].astype(np.int64) * distinct + step_ids[alive, level]
        # `unique` sorts by pair; `rank` numbers the distinct pairs by their first row instead.
        _, first, inverse = np.unique(pairs, return_index=True, return_inverse=True)
        rank = np.empty(len(first), np.int64)
        rank[np.argsort(first)] = np.arange(len(first))
        origin = np.sort(first)
        parents.append(ends[alive][origin])
        ids.append(step_ids[alive, level][origin].astype(np.int32))
        rows.append(alive[origin])
        ends[alive] = (n + rank[inverse]).astype(np.int32)
        n += len(first)
    return np.concatenate(parents), np.concatenate(ids), ends, np.concatenate(rows)


def merge_trees(
    step_ids: NDArray[np.integer[Any]], tree: Index, count: int
) -> tuple[NDArray[np.int64], Index, Index, Index]:
    """Merges equal prefixes of many trees' rows together: what `merge_prefixes` makes of each tree by itself.

    Args:
        step_ids: (B, S) index of each row's steps among its tree's, -1 at padding, which follows.
        tree: (B,) the tree, below `count`, of each row; in order.

    Returns:
        (count + 1,) where each tree's nodes begin, and, numbered within the tree, parent (n,), step id (n,) and the
        node where each row ends (B,).

    Raises:
        ValueError: a step follows padding.
    """
    # One merge for all trees, each row leaving from its own root: nodes come out level by level, trees mixed.
    parent, ids, ends, through = merge_prefixes(step_ids, tree, count)
    owner = np.concatenate([np.arange(count), tree[through[count:]]])
    # A stable sort by tree keeps levels in order: a parent still comes before its children.
    order = np.argsort(owner, kind="stable")
    offset = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.bincount(owner, minlength=count))])
    local = np.empty(len(owner), np.int32)
    local[order] = np.arange(len(owner)) - offset[owner[order]]
    above = np.where(parent < 0, -1, local[parent])[order].astype(np.int32)
    return offset, above, ids[order], local[ends]


def depths(parent: NDArray[np.integer[Any]]) -> Index:
    """(n,) steps above and at each node of one tree or of many, by pointer doubling: ceil(log2(depth)) passes.

    Args:
        parent: (n,) parent of each node, negative at roots.
    """
    depth = (parent >= 0).astype(np.int32)
    moving = np.flatnonzero(depth)
    above = parent.copy()
    # `depth` counts the steps from a node up to `above`, that one left out: a jump adds what is counted there.
    while len(moving):
        through = above[moving]
        depth[moving] += depth[through]
        above[moving] = above[through]
        moving = moving[above[moving] >= 0]
    return depth


def paths_to(ends: NDArray[Whole], parent: NDArray[Whole], depth: Index) -> NDArray[Whole]:
    """(B, S) nodes from below the root to each end, in order, -1 at padding.

    Args:
        ends: (B,) the last nodes.
        parent: (n,) parent of each node, negative at roots.
        depth: (n,) steps above and at each node.
    """
    paths = np.full((len(ends), int(depth[ends].max(initial=0))), -1, parent.dtype)
    rows = np.flatnonzero(depth[ends] > 0)
    node = ends[rows]
    # All rows climb together, one step a round; a row is done once it is at the root.
    while len(rows):
        place = depth[node] - 1
        paths[rows, place] = node
        node, rows = parent[node][place > 0], rows[place > 0]
    return paths


def mean_at(index: NDArray[np.integer[Any]], values: Steps, n: int) -> Floats:
    """(n,) mean of the values at each index, NaN where there is none; values that are NaN do not count."""
    real = ~np.isnan(values)
    count = np.bincount(index[real], minlength=n)
    total = np.bincount(index[real], weights=values[real], minlength=n)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
