"""Scoring while trees grow: only new tokens are encoded, on the keys and values of what is already there.

A search scores the trajectories of a problem again and again, each time a step further. What is kept in between is
bounded in bytes of the model's own keys and values.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence
from contextlib import suppress

import numpy as np
import torch
from numpy.typing import NDArray

from stepreward.core.errors import ModelError
from stepreward.core.runtime.flows import Score, Scored
from stepreward.core.tree import StepTree
from stepreward.score.cache.first_scores import FirstScores
from stepreward.score.cache.growing_tree import GrowingTree, JoinedCache
from stepreward.score.model.step_reward_model import StepRewardModel
from stepreward.score.tree_scores import Counts, TreeScores, answer_by_trees, token_costs

_Name = tuple[str, str, str | None, str]


class IncrementalScorer:
    """Scores growing trees, keeping at most `max_bytes` of their tokens' keys, values and logits.

    What was used longest ago is dropped first: trees that the latest call did not score, then branches of the others
    that it did not score, then those trees. Room for what a pass adds is made before it; where the trees of the pass
    leave none, the limit is exceeded until the pass is over.

    Where the device's memory runs out all the same, everything kept is freed and the pass tried once more, a tree at a
    time.

    Args:
        model: the model, in evaluation mode, on its device; call `clear` when its weights change.
        max_bytes: most bytes kept between passes, over all problems.
        max_scores: most scores remembered beyond their trees: a step's first score is returned again to the last bit,
            whatever it is encoded with after its tree was dropped.
        batch_tokens: most tokens (encoded and new, padding included) of a forward pass; at least one tree.
    """

    def __init__(
        self, model: StepRewardModel, *, max_bytes: int, batch_tokens: int = 16_384, max_scores: int = 1 << 20
    ) -> None:
        if max_bytes < 1:
            raise ValueError(f"max_bytes must be at least 1, got {max_bytes}")
        self.model, self.max_bytes, self.batch_tokens = model, max_bytes, batch_tokens
        self.rescued = 0
        """Passes that ran out of memory and were tried again."""
        self._first_scores = FirstScores(max_scores)
        self._trees: OrderedDict[_Name, GrowingTree] = OrderedDict()
        self._token_bytes = 0.0
        """Of a token, as last measured; 0 before the first pass."""

    @property
    def tokens(self) -> int:
        """Tokens kept now."""
        return sum(map(len, self._trees.values()))

    @property
    def nbytes(self) -> int:
        """Bytes kept now."""
        return sum(tree.nbytes for tree in self._trees.values())

    def clear(self) -> None:
        """Forgets every tree and every score."""
        self._trees.clear()
        self._first_scores.clear()

    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        """Scores of each question's steps; `tokens` counts what no earlier question, of any call, had encoded.

        Raises:
            InputError, ModelError: as for `score_trees`.
        """
        return answer_by_trees(self.score_trees, questions)

    def score_trees(self, trees: Sequence[StepTree]) -> list[TreeScores]:
        """Scores of the nodes of some trees; `tokens` counts what no earlier trajectory, of any call, had encoded.

        Raises:
            InputError: a step is empty or a trajectory too long; the trees of this call are forgotten then.
            ModelError: the device's memory does not even hold one tree.
        """
        # Trees leave the cache while they grow: one that failed half-way must not be found again.
        growing: dict[_Name, GrowingTree] = {}
        reads: list[tuple[_Name, NDArray[np.int64], tuple[Counts, Counts]]] = []
        for tree in trees:
            name = tree.problem.read_by_scorers
            if name not in growing:
                kept = self._trees.pop(name, None)
                growing[name] = GrowingTree(tree.problem, self.model.encoder) if kept is None else kept
                growing[name].latest = {0}
            grown = growing[name]
            nodes = grown.add(tree)
            reads.append((name, nodes, token_costs(tree, np.array(grown.length)[nodes], nodes >= grown.paid)))
            grown.paid = len(grown.parent)
        scores = self._score(growing)
        return [TreeScores(scores[name][nodes], *costs) for name, nodes, costs in reads]

    def _score(self, trees: dict[_Name, GrowingTree]) -> dict[_Name, NDArray[np.float64]]:
        """(n,) scores of each tree's nodes; the trees go back into the cache as they are done."""
        waiting = {name: tree for name, tree in trees.items() if len(tree) > tree.encoded}
        scores = {name: self._put_back(name, tree) for name, tree in trees.items() if name not in waiting}
        for batch in self._batches(waiting):
            new = sum(len(waiting[name]) - waiting[name].encoded for name in batch)
            # Waiting trees are not in the cache, but their keys and values take memory all the same.
            outside = sum(tree.nbytes for tree in waiting.values())
            self._shrink(trees, self.max_bytes - outside - int(new * self._token_bytes))
            self._encode_or_retry([waiting[name] for name in batch], waiting.values())
            scores |= {name: self._put_back(name, waiting.pop(name)) for name in batch}
            self._shrink(trees, self.max_bytes - sum(tree.nbytes for tree in waiting.values()))
        # In order of the call, not of the batches: the cache drops from its front.
        for name in trees:
            if name in self._trees:
                self._trees.move_to_end(name)
        return scores

    def _put_back(self, name: _Name, tree: GrowingTree) -> NDArray[np.float64]:
        """(n,) first scores of a tree's nodes; the tree goes back into the cache."""
        self._trees[name] = tree
        known = len(tree.first_scores)
        if known < len(tree.parent):
            new = self._first_scores.keep(tree.names[known:], tree.scores(self.model)[known:].tolist())
            tree.first_scores = np.concatenate([tree.first_scores, new])
        return tree.first_scores

    def _shrink(self, latest: Collection[_Name], most: int) -> None:
        """Drops trees and branches until what is kept takes at most so many bytes."""
        size = self.nbytes
        for name in [name for name in self._trees if name not in latest]:
            if size <= most:
                return
            size -= self._trees.pop(name).nbytes
        for name in [*self._trees]:
            if size <= most:
                return
            tree = self._trees.pop(name)
            size -= tree.nbytes
            # Pruning copies tensors: a tree that memory runs out for half-way is broken and not put back.
            with suppress(torch.OutOfMemoryError):
                tree.prune()
                self._trees[name] = tree
                size += tree.nbytes
        while size > most and self._trees:
            size -= self._trees.popitem(last=False)[1].nbytes

    def _encode_or_retry(self, batch: Sequence[GrowingTree], outside: Collection[GrowingTree]) -> None:
        """A forward pass; where memory runs out, once more with nothing kept and a tree at a time."""
        try:
            self._encode(batch)
        except torch.OutOfMemoryError:
            pass
        else:
            return
        # Outside the handler: until it ends, its traceback keeps the tensors of the failed pass in memory.
        self.rescued += 1
        self._trees.clear()
        for tree in outside:
            tree.forget()
        for tree in batch:
            # torch keeps freed memory for later, in pieces that may fit no new tensor.
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            try:
                self._encode([tree])
            except torch.OutOfMemoryError as error:
                device = next(self.model.head.parameters()).device
                what = f"a tree of {len(tree):,} tokens does not fit the memory of {device}"
                raise ModelError(f"{what}: pass --dtype bfloat16, a smaller --cache-memory, or more memory") from error

    def _batches(self, trees: dict[_Name, GrowingTree]) -> list[list[_Name]]:
        """Trees with a similar number of new tokens together."""
        # A batch is padded to its most new tokens and to its most kept ones: trees are sorted by both.
        made: list[list[_Name]] = []
        new = encoded = 0
        for name, tree in sorted(trees.items(), key=lambda item: (item[1].encoded - len(item[1]), -item[1].encoded)):
            new, encoded = max(new, len(tree) - tree.encoded), max(encoded, tree.encoded)
            if made and (len(made[-1]) + 1) * (new + encoded) <= self.batch_tokens:
                made[-1].append(name)
            else:
                made.append([name])
                new, encoded = len(tree) - tree.encoded, tree.encoded
        return made

    @torch.inference_mode()
    def _encode(self, trees: Sequence[GrowingTree]) -> None:
        """One forward pass over the pending tokens of some trees."""
        cache = JoinedCache(trees)
        parts = [tree.pending() for tree in trees]
        shape = (len(trees), max(len(ids) for ids, *_ in parts))
        ids, position = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        first = np.broadcast_to(np.arange(shape[1]), shape).copy()
        mask = np.zeros((*shape, cache.past + shape[1]), bool)
        # Padding sees itself alone: a softmax over an empty row would be NaN.
        mask[:, np.arange(shape[1]), cache.past + np.arange(shape[1])] = True
        for row, (tree, (own, places, step_first, sees)) in enumerate(zip(trees, parts, strict=True)):
            ids[row, : len(own)], position[row, : len(own)], first[row, : len(own)] = own, places, step_first
            # The cache pads encoded tokens to `past` columns: between them and the new ones nothing may be seen.
            mask[row, : len(own), : tree.encoded] = sees[:, : tree.encoded]
            mask[row, : len(own), cache.past : cache.past + len(own)] = sees[:, tree.encoded :]
        tensors = [torch.from_numpy(array) for array in (ids, position, first, mask[:, None])]
        logits = self.model.forward_cached(tensors[0], tensors[1], tensors[2], tensors[3], cache)
        for row, (tree, (own, *_)) in enumerate(zip(trees, parts, strict=True)):
            tree.append([(k[row, :, : len(own)], v[row, :, : len(own)]) for k, v in cache.new], logits[row, : len(own)])
        self._token_bytes = trees[0].nbytes / len(trees[0])
