"""A policy out of a vLLM engine in this process: its batching and its prefix cache, our prompts, steps and seeds."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from stepreward.core.engines import VLLM, engine_faults, vllm_engine, vllm_module
from stepreward.core.errors import PolicyError
from stepreward.core.flows import Continuation, Propose
from stepreward.core.keys import Key
from stepreward.core.types import Problem, Step
from stepreward.policies.pieces import Pieces, spans
from stepreward.policies.prompts import PromptTokens

SEEDS = 2**63
"""Seeds are below it."""


class Engine(Protocol):
    """What of `vllm.LLM` is used here."""

    model_config: Any

    def generate(self, prompts: Any, sampling_params: Any, *, use_tqdm: bool) -> list[Any]:
        """Outputs of the prompts, in order."""


class VllmPolicy:
    """Samples steps or whole solutions from a model in a vLLM engine; a `core.flows.Policy`.

    Prompts, prefixes and the texts of steps are those of `LocalPolicy`: built of token ids, so that a prefix that was
    sampled is found in the engine's prefix cache, block by block. Each sample has a seed of its own from its key. What
    the engine draws for a seed may differ between releases and batches: its kernels do not promise more.

    Args:
        engine: a `vllm.LLM` for generation.
        tokenizer: the model's, of transformers.
        parameters: `vllm.SamplingParams`.
        separator: text that ends a step.
        temperature, top_p, top_k: of sampling, as in `LocalPolicy`.
        max_tokens: limit of one continuation where the question sets none.
        batch_size: continuations handed to the engine together.
        template: text with `{prompt}` in it that replaces the chat template.
        min_p: share of the likeliest token's probability below which a token is not drawn.
        chat: what the chat template is told beside the messages, such as `enable_thinking` or `reasoning_effort`.
        logprobs: keep the log-probabilities of tokens, which the engine gives before temperature unless told otherwise.
        label: readable part of the name.

    Raises:
        InputError: the separator is empty, or the template has no place for the prompt.
        ModelError: the tokenizer cannot turn tokens into steps.
    """

    concurrency = 1

    def __init__(
        self,
        engine: Engine,
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
        self.max_tokens, self._batch_size, self.logprobs, self.min_p = max_tokens, batch_size, logprobs, min_p
        self._context = int(engine.model_config.max_model_len)
        self._ends = _end_tokens(engine, tokenizer)
        settings: tuple[Any, ...] = (separator, temperature, top_p, top_k, max_tokens, template, logprobs)
        settings += ((min_p, sorted((chat or {}).items())),) if min_p or chat else ()
        self._name = f"{VLLM}{label} {settings!r}"

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
        return cls(llm, llm.get_tokenizer(), parameters, **{"label": name, **settings})

    @property
    def name(self) -> str:
        """Identity for caches and provenance."""
        return self._name

    @property
    def takes(self) -> frozenset[str]:
        """What questions may ask for (`core.flows.Policy`)."""
        return frozenset({"top_k", "min_p"}) | self._prompts.takes

    @property
    def batch_size(self) -> int:
        """Continuations handed to the engine together."""
        return self._batch_size

    def prompt_ids(self, problem: Problem) -> tuple[int, ...]:
        """The tokens that stand before a problem's first step."""
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
        prompts: list[dict[str, list[int]]] = []
        parameters: list[Any] = []
        steps: list[bool] = []
        full: list[bool] = []
        for question in questions:
            ids = [*self._prompts.prompt(question.problem), *self._prompts.prefix(question.prefix)]
            room = self._context - len(ids)
            full += [room < 1] * question.n
            if room < 1:
                continue
            for key in question.sample_keys():
                prompts.append({"prompt_token_ids": ids})
                parameters.append(self._sampling(question, key, room))
                steps.append(question.until == "step")
        # Outputs come in the order of the prompts.
        with engine_faults(PolicyError):
            outputs = self.engine.generate(prompts, parameters, use_tqdm=False) if prompts else []
        made = iter([self._continuation(output, step) for output, step in zip(outputs, steps, strict=True)])
        none = Continuation((), finished=False, n_tokens=0, truncated=True)
        answers = iter([none if no_room else next(made) for no_room in full])
        return [[next(answers) for _ in range(question.n)] for question in questions]

    def _sampling(self, question: Propose, key: Key, room: int) -> Any:
        wanted = self.max_tokens if question.max_tokens is None else question.max_tokens
        min_p = self.min_p if question.min_p is None else question.min_p
        stop = {"stop": [self.separator], "include_stop_str_in_output": True} if question.until == "step" else {}
        return self._parameters(
            n=1,
            seed=key.bits % SEEDS,
            temperature=self.temperature if question.temperature is None else question.temperature,
            top_p=self.top_p if question.top_p is None else question.top_p,
            top_k=self.top_k if question.top_k is None else question.top_k,
            max_tokens=min(wanted, room),
            skip_special_tokens=False,
            **({"logprobs": 0} if self.logprobs else {}),
            **({"min_p": min_p} if min_p else {}),
            **stop,
        )

    def _continuation(self, output: Any, one_step: bool) -> Continuation:
        """A continuation out of a `vllm.RequestOutput`."""
        (sample,) = output.outputs
        if sample.finish_reason not in ("stop", "length"):
            raise PolicyError(f"the engine gave a request up: {sample.finish_reason!r}; see its log")
        tokens = [int(token) for token in sample.token_ids]
        count = len(tokens)
        stopped = sample.finish_reason == "stop" and isinstance(sample.stop_reason, str)
        finished = sample.finish_reason == "stop" and not stopped
        if finished and tokens and tokens[-1] in self._ends:
            tokens = tokens[:-1]
        values = self._logprobs(sample, tokens)
        marks = np.zeros(len(tokens), bool) if one_step else self._step_ends(tokens)
        made = []
        for start, stop in spans(marks):
            own = tuple(tokens[start:stop])
            made.append(
                Step(self._pieces.text(own), tokens=own, logprobs=None if values is None else values[start:stop])
            )
        return Continuation(tuple(made), finished, count, not (finished or stopped), len(output.prompt_token_ids))

    def _logprobs(self, sample: Any, tokens: Sequence[int]) -> tuple[float, ...] | None:
        if not self.logprobs or sample.logprobs is None:
            return None
        return tuple(float(row[token].logprob) for token, row in zip(tokens, sample.logprobs, strict=False))

    def _step_ends(self, tokens: Sequence[int]) -> NDArray[np.bool_]:
        """(T,) True at tokens that end a step."""
        ids, start = np.asarray(tokens, np.int64), 0
        known = ids < len(self._pieces.certain)
        ends = np.zeros(len(ids), bool)
        ends[known] = self._pieces.certain[ids[known]]
        maybe = np.zeros(len(ids), bool)
        maybe[known] = self._pieces.possible[ids[known]]
        for at in np.flatnonzero(ends | maybe).tolist():
            ends[at] = ends[at] or self._pieces.ends(tokens[max(start, at + 1 - self._pieces.window) : at + 1])
            start = at + 1 if ends[at] else start
        return ends


def _end_tokens(engine: Engine, tokenizer: Any) -> Collection[int]:
    """Tokens that end a solution, by the tokenizer and by the model's generation configuration."""
    given = [tokenizer.eos_token_id]
    read: Callable[[], dict[str, Any]] = getattr(engine.model_config, "try_get_generation_config", dict)
    own = read().get("eos_token_id")
    given += own if isinstance(own, list) else [own]
    return frozenset(int(token) for token in given if token is not None)
