"""Recorded inputs and outputs of calls, in any of their shapes, as chat messages; and calls as runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stepreward.core.errors import InputError
from stepreward.core.segment.tool_calls import parsed
from stepreward.core.types import Problem, Trajectory
from stepreward.formats.agents.messages import MODEL, ProblemEnd, Reasoning, Turn
from stepreward.formats.agents.response_items import is_item, turns_of_any
from stepreward.formats.agents.runs import is_cut, trajectory_of, whole_runs, with_own_problem
from stepreward.formats.fields import as_text, decoded, first_value, json_text, object_at

_ROLES = {"human": "user", "ai": MODEL, "system": "system", "tool": "tool", "function": "tool", "chat": "user"}
"""LangChain's types of messages."""
_SAID = ("output", "input", "question", "text", "content", "answer", "completion", "query", "prompt", "generation")
_DEEPEST = 8


def messages(value: object, role: str, depth: int = 0) -> list[Mapping[str, Any]]:
    """The chat messages in a recorded input or output; a text alone, or an object of no known shape, is of `role`."""
    value = decoded(value, "{", "[")
    if value is None or depth > _DEEPEST:
        return []
    if isinstance(value, Mapping):
        return _of_object(value, role, depth)
    if not isinstance(value, list):
        return [{"role": role, "content": json_text(value)}]
    # A list of parts is the content of one message.
    if value and all(isinstance(one, Mapping) and "type" in one and not {"role", "message"} & one.keys()
                     and not is_item(one) and _langchain(one) is None for one in value):  # fmt: skip
        return [{"role": role, "content": value}]
    # LangChain's models take batches: a list of conversations, of which a traced call has one.
    if value and isinstance(value[0], list):
        return messages(value[0], role, depth + 1)
    return [made for one in value for made in messages(one, role, depth + 1)]


def _of_object(value: Mapping[str, Any], role: str, depth: int) -> list[Mapping[str, Any]]:
    """The messages in an object: it is one, or has them in one of the usual fields."""
    made = _langchain(value)
    if made is not None:
        return [made]
    if isinstance(value.get("role"), str) or is_item(value):
        return [value]
    if isinstance(value.get("messages"), list):
        system = value.get("system")
        lead = [{"role": "system", "content": system}] if system else []
        return [*lead, *messages(value["messages"], role, depth + 1)]
    for name in ("message", "choices", "generations"):
        inner = value.get(name)
        if isinstance(inner, list) and inner and name == "choices":
            inner = inner[0]
        if isinstance(inner, Mapping | list) and inner:
            return messages(inner, role, depth + 1)
    nested = next((value[name] for name in _SAID if value.get(name) not in (None, "")), None)
    if nested is not None:
        return messages(nested, role, depth + 1)
    return [{"role": role, "content": json_text(value)}] if value else []


def _langchain(value: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """A message of LangChain's, serialised by its constructor or dumped with its type, in OpenAI's shape."""
    inner = value
    kind: object = value.get("type")
    # By its constructor: {"lc": 1, "type": "constructor", "id": [..., "AIMessage"], "kwargs": {...}}.
    if isinstance(value.get("kwargs"), Mapping) and isinstance(value.get("id"), list) and value["id"]:
        inner, kind = value["kwargs"], value["id"][-1]
    # Dumped with its type: {"type": "ai", "data": {...}}.
    elif isinstance(value.get("data"), Mapping):
        inner = value["data"]
    name = str(kind).lower().removesuffix("chunk").removesuffix("message")
    if name not in _ROLES or "content" not in inner:
        return None
    more = object_at(inner, "additional_kwargs")
    calls = [
        {"id": call.get("id"), "name": call.get("name"), "arguments": call.get("args")}
        for call in inner.get("tool_calls") or () if isinstance(call, Mapping)
    ] or more.get("tool_calls")  # fmt: skip
    content = inner["content"]
    if calls and isinstance(content, list):  # Anthropic's blocks repeat the calls.
        content = [part for part in content if not (isinstance(part, Mapping) and part.get("type") == "tool_use")]
    made = {"role": _ROLES[name], "content": content, "tool_calls": calls, "name": inner.get("name"),
            "tool_call_id": inner.get("tool_call_id"), "status": inner.get("status"),
            "reasoning_content": more.get("reasoning_content"),
            "function_call": more.get("function_call")}  # fmt: skip
    return {field: part for field, part in made.items() if part is not None}


@dataclass(frozen=True, slots=True)
class Call:
    """A call of the model in a trace."""

    inputs: Sequence[Mapping[str, Any]]
    outputs: Sequence[Mapping[str, Any]]
    start: str = ""
    """Start time as sortable text; calls without one keep the order of the file."""
    model: str = ""
    ended: str = ""
    """Why it ended."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    run: str = ""
    """The id of its run, where calls of several runs are read together."""

    def turns(self) -> list[Turn]:
        """The whole conversation; the tracer's facts about the call stay with the last turn of the model.

        Raises:
            InputError: a message is of no known shape.
        """
        turns = turns_of_any([*self.inputs, *self.outputs])
        last = max((at for at, turn in enumerate(turns) if turn.role == MODEL), default=None)
        if last is not None:
            ended = {"finish_reason": self.ended} if self.ended else {}
            turns[last] = turns[last].with_meta(**{**ended, **self.meta})
        return turns


def runs(
    calls: Sequence[Call], name: str, by: str, *, won: float = math.nan, reasoning: Reasoning = "keep",
    reference: str | None = None, meta: Mapping[str, Any] | None = None, problem: ProblemEnd = "lead",
) -> Iterator[Trajectory]:  # fmt: skip
    """A trajectory for each call that no other of the trace continues.

    Raises:
        InputError: there is no call, a message is of no known shape, or the model says nothing.
    """
    if not calls:
        raise InputError("no call of a model with an output is in this trace", remedy="export inputs and outputs too")
    ordered = sorted(calls, key=lambda call: call.start.zfill(32)) if all(call.start for call in calls) else list(calls)
    found = whole_runs([call.turns() for call in ordered])
    known: dict[str, list[Problem]] = {}
    for branch, (at, turns) in enumerate(found):
        own = ordered[at].run or name
        made = trajectory_of(
            turns, own, by, reasoning=reasoning, reference=reference, won=won, policy=ordered[at].model,
            terminal=not is_cut(ordered[at].ended), problem=problem,
            meta={**(meta or {}), **({"branch": branch} if len(found) > 1 else {})},
        )  # fmt: skip
        yield with_own_problem(made, known)


def finish(value: object) -> str:
    """The finish reason in a call's output, where there is one."""
    value = parsed(value)
    for _ in range(_DEEPEST):
        if isinstance(value, list) and value:
            value = value[0]
        if not isinstance(value, Mapping):
            return ""
        reason = first_value(value, "finish_reason", "stop_reason", "generation_info.finish_reason",
                             "response_metadata.finish_reason", "kwargs.response_metadata.finish_reason")  # fmt: skip
        if isinstance(reason, str):
            return reason
        value = next((value[name] for name in ("choices", "generations", "messages", "message", "output")
                      if value.get(name)), None)  # fmt: skip
    return as_text(value)
