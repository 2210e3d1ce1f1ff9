"""The tree of one problem as it grows, with the keys and values of its tokens.

Tokens are kept in the order in which they came, so a node's tokens always follow those of the nodes above it. A token
sees an earlier one if that one's node is its own or above it: the same rule as in a packed tree, hence the same scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.cache_utils import Cache

from stepreward.core.errors import InputError
from stepreward.core.prefix_names import below
from stepreward.core.tree import StepTree
from stepreward.core.types import Problem, Step
from stepreward.score.cache.first_scores import root_name
from stepreward.score.encode.formula import scored_before
from stepreward.score.encode.per_step import StepEncoder
from stepreward.score.model.step_reward_model import StepRewardModel

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
        self.numbers: dict[_Node, int] = {}
        """The nodes so far, numbered as they came; the root has no entry."""
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
        self.nbytes = 0
        """Of memory that keys, values and logits take."""
        self.encoded = 0
        """Tokens whose keys, values and logits are here; those behind them are pending."""
        self.paid = 0
        """Nodes that a trajectory has paid for."""
        self.latest = {0}
        """Nodes of the trees that the latest call scored."""
        self.first_scores = np.zeros(0)
        """Scores of the first nodes, as they were first computed."""

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, tree: StepTree) -> NDArray[np.int64]:
        """(n,) the node here of each node of a tree of the same problem; those not known yet become pending.

        Raises:
            InputError: a step is empty, or a trajectory is longer than the record allows.
        """
        nodes = np.zeros(tree.n, np.int64)
        # By depth, so that a step's parent has its number before the step.
        for at in np.argsort(tree.depth, kind="stable")[1:].tolist():
            parent, step = int(nodes[tree.parent[at]]), tree.steps[tree.step_id[at]]
            name = (parent, step.identity)
            if name not in self.numbers:
                self.numbers[name] = self._add_node(parent, step, int(tree.depth[at]))
            nodes[at] = self.numbers[name]
        self.latest.update(nodes.tolist())
        return nodes

    def _add_node(self, parent: int, step: Step, depth: int) -> int:
        ids = self.encoder.step_ids(step, self.problem, depth)
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
        # Siblings have the same positions: each token is where it would be on its own trajectory.
        position = np.array(self.start)[node[new]] + new - first[node[new]]
        new_nodes = np.unique(node[new])
        above = ancestors(np.array(self.parent), new_nodes)
        sees = above[np.searchsorted(new_nodes, node[new])][:, node] & (np.arange(len(node)) <= new[:, None])
        # Steps are added whole, so that the first token of a pending one is pending too: its index is not negative.
        step_first = np.where(node[new] > 0, first[node[new]], new) - self.encoded
        return np.array(self.ids[self.encoded :], np.int64), position, step_first, sees

    def append(self, states: Sequence[tuple[torch.Tensor, torch.Tensor]], logits: torch.Tensor) -> None:
        """Takes keys and values (heads, q, width) of each layer, and logits (q, n_labels), of the pending tokens."""
        if self.states:
            # Layer by layer, so that there is never a second copy of all layers.
            for layer, (keys, values) in enumerate(states):
                old = self.states[layer]
                self.states[layer] = (torch.cat([old[0], keys], dim=1), torch.cat([old[1], values], dim=1))
            self.logits = torch.cat([self.logits, logits])
        else:
            # Clones, as a slice would keep the padded tensors of the whole pass in memory.
            self.states, self.logits = [(k.clone(), v.clone()) for k, v in states], logits.clone()
        self._set_encoded(len(self.ids))

    def forget(self) -> None:
        """Gives back the memory of all tokens: they are pending again."""
        self.states, self.logits = [], torch.empty(0)
        self._set_encoded(0)

    def _set_encoded(self, encoded: int) -> None:
        self.encoded = encoded
        self.nbytes = sum(keys.nbytes + values.nbytes for keys, values in self.states) + self.logits.nbytes

    def prune(self) -> None:
        """Forgets, with their tokens, all nodes that the latest call did not score; nothing may be pending."""
        if len(self.latest) == len(self.parent):
            return
        # `latest` holds all ancestors of its nodes, and numbers grow downwards: a kept node keeps its parent, and the
        # order of the tokens stays.
        nodes = np.array(sorted(self.latest))
        place = {node: i for i, node in enumerate(nodes.tolist())}
        tokens = np.isin(np.repeat(np.arange(len(self.length)), self.length), nodes)
        chosen = torch.from_numpy(np.flatnonzero(tokens)).to(self.logits.device)
        self.ids = np.array(self.ids)[tokens].tolist()
        for layer, (keys, values) in enumerate(self.states):
            self.states[layer] = (keys[:, chosen], values[:, chosen])
        self.logits = self.logits[chosen]
        self._set_encoded(len(self.ids))
        self.numbers = {
            (place[parent], step): place[node] for (parent, step), node in self.numbers.items() if node in place
        }
        self.parent = [place.get(self.parent[node], -1) for node in place]
        self.start, self.length = [self.start[node] for node in place], [self.length[node] for node in place]
        self.scored, self.names = [self.scored[node] for node in place], [self.names[node] for node in place]
        self.first = np.concatenate([[0], np.cumsum(self.length[:-1])]).astype(np.int64).tolist()
        self.first_scores, self.latest = self.first_scores[nodes], set(range(len(nodes)))
        self.paid = len(self.parent)

    def scores(self, model: StepRewardModel) -> NDArray[np.float64]:
        """(n,) scores of the nodes, NaN at the prompt, at observations and at steps too long."""
        read = self.encoder.read_index(np.array(self.parent), np.array(self.first), np.array(self.length))
        before = scored_before(np.array(self.parent), np.array(self.scored))
        # Of the prompt, which has no score, this is the last node's.
        begin = (np.array(self.first) + np.array(self.length) - 1)[self.parent]
        end, start = (self.logits[torch.from_numpy(at).to(self.logits.device)] for at in (read, begin))
        parts = model.score_parts(model.record.readout.joined(end, start))
        return np.where(self.scored, model.record.readout.combined(parts, before), np.nan)


def ancestors(parent: NDArray[np.int64], nodes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(len(nodes), n) True where a column's node is the row's node or above it."""
    above = np.zeros((len(nodes), len(parent)), bool)
    at, rows = nodes.copy(), np.arange(len(nodes))
    while len(rows):
        above[rows, at] = True
        at = parent[at]
        rows, at = rows[at >= 0], at[at >= 0]
    return above


class JoinedCache(Cache):  # type: ignore[misc]  # transformers is untyped
    """Keys and values of several trees, one a row: encoded tokens, padded to `past` columns, then the new ones."""

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
        # Zeros, not uninitialised memory: a masked weight of exactly 0 times a NaN would be NaN.
        joined = new.new_zeros((new.shape[0], new.shape[1], self.past + new.shape[2], new.shape[3]))
        joined[:, :, self.past :] = new
        for row, tree in enumerate(self.trees):
            if tree.encoded:
                joined[row, :, : tree.encoded] = tree.states[layer][side]
        return joined

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Columns before the new tokens."""
        return self.past

    get_query_offset = get_seq_length

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """Length and offset of the keys."""
        return self.past + query_length, 0
