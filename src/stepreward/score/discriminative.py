"""The scorer over a step reward model: questions in, one score a step out, each shared prefix encoded once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from stepreward.core.runtime.flows import Score, Scored
from stepreward.core.tree import StepTree, trees_of
from stepreward.core.types import Floats, Trajectory
from stepreward.score.cache.incremental_scorer import IncrementalScorer
from stepreward.score.encode.encoded_tree import EncodedTree
from stepreward.score.encode.formula import scored_before
from stepreward.score.encode.packing import narrow, pack, plan
from stepreward.score.encode.per_prefix import PrefixPasses, pass_encoder
from stepreward.score.encode.record import EncoderRecord
from stepreward.score.encode.whole_text import Pass, grouped, trie
from stepreward.score.model.cache_memory import CacheSize, cache_size
from stepreward.score.model.step_reward_model import StepRewardModel
from stepreward.score.short_call import ShortCall
from stepreward.score.tree_scores import TreeScores, answer_by_trees, by_problem, token_costs


class DiscriminativeScorer(ShortCall):
    """Scores steps with a step reward model; a `core.runtime.flows.Scorer`.

    Args:
        model: the model; it is put in evaluation mode.
        name: identity for caches and provenance.
        batch_size: trajectories that make a full batch.
        row_tokens: tokens to a packed row; wider trees are cut into parts of fewer trajectories.
        batch_tokens: tokens to a forward pass.
        device: where to run.
        cache_bytes: memory for the keys and values of growing trees between calls of `score_many`, so that a search
            pays for new tokens only: bytes, a text such as `2GiB`, or `auto` (`memory.CacheSize`); 0 keeps none, and
            each call's trees are packed. Recipes that tokenise joined text have no tokens to keep.
        also: further numbers of each step by name (`Scored.columns`), each by a formula of the same outputs, as
            `Readout.with_formula` takes it; nothing is kept between calls then.

    Raises:
        ValueError: one of these is no formula of the outputs, or the record has a second pass.
    """

    def __init__(
        self,
        model: StepRewardModel,
        *,
        name: str = "model",
        batch_size: int = 512,
        row_tokens: int = 512,
        batch_tokens: int = 16_384,
        device: str = "cpu",
        cache_bytes: int | str | CacheSize = 0,
        also: Mapping[str, str] | None = None,
    ) -> None:
        self.model = model.eval().to(device)
        own = model.record.readout
        self._readouts = {"": own, **{name: own.with_formula(formula) for name, formula in (also or {}).items()}}
        if also and model.record.second_pass:
            raise ValueError("a second pass decides the score: it takes no further formulas")
        self.use = model.record.use
        """How its scores are used, by the record."""
        self.name, self.batch_size, self.device = name, batch_size, device
        self.row_tokens, self.batch_tokens = row_tokens, batch_tokens
        most = cache_size(cache_bytes).on(torch.device(device)) if model.record.caches and not also else 0
        self.growing = IncrementalScorer(self.model, max_bytes=most, batch_tokens=batch_tokens) if most else None

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        record: EncoderRecord | None = None,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        cache_bytes: int | str | CacheSize = 0,
    ) -> DiscriminativeScorer:
        """Loads a checkpoint folder, with a record in place of its own where one is given."""
        model = StepRewardModel.from_pretrained(folder, record).to(dtype=dtype)
        return cls(model, name=str(folder), device=device, cache_bytes=cache_bytes)

    @property
    def local_model(self) -> tuple[StepRewardModel, str]:
        """The model and its device."""
        return self.model, self.device

    def score_tree(self, tree: StepTree) -> Floats:
        """(n,) scores of a tree's nodes, NaN at the root and at observations."""
        return self.score_trees([tree])[0].scores

    def score_trees(self, trees: Sequence[StepTree]) -> list[TreeScores]:
        """Scores of the nodes of several trees, batched together; nothing that earlier calls encoded is reused."""
        if not self.model.record.grows:
            return self._score_trees_by_trajectory(trees)
        columns = [np.full((tree.n, len(self._readouts)), np.nan) for tree in trees]
        costs = [np.zeros((2, len(tree.ends)), np.int64) for tree in trees]
        cut = [(i, *part) for i, tree in enumerate(trees) for part in narrow(tree, self.model.encoder, self.row_tokens)]
        found = self._forward([encoded for *_, encoded in cut])
        for (i, rows, part, encoded), parts in zip(cut, found, strict=True):
            values = self._combined(parts, scored_before(part.parent, encoded.read >= 0))
            # A part's paths are those of its rows in the whole tree, node by node, under other numbers.
            mask = part.mask
            columns[i][trees[i].paths[rows][:, : mask.shape[1]][mask]] = values[part.paths[mask]]
            costs[i][:, rows] = token_costs(part, encoded.length)
        return [
            TreeScores(one[:, 0], paid, whole, self._named(one))
            for one, (paid, whole) in zip(columns, costs, strict=True)
        ]

    def _combined(self, parts: Floats, previous: NDArray[np.int64]) -> Floats:
        """(Q, R) numbers by each readout, the score first."""
        return np.stack([readout.combined(parts, previous) for readout in self._readouts.values()], -1)

    def _named(self, table: Floats) -> dict[str, Floats]:
        """The further numbers of (Q, R) by their names."""
        return {name: table[:, k] for k, name in enumerate(self._readouts) if k}

    def _score_trees_by_trajectory(self, trees: Sequence[StepTree]) -> list[TreeScores]:
        """Scores where each trajectory has its own: a node has that of the last trajectory through it."""
        rows = [[Score(tree.problem, t.steps) for t in tree.trajectories()] for tree in trees]
        answers = iter(self._score_each([question for group in rows for question in group]))
        made = []
        for tree, group in zip(trees, rows, strict=True):
            table, found = np.full((tree.n, len(self._readouts)), np.nan), [next(answers) for _ in group]
            # Paths are padded with -1 behind a trajectory's own steps.
            for path, answer in zip(tree.paths, found, strict=True):
                table[path[: len(answer.scores)]] = np.stack([answer.scores, *answer.columns.values()], -1)
            costs = np.array([(answer.tokens, answer.tokens_unshared) for answer in found], np.int64).reshape(-1, 2).T
            made.append(TreeScores(table[:, 0], costs[0], costs[1], self._named(table)))
        return made

    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        """Scores of each question's steps; prefixes that questions of one problem share are encoded once."""
        if self.growing is not None:
            return self.growing.score_many(questions)
        grows = self.model.record.grows
        return answer_by_trees(self.score_trees, questions) if grows else self._score_each(questions)

    def _score_each(self, questions: Sequence[Score]) -> list[Scored]:
        """Scores that depend on the whole trajectory, or of texts that do."""
        return self._score_both_ways(questions) if self.model.record.both_ways else self._score_by_pass(questions)

    def _score_both_ways(self, questions: Sequence[Score]) -> list[Scored]:
        """Scores of steps that are read forward and backward, each problem's trajectories together."""
        problems = by_problem(questions)
        trees = trees_of([[Trajectory(questions[i].problem, questions[i].steps) for i in rows] for rows in problems])
        parts = [
            ([rows[at] for at in some], part, encoded)
            for rows, tree in zip(problems, trees, strict=True)
            for some, part, encoded in narrow(tree, self.model.encoder, self.row_tokens)
        ]
        made: dict[int, Scored] = {}
        for (rows, part, encoded), table in zip(parts, self._forward([one for *_, one in parts]), strict=True):
            assert encoded.pairs is not None
            # What is shared is paid for by the first trajectory, forward as backward.
            new, whole = token_costs(part, encoded.length)
            backward = len(encoded) - int(encoded.length[: part.n].sum())
            for at, i in enumerate(rows):
                mine = encoded.pairs[:, 0] == at
                found = dict(zip(encoded.pairs[mine, 1].tolist(), table[mine], strict=True))
                one = self._of_steps(found, len(questions[i].steps))
                tokens = int(new[at]) + (0 if at else backward), 2 * int(whole[at])
                made[i] = Scored(one[:, 0], *tokens, columns=self._named(one))
        return [made[i] for i in range(len(questions))]

    def _score_by_pass(self, questions: Sequence[Score]) -> list[Scored]:
        """Each trajectory's own sequences, equal prefixes of tokens merged."""
        encoder = pass_encoder(self.model.encoder)
        made = [encoder.passes(question.problem, question.steps) for question in questions]
        found, paid = self._read_passes(made)
        if isinstance(encoder, PrefixPasses) and encoder.encoding.second:
            # The labels of the first pass are part of the second one's text, so that it cannot be built before.
            likelier = [{key: float(parts[0]) for key, parts in first.items()} for first in found]
            later = [encoder.second(q.problem, q.steps, first) for q, first in zip(questions, likelier, strict=True)]
            made = [one + more for one, (more, _) in zip(made, later, strict=True)]
            second, again = self._read_passes([more for more, _ in later])
            # A step that the first pass finds wrong scores 0 and has no second pass.
            found = [
                {**dict.fromkeys(wrong, np.zeros(1)), **got} for got, (_, wrong) in zip(second, later, strict=True)
            ]
            paid = paid + again
        whole = [sum(len(one.ids) for one in many) for many in made]
        tables = [self._of_steps(got, len(q.steps)) for q, got in zip(questions, found, strict=True)]
        return [Scored(t[:, 0], int(p), w, self._named(t)) for t, p, w in zip(tables, paid, whole, strict=True)]

    def _of_steps(self, found: Mapping[int, Floats], steps: int) -> Floats:
        """(S, R) numbers of a trajectory's steps from the parts (M,) that were read of some of them."""
        table, read = np.full((steps, len(self._readouts)), np.nan), sorted(i for i in found if i < steps)
        if read:
            # The step that was read before each one.
            table[read] = self._combined(np.stack([found[i] for i in read]), np.arange(len(read)) - 1)
        return table

    def _read_passes(self, made: Sequence[Sequence[Pass]]) -> tuple[list[dict[int, Floats]], NDArray[np.int64]]:
        """The parts of scores (M,) that each trajectory's sequences read, by key, and the tokens that each pays for."""
        passes = [one for many in made for one in many]
        owner = np.repeat(np.arange(len(made)), [len(many) for many in made])
        groups = grouped(passes, self.row_tokens)
        tries = [trie([passes[i] for i in group]) for group in groups]
        found: list[dict[int, Floats]] = [{} for _ in made]
        paid = np.zeros(len(made), np.int64)
        for group, merged, values in zip(groups, tries, self._forward([one.encoded for one in tries]), strict=True):
            for at, i in enumerate(group):
                # Equal prefixes are encoded once a group: the first sequence that has them pays.
                paid[owner[i]] += merged.new[at]
                for key, token in passes[i].reads.items():
                    found[owner[i]][key] = values[merged.read(at, token)]
        return found, paid

    @torch.inference_mode()
    def _forward(self, encoded: Sequence[EncodedTree]) -> list[Floats]:
        """(n, M) parts of the scores of each tree's nodes, NaN where not read; both ways (N, M) of its pairs."""
        several, readout = len(self._readouts) > 1, self.model.record.readout
        width = 1 + readout.n_labels if readout.formula or several else 1
        sizes = [len(tree.read) if tree.pairs is None else len(tree.pairs) for tree in encoded]
        made = [np.full((size, width), np.nan) for size in sizes]
        # Trees are packed into rows and batches in any order: each read carries its tree and node back.
        for rows in plan([len(tree) for tree in encoded], self.row_tokens, self.batch_tokens):
            batch = pack(encoded, rows)
            parts = self.model.score_parts(self.model(batch.to(self.device)), all_outputs=several)
            places = list(zip(batch.tree.tolist(), batch.node.tolist(), strict=True))
            if batch.pairs is not None:
                places = [(i, k) for i in sorted(i for row in rows for i in row) for k in range(sizes[i])]
            for (i, at), part in zip(places, parts, strict=True):
                made[i][at] = part
        return made
