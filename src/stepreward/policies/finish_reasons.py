"""Finish reasons of servers: which mean an end, which a cut, and which a fault that may pass."""

from __future__ import annotations

import json
import re
from typing import Literal

Ending = Literal["end", "calls", "cut", "fault"]

ENDS = frozenset({"stop", "eos", "eos_token", "stop_sequence", "end_turn", "complete", "completed"})
"""The model's own end: OpenAI, vLLM, SGLang, llama.cpp, Ollama and LiteLLM say `stop`; TGI `eos_token` and
`stop_sequence`, Together `eos`, Anthropic `end_turn`, Cohere `COMPLETE`."""
CALLS = frozenset({"tool_calls", "function_call", "tool_use", "tool_call"})
"""The model calls tools."""
CUTS = frozenset({
    "length", "max_tokens", "max_output_tokens", "model_length", "model_context_window_exceeded",
    "content_filter", "content_filtered", "safety", "sensitive", "refusal", "guardrail_intervened", "repetition",
})  # fmt: skip
"""A limit, a filter or a detector of loops cut the answer: the same request would be cut again. `model_length` is
Mistral's, `sensitive` and `model_context_window_exceeded` Zhipu's, `repetition` vLLM's."""
FILTERS = CUTS - {"length", "max_tokens", "max_output_tokens", "model_length", "model_context_window_exceeded"}
"""Cuts that are no limit of length."""


def ending(reason: str | None) -> Ending:
    """What a `finish_reason` means; upper and lower case are the same.

    A reason that is in no table is a fault, and so is a missing one: `abort` (vLLM, SGLang), `error` (vLLM,
    OpenRouter, Mistral), `cancelled`, `load` and `unload` (Ollama), `insufficient_system_resource` (DeepSeek),
    `network_error` (Zhipu), and unknown words. An answer that may be incomplete never counts as complete.
    """
    name = (reason or "").lower()
    return "end" if name in ENDS else "calls" if name in CALLS else "cut" if name in CUTS else "fault"


def incomplete(arguments: str) -> bool:
    """Whether the arguments of a tool call break off: JSON with an open string, list or object at its end.

    Other faults in the arguments are the model's own text and no cut.
    """
    try:
        json.loads(arguments)
        return False
    except (ValueError, RecursionError):
        pass
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', "", arguments, flags=re.DOTALL)
    opened = sum(bare.count(c) for c in "{[") - sum(bare.count(c) for c in "}]")
    return '"' in bare or opened > 0


_CONTEXT = re.compile(r"context (?:length|size|window)|max_model_len|n_ctx|maximum (?:input|prompt|model) length", re.I)
_LIMIT = re.compile(
    r"max_model_len[\"']?\s*[=:(]\s*(\d+)|n_ctx[\"']?\s*[=:]\s*(\d+)|context (?:length|size|window)\D{0,20}(\d+)", re.I
)
_PROMPT = re.compile(
    r"(\d+) (?:input|prompt) tokens|(\d+)(?: tokens)? (?:in|from) the (?:input messages|messages|prompt|input)\b"
    r"|input \((\d+) tokens|n_prompt_tokens[\"']?\s*[=:]\s*(\d+)|prompt contains (?:at least )?(\d+)",
    re.I,
)


def room_left(refusal: str, requested: int) -> int | None:
    """Tokens to request after a server refused a number that its context does not hold.

    Args:
        refusal: the server's text.
        requested: the tokens that were requested.

    Returns:
        Fewer than `requested`, 0 where the prompt alone is too long; None where the refusal is about something else.
    """
    if not _CONTEXT.search(refusal):
        return None
    limit, prompt = _found(_LIMIT, refusal), _found(_PROMPT, refusal)
    if limit is None:
        return 0
    if prompt is not None:
        return max(0, min(limit - prompt, requested - 1))
    return limit - 1 if requested > limit else requested // 2


def _found(pattern: re.Pattern[str], text: str) -> int | None:
    match = pattern.search(text)
    return None if match is None else int(next(group for group in match.groups() if group))
