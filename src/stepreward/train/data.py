"""Training data: labelled trajectories as trees, each shared prefix once, in batches of a token budget."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.tree import StepTree, trees_of
from stepreward.core.tree_arrays import mean_at
from stepreward.core.types import Steps, Trajectory
from stepreward.score.encode.packing import PackedBatch, narrow, pack, plan, some_rows
from stepreward.score.encode.per_step import EncodedTree, StepEncoder

_WINDOW = 8
"""Batches whose trees are packed together: more batches waste less padding, fewer are closer to a random order."""


@dataclass(frozen=True)
class LabelledTree:
    """Trajectories of one problem with the label of each step.

    The loss sees trajectories, so a step that m of them share weighs m times: the sum of gradients is that of training
    on each trajectory by itself.
    """

    tree: StepTree
    labels: NDArray[np.float64]
    """(B, S) in [0, 1], NaN where not supervised."""

    @classmethod
    def from_column(cls, tree: StepTree, column: str = "label") -> LabelledTree:
        """A tree with its labels from one of its columns.

        Raises:
            InputError: a label is outside [0, 1].
        """
        return cls(tree, _checked(tree.gather(np.where(tree.action, tree.column(column), np.nan)), tree.problem.id))

    def once_per_node(self) -> LabelledTree:
        """The same labels with each node supervised by its first trajectory alone, so that every node weighs the same.

        Not for losses that compare the steps of a trajectory (`pqm`).
        """
        flat = np.where(np.isnan(self.labels), -1, self.tree.paths).ravel()
        first = np.zeros(flat.size, bool)
        first[np.unique(flat, return_index=True)[1]] = True
        return LabelledTree(self.tree, np.where(first.reshape(self.labels.shape), self.labels, np.nan))

    def rows(self, keep: Sequence[int]) -> LabelledTree:
        """The tree of some of the trajectories."""
        part = some_rows(self.tree, keep)
        return LabelledTree(part, self.labels[list(keep)][:, : part.paths.shape[1]])


def labelled_trees(labels: Iterable[Trajectory]) -> list[LabelledTree]:
    """One tree a problem, each node with one label.

    Trajectories that share a step may label it differently; its label, in the column `label`, is the mean weighted by
    rollouts (at least one each). A trajectory in which the step is not supervised does not teach it.

    Raises:
        InputError: there is no supervised step, or a label is outside [0, 1].
    """
    groups: dict[str, list[Trajectory]] = {}
    for one in labels:
        groups.setdefault(one.problem.id, []).append(one)
    made = _labelled(list(groups.values()))
    if not any(np.isfinite(one.labels).any() for one in made):
        raise InputError("there is no supervised step to learn from", remedy="pass labels that are not all NaN")
    return made


def _labelled(groups: Sequence[Sequence[Trajectory]]) -> list[LabelledTree]:
    """A tree with its labels for each group, by array operations over all of them."""
    trees = trees_of(groups)
    every = [one for group in groups for one in group]
    own = np.concatenate([one.labels for one in every]) if every else np.empty(0)
    rollouts = np.concatenate([one.column("n_rollouts") for one in every]) if every else np.empty(0)
    _check(own, every)
    weight = np.where(np.isnan(own), np.nan, np.maximum(np.nan_to_num(rollouts), 1))
    masks = [tree.mask for tree in trees]
    start = np.cumsum([0, *(tree.n for tree in trees)])
    places = [tree.paths[mask] + at for tree, mask, at in zip(trees, masks, start[:-1], strict=True)]
    place = np.concatenate(places) if places else np.empty(0, np.int64)
    # A mean of equal labels can leave [0, 1] by a rounding error.
    node = np.clip(mean_at(place, weight * own, start[-1]) / mean_at(place, weight, start[-1]), 0, 1)
    merged = np.where(np.isnan(own), np.nan, node[place])
    made, last = [], 0
    for tree, mask, at in zip(trees, masks, start, strict=False):
        labels = np.full(mask.shape, np.nan)
        size = int(mask.sum())
        labels[mask] = merged[last : last + size]
        made.append(LabelledTree(tree.with_column("label", node[at : at + tree.n]), labels))
        last += size
    return made


def _check(labels: NDArray[np.float64], every: Sequence[Trajectory]) -> None:
    """Raises InputError for a label outside [0, 1], of the problem that has it."""
    if ((labels < 0) | (labels > 1)).any():
        for one in every:
            _checked(one.labels, one.problem.id)


def _checked(labels: Steps, name: str) -> NDArray[np.float64]:
    bad = labels[(labels < 0) | (labels > 1)]
    if bad.size:
        raise InputError(f"problem {name!r} has a label of {bad[0]:g}", remedy="labels must be in [0, 1], or NaN")
    return labels.astype(np.float64)


def fingerprint(trees: Iterable[LabelledTree]) -> str:
    """Hash of the texts, shapes and labels of training data: equal data, equal hash."""
    digest = hashlib.blake2b(digest_size=16)
    for one in trees:
        for part in (one.tree.problem.id, one.tree.problem.text, *(step.text for step in one.tree.steps)):
            digest.update(part.encode("utf-8", "surrogatepass") + b"\0")
        digest.update(one.tree.paths.tobytes() + one.labels.tobytes())
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
        trees: labelled trees.
        encoder: turns them into tokens.
        row_tokens: tokens of a packed row.
        batch_tokens: tokens of a batch, padding included; at least one row.
        epochs: passes over the data, possibly a fraction.
        key: the randomness of the order; None keeps trees of similar length together, in one fixed order.
    """

    def __init__(
        self,
        trees: Sequence[LabelledTree],
        encoder: StepEncoder,
        *,
        row_tokens: int,
        batch_tokens: int,
        epochs: float = 1.0,
        key: Key | None = None,
    ) -> None:
        self.trees, self.encoded = [], []
        for tree, encoded in _narrow(trees, encoder, row_tokens):
            self.trees.append(tree)
            self.encoded.append(encoded)
        lengths = [len(tree) for tree in self.encoded]
        self.plans: list[list[list[int]]] = []
        whole, part = divmod(epochs, 1)
        for epoch in range(int(whole) + (part > 0)):
            rng = None if key is None else key.fold("epoch", epoch).rng()
            batches = list(_epoch(lengths, row_tokens, batch_tokens, rng))
            keep = len(batches) if epoch < whole else max(1, round(part * len(batches)))
            self.plans += batches[:keep]
        self.sizes = np.array([sum(lengths[i] for row in rows for i in row) for rows in self.plans], np.int64)
        """Tokens of each batch, padding left out."""
        self.tokens = sum(lengths)
        """Tokens of one pass."""

    def __len__(self) -> int:
        return len(self.plans)

    def __getitem__(self, index: int) -> TrainingBatch:
        return _batch(self.trees, self.encoded, self.plans[index])


