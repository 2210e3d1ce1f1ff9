"""The scorer over a step reward model: questions in, one score a step out, each shared prefix encoded once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from stepreward.core.runtime.flows import Score, Scored
from stepreward.core.tree import StepTree
from stepreward.core.types import Trajectory
from stepreward.score.cached.incremental import IncrementalScorer
from stepreward.score.encode.packing import narrow, pack, plan
from stepreward.score.encode.per_step import EncodedTree
from stepreward.score.encode.record import EncoderRecord
from stepreward.score.encode.whole_text import Pass, PassEncoder, grouped, trie
from stepreward.score.model.cache_memory import CacheSize, cache_size
from stepreward.score.model.step_reward_model import StepRewardModel
from stepreward.score.short_call import score_texts


class DiscriminativeScorer:
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
    ) -> None:
        self.model = model.eval().to(device)
        self.name, self.batch_size, self.device = name, batch_size, device
        self.row_tokens, self.batch_tokens = row_tokens, batch_tokens
        most = cache_size(cache_bytes).on(torch.device(device)) if model.record.per_step else 0
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

    def score(self, question: str, steps: Sequence[str]) -> NDArray[np.float64]:
        """One score a step, in [0, 1] for a probability readout.

        Args:
            question: the problem's text.
            steps: texts of the steps so far.

        Returns:
            (S,) scores.

        Raises:
            InputError: there is no step, or one is blank.
        """
        return score_texts(self, question, steps)

    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        """Scores of each question's steps; prefixes that questions of one problem share are encoded once."""
        if self.growing is not None:
            return self.growing.score_many(questions)
        return self._plainly(questions)

    def _plainly(self, questions: Sequence[Score]) -> list[Scored]:
        """Scores without what earlier calls kept."""
        return self._by_tree(questions) if self.model.record.per_step else self._by_pass(questions)

    def _by_tree(self, questions: Sequence[Score]) -> list[Scored]:
        """One tree a problem, wide ones cut; steps have tokens of their own."""
        answers: list[Scored | None] = [None] * len(questions)
        asked: list[list[int]] = []
        parts: list[tuple[StepTree, EncodedTree]] = []
        for rows in _by_problem(questions):
            tree = StepTree.from_trajectories([Trajectory(questions[i].problem, questions[i].steps) for i in rows])
            for keep, part, tokens in narrow(tree, self.model.encoder, self.row_tokens):
                asked.append([rows[i] for i in keep])
                parts.append((part, tokens))
        scores = self._run([tokens for _, tokens in parts])
        for rows, (tree, tokens), values in zip(asked, parts, scores, strict=True):
            for i, answer in zip(rows, _split(tree, tokens, values), strict=True):
                answers[i] = answer
        return [answer for answer in answers if answer is not None]

    def _by_pass(self, questions: Sequence[Score]) -> list[Scored]:
        """Each trajectory's own sequences, equal prefixes of tokens merged."""
        encoder = PassEncoder(self.model.encoder)
        made = [encoder.passes(question.problem, question.steps) for question in questions]
        found, paid = self._read(made)
        if self.model.record.second:
            later = [encoder.second(q.problem, q.steps, first) for q, first in zip(questions, found, strict=True)]
            made = [one + more for one, (more, _) in zip(made, later, strict=True)]
            second, again = self._read([more for more, _ in later])
            found = [{**dict.fromkeys(wrong, 0.0), **got} for got, (_, wrong) in zip(second, later, strict=True)]
            paid = paid + again
        whole = [sum(len(one.ids) for one in many) for many in made]
        scores = [
            np.array([got.get(i, np.nan) for i in range(len(q.steps))], np.float64)
            for q, got in zip(questions, found, strict=True)
        ]
        return [Scored(s, int(p), w) for s, p, w in zip(scores, paid, whole, strict=True)]

    def _read(self, made: Sequence[Sequence[Pass]]) -> tuple[list[dict[int, float]], NDArray[np.int64]]:
        """What each trajectory's sequences read, by key, and the tokens that each one pays for."""
        passes = [one for many in made for one in many]
        owner = np.repeat(np.arange(len(made)), [len(many) for many in made])
        groups = grouped(passes, self.row_tokens)
        tries = [trie([passes[i] for i in group]) for group in groups]
        found: list[dict[int, float]] = [{} for _ in made]
        paid = np.zeros(len(made), np.int64)
        for group, merged, values in zip(groups, tries, self._run([one.encoded for one in tries]), strict=True):
            for at, i in enumerate(group):
                paid[owner[i]] += merged.new[at]
                for key, token in passes[i].reads.items():
                    found[owner[i]][key] = float(values[merged.read(at, token)])
        return found, paid

    def score_trees(self, trees: Sequence[StepTree]) -> list[StepTree]:
        """The trees with a column `score`, NaN at the root and at observations."""
        asked = [[Score(tree.problem, t.steps) for t in tree.trajectories()] for tree in trees]
        found = iter(self._plainly([question for rows in asked for question in rows]))
        made = []
        for tree, rows in zip(trees, asked, strict=True):
            scores = np.full(tree.n, np.nan)
            for path in tree.paths[: len(rows)]:
                own = next(found).scores
                scores[path[: len(own)]] = own
            made.append(tree.with_column("score", scores))
        return made

    @torch.inference_mode()
    def _run(self, encoded: Sequence[EncodedTree]) -> list[NDArray[np.float64]]:
        """(n,) scores of each tree's nodes."""
        scores = [np.full(len(tree.read), np.nan) for tree in encoded]
        for rows in plan([len(tree) for tree in encoded], self.row_tokens, self.batch_tokens):
            batch = pack(encoded, rows)
            values = self.model.scores(self.model(batch.to(self.device))).double().cpu().numpy()
            for i, node, value in zip(batch.tree.tolist(), batch.node.tolist(), values, strict=True):
                scores[i][node] = value
        return scores


def _by_problem(questions: Sequence[Score]) -> list[list[int]]:
    groups: dict[tuple[str, str], list[int]] = {}
    for i, question in enumerate(questions):
        groups.setdefault((question.problem.id, question.problem.text), []).append(i)
    return list(groups.values())


def _split(tree: StepTree, encoded: EncodedTree, scores: NDArray[np.float64]) -> list[Scored]:
    """Each trajectory's scores and its share of the tokens: a node is paid by the first trajectory through it."""
    mask = tree.mask
    flat = tree.paths[mask]
    first = np.zeros(mask.shape, bool)
    first[mask] = np.isin(np.arange(len(flat)), np.unique(flat, return_index=True)[1])
    lengths = np.where(mask, encoded.length[tree.paths], 0)
    prompt = int(encoded.length[0])
    paid, whole = (lengths * first).sum(axis=1), lengths.sum(axis=1) + prompt
    paid[0] += prompt
    return [
        Scored(scores[path[real]], int(p), int(w))
        for path, real, p, w in zip(tree.paths, mask, paid, whole, strict=True)
    ]
