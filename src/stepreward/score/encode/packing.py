"""Whole trees in one forward pass: each shared prefix is encoded once.

A token sees the earlier tokens of its own node and all tokens of the nodes above it. In depth-first order that is an
interval test, so the mask of a row of several trees is three comparisons; trees do not see each other because their
intervals are disjoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

from stepreward.core.tree import StepTree
from stepreward.score.encode.blocked_mask import BlockedMask
from stepreward.score.encode.encoded_tree import EncodedTree
from stepreward.score.encode.per_step import StepEncoder


@dataclass(frozen=True)
class StepTokens:
    """The tokens of a batch's scored steps, in order of row and column. Axes: N tokens, Q reads."""

    row: torch.Tensor
    """(N,) int64 row of each token."""
    column: torch.Tensor
    """(N,) int64 its column."""
    before: torch.Tensor
    """(N,) int64 column of the token before it on its own trajectory."""
    read: torch.Tensor
    """(N,) int64 index in [0, Q) of its step's read."""
    reference: torch.Tensor
    """(N,) float32 log-probability by a reference model."""

    def last(self, reads: int) -> torch.Tensor:
        """(Q,) index in [0, N) of the last token of each read's step; every read has one."""
        numbers = torch.arange(len(self.read), device=self.read.device)
        return numbers.new_zeros(reads).scatter_reduce(0, self.read, numbers, "amax")

    def to(self, device: torch.device | str) -> StepTokens:
        """The tokens on another device."""
        return StepTokens(**{name: getattr(self, name).to(device) for name in self.__dataclass_fields__})


FLEX = "flex_attention"
"""The name of flex attention in transformers."""


