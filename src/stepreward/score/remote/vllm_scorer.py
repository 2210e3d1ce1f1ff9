"""Reward models in a vLLM engine of this process: each prefix is read from its cache, each step scored once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from stepreward.core.errors import ModelError
from stepreward.core.optional import VLLM, engine_faults, vllm_engine, vllm_module
from stepreward.core.runtime.flows import Score, Scored
from stepreward.score.encode.per_step import StepEncoder
from stepreward.score.encode.whole_text import Pass
from stepreward.score.model.public_checkpoints import label_ids
from stepreward.score.remote.head_outputs import Answer, HeadReader, OpenPass
from stepreward.score.short_call import ShortCall


class PoolingEngine(Protocol):
    """What of a `vllm.LLM` for reward models is used here."""

    def encode(self, prompts: Any, pooling_params: Any, *, use_tqdm: bool, pooling_task: str) -> list[Any]:
        """Outputs of the prompts, in order."""


class GeneratingEngine(Protocol):
    """What of a `vllm.LLM` for language models is used here."""

    def generate(self, prompts: Any, sampling_params: Any, *, use_tqdm: bool) -> list[Any]:
        """Outputs of the prompts, in order."""


class VllmScorer(ShortCall):
    """Scores steps with a reward model in a vLLM engine; a `core.runtime.flows.Scorer`.

    Each request is a whole sequence, whose beginning the engine takes from its prefix cache. It gives outputs only for
    the other tokens, the last ones; steps before them were scored when they were new. A score that was evicted in the
    meantime is requested again without the cache.

    Args:
        engine: a `vllm.LLM` of the pooling runner, whose pooler gives every token its outputs (`ALL`).
        parameters: `vllm.PoolingParams`.
        encoder: the record, and the tokenizer of the model.
        batch_size: trajectories that make a full batch.
        name: identity for caches and provenance.

    Raises:
        ModelError: the record cannot be read out of head outputs.
    """

    def __init__(
        self,
        engine: PoolingEngine,
        parameters: Callable[..., Any],
        encoder: StepEncoder,
        *,
        batch_size: int = 1024,
        name: str = "vllm",
    ) -> None:
        self.engine, self._parameters, self.record = engine, parameters, encoder.record
        self.batch_size, self.name = batch_size, name
        self.use = self.record.use
        """How its scores are used, by the record."""
        self._reader = HeadReader(encoder)

    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        """Scores of each question's steps, NaN at observations; `tokens` leaves out what the engine had cached.

        Raises:
            ModelError: the engine gives outputs of another shape.
        """
        return self._reader.score_many(questions, self._answers)

    def _answers(self, open_passes: Sequence[OpenPass]) -> list[Answer]:
        ids = [one.ids[: max(one.reads.values()) + 1].tolist() for _, one in open_passes]
        outputs = self._encode(ids, cached=True)
        # The engine gives no outputs for tokens that its cache had: a read among those needs a pass without the cache.
        short = [
            i for i, ((_, one), rows) in enumerate(zip(open_passes, outputs, strict=True))
            if min(one.reads.values()) < len(ids[i]) - len(rows)
        ]  # fmt: skip
        paid = [len(rows) for rows in outputs]
        for i, rows in zip(short, self._encode([ids[i] for i in short], cached=False) if short else (), strict=True):
            outputs[i], paid[i] = rows, paid[i] + len(rows)
        made: list[Answer] = []
        for i, (_, one) in enumerate(open_passes):
            places = _places(one) - (len(ids[i]) - len(outputs[i]))
            if places.min() < 0 or outputs[i].shape[1] != self.record.readout.n_labels:
                raise ModelError(
                    f"the engine gave outputs of shape {outputs[i].shape} for {len(ids[i])} tokens, expected "
                    f"{self.record.readout.n_labels} a token: start it with pooling type ALL and the record's head"
                )
            made.append((outputs[i][places], False, paid[i]))
        return made

    def _encode(self, ids: Sequence[list[int]], *, cached: bool) -> list[NDArray[np.float64]]:
        """Outputs before any activation, of the tokens of each sequence that the engine did not have."""
        # By default the engine does not use its cache for such outputs, as cached tokens have none.
        parameters = self._parameters(use_activation=False, skip_reading_prefix_cache=not cached)
        prompts = [{"prompt_token_ids": own} for own in ids]
        with engine_faults(ModelError):
            outputs = self.engine.encode(prompts, parameters, use_tqdm=False, pooling_task="token_classify")
        made = [np.asarray(one.outputs.data.float().cpu().numpy(), np.float64) for one in outputs]
        return [rows[:, None] if rows.ndim == 1 else rows for rows in made]


class VllmLabelScorer(ShortCall):
    """Scores steps by the label token of a language model in a vLLM engine; a `core.runtime.flows.Scorer`.

    The labels' log-probabilities after each read position are requested by their ids, so that none is missing. An
    engine that scores tokens of prompts (vLLM 0.32 with its second model runner) encodes a sequence once for all of its
    new steps; another one gets a request for each step, with the prefix up to it.

    Args:
        engine: a `vllm.LLM` for generation.
        parameters: `vllm.SamplingParams`, of a release that has `logprob_token_ids`.
        encoder: the record, and the tokenizer of the model.
        batch_size: trajectories that make a full batch.
        name: identity for caches and provenance.

    Raises:
        ModelError: the record does not compare label tokens by a softmax.
    """

    def __init__(
        self,
        engine: GeneratingEngine,
        parameters: Callable[..., Any],
        encoder: StepEncoder,
        *,
        batch_size: int = 1024,
        name: str = "vllm",
    ) -> None:
        self.engine, self.record, self.batch_size, self.name = engine, encoder.record, batch_size, name
        if not self.record.readout.compares or not self.record.readout.label_tokens:
            raise ModelError(
                "a language model is read by its labels: the record must compare label_tokens by a softmax"
            )
        self._labels = label_ids(self.record, encoder.tokenizer)
        self._parameters = partial(parameters, max_tokens=1, temperature=1.0, logprob_token_ids=self._labels)
        config = getattr(getattr(engine, "llm_engine", None), "vllm_config", None)
        self._scores_prompts = hasattr(parameters, "prompt_logprob_token_ids") and bool(
            getattr(config, "use_v2_model_runner", False)
        )
        """Whether the engine gives the probabilities of chosen tokens behind each token of a prompt."""
        self.use = self.record.use
        """How its scores are used, by the record."""
        self._reader = HeadReader(encoder)

    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        """Scores of each question's steps, NaN at observations; `tokens` leaves out what the engine had cached."""
        return self._reader.score_many(questions, self._answers)

    def _answers(self, open_passes: Sequence[OpenPass]) -> list[Answer]:
        whole = [i for i, (_, one) in enumerate(open_passes) if self._scores_prompts and len(one.reads) > 1]
        found: dict[int, Answer] = {}
        if whole:
            outputs = self._generate([self._whole_request(open_passes[i][1]) for i in whole])
            # What an engine had to interrupt and begin again has no rows: it is requested prefix by prefix below.
            found = {
                i: (self._rows(output, _places(open_passes[i][1])), False, _paid([output]))
                for i, output in zip(whole, outputs, strict=True)
                if output.prompt_token_id_logprobs is not None
            }
        apart = [(i, open_passes[i][1]) for i in range(len(open_passes)) if i not in found]
        prefixes = [one.ids[: at + 1] for _, one in apart for at in one.reads.values()]
        each = iter(self._generate([(ids, self._parameters()) for ids in prefixes]) if prefixes else ())
        for i, one in apart:
            own = [next(each) for _ in one.reads]
            found[i] = np.array([self._next_token(output) for output in own]), False, _paid(own)
        return [found[i] for i in range(len(open_passes))]

    def _generate(self, requests: Sequence[tuple[NDArray[np.int64], Any]]) -> list[Any]:
        prompts = [{"prompt_token_ids": ids.tolist()} for ids, _ in requests]
        with engine_faults(ModelError):
            return self.engine.generate(prompts, [parameters for _, parameters in requests], use_tqdm=False)

    def _whole_request(self, one: Pass) -> tuple[NDArray[np.int64], Any]:
        """A sequence up to its last read, with parameters for the labels behind every token from its first read on."""
        places = _places(one)
        rows = np.tile(np.array(self._labels), (places[-1] - places[0], 1))
        more = {"prompt_logprob_token_ids": rows, "prompt_logprob_start": int(places[0])}
        return one.ids[: places[-1] + 1], self._parameters(**more)

    def _rows(self, output: Any, places: NDArray[np.int64]) -> NDArray[np.float64]:
        """(Q, K) log-probabilities behind the reads: of the prompt's tokens, and of the next one behind the last."""
        rows = np.asarray(output.prompt_token_id_logprobs, np.float64)
        if rows.shape != (places[-1] - places[0], len(self._labels)):
            raise ModelError(
                f"the engine scored tokens of a prompt in shape {rows.shape}, expected "
                f"{(int(places[-1] - places[0]), len(self._labels))}"
            )
        return np.concatenate([rows[places[:-1] - places[0]], [self._next_token(output)]])

    def _next_token(self, output: Any) -> list[float]:
        """(K,) log-probabilities of the labels as the next token."""
        return [float(output.outputs[0].logprobs[0][label].logprob) for label in self._labels]


