"""A policy from a vLLM engine in this process: its batching and prefix cache, our prompts, steps and seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from stepreward.core.errors import PolicyError
from stepreward.core.keys import Key
from stepreward.core.optional import VLLM, engine_faults, vllm_engine, vllm_module
from stepreward.core.runtime.flows import Continuation, Propose
from stepreward.core.types import Problem, Step
from stepreward.policies.prompts import PromptTokens
from stepreward.policies.token_pieces import Pieces

SEEDS = 2**63
"""Seeds are below it."""


class VllmEngine(Protocol):
    """The part of `vllm.LLM` that is used here."""

    model_config: Any

    def generate(self, prompts: Any, sampling_params: Any, *, use_tqdm: bool) -> list[Any]:
        """Outputs of the prompts, in order."""


@dataclass
class _Sample:
    """An unfinished sample."""

    question: Propose
    key: Key
    prompt: list[int]
    tokens: list[int] = field(default_factory=list)
    """Written so far, the end token left out."""
    logprobs: list[float] = field(default_factory=list)
    n_tokens: int = 0
    n_prompt: int = 0
    stopped: bool = False
    """The separator ended it."""
    finished: bool = False


class VllmPolicy:
    """Samples steps or whole solutions from a model in a vLLM engine; a `core.runtime.flows.Policy`.

    Prompts, prefixes and the texts of steps are those of `LocalPolicy`: token ids, so that the engine finds sampled
    prefixes in its prefix cache. Each sample has a seed of its own from its key; the engine's draws for a seed may
    differ between releases and batches.

    Args:
        engine: a `vllm.LLM` for generation.
        tokenizer: the model's, of transformers.
        parameters: `vllm.SamplingParams`.
        separator: text that ends a step.
        temperature, top_p, top_k: of sampling, as in `LocalPolicy`.
        max_tokens: limit of one continuation where the question sets none.
        batch_size: continuations in one call of the engine.
        template: text with `{prompt}` in it that replaces the chat template.
        min_p: share of the likeliest token's probability below which a token is not drawn.
        chat: arguments of the chat template beside the messages, such as `enable_thinking` or `reasoning_effort`.
        logprobs: keep the log-probabilities of tokens; by default the engine computes them before temperature.
        label: readable part of the name.

    Raises:
        InputError: the separator is empty, or the template has no place for the prompt.
        ModelError: the tokenizer cannot turn tokens into steps.
    """

    concurrency = 1

    def __init__(
        self,
        engine: VllmEngine,
        tokenizer: Any,
        parameters: Callable[..., Any],
        *,
        separator: str = "\n",
        temperature: float = 1.0,
        top_p: float = 1.0,
        top_k: int = 0,
        max_tokens: int = 1024,
        batch_size: int = 1024,
        template: str | None = None,
        min_p: float = 0.0,
        chat: Mapping[str, Any] | None = None,
        logprobs: bool = False,
        label: str = "model",
    ) -> None:
        self.engine, self._parameters = engine, parameters
        self._prompts = PromptTokens(tokenizer, template, chat)
        self._pieces = Pieces(tokenizer, len(tokenizer), separator)
        self.separator, self.temperature, self.top_p, self.top_k = separator, temperature, top_p, top_k
        self.max_tokens, self.batch_size, self.logprobs, self.min_p = max_tokens, batch_size, logprobs, min_p
        self.measures = frozenset({"logprobs"} if logprobs else ())
        """Measurements in its steps (`core.runtime.flows.Measuring`)."""
        self._context = int(engine.model_config.max_model_len)
        # Tokens that end a solution, by the tokenizer and by the model's generation configuration.
        given = [tokenizer.eos_token_id]
        read: Callable[[], dict[str, Any]] = getattr(engine.model_config, "try_get_generation_config", dict)
        own = read().get("eos_token_id")
        given += own if isinstance(own, list) else [own]
        self._ends = frozenset(int(token) for token in given if token is not None)
        settings: tuple[Any, ...] = (separator, temperature, top_p, top_k, max_tokens, template, logprobs)
        settings += ((min_p, sorted((chat or {}).items())),) if min_p or chat else ()
        self.name = f"{VLLM}{label} {settings!r}"
        """Identity for caches and provenance."""

    @classmethod
    def load(cls, name: str, *, engine: dict[str, Any] | None = None, **settings: Any) -> VllmPolicy:
        """Starts an engine for a model folder or hub name.

        Args:
            name: of the model; `vllm:` before it is dropped.
            engine: arguments of `vllm.LLM`, such as `tensor_parallel_size`.
            settings: the keywords of the class.

        Raises:
            ModelError: vLLM is not installed, or cannot load the model.
        """
        name = name.removeprefix(VLLM)
        parameters = vllm_module().SamplingParams
        llm = vllm_engine(model=name, **{"enable_prefix_caching": True, **(engine or {})})
        # Arguments may change what is drawn, as numbers of fewer bits do.
        label = f"{name} {sorted(engine.items())!r}" if engine else name
        return cls(llm, llm.get_tokenizer(), parameters, **{"label": label, **settings})

    @property
    def takes(self) -> frozenset[str]:
        """Settings of questions that it honours (`core.runtime.flows.Policy`)."""
        return frozenset({"top_k", "min_p"}) | self._prompts.takes

    def prompt_ids(self, problem: Problem) -> tuple[int, ...]:
        """The tokens before a problem's first step."""
        return self._prompts.prompt(problem)

    def room(self, problem: Problem) -> int:
        """Tokens that a problem's prompt leaves to an answer in the model's context; below 1 where it does not fit."""
        return self._context - len(self.prompt_ids(problem))

    def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
        """Answers the questions, in order; all their samples are one call of the engine.

        Raises:
            InputError: a problem's prompt has no tokens.
            PolicyError: the engine gives up a request.
        """
        prompts: dict[str, tuple[int, ...]] = {}
        read = [self._prompts.ids(question.problem, question.prefix, prompts) for question in questions]
        samples = [
            _Sample(question, key, [*ids])
            for question, ids in zip(questions, read, strict=True)
            for key in question.sample_keys()
        ]
        open_, rounds = [one for one in samples if self._context > len(one.prompt)], 0
        while open_:
            # The engine returns outputs in the order of the prompts.
            with engine_faults(PolicyError):
                outputs = self.engine.generate(
                    [{"prompt_token_ids": one.prompt + one.tokens} for one in open_],
                    [self._sampling(one, rounds) for one in open_],
                    use_tqdm=False,
                )
            open_ = [one for one, output in zip(open_, outputs, strict=True) if self._must_continue(one, output)]
            rounds += 1
        answers = map(self._continuation, samples)
        return [[next(answers) for _ in range(question.n)] for question in questions]

    def _tokens_left(self, sample: _Sample) -> int:
        """Tokens that a sample may still have."""
        most = self.max_tokens if sample.question.max_tokens is None else sample.question.max_tokens
        return min(most, self._context - len(sample.prompt)) - len(sample.tokens)

    def _must_continue(self, sample: _Sample, output: Any) -> bool:
        """Adds the engine's output; True where the sample must continue, as its step is white space alone so far."""
        (made,) = output.outputs
        if made.finish_reason not in ("stop", "length"):
            raise PolicyError(f"the engine gave a request up: {made.finish_reason!r}; see its log")
        sample.n_prompt = sample.n_prompt or len(output.prompt_token_ids)
        sample.stopped = made.finish_reason == "stop" and isinstance(made.stop_reason, str)
        sample.finished = made.finish_reason == "stop" and not sample.stopped
        tokens = [int(token) for token in made.token_ids]
        sample.n_tokens += len(tokens)
        if sample.finished and tokens and tokens[-1] in self._ends:
            tokens = tokens[:-1]
        sample.tokens += tokens
        if self.logprobs and made.logprobs is not None:
            sample.logprobs += [float(row[t].logprob) for t, row in zip(tokens, made.logprobs, strict=False)]
        return (
            bool(tokens)
            and sample.stopped
            and not self._pieces.ends(sample.tokens, whole=True)
            and self._tokens_left(sample) > 0
        )

    def _sampling(self, sample: _Sample, rounds: int) -> Any:
        question = sample.question
        # A further round needs another seed: the same one would draw the same tokens again.
        key = sample.key.fold("on").fold(rounds) if rounds else sample.key
        min_p = self.min_p if question.min_p is None else question.min_p
        stop = {"stop": [self.separator], "include_stop_str_in_output": True} if question.until == "step" else {}
        return self._parameters(
            n=1,
            seed=key.bits % SEEDS,
            temperature=self.temperature if question.temperature is None else question.temperature,
            top_p=self.top_p if question.top_p is None else question.top_p,
            top_k=self.top_k if question.top_k is None else question.top_k,
            max_tokens=self._tokens_left(sample),
            skip_special_tokens=False,
            **({"logprobs": 0} if self.logprobs else {}),
            **({"min_p": min_p} if min_p else {}),
            **stop,
        )

    def _continuation(self, sample: _Sample) -> Continuation:
        tokens, until_step = sample.tokens, sample.question.until == "step"
        # A step that the limit cut within white space has no end.
        stopped = sample.stopped and self._pieces.ends(tokens, whole=True)
        marks = np.zeros(len(tokens), bool) if until_step else self._step_ends(tokens)
        values = sample.logprobs if self.logprobs else None
        made = []
        for start, stop in self._pieces.steps(tokens, marks):
            own = tuple(tokens[start:stop])
            logprobs = None if values is None else tuple(values[start:stop])
            made.append(Step(self._pieces.text(own), tokens=own, logprobs=logprobs))
        cut = not (sample.finished or stopped)
        return Continuation(tuple(made), sample.finished, sample.n_tokens, cut, sample.n_prompt)

    def _step_ends(self, tokens: Sequence[int]) -> NDArray[np.bool_]:
        """(T,) True at tokens that end a step."""
        ids, start = np.asarray(tokens, np.int64), 0
        known = ids < len(self._pieces.certain)
        ends = np.zeros(len(ids), bool)
        ends[known] = self._pieces.certain[ids[known]]
        maybe = np.zeros(len(ids), bool)
        maybe[known] = self._pieces.possible[ids[known]]
        for at in np.flatnonzero(ends | maybe).tolist():
            ends[at] = self._pieces.ends(tokens[start : at + 1], whole=True)
            start = at + 1 if ends[at] else start
        return ends
