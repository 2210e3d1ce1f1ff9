"""A stand-in for `vllm.LLM` with its signatures and rules, by a small transformers model: what runs where vLLM cannot.

Fields, names of arguments and rules were read in vLLM 0.33: stop strings, finish reasons, the end token among the
tokens, log-probabilities before temperature, a prefix cache of whole blocks, and pooled outputs of those tokens alone
that were not cached.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch

BLOCK = 16
"""Tokens of a block of the prefix cache."""


@dataclass
class SamplingParams:
    """The fields of `vllm.SamplingParams` that are used; another one is an error."""

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: list[str] | None = None
    max_tokens: int | None = 16
    logprobs: int | None = None
    logprob_token_ids: list[int] | None = None
    prompt_logprob_token_ids: Any = None
    prompt_logprob_start: int | None = None
    skip_special_tokens: bool = True
    include_stop_str_in_output: bool = False

    def __post_init__(self) -> None:
        # As the engine refuses it.
        both = self.logprobs is not None and self.logprob_token_ids is not None
        assert not both or self.logprobs == len(self.logprob_token_ids or ())


@dataclass
class PoolingParams:
    """The fields of `vllm.PoolingParams` that are used."""

    use_activation: bool | None = None
    skip_reading_prefix_cache: bool | None = None


@dataclass
class StandIn:
    """The engine."""

    model: Any
    tokenizer: Any
    max_model_len: int = 4096
    head: Any = None
    """Of a reward model, on the last hidden states."""
    gives_up: bool = False
    second_runner: bool = False
    """Whether it can score given tokens of prompts."""
    calls: list[tuple[list[list[int]], list[Any]]] = field(default_factory=list)
    blocks: set[tuple[int, ...]] = field(default_factory=set)
    """Prefixes, in whole blocks, that are in the cache."""

    @property
    def model_config(self) -> Any:
        """What is read of the model's configuration."""
        return SimpleNamespace(max_model_len=self.max_model_len, try_get_generation_config=dict)

    @property
    def llm_engine(self) -> Any:
        """What is read of the engine's configuration."""
        return SimpleNamespace(vllm_config=SimpleNamespace(use_v2_model_runner=self.second_runner))

    def get_tokenizer(self) -> Any:
        """The tokenizer."""
        return self.tokenizer

    def generate(self, prompts: Any, sampling_params: Any, *, use_tqdm: bool) -> list[Any]:
        """Completions of the prompts, in order."""
        assert use_tqdm is False
        given = sampling_params if isinstance(sampling_params, Sequence) else [sampling_params] * len(prompts)
        ids = [prompt["prompt_token_ids"] for prompt in prompts]
        self.calls.append((ids, list(given)))
        return [self._complete(own, one) for own, one in zip(ids, given, strict=True)]

    def encode(self, prompts: Any, pooling_params: Any, *, use_tqdm: bool, pooling_task: str) -> list[Any]:
        """Outputs at the tokens of the prompts that were not read from the cache."""
        assert (use_tqdm, pooling_task, pooling_params.use_activation) == (False, "token_classify", False)
        ids = [prompt["prompt_token_ids"] for prompt in prompts]
        self.calls.append((ids, [pooling_params]))
        made = []
        for own in ids:
            known = 0 if pooling_params.skip_reading_prefix_cache is not False else self._cached(own)
            with torch.no_grad():
                hidden = self.model(input_ids=torch.tensor([own])).last_hidden_state[0]
                rows = self.head(hidden)[known:]
            self._keep(own)
            made.append(SimpleNamespace(
                outputs=SimpleNamespace(data=rows), prompt_token_ids=own, num_cached_tokens=known, finished=True
            ))  # fmt: skip
        return made

    def _cached(self, ids: list[int]) -> int:
        # The last token is always computed.
        whole = (len(ids) - 1) // BLOCK
        return BLOCK * next((n for n in range(whole, 0, -1) if tuple(ids[: n * BLOCK]) in self.blocks), 0)

    def _keep(self, ids: list[int]) -> None:
        self.blocks |= {tuple(ids[: n * BLOCK]) for n in range(1, len(ids) // BLOCK + 1)}

    def _complete(self, prompt: list[int], asked: SamplingParams) -> Any:
        scored = self._along(prompt, asked)
        # Rows of tokens that were cached could not be given: the cache is not read.
        cached, generator = (
            self._cached(prompt) if scored is None else 0,
            torch.Generator().manual_seed(asked.seed or 0),
        )
        written: list[int] = []
        logprobs: list[dict[int, Any]] = []
        reason, stopped = "length", None
        text = ""
        while len(written) < (asked.max_tokens or 16) and len(prompt) + len(written) < self.max_model_len:
            with torch.no_grad():
                logits = self.model(torch.tensor([[*prompt, *written]])).logits[0, -1].double()
            token = self._draw(logits, asked, generator)
            raw = logits.log_softmax(-1)
            wanted = {token, *(asked.logprob_token_ids or ())}
            logprobs.append({t: SimpleNamespace(logprob=float(raw[t]), rank=1, decoded_token="") for t in wanted})
            written.append(token)
            if token == self.tokenizer.eos_token_id:
                reason = "stop"
                break
            text = self.tokenizer.decode(written, skip_special_tokens=False)
            found = next((stop for stop in asked.stop or () if stop in text), None)
            if found is not None:
                reason, stopped, text = "stop", found, text[: text.index(found) + len(found)]
                break
        self._keep([*prompt, *written])
        told = asked.logprobs is not None or asked.logprob_token_ids is not None
        sample = SimpleNamespace(
            index=0, text=text, token_ids=tuple(written), logprobs=logprobs if told else None,
            finish_reason="abort" if self.gives_up else reason, stop_reason=stopped, cumulative_logprob=None,
        )  # fmt: skip
        return SimpleNamespace(
            outputs=[sample], prompt_token_ids=prompt, num_cached_tokens=cached, finished=True,
            prompt_token_id_logprobs=None if self.gives_up else scored,
        )  # fmt: skip

    def _along(self, prompt: list[int], asked: SamplingParams) -> Any:
        """(rows, K) log-probabilities of each row's tokens as the next of the prompt; its last token has no row."""
        ids, start = asked.prompt_logprob_token_ids, asked.prompt_logprob_start or 0
        if ids is None:
            return None
        assert self.second_runner
        assert ids.shape[0] == len(prompt) - 1 - start > 0
        with torch.no_grad():
            logs = self.model(torch.tensor([prompt])).logits[0].double().log_softmax(-1)
        return logs[start:-1].gather(1, torch.as_tensor(ids).long()).float().numpy()

    def _draw(self, logits: torch.Tensor, asked: SamplingParams, generator: torch.Generator) -> int:
        if asked.temperature == 0:
            return int(logits.argmax())
        shares, order = (logits / asked.temperature).softmax(-1).sort(descending=True)
        kept = shares.cumsum(-1) - shares < asked.top_p
        if asked.top_k > 0:
            kept[asked.top_k :] = False
        return int(order[torch.multinomial(shares * kept, 1, generator=generator)])
