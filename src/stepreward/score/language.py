"""Step scores that any causal language model gives, trained for it or not: entropy, certainty, and what it expects.

They describe a policy's own certainty as much as they are rewards: shaping, credit and search can read them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch

from stepreward.core.errors import InputError, UnknownNameError
from stepreward.core.runtime.flows import Score, Scored
from stepreward.core.types import Floats, Problem
from stepreward.score.encode.per_step import StepEncoder
from stepreward.score.encode.record import EncoderRecord, PerStep
from stepreward.score.encode.whole_text import Pass, Trie, grouped, trie
from stepreward.score.implicit import LanguageModel
from stepreward.score.short_call import ShortCall

PROMPT_TOKENS = "tokens"
"""Key of `Problem.meta` under which a caller may leave the prompt's token ids, as the policy saw them."""
AnswerText = Callable[[Problem], str]


def reference_after(lead: str = "Answer: ") -> AnswerText:
    """The problem's reference behind some words that ask for it.

    Raises (the function returned):
        InputError: a problem has no reference.
    """

    def text(problem: Problem) -> str:
        if problem.reference is None:
            raise InputError(f"problem {problem.id!r} has no reference", remedy="give the problems reference answers")
        return lead + problem.reference

    return text


class _LanguageScorer(ShortCall):
    """Measures a language model's distributions at chosen tokens, each shared prefix encoded once.

    Args:
        model: the language model.
        tokenizer: its tokenizer; steps and prompts that carry their own token ids are not tokenised again.
        template: how a prompt becomes text, as in `PerStep`; `plain` fills in `prompt_format`.
        prompt_format: text of a plain prompt.
        name: identity for caches and provenance.
        batch_size: trajectories that make a full batch.
        row_tokens: tokens to a forward pass; one longer trajectory has a pass of its own.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Any,
        *,
        template: Literal["plain", "chat"] = "plain",
        prompt_format: str = "{prompt}\n",
        name: str = "",
        batch_size: int = 512,
        row_tokens: int = 512,
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.name = name or type(self).__name__
        self.batch_size, self.row_tokens = batch_size, row_tokens
        prompt = prompt_format if template == "plain" else "{prompt}"
        record = EncoderRecord(PerStep(template=template, prompt_format=prompt, separator=""))
        self._encoder = StepEncoder(record, tokenizer)

    @torch.inference_mode()
    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        """Scores of each question's steps, NaN at observations; shared prefixes are encoded once."""
        sequences = [self._sequences(question) for question in questions]
        passes = [one for many in sequences for one in many]
        owner = np.repeat(np.arange(len(sequences)), [len(many) for many in sequences])
        numbers: list[Floats] = [np.zeros(0)] * len(passes)
        paid, whole = np.zeros(len(sequences), np.int64), np.zeros(len(sequences), np.int64)
        for group in grouped(passes, self.row_tokens):
            merged = trie([passes[i] for i in group])
            read = self._measured(merged, [passes[i] for i in group])
            for at, (i, own) in enumerate(zip(group, read, strict=True)):
                numbers[i] = own
                paid[owner[i]] += merged.new[at]
                whole[owner[i]] += len(passes[i].ids)
        found = iter(numbers)
        scores = [
            self._scores(question, [next(found) for _ in many])
            for question, many in zip(questions, sequences, strict=True)
        ]
        return [Scored(s, int(p), int(w)) for s, p, w in zip(scores, paid, whole, strict=True)]

    def _bounds(self, question: Score) -> tuple[list[int], list[int]]:
        """Ids of the whole, and the positions at which the prompt and each step end."""
        # A policy's own tokens come first: the tokenizer may cut the same text otherwise, which has another likelihood.
        given = question.problem.meta.get(PROMPT_TOKENS)
        ids = self._encoder.prompt_ids(question.problem) if given is None else [int(i) for i in given]
        if not ids:
            raise InputError(f"problem {question.problem.id!r} has an empty prompt", remedy="give it some text")
        ends = [len(ids)]
        for step in question.steps:
            ids += self._encoder.plain(step.text) if step.tokens is None else step.tokens
            ends.append(len(ids))
        return ids, ends

    @abstractmethod
    def _sequences(self, question: Score) -> list[Pass]:
        """The sequences that are measured, each from its token `answer` on."""

    @abstractmethod
    def _scores(self, question: Score, read: Sequence[Floats]) -> Floats:
        """(S,) scores out of the numbers read at each sequence's tokens from `answer` on."""

    @abstractmethod
    def _measure(self, distributions: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """(rows,) a number for each token, out of the (rows, V) log-probabilities of which it was drawn."""

    def _measured(self, merged: Trie, passes: Sequence[Pass]) -> list[Floats]:
        """The measure at each sequence's tokens from `answer` on."""
        # The distribution that a token was drawn from is that of its predecessor, -1 where a token is not measured.
        parent = np.full(len(merged.encoded), -1, np.int64)
        for path, one in zip(merged.paths, passes, strict=True):
            parent[path[one.answer :]] = path[one.answer - 1 : -1]
        tokens = np.flatnonzero(parent >= 0)
        ids = torch.from_numpy(merged.encoded.ids[tokens]).to(self.model.unembedding.device)
        made, at = np.full(len(parent), np.nan), 0
        for rows in self.model.distributions(merged, parent[tokens]):
            made[tokens[at : at + len(rows)]] = self._measure(rows, ids[at : at + len(rows)]).double().cpu().numpy()
            at += len(rows)
        return [made[path[one.answer :]] for path, one in zip(merged.paths, passes, strict=True)]


class _MeanOverTokens(_LanguageScorer):
    """A step's score is the mean of a measure over its tokens."""

    def _sequences(self, question: Score) -> list[Pass]:
        ids, ends = self._bounds(question)
        return [Pass(np.array(ids, np.int64), {}, ends[0])]

    def _scores(self, question: Score, read: Sequence[Floats]) -> Floats:
        _, ends = self._bounds(question)
        pieces = [read[0][a - ends[0] : b - ends[0]] for a, b in pairwise(ends)]
        return np.array(
            [
                piece.mean() if step.kind == "action" and len(piece) else np.nan
                for step, piece in zip(question.steps, pieces, strict=True)
            ]
        )


class EntropyScorer(_MeanOverTokens):
    """Mean entropy, in nats, of the distributions that a step's tokens were drawn from: at least 0, low where sure.

    s_k = mean_{t in k} -sum_v p_t(v) log p_t(v)
    """

    def _measure(self, distributions: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        return -(distributions.exp() * distributions).sum(-1)


class CertaintyScorer(_MeanOverTokens):
    """Mean self-certainty of a step's tokens: how far their distributions are from uniform, at least 0.

    s_k = mean_{t in k} -1/V sum_v log(V p_t(v))    (arXiv:2502.18581, Eq. 7)
    """

    def _measure(self, distributions: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        # The divergence of the uniform distribution from theirs: a token that is all but impossible weighs most.
        return -distributions.mean(-1) - float(np.log(distributions.shape[-1]))


Mean = Literal["geometric", "arithmetic", "log", "sum", "product"]
_MEANS: Mapping[str, Callable[[Floats], Any]] = {
    "geometric": lambda logs: np.exp(logs.mean()),
    "arithmetic": lambda logs: np.exp(logs).mean(),
    "log": lambda logs: logs.mean(),
    "sum": lambda logs: logs.sum(),
    "product": lambda logs: np.exp(logs.sum()),
}
"""From the log-likelihoods of an answer's tokens to one number."""


class LikelihoodScorer(_LanguageScorer):
    """How likely the reference answer is once a step is written: a mean of its tokens' probabilities.

        s_k = exp(mean_t l_t),    l_t = log pi(a_t | prompt, steps up to k, a_<t)    (`geometric`, in (0, 1])
        s_k = mean_t exp(l_t) (`arithmetic`),    mean_t l_t (`log`),    sum_t l_t (`sum`),    exp(sum_t l_t) (`product`)

    `gain=True` gives what each step adds, s_k - s_{k-1}, the bare prompt being step 0: the information gain of IGPO
    (arXiv:2510.14967); a sum over steps is then what the whole trajectory added. RLPR (arXiv:2506.18254) takes the
    arithmetic mean, in which one rare token does not decide; arXiv:2602.03979 recommends the sum of logarithms.

    Args:
        model, tokenizer, settings: as of the other scorers.
        answer: from a problem to the text whose likelihood is measured.
        gain: differences instead of likelihoods.
        mean: how the likelihoods of the answer's tokens become one number.

    Raises:
        UnknownNameError: there is no such mean.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Any,
        *,
        answer: AnswerText | None = None,
        gain: bool = False,
        mean: Mean = "geometric",
        **settings: Any,
    ) -> None:
        super().__init__(model, tokenizer, **settings)
        if mean not in _MEANS:
            raise UnknownNameError("mean of likelihoods", mean, _MEANS)
        self.answer, self.gain, self.mean = answer or reference_after(), gain, mean

    def _sequences(self, question: Score) -> list[Pass]:
        ids, ends = self._bounds(question)
        answer = self._encoder.plain(self.answer(question.problem))
        if not answer:
            raise InputError(f"the answer of problem {question.problem.id!r} is empty", remedy="give it some text")
        # The bare prompt is step 0, and each action ends a prefix behind which the answer is measured.
        wanted = [0, *(i + 1 for i, step in enumerate(question.steps) if step.kind == "action")]
        return [Pass(np.array(ids[: ends[i]] + answer, np.int64), {}, ends[i]) for i in wanted]

    def _scores(self, question: Score, read: Sequence[Floats]) -> Floats:
        likelihood = np.array([_MEANS[self.mean](row) for row in read])
        scores = np.full(len(question.steps), np.nan)
        actions = [i for i, step in enumerate(question.steps) if step.kind == "action"]
        scores[actions] = np.diff(likelihood) if self.gain else likelihood[1:]
        return scores

    def _measure(self, distributions: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        return distributions.gather(1, ids[:, None])[:, 0]
