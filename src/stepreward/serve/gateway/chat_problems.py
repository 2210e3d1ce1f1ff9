"""Conversations as problems, and candidates as the messages that answer them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from stepreward.core.runtime.flows import EFFORT, MESSAGES, TEMPLATE_KWARGS, TOOL_CHOICE
from stepreward.core.segment.tool_calls import as_message, calls_of, content_of, parsed, spelled
from stepreward.core.types import TOOLS, Problem
from stepreward.search.candidates import Found
from stepreward.serve.requests.http_errors import ApiError
from stepreward.serve.requests.request_schemas import ChatRequest, Choice, Message, Tool

CONVERSES = frozenset({MESSAGES, TOOLS})
"""Fields of a problem that only a policy that calls tools can read."""
_MUST = (MESSAGES, TOOLS, TEMPLATE_KWARGS, EFFORT)
_REPLACES = frozenset({"chat_template", "tokenize", "messages", "conversation"})
"""Template arguments that would replace the messages, or the template itself."""


@dataclass(frozen=True)
class Shown:
    """A candidate as a response shows it."""

    pieces: list[str]
    """Text of each step, without tool calls."""
    calls: list[dict[str, Any]]
    """Tool calls in OpenAI's form."""
    reason: str
    """Why it ended."""
    details: dict[str, Any]

    def message(self) -> dict[str, Any]:
        """The message of an answer that is not streamed."""
        text = "".join(self.pieces)
        called = {"tool_calls": self.calls} if self.calls else {}
        return {"role": "assistant", "content": text if text or not self.calls else None, **called}


def problem_of(
    messages: Sequence[Message], tools: Sequence[Tool] = (), tool_choice: Choice = None, **template: Any
) -> Problem:
    """The problem of a conversation; equal conversations are equal problems, which share cached prefixes.

    Args:
        messages, tools, tool_choice: of the request.
        template: arguments of the policy's chat template, by names of `core.runtime.flows.READ_BY_POLICIES`.
    """
    prompt = tuple({"role": message.role, "content": _as_read(message)} for message in messages)
    meta: dict[str, Any] = {}
    # Calls and their results travel as they came to the policy's server; scorers read the prompt.
    if any(message.tool_calls or message.tool_call_id for message in messages):
        meta[MESSAGES] = [
            {"content": message.text} | message.model_dump(exclude_none=True, exclude={"content"})
            for message in messages
        ]
    if tools and tool_choice != "none":
        meta[TOOLS] = [tool.model_dump() for tool in tools]
        meta |= {TOOL_CHOICE: tool_choice} if tool_choice else {}
    meta |= {name: value for name, value in template.items() if value}
    digest = hashlib.blake2b(json.dumps([prompt, meta] if meta else prompt).encode(), digest_size=16).hexdigest()
    return Problem(digest, prompt, meta=meta)


def require_taken(body: ChatRequest, problem: Problem, takes: Collection[str]) -> dict[str, float | None]:
    """The request's sampling as arguments of `core.runtime.wrapped_flows.limited`.

    Args:
        body: the request.
        problem: of the request.
        takes: settings that the policy honours (`core.runtime.flows.honoured_settings`).

    Raises:
        ApiError: 400, the policy does not honour a field that is set.
    """
    sampling = {"top_k": None if body.top_k is None else max(0, body.top_k), "min_p": body.min_p}
    requested = [name for name, value in sampling.items() if value] + [name for name in _MUST if name in problem.meta]
    for name in requested:
        if (TOOLS if name == MESSAGES else name) not in takes:
            if name in CONVERSES:
                raise ApiError(400, "this model calls no tools: leave them out", param="tools", code="unsupported")
            what = f"the policy behind this server cannot honour {name!r}: leave it out"
            raise ApiError(400, what, param=name)
    if replaced := sorted(_REPLACES & set(body.chat_template_kwargs or {})):
        raise ApiError(400, f"{TEMPLATE_KWARGS} may not hold {replaced[0]!r}: leave it out", param=TEMPLATE_KWARGS)
    return {name: value for name, value in sampling.items() if name in takes}


def _as_read(message: Message) -> str:
    """A message as a scorer reads it: its text, and a line for each tool call."""
    calls = [{"name": c.function.name, "arguments": parsed(c.function.arguments)} for c in message.tool_calls or ()]
    return "\n".join([*([message.text] if message.text or not calls else []), *map(spelled, calls)])


def shown(found: Found, n: int) -> list[Shown]:
    """The candidates to show: the chosen one, then the best of the rest."""
    trajectories = found.tree.trajectories()
    # A total that is not known sorts behind all others.
    worth = [float("-inf") if total != total else float(total) for total in found.totals]
    rest = sorted((i for i in range(len(trajectories)) if i != found.chosen), key=lambda i: -worth[i])
    made = []
    for i in [found.chosen, *rest][:n]:
        steps, scores = trajectories[i].steps, found.scores(i)
        scored = [{"text": s.text, "score": scores[n] if scores else None} for n, s in enumerate(steps)]
        total = None if worth[i] == float("-inf") else worth[i]
        details = {"steps": scored, "total": total, "answer": found.answers[i]}
        calls = as_message([call for step in steps for call in calls_of(step)])
        reason = "length" if not trajectories[i].terminal else "tool_calls" if calls else "stop"
        made.append(Shown([content_of(step) for step in steps], calls, reason, details))
    return made
