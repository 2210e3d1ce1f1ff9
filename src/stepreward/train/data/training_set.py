"""Batches of packed trees for whole epochs, in an order that a key decides."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import repeat

import numpy as np
import torch
from numpy.typing import NDArray

from stepreward.core.errors import InputError
from stepreward.core.files.stored_rows import Stored
from stepreward.core.keys import Key
from stepreward.core.tree import StepTree
from stepreward.score.encode.encoded_tree import EncodedTree
from stepreward.score.encode.packing import narrow, plan
from stepreward.score.encode.per_step import StepEncoder
from stepreward.train.data.domains import domain_of
from stepreward.train.data.labelled_trees import nothing_to_learn, once_per_node, teaches
from stepreward.train.data.order import epoch_batches, mixed
from stepreward.train.data.row_data import annotators_of
from stepreward.train.data.token_data import at_tokens, of_step_tokens, token_index, with_step_tokens
from stepreward.train.data.training_batch import TrainingBatch, training_batch
from stepreward.train.objective import Objective
from stepreward.train.processes import processes
from stepreward.train.settings import TrainSettings


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
        judges: list[str] = []
        """The first annotator of each part."""
        compared: Counter[str] = Counter()
        for tree in trees:
            # A tree that teaches nothing is left out; a wide one is cut.
            if teaches(tree, self.objective):
                parts = list(narrow(tree, encoder, batch_tokens if self.objective.compares else row_tokens))
                if self.objective.compares and len(parts) > 1:
                    what = f"problem {tree.problem.id!r} has more than {batch_tokens} tokens in its solutions"
                    remedy = f"{self.objective.method.name} compares them in one pass: raise batch_tokens"
                    raise InputError(what, remedy=f"{remedy}, or pass fewer solutions")
                names = annotators_of(tree)
                compared.update({*names} - {""})
                judges += [next(filter(None, names), "")] * len(parts)
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
                for rows in epoch_batches(
                    [lengths[i] for i in some],
                    row_tokens,
                    batch_tokens,
                    rng,
                    [judges[i] for i in some] if self.objective.infers_users else (),
                )
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
        self.compared = dict(sorted(compared.items()))
        """Names of those who compared solutions, and the problems of which each did."""
        self.guide: list[NDArray[np.float32]] = []
        """The same of the log-ratio that weighs tokens."""
        self.taught: list[NDArray[np.float32]] = []
        """The same of what a teacher says behind each token, NaN where that is not known."""

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
        batch = training_batch(trees, encoded, [len(row) for row in rows], self.objective)
        if not (self.objective.of_ratios or self.objective.reads_tokens):
            return batch
        packed = with_step_tokens(batch.packed, self.reference, rows)
        batch, said = replace(batch, packed=packed), packed.said
        if said is None or not self.objective.reads_tokens:
            return batch
        token = token_index(said, batch.read.numpy(), batch.mask.numpy())
        name, values = ("token_targets", self.taught) if self.objective.reads_next_tokens else ("guide", self.guide)
        known = at_tokens(token, of_step_tokens(packed, said, values, rows))
        if name == "token_targets" and not values:
            known = torch.full_like(known, torch.nan)
        return replace(batch, token=token, data={**batch.data, name: known})

    def __iter__(self) -> Iterator[TrainingBatch]:
        return (self[i] for i in range(len(self)))

    def tokens_by_domain(self) -> dict[str, int]:
        """Tokens of each domain in all batches."""
        times = np.bincount([i for rows in self.plans for row in rows for i in row], minlength=len(self.lengths))
        sizes = times * np.asarray(self.lengths)
        return {name: int(sizes[numbers].sum()) for name, numbers in self.domains.items()}

    def one_pass(self) -> Iterator[TrainingBatch]:
        """The batches of one pass over all parts, in a fixed order."""
        for rows in plan(self.lengths, *self.limits):
            yield self._batch(rows)

    def of_domain(self, name: str) -> Iterator[TrainingBatch]:
        """The batches of one pass over a domain, in a fixed order."""
        numbers = self.domains[name]
        for rows in plan([self.lengths[i] for i in numbers], *self.limits):
            yield self._batch([[numbers[i] for i in row] for row in rows])


def learning_set(
    trees: Iterable[StepTree], encoder: StepEncoder, objective: Objective, settings: TrainSettings
) -> TrainingSet:
    """The batches that a training with some settings learns from, those of all its processes.

    Raises:
        InputError: there is nothing to learn from, or `settings.mix` names other domains than the data has.
    """
    taught = (once_per_node(tree, settings.labels) if settings.weigh == "node" else tree for tree in trees)
    key = Key.seed(settings.seed).fold("train")
    data = TrainingSet(
        taught, encoder, objective, row_tokens=settings.row_tokens, batch_tokens=settings.batch_tokens,
        epochs=settings.epochs, mix=settings.mix, key=key, processes=processes(),
    )  # fmt: skip
    if not len(data):
        raise nothing_to_learn(objective)
    return data


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
