"""Scores without a head: how much likelier a solution is to one language model than to another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from stepreward.core.runtime.flows import Score, Scored
from stepreward.score.encode.packing import pack
from stepreward.score.encode.per_prefix import pass_encoder
from stepreward.score.encode.per_step import EncodedTree, StepEncoder
from stepreward.score.encode.record import EncoderRecord
from stepreward.score.encode.whole_text import Pass, Trie, grouped, trie
from stepreward.score.model.backbones import load_backbone, load_tokenizer
from stepreward.score.model.public_checkpoints import unembedding
from stepreward.score.model.weights import find, read_weights
from stepreward.score.short_call import ShortCall

_ROWS = 256
"""Tokens whose distribution over the vocabulary is in memory at once: all of a batch would take gigabytes."""


class LanguageModel(nn.Module):
    """A backbone with its language-model head.

    Args:
        backbone: a transformers model whose first output is (R, T, hidden) hidden states.
        unembedding: (V, hidden); a parameter stays the one it is, so that a model in training is read as it learns.
    """

    def __init__(self, backbone: nn.Module, unembedding: torch.Tensor) -> None:
        super().__init__()
        frozen = not isinstance(unembedding, nn.Parameter)
        self.backbone = backbone
        self.unembedding = nn.Parameter(unembedding, requires_grad=False) if frozen else unembedding

    @classmethod
    def load(cls, name: str | Path, dtype: torch.dtype = torch.float32) -> LanguageModel:
        """Reads a folder or hub model; no code in it is run.

        Raises:
            ModelError: it cannot be read.
        """
        folder = find(name)
        state = read_weights(folder)
        return cls(load_backbone(folder, state, dtype), unembedding(state).to(dtype)).eval()

    @classmethod
    def of(cls, causal: Any) -> LanguageModel:
        """The same weights as a causal model of transformers, which may go on learning."""
        return cls(causal.base_model, causal.get_output_embeddings().weight)

    def logprobs(self, merged: Trie, tokens: NDArray[np.int64], parents: NDArray[np.int64]) -> torch.Tensor:
        """(K,) log-probability of some tokens of a trie, each after its parent; differentiable."""
        ids = torch.from_numpy(merged.encoded.ids[tokens]).to(self.unembedding.device)
        parts = [
            rows.gather(1, some[:, None])[:, 0]
            for rows, some in zip(self.distributions(merged, parents), torch.split(ids, _ROWS), strict=True)
        ]
        return torch.cat(parts) if parts else torch.zeros(0, device=ids.device)

    def distributions(self, merged: Trie, parents: NDArray[np.int64]) -> Iterator[torch.Tensor]:
        """(rows, V) log-probabilities of what may follow some tokens of a trie, in order, a few rows at a time."""
        one = merged.encoded
        # Siblings share their parent: its hidden state is read once and its distribution computed for each of them.
        wanted = np.unique(parents)
        if not wanted.size:
            return
        tree = EncodedTree(one.ids, one.position, one.enter, one.leave, one.first, wanted, one.length, one.nodes)
        batch = pack([tree]).to(self.unembedding.device)
        hidden = self.backbone(
            input_ids=batch.input_ids, position_ids=batch.position_ids, attention_mask=batch.mask(), use_cache=False
        )[0][batch.read_row, batch.read_column]
        rows = torch.from_numpy(np.searchsorted(wanted, parents)).to(hidden.device)
        for some in torch.split(rows, _ROWS):
            yield (hidden[some] @ self.unembedding.T).float().log_softmax(-1)


class ImplicitScorer(ShortCall):
    """Scores steps by beta times the log-ratio of two language models, summed over the answer so far.

        s_t = beta * sum_{i <= end of step t} log pi(y_i | y_<i) / pi_ref(y_i | y_<i)

    A `core.runtime.flows.Scorer`. Prefixes that trajectories share are encoded once, by each model.

    Args:
        model: pi.
        reference: pi_ref.
        encoder: of a record whose readout is `implicit`, with the tokenizer of both models.
        name: identity for caches and provenance.
        batch_size: trajectories that make a full batch.
        row_tokens: tokens to a forward pass; one longer trajectory has a pass of its own.
        device: where to run.
    """

    def __init__(
        self,
        model: LanguageModel,
        reference: LanguageModel,
        encoder: StepEncoder,
        *,
        name: str = "implicit",
        batch_size: int = 512,
        row_tokens: int = 512,
        device: str = "cpu",
    ) -> None:
        self.model, self.reference = model.eval().to(device), reference.eval().to(device)
        self.encoder, self.record, self.name = pass_encoder(encoder), encoder.record, name
        self.batch_size, self.row_tokens = batch_size, row_tokens
        self.use = self.record.use
        """How its scores are used, by the record."""

    @classmethod
    def load(
        cls,
        folder: str | Path,
        reference: str | Path,
        record: EncoderRecord,
        *,
        name: str = "",
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> ImplicitScorer:
        """Loads both models; the tokenizer is the first one's.

        Raises:
            ModelError: one cannot be read.
        """
        encoder = StepEncoder(record, load_tokenizer(find(folder)))
        pair = (LanguageModel.load(folder, dtype), LanguageModel.load(reference, dtype))
        return cls(*pair, encoder, name=f"{name or folder} - {reference}", device=device)

    @torch.inference_mode()
    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        """Scores of each question's steps, NaN at observations."""
        answers: list[Scored | None] = [None] * len(questions)
        for group, merged, passes, ratio in self.log_ratios(questions):
            flat = ratio.double().cpu().numpy()
            for at, i in enumerate(group):
                path, one = merged.paths[at], passes[at]
                # A token of the trie may be in the prompt of one sequence and in the answer of another.
                total = np.cumsum(np.where(np.arange(len(path)) >= one.answer, flat[path], 0.0))
                scores = np.full(len(questions[i].steps), np.nan)
                for step, token in one.reads.items():
                    scores[step] = self.record.readout.beta * total[token]
                answers[i] = Scored(scores, merged.new[at], len(path))
        return [answer for answer in answers if answer is not None]

    def log_ratios(self, questions: Sequence[Score]) -> Iterator[tuple[list[int], Trie, list[Pass], torch.Tensor]]:
        """Groups of questions with shared prefixes merged, and the log-ratio of each token of the trie.

        Yields the numbers of the questions, their trie, their sequences, and (T,) log-ratios: 0 at tokens that count in
        no answer. Differentiable in the model's weights, not in the reference's.
        """
        passes = [self.encoder.passes(question.problem, question.steps)[0] for question in questions]
        for group in grouped(passes, self.row_tokens):
            mine = [passes[i] for i in group]
            merged = trie(mine)
            yield group, merged, mine, self._log_ratio(merged, mine)

    def _log_ratio(self, merged: Trie, passes: Sequence[Pass]) -> torch.Tensor:
        parent = np.full(len(merged.encoded), -1, np.int64)
        for path, one in zip(merged.paths, passes, strict=True):
            # The first token of a text has no predecessor, and tokens behind the last read count in no score.
            start, end = max(one.answer, 1), max(one.reads.values(), default=0) + 1
            parent[path[start:end]] = path[start - 1 : max(end - 1, start - 1)]
        tokens = np.flatnonzero(parent >= 0)
        learned = self.model.logprobs(merged, tokens, parent[tokens])
        with torch.no_grad():
            expected = self.reference.logprobs(merged, tokens, parent[tokens])
        ratio = torch.zeros(len(parent), device=learned.device)
        return ratio.index_put((torch.from_numpy(tokens).to(learned.device),), learned - expected)
