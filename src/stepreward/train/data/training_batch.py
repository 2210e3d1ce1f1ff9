"""A packed batch of trees, with the data of an objective for each trajectory and each step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray

from stepreward.core.tree import StepTree
from stepreward.score.encode.encoded_tree import EncodedTree
from stepreward.score.encode.packing import PackedBatch, pack
from stepreward.train.data.domains import domain_of
from stepreward.train.data.row_data import of_rows
from stepreward.train.objective import Objective
from stepreward.train.objective_data import INDICES, OF_PAIRS, OF_ROWS


@dataclass(frozen=True)
class TrainingBatch:
    """A packed batch, with the position at which the model is read for each step of each trajectory.

    Axes: B trajectories, S steps that the model is read at; observations are left out.
    """

    packed: PackedBatch
    read: torch.Tensor
    """(B, S) index into the batch's reads, 0 where there is no step."""
    mask: torch.Tensor
    """(B, S) True where there is a step; those of a row stand at its beginning."""
    data: dict[str, torch.Tensor]
    """Data of an objective by name, NaN where not known: `labels` (B, S), `outcome` (B,), ..."""
    problems: tuple[str, ...]
    """(B,) id of each trajectory's problem."""
    token: torch.Tensor | None = None
    """(B, L) index into the batch's step tokens for each token of a trajectory's steps, -1 at padding; None where the
    objective reads no tokens."""
    domains: tuple[str, ...] = ()
    """(B,) domain of each trajectory."""
    lagging: torch.Tensor | None = None
    """What the forward pass of a lagging copy of the model returns for the batch; None where nothing lags."""

    def gather(self, reads: torch.Tensor) -> torch.Tensor:
        """(B, S, ...) from (Q, ...) for each read; entries outside `mask` are arbitrary."""
        index = self.read.to(reads.device)
        return reads[index] if len(reads) else reads.new_zeros((*index.shape, *reads.shape[1:]))

    @property
    def previous(self) -> NDArray[np.int64]:
        """(Q,) the read of the step before each read's own, -1 at first steps."""
        read, mask = self.read.cpu().numpy(), self.mask.cpu().numpy()
        made = np.full(len(self.packed.node if self.packed.pairs is None else self.packed.pairs), -1, np.int64)
        # Trajectories that share a step share all steps before it: whichever writes last writes the same.
        made[read[:, 1:][mask[:, 1:]]] = read[:, :-1][mask[:, 1:]]
        return made

    def gather_tokens(self, values: torch.Tensor) -> torch.Tensor:
        """(B, L) from (N,) for each step token; entries at padding are arbitrary."""
        assert self.token is not None, "the batch was made for an objective that reads no tokens"
        return values[self.token.clamp(min=0)] if len(values) else values.new_zeros(self.token.shape)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> TrainingBatch:
        """The batch on another device."""
        data = {name: array.to(device, non_blocking=non_blocking) for name, array in self.data.items()}
        read, mask = (array.to(device, non_blocking=non_blocking) for array in (self.read, self.mask))
        token = None if self.token is None else self.token.to(device, non_blocking=non_blocking)
        return replace(self, packed=self.packed.to(device), read=read, mask=mask, data=data, token=token)

    def unsupervised(self) -> TrainingBatch:
        """The batch with nothing to learn from: what a process encodes that has no batch left when others have."""
        return self.only(torch.zeros(len(self.mask), dtype=torch.bool, device=self.mask.device))

    def only(self, rows: torch.Tensor) -> TrainingBatch:
        """The batch with nothing to learn from trajectories outside `rows` (B,), True where one is kept."""
        data = {}
        for name, values in self.data.items():
            if name in OF_PAIRS:
                # Both sides of a pair are of one problem, and so of one domain.
                sides = self.data["pairs" if "pairs" in self.data else "siblings"]
                data[name] = values[rows[sides[:, 0]]]
            elif values.is_floating_point():
                data[name] = torch.where(rows.reshape(-1, *[1] * (values.ndim - 1)), values, torch.nan)
            else:
                data[name] = values
        return replace(self, mask=self.mask & rows[:, None], data=data)


