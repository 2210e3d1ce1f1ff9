"""Training data: labelled trajectories as trees, each shared prefix once, in batches of a token budget."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, repeat

import numpy as np
import torch
from numpy.typing import NDArray

from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.stored_rows import Stored
from stepreward.core.tree import StepTree, group_trees
from stepreward.core.tree_arrays import mean_at
from stepreward.core.types import LABEL, Trajectory
from stepreward.score.encode.encoded_tree import EncodedTree
from stepreward.score.encode.packing import PackedBatch, narrow, pack, plan
from stepreward.score.encode.per_step import StepEncoder
from stepreward.train.domains import DOMAIN
from stepreward.train.objective import INDICES, OF_PAIRS, OF_ROWS, OF_TOKENS, Objective
from stepreward.train.order import epoch_batches, mixed
from stepreward.train.row_data import annotators_of, of_rows, pairs_of
from stepreward.train.token_data import at_tokens, of_step_tokens, token_index, with_step_tokens


def labelled_trees(rows: Iterable[Trajectory], objective: Objective | None = None) -> list[StepTree]:
    """One tree a problem, with the step columns (B, S) that an objective reads: what each trajectory teaches.

    Trajectories that share a step may label it differently; all of them then have the mean, weighted by rollouts (at
    least one each). A trajectory in which the step is not supervised does not teach it. The loss sees trajectories, so
    a step that m of them share weighs m times: the sum of gradients is that of training on each by itself.

    Args:
        rows: trajectories with the columns, outcomes or facts that the objective reads.
        objective: cross-entropy to the column `label` where None.

    Raises:
        InputError: there is nothing to learn from, or a label of a probability is outside [0, 1].
    """
    objective = objective or Objective.of("bce")
    trees = with_labels(group_trees(rows), objective)
    if not any(teaches(tree, objective) for tree in trees):
        raise nothing_to_learn(objective)
    return trees


def with_labels(trees: Sequence[StepTree], objective: Objective) -> list[StepTree]:
    """Trees of trajectories with the step columns that an objective reads, as `labelled_trees` says."""
    every = [one for tree in trees for one in tree.attempts]
    if objective.fits_probabilities and "labels" in objective.columns:
        _check_range(every, objective.labels)
    # The number of a cell has no mean.
    for name in {name for data, names in objective.columns.items() if data != "cells" for name in names}:
        trees = _with_means(trees, every, name)
    return list(trees)


def nothing_to_learn(objective: Objective) -> InputError:
    """The error for data in which nothing is supervised."""
    columns = [name for names in objective.columns.values() for name in names]
    if columns:
        what, remedy = "supervised step", f"pass a column {' or '.join(columns)} that is not all NaN"
        return InputError(f"there is no {what} to learn from", remedy=remedy)
    compares = "pairs" in objective.method.data
    what = "problem with a better and a worse solution" if compares else "known outcome"
    return InputError(f"there is no {what} to learn from", remedy="pass solutions with outcomes that were graded")


def _check_range(rows: Iterable[Trajectory], name: str) -> None:
    for one in rows:
        values = one.column(name)
        if (bad := values[(values < 0) | (values > 1)]).size:
            what = f"problem {one.problem.id!r} has a {name} of {bad[0]:g}"
            raise InputError(what, remedy="labels must be in [0, 1], or NaN")


def _with_means(trees: Sequence[StepTree], rows: Sequence[Trajectory], name: str) -> list[StepTree]:
    """The trees with a step column in which all that teach a node have the mean of what they say of it."""
    own = np.concatenate([one.column(name) for one in rows]) if rows else np.empty(0)
    rollouts = np.concatenate([one.column("n_rollouts") for one in rows]) if rows else np.empty(0)
    weight = np.where(np.isnan(own), np.nan, np.maximum(np.nan_to_num(rollouts), 1))
    # One mean over the nodes of all trees at once: node i of a tree is `start` of the tree + i.
    masks = [tree.mask for tree in trees]
    start = np.cumsum([0, *(tree.n for tree in trees)])
    nodes = [tree.paths[mask] + at for tree, mask, at in zip(trees, masks, start[:-1], strict=True)]
    node = np.concatenate(nodes) if nodes else np.empty(0, np.int64)
    mean = mean_at(node, weight * own, start[-1]) / mean_at(node, weight, start[-1])
    # A mean of equal numbers can leave their range, that of the node, by a rounding error.
    low, high = np.full(len(mean), np.nan), np.full(len(mean), np.nan)
    np.fmin.at(low, node, own)
    np.fmax.at(high, node, own)
    merged = np.where(np.isnan(own), np.nan, np.clip(mean, low, high)[node])
    made, last = [], 0
    for tree, mask in zip(trees, masks, strict=True):
        column = np.full(mask.shape, np.nan)
        size = int(mask.sum())
        column[mask] = merged[last : last + size]
        made.append(tree.with_step_column(name, column))
        last += size
    return made


def once_per_node(tree: StepTree, column: str = LABEL) -> StepTree:
    """The tree with each node supervised by its first trajectory alone, so that every node weighs the same.

    Only for objectives whose steps do not depend on each other.
    """
    labels = tree.step_column(column)
    flat = np.where(np.isnan(labels), -1, tree.paths).ravel()
    first = np.zeros(flat.size, bool)
    first[np.unique(flat, return_index=True)[1]] = True
    return tree.with_step_column(column, np.where(first.reshape(labels.shape), labels, np.nan))


def fingerprint(trees: Iterable[StepTree], objective: Objective | None = None) -> str:
    """Hash of all that objectives read of training data: equal data, equal hash."""
    digest = hashlib.blake2b(digest_size=16)
    for tree in trees:
        for part in (domain_of(tree), tree.problem.id, tree.problem.text, *(step.text for step in tree.steps)):
            digest.update(part.encode("utf-8", "surrogatepass") + b"\0")
        digest.update(tree.paths.tobytes() + tree.outcomes.tobytes())
        for name in ("log_weights", "strength"):
            digest.update(of_rows(tree, name).tobytes())
        # What most data do not have leaves the hash of the others as it is.
        if objective is not None and (objective.factors or any(annotators_of(tree))):
            digest.update(pairs_of(tree, objective).tobytes() + "\0".join(annotators_of(tree)).encode())
        for name in sorted({*tree.step_columns, LABEL}):
            digest.update(name.encode() + b"\0" + tree.step_column(name).tobytes())
    return digest.hexdigest()


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
        return TrainingBatch(self.packed.to(device), read, mask, data, self.problems, token, self.domains)

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


class TrainingSet(torch.utils.data.Dataset[TrainingBatch]):
    """Batches of packed trees for whole epochs, packed at access.

    Trees with more than `row_tokens` tokens are cut into trees of fewer trajectories: attention is quadratic in the
    length of a row, so that encoding a prompt twice is cheaper. The key decides the content of each batch, so that a
    resumed training sees the same batches.

    Args:
        trees: with the step columns that the objective reads, NaN where not supervised; they are read once, and kept
            with their tokens in a temporary file.
        encoder: turns them into tokens.
        objective: what is trained; it says which data a batch needs.
        row_tokens: tokens of a packed row.
        batch_tokens: tokens of a batch, padding included; at least one row.
        epochs: passes over the data, possibly a fraction.
        mix: share of each domain in the tokens of every pass, any positive numbers; None takes each tree once a pass.
            A pass has as many tokens as the data. A domain is repeated, or goes on in the next pass, as needed.
        key: the randomness of the order; None keeps trees of similar length together, in one fixed order.
        processes: they take turns, a batch each; batches without anything to learn from fill up the last turn.

    Raises:
        InputError: `mix` names other domains than the data has.
    """

    def __init__(
        self,
        trees: Iterable[StepTree],
        encoder: StepEncoder,
        objective: Objective | None = None,
        *,
        row_tokens: int,
        batch_tokens: int,
        epochs: float = 1.0,
        mix: Mapping[str, float] | None = None,
        key: Key | None = None,
        processes: int = 1,
    ) -> None:
        self.objective = objective or Objective.of("bce")
        self.parts = Stored[tuple[StepTree, EncodedTree]]()
        self.limits = (row_tokens, batch_tokens)
        lengths = self.lengths = array("q")
        """Tokens of each part."""
        self.domains: dict[str, array[int]] = {}
        """Numbers of each domain's parts."""
        annotators: set[str] = set()
        for tree in trees:
            # A tree that teaches nothing is left out; a wide one is cut.
            if teaches(tree, self.objective):
                parts = list(narrow(tree, encoder, batch_tokens if self.objective.compares else row_tokens))
                if self.objective.compares and len(parts) > 1:
                    what = f"problem {tree.problem.id!r} has more than {batch_tokens} tokens in its solutions"
                    remedy = f"{self.objective.method.name} compares them in one pass: raise batch_tokens"
                    raise InputError(what, remedy=f"{remedy}, or pass fewer solutions")
                annotators.update(annotators_of(tree))
                for _, few, encoded in parts:
                    self.domains.setdefault(domain_of(few), array("q")).append(len(lengths))
                    self.parts.append((few, encoded))
                    lengths.append(len(encoded))
        self.plans: list[list[list[int]]] = []
        whole, part = divmod(epochs, 1)
        passes = repeat(range(len(lengths))) if not mix else mixed(lengths, self.domains, mix, key or Key(0))
        for epoch, some in zip(range(int(whole) + (part > 0)), passes, strict=False):
            rng = None if key is None else key.fold("epoch", epoch).rng()
            batches = [
                [[some[i] for i in row] for row in rows]
                for rows in epoch_batches([lengths[i] for i in some], row_tokens, batch_tokens, rng)
            ]
            # The last pass may be a part of one; it has a batch at least, as a run of 0 steps is none.
            keep = len(batches) if epoch < whole else max(1, round(part * len(batches)))
            self.plans += batches[:keep]
        self.sizes = np.array([sum(lengths[i] for row in rows for i in row) for rows in self.plans], np.int64)
        """Tokens of each batch, padding left out."""
        self.tokens = sum(lengths)
        """Tokens of one pass."""
        self.extra = -len(self.plans) % processes
        """Batches at the end that fill up the last turn."""
        self.reference: list[NDArray[np.float32]] = []
        """(T,) log-probability of each token of each encoded tree by the reference; 0 while empty."""
        self.annotators = tuple(sorted(annotators - {""}))
        """Names of those who compared the solutions."""
        self.guide: list[NDArray[np.float32]] = []
        """The same of the log-ratio that weighs tokens."""

    def __len__(self) -> int:
        return len(self.plans) + self.extra

    def __getitem__(self, index: int) -> TrainingBatch:
        if index >= len(self.plans):
            return self[len(self.plans) - 1].unsupervised()
        if index < 0:
            raise IndexError(index)
        return self._batch(self.plans[index])

    def _batch(self, rows: Sequence[Sequence[int]]) -> TrainingBatch:
        trees, encoded = zip(*(self.parts[i] for row in rows for i in row), strict=True)
        batch = _training_batch(trees, encoded, [len(row) for row in rows], self.objective)
        if not self.objective.of_ratios:
            return batch
        packed = with_step_tokens(batch.packed, self.reference, rows)
        batch, said = replace(batch, packed=packed), packed.said
        if said is None or not {*OF_TOKENS} & {*self.objective.method.data}:
            return batch
        token = token_index(said, batch.read.numpy(), batch.mask.numpy())
        guide = at_tokens(token, of_step_tokens(packed, said, self.guide, rows))
        return replace(batch, token=token, data={**batch.data, "guide": guide})

    def __iter__(self) -> Iterator[TrainingBatch]:
        return (self[i] for i in range(len(self)))

    def tokens_by_domain(self) -> dict[str, int]:
        """Tokens of each domain in all batches."""
        times = np.bincount([i for rows in self.plans for row in rows for i in row], minlength=len(self.lengths))
        sizes = times * np.asarray(self.lengths)
        return {name: int(sizes[numbers].sum()) for name, numbers in self.domains.items()}

    def of_domain(self, name: str) -> Iterator[TrainingBatch]:
        """The batches of one pass over a domain, in a fixed order."""
        numbers = self.domains[name]
        for rows in plan([self.lengths[i] for i in numbers], *self.limits):
            yield self._batch([[numbers[i] for i in row] for row in rows])


