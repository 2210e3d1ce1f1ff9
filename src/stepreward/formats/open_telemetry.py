"""OpenTelemetry's GenAI spans: conversations out of exported traces, OTLP JSON or a span a line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from stepreward.core.annotations import Annotated
from stepreward.core.errors import InputError
from stepreward.core.tool_calls import parsed
from stepreward.formats.format import Format
from stepreward.formats.messages import Asked, Reasoning, Turn, episode, named
from stepreward.formats.rows import Row, annotated, shown

INPUT, OUTPUT, SYSTEM = "gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.system_instructions"
_REMEDY = "export spans with the content of messages recorded"


def spans_of(row: Row) -> list[Mapping[str, Any]]:
    """The spans of a row: it is one, or an OTLP export of many."""
    if "resourceSpans" not in row:
        return [row]
    return [
        span
        for resource in _list(row["resourceSpans"]) if isinstance(resource, Mapping)
        for scope in _list(resource.get("scopeSpans")) if isinstance(scope, Mapping)
        for span in _list(scope.get("spans")) if isinstance(span, Mapping)
    ]  # fmt: skip


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def is_open_inference(row: Row) -> bool:
    """Whether an export's spans have attributes of OpenInference and none of GenAI."""
    names = [str(name) for span in spans_of(row) for name in _names(span)]
    ours = any(name.startswith("gen_ai.") for name in names)
    return not ours and any(name.startswith(("openinference.", "llm.")) for name in names)


def _names(span: Mapping[str, Any]) -> list[object]:
    given = span.get("attributes")
    if isinstance(given, list):
        return [one.get("key") for one in given if isinstance(one, Mapping)]
    return list(given) if isinstance(given, Mapping) else []


def _plain(value: Any) -> Any:
    """An OTLP attribute's value."""
    if not isinstance(value, Mapping):
        return value
    if "arrayValue" in value:
        return [_plain(one) for one in value["arrayValue"].get("values", [])]
    if "kvlistValue" in value:
        return {one["key"]: _plain(one["value"]) for one in value["kvlistValue"].get("values", [])}
    kinds = ("stringValue", "intValue", "doubleValue", "boolValue")
    return next((value[kind] for kind in kinds if kind in value), value)


def attributes_of(span: Mapping[str, Any]) -> dict[str, Any]:
    given = span.get("attributes")
    if isinstance(given, list):
        return {one["key"]: _plain(one.get("value")) for one in given if isinstance(one, Mapping) and "key" in one}
    return dict(given) if isinstance(given, Mapping) else {}


def _messages(value: Any, name: str) -> list[Mapping[str, Any]]:
    """Messages as an attribute holds them: a list, or its JSON."""
    made = parsed(value)
    if not isinstance(made, list) or not all(isinstance(one, Mapping) for one in made):
        raise InputError(f"'{name}' must be a list of messages, got {shown(value)}", remedy=_REMEDY)
    return made


def _turns(messages: list[Mapping[str, Any]], place: int) -> list[Turn]:
    """The turns of messages whose content lies in parts."""
    turns: list[Turn] = []
    for at, message in enumerate(messages, start=place):
        texts, thoughts, calls = [], [], []
        role = str(message.get("role", "user"))
        for part in message.get("parts") or []:
            kind = part.get("type")
            content = part.get("content")
            if kind == "tool_call":
                number = {"id": part["id"]} if isinstance(part.get("id"), str) else {}
                calls.append({"name": part.get("name"), "arguments": parsed(part.get("arguments")), **number})
            elif kind == "tool_call_response":
                told = part.get("response", part.get("result"))
                text = told if isinstance(told, str) else json.dumps(told, ensure_ascii=False)
                turns.append(Turn("tool", text, answers=str(part["id"]) if "id" in part else None, place=at))
            elif kind == "reasoning" and isinstance(content, str):
                thoughts.append(content)
            elif isinstance(content, str):
                texts.append(content)
        if texts or thoughts or calls:
            name = message.get("name")
            turns.append(
                Turn(role, "\n".join(texts), tuple(calls), "\n".join(thoughts), name if isinstance(name, str) else None,
                     place=at)
            )  # fmt: skip
    return turns


def matches(row: Row) -> bool:
    """Whether a row looks like a GenAI span, or an export that may hold some."""
    if "resourceSpans" in row:
        return not is_open_inference(row)
    return any(str(name).startswith("gen_ai.") for name in _names(row))


def read(row: Row, number: int, *, problem: Asked = "lead", reasoning: Reasoning = "keep") -> Iterator[Annotated]:
    """Reads `gen_ai.input.messages` and `gen_ai.output.messages` of spans, as the semantic conventions define them.

    In an export, a call to the model that a later one of the same trace continues is part of that one and not read
    again. Spans without messages, such as those of tools, are passed over. Traces have no outcome.

    Args:
        row: a span, or an OTLP export in JSON.
        number: its 1-based number, used where a span has no id.
        problem: all before the first action, or before the last.
        reasoning: whether recorded reasoning opens an action's text.

    Raises:
        InputError: no span has messages, or they are of another shape.
    """
    talks: list[tuple[Mapping[str, Any], dict[str, Any], list[Turn]]] = []
    for span in spans_of(row):
        attributes = attributes_of(span)
        if OUTPUT not in attributes:
            continue
        opening = attributes.get(SYSTEM)
        lead = [{"role": "system", "parts": _messages(opening, SYSTEM)}] if opening is not None else []
        asked = [*lead, *_messages(attributes.get(INPUT, []), INPUT)]
        turns = _turns(asked, 0)
        turns += _turns(_messages(attributes[OUTPUT], OUTPUT), len(asked))
        talks.append((span, attributes, named(turns)))
    if not talks:
        raise InputError(f"no span has '{OUTPUT}'", remedy=_REMEDY)
    for at, (span, attributes, turns) in enumerate(talks):
        said = [turn.said for turn in turns]
        later = [t for other, _, t in talks[at + 1 :] if other.get("traceId") == span.get("traceId")]
        if any([turn.said for turn in other[: len(said)]] == said for other in later):
            continue
        name = f"otel-{span.get('traceId', number)}-{span.get('spanId', at)}"
        task, steps = episode(turns, name, problem=problem, reasoning=reasoning)
        meta = {k: v for k, v in attributes.items() if k not in (INPUT, OUTPUT, SYSTEM) and _is_json(v)}
        yield annotated(
            task, steps, np.full(len(steps), np.nan), "otel spans",
            policy=str(attributes.get("gen_ai.response.model") or attributes.get("gen_ai.request.model") or ""),
            meta=meta,
        )  # fmt: skip


def _is_json(value: object) -> bool:
    return isinstance(value, str | int | float | list | dict | None)


FORMATS: tuple[Format, ...] = (
    Format("otel-genai", "OpenTelemetry GenAI spans, OTLP JSON or a span a line", matches, read),
)
