"""Items of OpenAI's Responses API as turns; Codex and others log the same items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from stepreward.core.errors import InputError
from stepreward.core.segment.tool_calls import parsed
from stepreward.formats.agents.messages import (
    MODEL,
    Turn,
    joined_answers,
    name_tools,
    read_message,
    thinking_text,
    turns_of,
)
from stepreward.formats.fields import json_fields, plain_text, text_at
from stepreward.formats.rows import shown

_RESULTS = ("outputs", "output", "results", "result", "error")
"""Fields of a built-in tool's call that hold what it returned."""
_OWN = ("id", "type", "status", "call_id", "name", *_RESULTS)


def is_item(value: object) -> bool:
    """Whether a value is an item other than a message: reasoning, a call or what a call returned."""
    kind = value.get("type") if isinstance(value, Mapping) else None
    return isinstance(kind, str) and (kind == "reasoning" or kind.endswith(("_call", "_call_output")))


def turns_of_items(items: Sequence[object]) -> tuple[list[Turn], list[Any]]:
    """The turns of items, and the items that are none, as lists of tools.

    Reasoning, messages and calls of the model up to the next result are one turn, as they are one answer. A built-in
    tool's result, which is part of its call's item, is a turn of its own.

    Raises:
        InputError: an item is no object, or a message or call is of no known shape.
    """
    turns: list[Turn] = []
    others: list[Any] = []
    for place, item in enumerate(items):
        if not isinstance(item, Mapping):
            raise InputError(f"item {place} must be an object, got {shown(item)}")
        made = _turns(item, place)
        others += [] if made else [dict(item)]
        turns += made
    return name_tools(joined_answers(turns)), others


def turns_of_any(messages: Sequence[Mapping[str, Any]]) -> list[Turn]:
    """The turns of items, if any of the messages is one, or else of chat messages.

    Raises:
        InputError: a message, an item or a call is of no known shape.
    """
    return turns_of_items(messages)[0] if any(map(is_item, messages)) else turns_of(messages)


def _turns(item: Mapping[str, Any], place: int) -> list[Turn]:
    """The turns of an item: two for a built-in tool's call with its result, none for items such as lists of tools."""
    kind = item.get("type")
    # "completed" is what every item of a response that ended well says.
    meta = {} if item.get("status") in (None, "completed") else json_fields(item, "status")
    if kind in (None, "message") and "role" in item:
        meta = json_fields(item, "phase", "timestamp") | meta
        return [turn.with_meta(**meta) for turn in read_message(item, place)]
    if not isinstance(kind, str):
        return []
    if kind == "reasoning":
        # Open models give their thinking as content; OpenAI's give a summary of it, and the rest encrypted.
        thought = thinking_text(item.get("content")) or thinking_text(item.get("summary"))
        return [Turn(MODEL, "", reasoning=thought, place=place)]
    if kind.endswith("_output"):
        answers = item["call_id"] if isinstance(item.get("call_id"), str) else None
        return [replace(_result(item.get("output")), answers=answers, place=place, meta=meta)]
    if not kind.endswith("_call") and kind != "mcp_approval_request":
        return []
    name = text_at(item, "name") or kind.removesuffix("_call")
    arguments = next((item[field] for field in ("arguments", "input", "action", "operation") if field in item), None)
    if arguments is None:
        arguments = {field: value for field, value in item.items() if field not in _OWN}
    number = next((item[field] for field in ("call_id", "id") if isinstance(item.get(field), str)), None)
    call = {"name": name, "arguments": parsed(arguments), **({} if number is None else {"id": number})}
    made = [Turn(MODEL, "", (call,), place=place, meta=meta)]
    output = next((item[field] for field in _RESULTS if item.get(field)), None)
    if output is not None:
        made.append(replace(_result(output), agent=name, answers=number, place=place, meta=meta))
    return made


def _result(output: object) -> Turn:
    """What a tool returned: text, logs of a code interpreter, pictures, or parts of these kinds."""
    parts = output if isinstance(output, list) else [output]
    images = [
        part["image_url"] for part in parts if isinstance(part, Mapping) and isinstance(part.get("image_url"), str)
    ]
    if images and not isinstance(output, list):
        text = ""
    elif isinstance(output, list) and output and all(isinstance(one, Mapping) and "logs" in one for one in output):
        text = "\n".join(str(one["logs"]) for one in output)
    else:
        text = plain_text(output)
    return Turn("tool", text, images=tuple(images))
