"""Scoring while a tree grows: only new tokens are encoded, on the keys and values of what is already there.

Search asks about the same problem again and again, each time a step further. Tokens are kept in the order in which they
came, so a node's tokens always follow those of the nodes above it, and a token sees an earlier one iff that one's node
is its own or above it: the same rule as in a packed tree, hence the same scores.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.cache_utils import Cache

from stepreward.core.errors import InputError
from stepreward.core.flows import Score, Scored
from stepreward.core.types import Problem, Step
from stepreward.score.encoder import StepEncoder
from stepreward.score.model import StepRewardModel
from stepreward.score.told import Told, below, root_name

_Node = tuple[int, tuple[object, ...]]
"""Parent and identity of a step: what makes two nodes the same."""


class GrowingTree:
    """The tree of one problem as it grows, with the keys, values and logits of its tokens.

    Node 0 is the prompt. Tokens of the nodes added since the last `append` are pending.

    Args:
        problem: the problem.
        encoder: how its steps become tokens.
    """

    def __init__(self, problem: Problem, encoder: StepEncoder) -> None:
        self.problem, self.encoder = problem, encoder
        self.known: dict[_Node, int] = {}
        prompt = encoder.prompt_ids(problem)
        if not prompt:
            raise InputError(f"problem {problem.id!r} has an empty prompt", remedy="give it some text")
        self.parent, self.start, self.length, self.first = [-1], [0], [len(prompt)], [0]
        self.scored = [False]
        self.names = [root_name(problem)]
        """What each node is, by everything above it: equal in every tree of the problem."""
        self.ids = list(prompt)
        self.states: list[tuple[torch.Tensor, torch.Tensor]] = []
        """Keys and values of each layer, (heads, T, width)."""
        self.logits = torch.empty(0)
        """(T, n_labels) head outputs at each encoded token."""
        self.encoded, self.billed = 0, 0
        """Tokens encoded, and tokens that a question has paid for."""
        self.asked = {0}
        """Nodes that the latest call asked about, with all above them."""
        self.fixed = np.zeros(0)
        """Scores of the first nodes, as they were first computed."""

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, steps: Sequence[Step]) -> list[int]:
        """Nodes of a trajectory's steps; those not known yet become pending.

        Raises:
            InputError: a step is empty, or the trajectory is longer than the record allows.
        """
        node, path = 0, []
        for n, step in enumerate(steps, 1):
            name = (node, step.identity)
            if name not in self.known:
                self.known[name] = self._grow(node, step, n)
            node = self.known[name]
            path.append(node)
        self.asked.update(path)
        return path

    def _grow(self, parent: int, step: Step, n: int) -> int:
        ids = self.encoder.step_ids(step, self.problem, n)
        start = self.start[parent] + self.length[parent]
        fits = self.encoder.fits(start + len(ids), self.problem)
        self.parent.append(parent)
        self.start.append(start)
        self.length.append(len(ids))
        self.first.append(len(self.ids))
        self.scored.append(step.kind == "action" and fits)
        self.names.append(below(self.names[parent], step))
        self.ids.extend(ids)
        return len(self.parent) - 1

    def pending(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
        """Ids, positions, first tokens of their steps (q,) and visibility (q, T) of the tokens not encoded yet."""
        length, first = np.array(self.length), np.array(self.first)
        node = np.repeat(np.arange(len(length)), length)
        new = np.arange(self.encoded, len(self.ids))
        position = np.array(self.start)[node[new]] + new - first[node[new]]
        fresh = np.unique(node[new])
        above = ancestors(np.array(self.parent), fresh)
        sees = above[np.searchsorted(fresh, node[new])][:, node]
        opens = np.where(node[new] > 0, first[node[new]], new) - self.encoded
        return (
            np.array(self.ids[self.encoded :], np.int64),
            position,
            opens,
            sees & (np.arange(len(node)) <= new[:, None]),
        )

    def append(self, states: Sequence[tuple[torch.Tensor, torch.Tensor]], logits: torch.Tensor) -> None:
        """Takes keys and values (heads, q, width) of each layer, and logits (q, n_labels), of the pending tokens."""
        if not self.states:
            self.states, self.logits = [(k.clone(), v.clone()) for k, v in states], logits.clone()
        else:
            self.states = [
                (torch.cat([old[0], new[0]], dim=1), torch.cat([old[1], new[1]], dim=1))
                for old, new in zip(self.states, states, strict=True)
            ]
            self.logits = torch.cat([self.logits, logits])
        self.encoded = len(self.ids)

    def prune(self) -> None:
        """Forgets, with their tokens, all nodes that the latest call did not ask about."""
        nodes = np.array(sorted(self.asked))
        place = {node: i for i, node in enumerate(nodes.tolist())}
        tokens = np.isin(np.repeat(np.arange(len(self.length)), self.length), nodes)
        chosen = torch.from_numpy(np.flatnonzero(tokens)).to(self.logits.device)
        self.states = [(keys[:, chosen], values[:, chosen]) for keys, values in self.states]
        self.logits, self.ids = self.logits[chosen], np.array(self.ids)[tokens].tolist()
        self.known = {
            (place[parent], step): place[node] for (parent, step), node in self.known.items() if node in place
        }
        self.parent = [place.get(self.parent[node], -1) for node in place]
        self.start, self.length = [self.start[node] for node in place], [self.length[node] for node in place]
        self.scored, self.names = [self.scored[node] for node in place], [self.names[node] for node in place]
        self.first = np.concatenate([[0], np.cumsum(self.length[:-1])]).astype(np.int64).tolist()
        self.fixed, self.asked = self.fixed[nodes], set(range(len(nodes)))
        self.encoded = self.billed = len(self.ids)

    def scores(self, model: StepRewardModel) -> NDArray[np.float64]:
        """(n,) scores of the nodes, NaN at the prompt, at observations and at steps too long."""
        read = self.encoder.read_index(np.array(self.parent), np.array(self.first), np.array(self.length))
        made = model.scores(self.logits[torch.from_numpy(read).to(self.logits.device)]).double().cpu().numpy()
        return np.where(self.scored, made, np.nan)


def ancestors(parent: NDArray[np.int64], nodes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(len(nodes), n) True where a column's node is the row's node or above it."""
    above = np.zeros((len(nodes), len(parent)), bool)
    at, rows = nodes.copy(), np.arange(len(nodes))
    while len(rows):
        above[rows, at] = True
        at = parent[at]
        rows, at = rows[at >= 0], at[at >= 0]
    return above


