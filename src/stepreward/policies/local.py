"""A policy from any transformers causal language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import Any

from stepreward.core.errors import InputError
from stepreward.core.runtime.flows import Continuation, Propose, Wanted, always
from stepreward.core.runtime.wrapped_flows import SAMPLING
from stepreward.core.types import Problem, Step
from stepreward.policies import loading
from stepreward.policies.decode import Decoder, Request, Sampled
from stepreward.policies.model_sources import BUILTIN
from stepreward.policies.prompts import PromptTokens
from stepreward.policies.token_pieces import Pieces
from stepreward.policies.token_sampling import Distribution

_NO_LIMIT = 1 << 30


class LocalPolicy:
    """Samples steps or whole solutions from a causal language model on this machine.

        token_t of sample i = min {v : q(0) + ... + q(v) > u},    u = uniforms(key.fold(i), t)

    with q the model's next-token distribution after temperature, top_k, top_p and min_p (`draw.Distribution`). Samples
    are those of the key alone up to float noise; on a CPU in float32 rows and columns are padded so that even the noise
    does not depend on the batch.

    *Text.* The prompt is the tokenizer's chat template over the problem's messages, or without one the prompt's text
    and a newline. A prefix is continued from its steps' tokens where they have them, else from their text, each step
    tokenised by itself, and never re-tokenised from joined text. A step ends with the token that completes the
    separator; its tokens are the sampled ids, and its text is their text after other text, so that the texts join to
    the decoded solution. White space alone is no step: it belongs to the step that follows, or after the last
    separator to the last step. Observations in a chat are messages, with what the chat template writes around them.

    *Ends.* An end token finishes the solution. It is in no step, has no log-probability, and counts in `n_tokens`. A
    step that ends with a separator may be the last or not: with `until="step"` the next question may get a finished
    continuation of no steps. (Looking ahead for the end token would draw it twice, and so more often than the model
    does.) A continuation cut by a limit is `truncated`; one whose prefix fills the model's context has no tokens.

    *Log-probabilities* are the model's own, at temperature 1 without truncation, whatever the sampling settings, as a
    teacher-forced pass computes them. So is *self-certainty*, in the meta of each step: the mean over its tokens of the
    divergence of the uniform distribution from the model's (`token_sampling.self_certainty`).

    Args:
        model: a transformers causal language model in evaluation mode, full attention in every layer.
        tokenizer: its tokenizer.
        temperature: >= 0; 0 is greedy.
        top_k: keep the k most likely tokens; 0 keeps all.
        top_p: keep the smallest set of this mass, in (0, 1].
        min_p: keep tokens of at least this share of the likeliest one's probability, in [0, 1]; 0 keeps all.
        separator: text that ends a step.
        max_tokens: limit of one continuation where the question sets none.
        batch_size: most rows at once.
        template: text with `{prompt}` in it that replaces the chat template.
        chat: arguments of the chat template beside the messages, such as `enable_thinking` or `reasoning_effort`.
        label: readable part of the name.

    Raises:
        InputError: a setting is out of range.
        ModelError: the model or tokenizer cannot do this.
    """

    concurrency = 1
    measures = frozenset({"logprobs", "self_certainty"})
    """Measurements in its steps (`core.runtime.flows.Measuring`)."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        separator: str = "\n",
        max_tokens: int = 512,
        batch_size: int = 256,
        template: str | None = None,
        chat: Mapping[str, Any] | None = None,
        label: str = "local",
    ) -> None:
        if max_tokens < 1 or batch_size < 1:
            raise InputError(f"expected max_tokens and batch_size of at least 1, got {max_tokens} and {batch_size}")
        self._prompts = PromptTokens(tokenizer, template, chat)
        loading.require_supported(model)
        self.max_tokens, self.batch_size = max_tokens, batch_size
        self._context = int(getattr(model.config, "max_position_embeddings", None) or _NO_LIMIT)
        self._distribution = distribution = Distribution(temperature, top_k, top_p, min_p)
        self._pieces = Pieces(tokenizer, model.config.vocab_size, separator)
        eos = loading.end_tokens(model, tokenizer)
        self._decoder = Decoder(model.eval(), distribution, self._pieces, eos, batch_size)
        extra = ([sorted(chat.items())] if chat else []) + ([min_p] if min_p else [])
        mark = loading.fingerprint(
            model, tokenizer, distribution, separator, max_tokens, template, eos.tolist(), *extra
        )
        self.name = f"{label}-{mark}"
        """Identity for caches: readable label and fingerprint of weights, tokenizer and sampling settings."""

    @classmethod
    def load(
        cls, source: str | Path = "builtin:arithmetic", *, device: str = "auto", dtype: str = "auto", **settings: Any
    ) -> LocalPolicy:
        """Loads a model folder, a hub name or a checkpoint of the package.

        Args:
            source: `builtin:arithmetic`, a folder in transformers format, or a name that transformers can resolve.
            device: a torch device; "auto" is CUDA where there is one.
            dtype: a torch dtype by name; "auto" is the checkpoint's on an accelerator and float32 on a CPU.
            settings: the keywords of the class.

        Raises:
            ModelError: there is no such model, or it is not a causal language model that can be sampled.
        """
        model, tokenizer = loading.load(source, device, dtype)
        label = str(source).removeprefix(BUILTIN).rstrip("/").rsplit("/", 1)[-1]
        return cls(model, tokenizer, **{"label": label, **settings})

    @property
    def takes(self) -> frozenset[str]:
        """Settings of questions that it honours (`core.runtime.flows.Policy`)."""
        return frozenset({"top_k", "min_p"}) | self._prompts.takes

    def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
        """Answers the questions, in order; sample i of a question is drawn from `question.sample_keys()[i]`.

        Raises:
            InputError: a problem's prompt has no tokens.
            ModelError: the model's logits are not finite.
        """
        return self.propose_while(always, questions)

    def propose_while(self, wanted: Wanted, questions: Sequence[Propose]) -> list[list[Continuation]]:
        """Like `propose`; the samples of a question that is not wanted any more stop.

        Raises:
            InputError, ModelError: as there.
        """
        prompts: dict[str, tuple[int, ...]] = {}
        requests: list[Request] = []
        drawn: list[Distribution] = []
        for position, question in enumerate(questions):
            ids = self._prompts.ids(question.problem, question.prefix, prompts)
            most = self.max_tokens if question.max_tokens is None else question.max_tokens
            limit = min(most, self._context - len(ids))
            one_step = question.until == "step"
            requests += [Request(ids, key.bits, limit, one_step, position) for key in question.sample_keys()]
            given: dict[str, Any] = {name: getattr(question, name) for name in SAMPLING}
            stated = {name: value for name, value in given.items() if value is not None}
            drawn += [replace(self._distribution, **stated)] * question.n
        answers = iter(self._sample(requests, drawn, wanted))
        return [[next(answers) for _ in range(question.n)] for question in questions]

    def _sample(self, requests: Sequence[Request], drawn: Sequence[Distribution], wanted: Wanted) -> list[Continuation]:
        # The decoder draws all rows of a run from one distribution.
        open_: dict[Distribution, list[int]] = {}
        for i, (request, distribution) in enumerate(zip(requests, drawn, strict=True)):
            if request.limit > 0:
                open_.setdefault(distribution, []).append(i)
        answers = [Continuation((), finished=False, n_tokens=0, truncated=True)] * len(requests)
        for distribution, own in open_.items():
            made = self._decoder.run([requests[i] for i in own], distribution, wanted=wanted)
            for i, sampled in zip(own, made, strict=True):
                answers[i] = self._continuation(requests[i], sampled)
        return answers

    def _continuation(self, request: Request, sampled: Sampled) -> Continuation:
        steps = []
        for start, stop in self._pieces.steps(sampled.tokens.tolist(), sampled.ends):
            tokens = tuple(sampled.tokens[start:stop].tolist())
            logprobs = tuple(sampled.logprobs[start:stop].tolist())
            certainty = float(sampled.certainties[start:stop].mean())
            # A logit of minus infinity makes the divergence infinite, which JSON cannot hold.
            meta = {"self_certainty": certainty} if isfinite(certainty) else {}
            steps.append(Step(self._pieces.text(tokens), tokens=tokens, logprobs=logprobs, meta=meta))
        stopped = request.one_step and bool(sampled.ends.any())
        count = len(sampled.tokens) + int(sampled.finished)
        return Continuation(
            tuple(steps),
            sampled.finished,
            count,
            truncated=not (sampled.finished or stopped),
            n_prompt_tokens=len(request.ids),
            interrupted=sampled.interrupted,
        )

    def room(self, problem: Problem) -> int:
        """Tokens that a problem's prompt leaves to an answer in the model's context; below 1 where it does not fit."""
        return self._context - len(self.prompt_ids(problem))

    def prompt_ids(self, problem: Problem) -> tuple[int, ...]:
        """The tokens before a problem's first step.

        Raises:
            InputError: there are none.
        """
        return self._prompts.prompt(problem)

    def ids(self, problem: Problem, steps: Sequence[Step]) -> tuple[int, ...]:
        """The tokens of a problem and of steps, as they are before what it writes next.

        Raises:
            InputError: as `PromptTokens.ids`.
        """
        return self._prompts.ids(problem, steps, {})

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens behind other text."""
        return self._pieces.text(tuple(tokens))
