"""Tool calls as steps: a line of JSON for each call in the step's text, the calls themselves in its meta."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from stepreward.core.errors import InputError
from stepreward.core.types import Step

Call = Mapping[str, Any]
"""`name`, `arguments` as JSON values, and `id` where there is one."""
_MARKED = re.compile(r"<tool_call>(.*?)(?:</tool_call>|$)", re.DOTALL)
CALLS, CONTENT, ANSWERS, THINKING = "tool_calls", "content", "tool_call_id", "reasoning"
"""Keys of a step's meta: its calls, its text without them, of an observation the call that it answers, and thinking
that a log records apart and that opens the step's text."""


def spelled(call: Call) -> str:
    """A tool call as one line of JSON, its id left out, since the same call is the same step in another run."""
    return json.dumps({"name": call.get("name"), "arguments": call.get("arguments")}, ensure_ascii=False)


def parsed(arguments: object) -> Any:
    """Arguments of a call; providers write them as an object or as JSON in a string."""
    if not isinstance(arguments, str):
        return arguments
    try:
        return json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments


def calling_step(text: str, calls: Sequence[Call]) -> Step:
    """A step that ends in tool calls: its text, then a line for each call."""
    said = "\n".join([*([text.rstrip("\n")] if text.strip() else []), *map(spelled, calls)])
    return Step(said + "\n", meta={CALLS: [dict(call) for call in calls], CONTENT: text})


def calls_of(step: Step) -> list[Call]:
    """The tool calls that a step ends in; none for most."""
    return list(step.meta.get(CALLS) or ())


def stated_calls(step: Step) -> list[Call]:
    """The calls that an agent's step makes: those in its meta, or else those that its text states.

    A text states a call as a JSON object with `name` and `arguments`, on a line of its own or between `<tool_call>`
    marks. One that looks like a call and cannot be read has the name None, and its text as arguments.
    """
    if calls := calls_of(step):
        return calls
    marked = _MARKED.findall(step.text)
    stated = marked or [line for line in step.text.splitlines() if line.lstrip().startswith('{"')]
    return [_stated(text.strip()) for text in stated]


def _stated(text: str) -> Call:
    made = parsed(text)
    if not isinstance(made, Mapping) or not isinstance(made.get("name"), str):
        return {"name": None, "arguments": text}
    return {"name": made["name"], "arguments": parsed(made.get("arguments", made.get("parameters", {})))}


def content_of(step: Step) -> str:
    """A step's text without its tool calls."""
    calls = calls_of(step)
    if CONTENT in step.meta or not calls:
        return str(step.meta.get(CONTENT, step.text))
    return step.text.rstrip("\n").removesuffix("\n".join(map(spelled, calls))).removesuffix("\n")


def said_of(step: Step) -> str:
    """A step's text without its tool calls, and without thinking that was recorded apart from it."""
    said, thought = content_of(step), step.meta.get(THINKING)
    if not isinstance(thought, str) or not thought or not said.startswith(thought):
        return said
    return said.removeprefix(thought).removeprefix("\n")


def as_message(calls: Sequence[Call], first: int = 0) -> list[dict[str, Any]]:
    """Tool calls in OpenAI's form; one without an id is given its number."""
    return [
        {
            "id": call.get("id") or f"call_{n}", "type": "function",
            "function": {"name": call.get("name"), "arguments": _written(call.get("arguments"))},
        }
        for n, call in enumerate(calls, first)
    ]  # fmt: skip


def _written(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments or {}, ensure_ascii=False)


def step_of_message(message: Mapping[str, Any]) -> Step:
    """A chat message of OpenAI's form as a step: the assistant's is an action, any other an observation.

    Raises:
        InputError: it has no role, or its content is neither text nor a list of texts.
    """
    role, content, calls = message.get("role"), message.get("content"), message.get("tool_calls") or ()
    whole = content if isinstance(content, list | tuple) else [content or ""]
    parts = [part.get("text", "") if isinstance(part, Mapping) else part for part in whole]
    if not isinstance(role, str) or not all(isinstance(part, str) for part in parts):
        raise InputError(f"a message needs a role and text, got {message!r:.80}", remedy="pass OpenAI's messages")
    text = "".join(parts)
    if role != "assistant":
        answers = {ANSWERS: message["tool_call_id"]} if message.get("tool_call_id") else {}
        return Step(text + "\n", "observation", role, message.get("name"), meta=answers)
    named = [call.get("function", call) for call in calls]
    spelled_out = [{"name": one.get("name"), "arguments": parsed(one.get("arguments"))} for one in named]
    return calling_step(text, spelled_out) if calls else Step(text + "\n")