def domain_of(tree: StepTree) -> str:
    """The fact `domain` of a tree's first trajectory, "" where it has none."""
    return str(tree.attempts[0].facts.get(DOMAIN, "")) if tree.attempts else ""


def make_batches(
    trees: Sequence[StepTree],
    encoder: StepEncoder,
    objective: Objective | None = None,
    *,
    row_tokens: int,
    batch_tokens: int,
) -> list[TrainingBatch]:
    """The batches of one pass in a fixed order, trees of similar length together: a `TrainingSet` as a list."""
    data = TrainingSet(trees, encoder, objective, row_tokens=row_tokens, batch_tokens=batch_tokens)
    return list(data)


def teaches(tree: StepTree, objective: Objective) -> bool:
    """Whether an objective can learn something from a tree."""
    for name in ("pairs", "siblings"):
        if name in objective.method.data:
            return len(of_rows(tree, name, objective)) > 0
    columns = [name for names in objective.columns.values() for name in names]
    if any(np.isfinite(tree.step_column(name)).any() for name in columns):
        return True
    rows = [of_rows(tree, name, objective) for name in ("outcome", "log_weights") if name in objective.method.data]
    return any(np.isfinite(values).any() for values in rows)


def _training_batch(
    trees: Sequence[StepTree], encoded: Sequence[EncodedTree], widths: Sequence[int], objective: Objective
) -> TrainingBatch:
    """The batch of some trees, of which each row has so many."""
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
