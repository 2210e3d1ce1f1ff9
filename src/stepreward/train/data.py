"""Training data: labelled trajectories as trees, each shared prefix once, in batches of a token budget."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.tree import StepTree, group_trees
from stepreward.core.tree_arrays import mean_at
from stepreward.core.types import LABEL, Trajectory
from stepreward.score.encode.packing import PackedBatch, narrow, pack, plan
from stepreward.score.encode.per_step import EncodedTree, StepEncoder

_WINDOW = 8
"""Batches whose trees are packed together: more batches waste less padding, fewer are closer to a random order."""


def labelled_trees(labels: Iterable[Trajectory]) -> list[StepTree]:
    """One tree a problem, with the step column `label` (B, S): what each trajectory teaches of its steps.

    Trajectories that share a step may label it differently; all of them then have the mean, weighted by rollouts (at
    least one each). A trajectory in which the step is not supervised does not teach it. The loss sees trajectories, so
    a step that m of them share weighs m times: the sum of gradients is that of training on each by itself.

    Raises:
        InputError: there is no supervised step, or a label is outside [0, 1].
    """
    trees = group_trees(labels)
    every = [one for tree in trees for one in tree.attempts]
    own = np.concatenate([one.labels for one in every]) if every else np.empty(0)
    for one in every if ((own < 0) | (own > 1)).any() else ():
        if (bad := one.labels[(one.labels < 0) | (one.labels > 1)]).size:
            what = f"problem {one.problem.id!r} has a label of {bad[0]:g}"
            raise InputError(what, remedy="labels must be in [0, 1], or NaN")
    if not np.isfinite(own).any():
        raise InputError("there is no supervised step to learn from", remedy="pass labels that are not all NaN")
    rollouts = np.concatenate([one.column("n_rollouts") for one in every])
    weight = np.where(np.isnan(own), np.nan, np.maximum(np.nan_to_num(rollouts), 1))
    # One mean over the nodes of all trees at once: node i of a tree is `start` of the tree + i.
    masks = [tree.mask for tree in trees]
    start = np.cumsum([0, *(tree.n for tree in trees)])
    node = np.concatenate([tree.paths[mask] + at for tree, mask, at in zip(trees, masks, start[:-1], strict=True)])
    mean = mean_at(node, weight * own, start[-1]) / mean_at(node, weight, start[-1])
    # A mean of equal labels can leave [0, 1] by a rounding error.
    merged = np.where(np.isnan(own), np.nan, np.clip(mean, 0, 1)[node])
    made, last = [], 0
    for tree, mask in zip(trees, masks, strict=True):
        column = np.full(mask.shape, np.nan)
        size = int(mask.sum())
        column[mask] = merged[last : last + size]
        made.append(tree.with_step_column(LABEL, column))
        last += size
    return made


def once_per_node(tree: StepTree) -> StepTree:
    """The tree with each node supervised by its first trajectory alone, so that every node weighs the same.

    Not for losses that compare the steps of a trajectory (`pqm`).
    """
    labels = tree.step_column(LABEL)
    flat = np.where(np.isnan(labels), -1, tree.paths).ravel()
    first = np.zeros(flat.size, bool)
    first[np.unique(flat, return_index=True)[1]] = True
    return tree.with_step_column(LABEL, np.where(first.reshape(labels.shape), labels, np.nan))


def fingerprint(trees: Iterable[StepTree]) -> str:
    """Hash of the texts, shapes and labels of training data: equal data, equal hash."""
    digest = hashlib.blake2b(digest_size=16)
    for tree in trees:
        for part in (tree.problem.id, tree.problem.text, *(step.text for step in tree.steps)):
            digest.update(part.encode("utf-8", "surrogatepass") + b"\0")
        digest.update(tree.paths.tobytes() + tree.step_column(LABEL).tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class TrainingBatch:
    """A packed batch, with the position at which the model is read for each step of each trajectory."""

    packed: PackedBatch
    read: torch.Tensor
    """(B, S) index into the batch's reads, 0 where not supervised."""
    labels: torch.Tensor
    """(B, S) float32, NaN where not supervised."""
    mask: torch.Tensor
    """(B, S) True where supervised."""

    def gather(self, reads: torch.Tensor) -> torch.Tensor:
        """(B, S) from one number for each read (Q,); entries outside `mask` are arbitrary."""
        index = self.read.to(reads.device)
        return reads[index] if len(reads) else reads.new_zeros(index.shape)