@dataclass(frozen=True)
class PackedBatch:
    """Trees packed into rows. Axes: R rows, T tokens, Q reads (nodes that are scored, in order of tree and node)."""

    input_ids: torch.Tensor
    """(R, T) int64, 0 at padding."""
    position_ids: torch.Tensor
    """(R, T) int64."""
    enter: torch.Tensor
    """(R, T) int64 depth-first numbers, unique to each tree of a row."""
    leave: torch.Tensor
    """(R, T) int64."""
    first: torch.Tensor
    """(R, T) int64 column of the first token of each token's step; a token of a prompt or of padding is its own."""
    read_row: torch.Tensor
    """(Q,) int64 row of each read."""
    read_column: torch.Tensor
    """(Q,) int64 token of each read."""
    tree: torch.Tensor
    """(Q,) int64 index of the tree that each read belongs to."""
    node: torch.Tensor
    """(Q,) int64 its node."""
    tokens: int
    """Tokens encoded, padding left out."""
    pairs: torch.Tensor | None = None
    """(N, 2) int64 the reads of each step of each trajectory, forward and backward, in order of tree, trajectory and
    step; None where steps are read one way."""
    said: StepTokens | None = None
    """The tokens of steps, where their log-probabilities are wanted."""
    given: torch.Tensor | BlockMask | None = None
    """The mask that attention takes, where it is made already."""

    def mask(self) -> torch.Tensor:
        """(R, 1, T, T) bool, True where a token (third axis) may see another (fourth)."""
        enter, leave = self.enter, self.leave
        # Node a is above node b, or b itself, if b's number lies in [enter(a), leave(a)). A node's tokens are in order
        # and those above come first, so that the lower triangle is all that causality adds.
        above = (enter[:, None, :] <= enter[:, :, None]) & (enter[:, :, None] < leave[:, None, :])
        return (above & torch.ones(above.shape[-2:], dtype=torch.bool, device=above.device).tril())[:, None]

    def block_mask(self) -> BlockMask:
        """The same as a block mask of flex attention, which skips blocks that are hidden whole."""
        enter, leave = self.enter, self.leave

        def seen(row: torch.Tensor, head: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
            inside = (enter[row, key] <= enter[row, query]) & (enter[row, query] < leave[row, key])
            return inside & (key <= query)

        rows, width = enter.shape
        return create_block_mask(seen, rows, None, width, width, device=str(enter.device))

    def mask_of(self, backbone: Any) -> torch.Tensor | BlockMask:
        """The mask that a backbone of transformers takes, by the attention that it computes with."""
        if self.given is not None:
            return self.given
        if backbone.config._attn_implementation == FLEX:
            return self.block_mask()
        # Each block is a call, of which a GPU would compute one at a time.
        if self.enter.device.type != "cpu":
            return self.mask()
        blocked = BlockedMask.of(self.enter.numpy(), self.leave.numpy(), self.mask)
        return self.mask() if blocked is None else blocked

    def to(self, device: torch.device | str) -> PackedBatch:
        """The batch on another device."""
        parts = {name: getattr(self, name) for name in self.__dataclass_fields__}
        moved: dict[str, Any] = {
            name: part.to(device) for name, part in parts.items() if isinstance(part, torch.Tensor | StepTokens)
        }
        return replace(self, **moved)


def narrow(tree: StepTree, encoder: StepEncoder, row_tokens: int) -> Iterator[tuple[list[int], StepTree, EncodedTree]]:
    """Cuts a wide tree into trees of fewer trajectories: attention costs the square of a row, a prompt little.

    Args:
        tree: the tree; not cut where it has at most `row_tokens` tokens or one trajectory.
        encoder: how it becomes tokens.
        row_tokens: tokens of a part; one trajectory may be longer.

    Yields:
        The trajectories of each part (rows of `tree.paths`), its tree and its tokens; neighbours stay together.
    """
    encoded = encoder.encode_tree(tree)
    if len(encoded) <= row_tokens or len(tree.ends) <= 1:
        yield list(range(len(tree.ends))), tree, encoded
        return
    for keep in _row_groups(tree, encoded, row_tokens):
        part = tree.rows(keep)
        yield keep, part, encoder.encode_tree(part)


def _row_groups(tree: StepTree, encoded: EncodedTree, row_tokens: int) -> Iterator[list[int]]:
    """Groups of trajectories of at most `row_tokens` tokens (one trajectory may be longer), neighbours together."""
    # In order of their paths, trajectories with a common prefix are neighbours.
    order = np.lexsort(tree.paths.T[::-1]) if tree.paths.shape[1] else np.arange(len(tree.ends))
    # Each part has the prompt again; steps count where no earlier trajectory of the part has them.
    seen = np.zeros(tree.n, bool)
    group: list[int] = []
    used = int(encoded.length[0])
    for row in order:
        path = tree.paths[row][tree.mask[row]]
        more = int(encoded.length[path[~seen[path]]].sum())
        if group and used + more > row_tokens:
            yield group
            group, used = [], int(encoded.length[0])
            seen[:] = False
            more = int(encoded.length[path].sum())
        group.append(int(row))
        used += more
        seen[path] = True
    yield group


def plan(lengths: Sequence[int], row_tokens: int, batch_tokens: int) -> Iterator[list[list[int]]]:
    """Groups trees into rows and rows into batches: first-fit decreasing.

    Args:
        lengths: tokens of each tree.
        row_tokens: tokens of a row; a longer tree gets a row of its own.
        batch_tokens: tokens of a batch, padding included; at least one row.

    Yields:
        Batches as lists of rows, rows as lists of tree indices; every index once.
    """
    # Attention costs the square of a row's width, so that rows of a batch should be equally full: longest trees first.
    rows: list[list[int]] = []
    # Tokens that are free in each row. Those of a new row hold any tree, so that the first row with room always exists.
    free = np.full(len(lengths), np.iinfo(np.int64).max)
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        at = int(np.argmax(free[: len(rows) + 1] >= lengths[i]))
        if at == len(rows):
            rows.append([])
            free[at] = row_tokens
        rows[at].append(i)
        free[at] -= lengths[i]
    # Rows of similar width share a batch, which is padded to its widest row.
    order = sorted(range(len(rows)), key=lambda at: free[at])
    batch: list[list[int]] = []
    widest = 0
    for row in (rows[at] for at in order):
        used = sum(lengths[i] for i in row)
        if batch and (len(batch) + 1) * max(widest, used) > batch_tokens:
            yield batch
            batch, widest = [], 0
        batch.append(row)
        widest = max(widest, used)
    if batch:
        yield batch


def pack(trees: Sequence[EncodedTree], rows: Sequence[Sequence[int]] | None = None) -> PackedBatch:
    """Packs encoded trees.

    Args:
        trees: the trees.
        rows: which trees (by index) share a row; one tree a row where None.

    Returns:
        The batch; `tree` holds indices into `trees`.
    """
    layout = [[i] for i in range(len(trees))] if rows is None else rows
    width = max((sum(len(trees[i]) for i in row) for row in layout), default=0)
    ids, position = (np.zeros((len(layout), width), np.int64) for _ in range(2))
    # Padding tokens see themselves alone, since a softmax over an empty row of the mask is NaN: their numbers are above
    # those of any tree.
    enter = np.broadcast_to(np.arange(width) + (1 << 40), ids.shape).copy()
    leave = enter + 1
    first = np.broadcast_to(np.arange(width), ids.shape).copy()
    reads: list[np.ndarray[tuple[int, int], np.dtype[np.int64]]] = []
    for r, row in enumerate(layout):
        at, nodes = 0, 0
        for i in row:
            tree = trees[i]
            # Depth-first numbers of the next tree begin where these end: trees of a row do not see each other.
            here = slice(at, at + len(tree))
            ids[r, here], position[r, here] = tree.ids, tree.position
            enter[r, here], leave[r, here] = tree.enter + nodes, tree.leave + nodes
            first[r, here] = tree.first + at
            scored = np.flatnonzero(tree.read >= 0)
            tag = np.full(len(scored), i)
            reads.append(np.stack([tag, scored, np.full(len(scored), r), tree.read[scored] + at]))
            at, nodes = at + len(tree), nodes + tree.nodes
    # Rows were filled in the order of the plan; reads are given by tree and node, which callers match by position.
    table = np.concatenate(reads, axis=1) if reads else np.zeros((4, 0), np.int64)
    tag, node, read_row, read_column = table[:, np.lexsort((table[1], table[0]))]
    arrays = (ids, position, enter, leave, first, read_row, read_column, tag, node)
    tensors = [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]
    names = ("input_ids", "position_ids", "enter", "leave", "first", "read_row", "read_column", "tree", "node")
    tokens = sum(len(trees[i]) for row in layout for i in row)
    made: dict[str, Any] = dict(zip(names, tensors, strict=True))
    chosen = {i: trees[i] for i in sorted(i for row in layout for i in row)}
    return PackedBatch(**made, tokens=tokens, pairs=_paired_reads(chosen, tag, node))


def _paired_reads(
    trees: Mapping[int, EncodedTree], tag: NDArray[np.int64], node: NDArray[np.int64]
) -> torch.Tensor | None:
    """(N, 2) the reads of the paired nodes of some trees, in order; None where they have none.

    Args:
        trees: by the tags of their reads.
        tag: (Q,) tree of each read, in order.
        node: (Q,) its node.
    """
    parts = []
    for i, tree in trees.items():
        if tree.pairs is None:
            return None
        read = np.full(len(tree.read), -1, np.int64)
        mine = np.arange(*np.searchsorted(tag, [i, i + 1]))
        read[node[mine]] = mine
        parts.append(read[tree.pairs[:, 2:]])
    return torch.from_numpy(np.concatenate(parts)) if parts else None


def step_tokens(batch: PackedBatch) -> StepTokens:
    """The tokens of a batch's scored steps, with a reference of 0; a step's tokens follow one another.

    The first token of a step comes after the last one of the step above, which may be anywhere before it in the row.
    """
    enter, position = batch.enter.numpy(), batch.position_ids.numpy()
    # Depth-first numbers are unique within a row, and every scored step has one read.
    rows = np.arange(len(enter))[:, None]
    most = int(enter.max(initial=0)) + 1
    number = rows * most + enter
    of_read = number[batch.read_row.numpy(), batch.read_column.numpy()]
    row, column = np.nonzero(np.isin(number, of_read))
    order = np.argsort(of_read)
    read = order[np.searchsorted(of_read[order], number[row, column])]
    before = columns_before(position)[row, column]
    known = np.zeros(len(row), np.float32)
    return StepTokens(*(torch.from_numpy(array) for array in (row, column, before, read, known)))


def begins(batch: PackedBatch) -> torch.Tensor:
    """(Q,) column of the token before the first one of each read's step, on the batch's device."""
    first = batch.first[batch.read_row, batch.read_column]
    before = torch.from_numpy(columns_before(batch.position_ids.cpu().numpy()))
    return before.to(first.device)[batch.read_row, first]


def columns_before(position: NDArray[np.int64]) -> NDArray[np.int64]:
    """(R, T) column of the token before each token on its own trajectory; of those at position 0 it means nothing."""
    # In depth-first order the tokens between one and its successor are all further down: the last token at the
    # position before is the one.
    width = position.shape[1]
    key = position * width + np.arange(width)
    order = np.sort(key, axis=1)
    wanted = key - width
    places = [np.searchsorted(have, want) - 1 for have, want in zip(order, wanted, strict=True)]
    return np.stack([have[at] % width for have, at in zip(order, places, strict=True)]) if len(position) else position