def make_batches(
    trees: Sequence[LabelledTree], encoder: StepEncoder, *, row_tokens: int, batch_tokens: int
) -> list[TrainingBatch]:
    """The batches of one pass in a fixed order, trees of similar length together: a `TrainingSet` as a list."""
    data = TrainingSet(trees, encoder, row_tokens=row_tokens, batch_tokens=batch_tokens)
    return [data[i] for i in range(len(data))]


def _narrow(
    trees: Sequence[LabelledTree], encoder: StepEncoder, row_tokens: int
) -> Iterator[tuple[LabelledTree, EncodedTree]]:
    """Trees with their tokens, wide ones cut; trees without supervised steps are left out."""
    for one in trees:
        if not np.isfinite(one.labels).any():
            continue
        for keep, part, encoded in narrow(one.tree, encoder, row_tokens):
            yield (one if part is one.tree else LabelledTree(part, one.labels[keep][:, : part.paths.shape[1]])), encoded


def _epoch(
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


def _batch(
    trees: Sequence[LabelledTree], encoded: Sequence[EncodedTree], rows: Sequence[Sequence[int]]
) -> TrainingBatch:
    chosen = [i for row in rows for i in row]
    local = {i: at for at, i in enumerate(chosen)}
    packed = pack([encoded[i] for i in chosen], [[local[i] for i in row] for row in rows])
    count = sum(len(trees[i].labels) for i in chosen)
    longest = max(trees[i].labels.shape[1] for i in chosen)
    read, labels = np.full((count, longest), -1, np.int64), np.full((count, longest), np.nan, np.float32)
    # Reads are sorted by tree: `bounds` delimits those of each. `index` maps its nodes to their reads.
    tags, nodes = packed.tree.numpy(), packed.node.numpy()
    bounds = np.searchsorted(tags, np.arange(len(chosen) + 1))
    at = 0
    for place, i in enumerate(chosen):
        tree, values = trees[i].tree, trees[i].labels
        index = np.full(tree.n, -1, np.int64)
        mine = np.arange(bounds[place], bounds[place + 1])
        index[nodes[mine]] = mine
        here = (slice(at, at + len(values)), slice(0, values.shape[1]))
        read[here], labels[here] = np.where(tree.mask, index[tree.paths], -1), values
        at += len(values)
    labels[read < 0] = np.nan
    return TrainingBatch(
        packed, torch.from_numpy(np.maximum(read, 0)), torch.from_numpy(labels), torch.from_numpy(~np.isnan(labels))
    )