def training_batch(
    trees: Sequence[StepTree], encoded: Sequence[EncodedTree], widths: Sequence[int], objective: Objective
) -> TrainingBatch:
    """The batch of some trees.

    Args:
        trees: one row of packed tokens after another.
        encoded: their tokens.
        widths: number of trees in each row.
        objective: says which data the batch needs.
    """
    order_of = iter(range(len(trees)))
    packed = pack(encoded, [list(islice(order_of, width)) for width in widths])
    starts = np.cumsum([0, *(len(tree.ends) for tree in trees)])
    longest = max(tree.paths.shape[1] for tree in trees)
    read = np.full((starts[-1], longest), -1, np.int64)
    # Metrics compare scores with labels, whatever the objective learns from.
    columns = {"labels": (objective.labels,), **objective.columns}
    columns |= {"remaining": ("",)} if "remaining" in objective.method.data else {}
    of_steps = {name: np.full((starts[-1], longest, len(names)), np.nan) for name, names in columns.items()}
    # Reads are sorted by tree, and `bounds` delimits those of each; `index` maps a tree's nodes to their reads. A node
    # that several trajectories share is read once and supervised once for each of them.
    tags, nodes = packed.tree.numpy(), packed.node.numpy()
    bounds = np.searchsorted(tags, np.arange(len(trees) + 1))
    paired = 0
    reads_of = []
    for place, tree in enumerate(trees):
        index = np.full(len(encoded[place].read), -1, np.int64)
        mine = np.arange(bounds[place], bounds[place + 1])
        index[nodes[mine]] = mine
        reads_of.append(index)
        here = (slice(starts[place], starts[place + 1]), slice(0, tree.paths.shape[1]))
        read[here] = np.where(tree.mask, index[tree.paths], -1)
        pairs = encoded[place].pairs
        if pairs is not None:
            # Each step of each trajectory has outputs of its own.
            read[here] = -1
            read[starts[place] + pairs[:, 0], pairs[:, 1]] = np.arange(len(pairs)) + paired
            paired += len(pairs)
        for name, names in columns.items():
            taken = [tree.step_column(one) if one else _tokens_left(tree, encoded[place]) for one in names]
            of_steps[name][here] = np.stack(taken, -1)
    # Observations, and steps beyond the model's length, are not read: what is read moves to the front of its row.
    order = np.argsort(read < 0, axis=1, kind="stable")
    read = np.take_along_axis(read, order, 1)
    data = {name: np.take_along_axis(values, order[..., None], 1) for name, values in of_steps.items()}
    data = {name: values if name == "targets" else values[..., 0] for name, values in data.items()}
    for values in data.values():
        values[read < 0] = np.nan
    made = {name: torch.from_numpy(values.astype(np.float32)) for name, values in data.items()}
    for name in (name for name in objective.method.data if name in OF_ROWS):
        parts = [of_rows(tree, name, objective) for tree in trees]
        if name == "pairs":
            parts = [part + start for part, start in zip(parts, starts, strict=False)]
        if name == "group":
            parts = [part + place for place, part in enumerate(parts)]
        if name == "siblings":
            parts = [number[part] for number, part in zip(reads_of, parts, strict=True)]
        joined = np.concatenate(parts)
        made[name] = torch.from_numpy(joined if name in INDICES else joined.astype(np.float32))
    if "siblings" in made:
        _place_siblings(made, read)
    problems = tuple(tree.problem.id for tree in trees for _ in tree.ends)
    domains = tuple(domain_of(tree) for tree in trees for _ in tree.ends)
    places, mask = torch.from_numpy(np.maximum(read, 0)), torch.from_numpy(read >= 0)
    return TrainingBatch(packed, places, mask, made, problems, domains=domains)


def _place_siblings(data: dict[str, torch.Tensor], read: NDArray[np.int64]) -> None:
    """Replaces pairs (P, 2) of reads by where they are in (B, S), and drops those with a node that is not read."""
    reads = data["siblings"].numpy()
    kept = (reads >= 0).all(1)
    # A node that several trajectories share is found in the first of them.
    known, first = np.unique(read, return_index=True)
    row, step = np.unravel_index(first[np.searchsorted(known, reads[kept])], read.shape)
    data["siblings"] = torch.from_numpy(np.stack([row, step], -1).reshape(-1, 4))
    data["gap"] = data["gap"][torch.from_numpy(kept)]


def _tokens_left(tree: StepTree, encoded: EncodedTree) -> NDArray[np.float64]:
    """(B, S) tokens of each trajectory behind each step, NaN where it was cut before its end."""
    tokens = np.where(tree.mask, encoded.length[tree.paths], 0)
    left = tokens.sum(1, keepdims=True) - tokens.cumsum(1)
    return np.where(tree.mask & tree.complete[:, None], left, np.nan)