class TrainingSet(torch.utils.data.Dataset[TrainingBatch]):
    """Batches of packed trees for whole epochs, packed at access.

    Trees with more than `row_tokens` tokens are cut into trees of fewer trajectories: attention is quadratic in the
    length of a row, so that encoding a prompt twice is cheaper. The key decides the content of each batch, so that a
    resumed training sees the same batches.

    Args:
        trees: with the step column `label`, in [0, 1], NaN where not supervised.
        encoder: turns them into tokens.
        row_tokens: tokens of a packed row.
        batch_tokens: tokens of a batch, padding included; at least one row.
        epochs: passes over the data, possibly a fraction.
        key: the randomness of the order; None keeps trees of similar length together, in one fixed order.
    """

    def __init__(
        self,
        trees: Sequence[StepTree],
        encoder: StepEncoder,
        *,
        row_tokens: int,
        batch_tokens: int,
        epochs: float = 1.0,
        key: Key | None = None,
    ) -> None:
        self.trees, self.encoded = [], []
        for tree in trees:
            # A tree that teaches nothing is left out; a wide one is cut.
            if np.isfinite(tree.step_column(LABEL)).any():
                for _, few, encoded in narrow(tree, encoder, row_tokens):
                    self.trees.append(few)
                    self.encoded.append(encoded)
        lengths = [len(tree) for tree in self.encoded]
        self.plans: list[list[list[int]]] = []
        whole, part = divmod(epochs, 1)
        for epoch in range(int(whole) + (part > 0)):
            rng = None if key is None else key.fold("epoch", epoch).rng()
            batches = list(_epoch_batches(lengths, row_tokens, batch_tokens, rng))
            # The last pass may be a part of one; it has a batch at least, as a run of 0 steps is none.
            keep = len(batches) if epoch < whole else max(1, round(part * len(batches)))
            self.plans += batches[:keep]
        self.sizes = np.array([sum(lengths[i] for row in rows for i in row) for rows in self.plans], np.int64)
        """Tokens of each batch, padding left out."""
        self.tokens = sum(lengths)
        """Tokens of one pass."""

    def __len__(self) -> int:
        return len(self.plans)

    def __getitem__(self, index: int) -> TrainingBatch:
        return _training_batch(self.trees, self.encoded, self.plans[index])


def make_batches(
    trees: Sequence[StepTree], encoder: StepEncoder, *, row_tokens: int, batch_tokens: int
) -> list[TrainingBatch]:
    """The batches of one pass in a fixed order, trees of similar length together: a `TrainingSet` as a list."""
    data = TrainingSet(trees, encoder, row_tokens=row_tokens, batch_tokens=batch_tokens)
    return [data[i] for i in range(len(data))]


def _epoch_batches(
    lengths: Sequence[int], row_tokens: int, batch_tokens: int, rng: np.random.Generator | None
) -> Iterator[list[list[int]]]:
    """Batches of one pass: trees in random order, packed window by window, batches in random order."""
    if rng is None:
        yield from plan(lengths, row_tokens, batch_tokens)
        return
    made: list[list[list[int]]] = []
    window: list[int] = []
    in_window, order = 0, rng.permutation(len(lengths))
    for place, i in enumerate(order):
        window.append(int(i))
        in_window += lengths[i]
        last = place == len(order) - 1
        if in_window < _WINDOW * batch_tokens and not last:
            continue
        # `plan` packs well and orders by length, so that its batches are mixed again at the end.
        batches = [
            [[window[j] for j in row] for row in rows]
            for rows in plan([lengths[j] for j in window], row_tokens, batch_tokens)
        ]
        # The last batch of a window is not full: its trees go into the next window.
        window = [] if last or len(batches) == 1 else [j for row in batches.pop() for j in row]
        in_window = sum(lengths[j] for j in window)
        made += batches
    for at in rng.permutation(len(made)):
        yield made[at]


def _training_batch(
    trees: Sequence[StepTree], encoded: Sequence[EncodedTree], rows: Sequence[Sequence[int]]
) -> TrainingBatch:
    chosen = [i for row in rows for i in row]
    local = {i: at for at, i in enumerate(chosen)}
    packed = pack([encoded[i] for i in chosen], [[local[i] for i in row] for row in rows])
    count = sum(len(trees[i].ends) for i in chosen)
    longest = max(trees[i].paths.shape[1] for i in chosen)
    read, labels = np.full((count, longest), -1, np.int64), np.full((count, longest), np.nan, np.float32)
    # Reads are sorted by tree, and `bounds` delimits those of each; `index` maps a tree's nodes to their reads. A node
    # that several trajectories share is read once and supervised once for each of them.
    tags, nodes = packed.tree.numpy(), packed.node.numpy()
    bounds = np.searchsorted(tags, np.arange(len(chosen) + 1))
    at = 0
    for place, i in enumerate(chosen):
        tree, values = trees[i], trees[i].step_column(LABEL)
        index = np.full(tree.n, -1, np.int64)
        mine = np.arange(bounds[place], bounds[place + 1])
        index[nodes[mine]] = mine
        here = (slice(at, at + len(values)), slice(0, values.shape[1]))
        read[here], labels[here] = np.where(tree.mask, index[tree.paths], -1), values
        at += len(values)
    # A step without a read, such as one past the longest input, cannot be supervised whatever its label is.
    labels[read < 0] = np.nan
    return TrainingBatch(
        packed, torch.from_numpy(np.maximum(read, 0)), torch.from_numpy(labels), torch.from_numpy(~np.isnan(labels))
    )