def _places(one: Pass) -> NDArray[np.int64]:
    """(Q,) tokens at which a sequence is read, from first to last."""
    return np.array([*one.reads.values()])


def _paid(outputs: Sequence[Any]) -> int:
    """Tokens of prompts that the engine had to encode."""
    return sum(len(output.prompt_token_ids) - int(output.num_cached_tokens or 0) for output in outputs)


def start(
    model: str, encoder: StepEncoder, *, engine: dict[str, Any] | None = None, name: str = ""
) -> VllmScorer | VllmLabelScorer:
    """Starts an engine for a reward model, of the kind that its record needs.

    Args:
        model: folder or hub name.
        encoder: its record and tokenizer.
        engine: further arguments of `vllm.LLM`.
        name: identity for caches and provenance; `vllm:` and the model if empty.

    Raises:
        ModelError: vLLM is not installed, cannot load the model, or the record cannot be read out of it.
    """
    package = vllm_module()
    own, name = {"model": model, "enable_prefix_caching": True, **(engine or {})}, name or VLLM + model
    if encoder.record.readout.label_tokens:
        return VllmLabelScorer(vllm_engine(**own), package.SamplingParams, encoder, name=name)
    # The task must be named: otherwise a sequence classifier gives one output and not one for every token.
    pooler = vllm_module("vllm.config").PoolerConfig(task="token_classify", pooling_type="ALL")
    llm = vllm_engine(**{"runner": "pooling", "pooler_config": pooler, **own})
    return VllmScorer(llm, package.PoolingParams, encoder, name=name)