class _Joined(Cache):  # type: ignore[misc]  # transformers is untyped
    """Keys and values of several trees side by side: encoded tokens, padded to `past` columns, then the new ones."""

    def __init__(self, trees: Sequence[GrowingTree]) -> None:
        super().__init__(layers=[])
        self.trees, self.past = trees, max(tree.encoded for tree in trees)
        self.new: list[tuple[torch.Tensor, torch.Tensor]] = []
        """Keys and values of the new tokens, one pair a layer."""

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Remembers a layer's new states and returns them behind the old ones."""
        self.new.append((keys, values))
        return self._join(keys, layer_idx, 0), self._join(values, layer_idx, 1)

    def _join(self, new: torch.Tensor, layer: int, side: int) -> torch.Tensor:
        # Zeros, not empty: a masked weight of exactly 0 times a NaN would be NaN.
        joined = new.new_zeros((new.shape[0], new.shape[1], self.past + new.shape[2], new.shape[3]))
        joined[:, :, self.past :] = new
        for row, tree in enumerate(self.trees):
            if tree.encoded:
                joined[row, :, : tree.encoded] = tree.states[layer][side]
        return joined

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Columns before the new tokens."""
        return self.past

    def get_query_offset(self, layer_idx: int = 0) -> int:
        """Columns before the new tokens."""
        return self.past

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """Length and offset of the keys."""
        return self.past + query_length, 0


class IncrementalScorer:
    """Scores growing trees, keeping at most `max_tokens` tokens of them.

    What was used longest ago goes first: trees that the latest call did not ask about, then branches of the others that
    it did not ask about, then those trees.

    Args:
        model: the model, in evaluation mode, on its device; call `clear` when its weights change.
        max_tokens: most tokens kept between calls, over all problems.
        max_scores: most scores remembered beyond their trees: a step's score, once told, is told again to the last bit,
            whatever it is encoded with after its tree has gone.
        batch_tokens: most tokens (encoded and new, padding included) of a forward pass; at least one tree.
    """

    def __init__(
        self, model: StepRewardModel, *, max_tokens: int, batch_tokens: int = 16_384, max_scores: int = 1 << 20
    ) -> None:
        if max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, got {max_tokens}")
        self.model, self.max_tokens, self.batch_tokens = model, max_tokens, batch_tokens
        self._told = Told(max_scores)
        self._trees: OrderedDict[tuple[str, str], GrowingTree] = OrderedDict()

    @property
    def tokens(self) -> int:
        """Tokens kept now."""
        return sum(map(len, self._trees.values()))

    def clear(self) -> None:
        """Forgets every tree and every score."""
        self._trees.clear()
        self._told.clear()

    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        """Scores of each question's steps; `tokens` counts what no earlier question, of any call, had encoded.

        Raises:
            InputError: a step is empty or a trajectory too long; the trees of this call are forgotten then.
        """
        # Trees leave the cache while they grow: one that failed half-way must not be found again.
        trees: dict[tuple[str, str], GrowingTree] = {}
        asked: list[tuple[GrowingTree, list[int], int]] = []
        for question in questions:
            name = (question.problem.id, question.problem.text)
            if name not in trees:
                kept = name in self._trees
                trees[name] = self._trees.pop(name) if kept else GrowingTree(question.problem, self.model.encoder)
                trees[name].asked = {0}
            tree = trees[name]
            path = tree.add(question.steps)
            asked.append((tree, path, len(tree) - tree.billed))
            tree.billed = len(tree)
        for batch in self._batches([tree for tree in trees.values() if len(tree) > tree.encoded]):
            try:
                self._encode(batch)
            except torch.cuda.OutOfMemoryError:
                # What is kept may be what fills the memory: the next call must find room.
                self.clear()
                raise
        scores = {id(tree): self._locked(tree) for tree in trees.values()}
        made = [
            Scored(scores[id(tree)][path], paid, tree.length[0] + sum(tree.length[node] for node in path))
            for tree, path, paid in asked
        ]
        self._trees.update(trees)
        self._shrink(trees.keys())
        return made

    def _shrink(self, latest: Collection[tuple[str, str]]) -> None:
        """Forgets until what is kept fits."""
        others = [name for name in self._trees if name not in latest]
        while self.tokens > self.max_tokens and others:
            del self._trees[others.pop(0)]
        for name in [*self._trees]:
            if self.tokens > self.max_tokens:
                self._trees[name].prune()
        while self.tokens > self.max_tokens:
            self._trees.popitem(last=False)

    def _locked(self, tree: GrowingTree) -> NDArray[np.float64]:
        """(n,) scores of a tree's nodes, each as it was first told."""
        known = len(tree.fixed)
        if known < len(tree.parent):
            fresh = self._told.keep(tree.names[known:], tree.scores(self.model)[known:].tolist())
            tree.fixed = np.concatenate([tree.fixed, fresh])
        return tree.fixed

    def _batches(self, trees: Sequence[GrowingTree]) -> Iterator[list[GrowingTree]]:
        """Trees with a similar number of new tokens together."""
        batch: list[GrowingTree] = []
        for tree in sorted(trees, key=lambda tree: (tree.encoded - len(tree), -tree.encoded)):
            wide = max(t.encoded for t in [*batch, tree]) + max(len(t) - t.encoded for t in [*batch, tree])
            if batch and (len(batch) + 1) * wide > self.batch_tokens:
                yield batch
                batch = []
            batch.append(tree)
        if batch:
            yield batch

    @torch.inference_mode()
    def _encode(self, trees: Sequence[GrowingTree]) -> None:
        """One forward pass over the pending tokens of some trees."""
        cache = _Joined(trees)
        parts = [tree.pending() for tree in trees]
        shape = (len(trees), max(len(ids) for ids, *_ in parts))
        ids, position = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        first = np.broadcast_to(np.arange(shape[1]), shape).copy()
        mask = np.zeros((*shape, cache.past + shape[1]), bool)
        # Padding sees itself alone, so that no row of the mask is empty.
        mask[:, np.arange(shape[1]), cache.past + np.arange(shape[1])] = True
        for row, (tree, (own, place, opens, sees)) in enumerate(zip(trees, parts, strict=True)):
            ids[row, : len(own)], position[row, : len(own)], first[row, : len(own)] = own, place, opens
            mask[row, : len(own), : tree.encoded] = sees[:, : tree.encoded]
            mask[row, : len(own), cache.past : cache.past + len(own)] = sees[:, tree.encoded :]
        tokens, places, opened, visible = map(torch.from_numpy, (ids, position, first, mask[:, None]))
        logits = self.model.forward_cached(tokens, places, opened, visible, cache)
        for row, (tree, (own, *_)) in enumerate(zip(trees, parts, strict=True)):
            tree.append([(k[row, :, : len(own)], v[row, :, : len(own)]) for k, v in cache.new], logits[row, : len(own)])
