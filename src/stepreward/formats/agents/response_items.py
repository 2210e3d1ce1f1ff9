"""Items of OpenAI's Responses API as turns; Codex and others log the same items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from stepreward.core.errors import InputError
from stepreward.core.segment.tool_calls import parsed
from stepreward.formats.agents.log import kept, text_of
from stepreward.formats.agents.messages import MODEL, Turn, joined, named, read_message
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
    answer: list[Turn] = []
    for place, item in enumerate(items):
        if not isinstance(item, Mapping):
            raise InputError(f"item {place} must be an object, got {shown(item)}")
        made = _turns(item, place)
        if not made:
            others.append(dict(item))
        for turn in made:
            if turn.role == MODEL:
                answer.append(turn)
                continue
            if answer:
                turns.append(joined(answer))
                answer = []
            turns.append(turn)
    if answer:
        turns.append(joined(answer))
    return named(turns), others


def _turns(item: Mapping[str, Any], place: int) -> list[Turn]:
    kind = item.get("type")
    if kind in (None, "message") and "role" in item:
        extra = kept(item, "phase", "timestamp") | ({} if item.get("status") in (None, "completed") else
                                                    kept(item, "status"))  # fmt: skip
        return [replace(turn, meta={**turn.meta, **extra}) for turn in read_message(item, place)]
    if not isinstance(kind, str):
        return []
    if kind == "reasoning":
        thought = _thought(item.get("content")) or _thought(item.get("summary"))
        return [Turn(MODEL, "", reasoning=thought, place=place)]
    if kind.endswith("_output"):
        return [_result(item, item.get("output"), place)]
    if kind.endswith("_call") or kind == "mcp_approval_request":
        return _called(item, kind, place)
    return []


def _thought(parts: object) -> str:
    if isinstance(parts, str):
        return parts
    texts = [part.get("text") if isinstance(part, Mapping) else part for part in parts or ()] if isinstance(
        parts, list
    ) else []  # fmt: skip
    return "\n".join(text for text in texts if isinstance(text, str) and text)


def _called(item: Mapping[str, Any], kind: str, place: int) -> list[Turn]:
    name = item.get("name")
    if not isinstance(name, str) or not name:
        name = kind.removesuffix("_call")
    arguments = next((item[field] for field in ("arguments", "input", "action", "operation") if field in item), None)
    if arguments is None:
        arguments = {field: value for field, value in item.items() if field not in _OWN}
    number = next((item[field] for field in ("call_id", "id") if isinstance(item.get(field), str)), None)
    call = {"name": name, "arguments": parsed(arguments), **({} if number is None else {"id": number})}
    meta = {} if item.get("status") in (None, "completed") else kept(item, "status")
    turns = [Turn(MODEL, "", (call,), place=place, meta=meta)]
    output = next((item[field] for field in _RESULTS if item.get(field)), None)
    return turns if output is None else [*turns, replace(_result(item, output, place), answers=number, agent=name)]


def _result(item: Mapping[str, Any], output: object, place: int) -> Turn:
    answers = item.get("call_id")
    parts = output if isinstance(output, list) else [output]
    images = [
        part["image_url"] for part in parts if isinstance(part, Mapping) and isinstance(part.get("image_url"), str)
    ]
    status = {} if item.get("status") in (None, "completed") else kept(item, "status")
    is_picture = bool(images) and not isinstance(output, list)
    return Turn(
        "tool", "" if is_picture else _logs(output), answers=answers if isinstance(answers, str) else None,
        images=tuple(images), place=place, meta=status,
    )  # fmt: skip


def _logs(output: object) -> str:
    """The text of a result; code interpreters write a list of logs."""
    if isinstance(output, list) and output and all(isinstance(one, Mapping) and "logs" in one for one in output):
        return "\n".join(str(one["logs"]) for one in output)
    return text_of(output)
