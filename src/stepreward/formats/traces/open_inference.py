"""OpenInference spans: attributes flattened or nested, as exporters and Phoenix write them."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterator, Mapping
from functools import partial
from typing import Any

from stepreward.core.errors import InputError
from stepreward.core.segment.tool_calls import parsed
from stepreward.core.types import Step, Trajectory
from stepreward.formats.agents.messages import MODEL, Reasoning
from stepreward.formats.agents.runs import gathered, lines_of
from stepreward.formats.fields import as_text, first_value, list_at, object_at, outcome_or_nan, plain_text, text_at
from stepreward.formats.format import Format
from stepreward.formats.recorded_scores import IDENTIFIER, RECORDED, ScoreLayout, Scores, Take, numbers_of
from stepreward.formats.rows import Row
from stepreward.formats.traces.call_payloads import Call, finish, messages, runs
from stepreward.formats.traces.open_telemetry import (
    attributes_of,
    is_open_inference,
    nested,
    otlp_value,
    place_of,
    spans_of,
    trace_of,
    with_spans,
)

KIND = "CODE"
"""Kind of annotator: neither a person nor, as far as is known, a model that was prompted."""
_OURS = ("llm.input_messages", "llm.output_messages", "openinference.span.kind")


def _attributes(span: Row) -> Mapping[str, Any]:
    """A span's attributes: under `attributes`, or in columns that begin with it, or the span itself."""
    given = parsed(span.get("attributes"))
    if isinstance(given, Mapping | list):
        return attributes_of({"attributes": given})
    columns = {name.removeprefix("attributes."): value for name, value in span.items() if name[:11] == "attributes."}
    return columns or span


def _is_ours(span: object) -> bool:
    if not isinstance(span, Mapping):
        return False
    if isinstance(span.get("attributes"), list):
        return is_open_inference(span)
    names = _attributes(span)
    if any(str(name).startswith(_OURS) for name in names):
        return True
    inner, kind = names.get("llm"), names.get("openinference")
    return isinstance(kind, Mapping) or (isinstance(inner, Mapping) and bool(
        {"input_messages", "output_messages"} & inner.keys()))  # fmt: skip


def matches(row: Row) -> bool:
    """Whether a row is a span of OpenInference, or an export that holds some."""
    return any(
        is_open_inference(line) if "resourceSpans" in line else _is_ours(line)
        for line in lines_of(row) if isinstance(line, Mapping)
    )  # fmt: skip


def read(row: Row, number: int, *, reasoning: Reasoning = "keep") -> Iterator[Trajectory]:
    """Reads `llm.input_messages` and `llm.output_messages` of the spans of a trace, or their `input` and `output`.

    A call that a later one of the trace continues is part of that one. Spans of tools and chains are not read. Scores
    of a span's `annotations` are columns of scores by name. There is no outcome, unless an annotation `correctness` or
    a `reward` is beside the attributes.

    Args:
        row: a span, an OTLP export, or gathered `lines`.
        number: its 1-based number, used where a span names no trace.
        reasoning: whether recorded reasoning opens an action's text.

    Raises:
        InputError: no span is a call of a model, or its messages are of another shape.
    """
    found: dict[str, list[tuple[Row, Call]]] = {}
    for span in [span for line in lines_of(row) if isinstance(line, Mapping) for span in spans_of(line)]:
        call = _call(span, nested(_attributes(span)))
        if call is not None:
            found.setdefault(trace_of(span) or str(number), []).append((span, call))
    if not found:
        yield from runs([], "", "")
    for trace, calls in found.items():
        rewards = [first_value(span, "reward", "annotations.correctness.score") for span, _ in calls]
        won = next((reward for reward in rewards if reward is not None), None)
        yield from runs([call for _, call in calls], f"openinference-{trace}", "openinference spans",
                        won=outcome_or_nan(won), reasoning=reasoning)  # fmt: skip


def _call(span: Row, attributes: Mapping[str, Any]) -> Call | None:
    llm = object_at(attributes, "llm")
    kind = as_text(first_value(attributes, "openinference.span.kind") or span.get("span_kind"))
    inputs, outputs = (_messages(llm.get(name)) for name in ("input_messages", "output_messages"))
    if not outputs and kind == "LLM":
        inputs = inputs or messages(first_value(attributes, "input.value"), "user")
        outputs = messages(first_value(attributes, "output.value"), MODEL)
    if not outputs:
        return None
    usage = llm.get("token_count")
    meta: dict[str, Any] = {"usage": usage} if isinstance(usage, dict) else {}
    marked, _, start = place_of(span)
    meta |= {"span_id": marked} if marked else {}
    meta |= {"trace_id": trace} if (trace := trace_of(span)) else {}
    meta |= {RECORDED: scores} if (scores := _annotated(attributes)) else {}
    ended = text_at(llm, "finish_reason") or finish(first_value(attributes, "output.value"))
    return Call(inputs, outputs, start, text_at(llm, "model_name"), ended, meta)


def _annotated(attributes: Mapping[str, Any]) -> dict[str, float]:
    """The scores that annotations of a span have, by their names."""
    found = [object_at(one, "annotation") for one in list_at(attributes, "annotations")]
    return numbers_of({one.get("name"): one.get("score") for one in found if isinstance(one.get("name"), str)})


def place(number: int, nth: int, step: Step) -> Hashable | None:
    """The span of an action, by its trace and its own id."""
    return (step.meta.get("trace_id", ""), step.meta["span_id"]) if "span_id" in step.meta else None


def with_scores(row: Row, number: int, take: Take) -> Row:
    """The row with scores as `annotations` of its spans, in the shape in which each has its attributes."""
    return with_spans(row, lambda span: _with_annotations(span, take((trace_of(span), place_of(span)[0]))))


def _with_annotations(span: Row, scores: Scores) -> Row:
    if not scores:
        return span
    attributes = nested(_attributes(span))
    if isinstance(attributes.get("annotations"), Mapping):
        what = f"span {place_of(span)[0]} has annotations by name, beside which a list of them cannot be"
        raise InputError(what, remedy="write --to scores")
    old = list_at(attributes, "annotations")
    kept = [one for one in old if first_value(one, "annotation.name") not in scores]
    made = [*kept, *({"annotation": dict(_annotation(*one))} for one in scores.items())]
    given = span.get("attributes")
    flat = {f"annotations.{at}.{name}": value for at, one in enumerate(made) for name, value in _flat(one)}
    if isinstance(given, list):
        others = [one for one in given if not text_at(one, "key").startswith("annotations.")]
        return {**span, "attributes": [*others, *({"key": k, "value": otlp_value(v)} for k, v in flat.items())]}
    if isinstance(given, str):
        return {**span, "attributes": json.dumps(_beside(parsed(given), made, flat), ensure_ascii=False)}
    if isinstance(given, Mapping):
        return {**span, "attributes": _beside(given, made, flat)}
    if any(str(name).startswith("attributes.") for name in span):
        return {**span, "attributes.annotations": made}
    return _beside(span, made, flat)


def _beside(attributes: Mapping[str, Any], made: list[dict[str, Any]], flat: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes with annotations, nested where these are, and else under numbered names."""
    others = {name: value for name, value in attributes.items() if str(name).split(".")[0] != "annotations"}
    is_nested = any(isinstance(attributes.get(name), Mapping) for name in ("llm", "openinference"))
    return {**others, **({"annotations": made} if is_nested else flat)}


def _flat(value: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _flat(inner, f"{above}.{name}" if above else str(name))
    else:
        yield above, value


def _annotation(name: str, score: float) -> Iterator[tuple[str, Any]]:
    """An annotation's attributes, as the semantic conventions name them (openinference-semantic-conventions 0.1.42)."""
    yield from (("name", name), ("score", score), ("annotator_kind", KIND), ("identifier", IDENTIFIER))


def api_rows(step: Step, scores: Scores) -> Iterator[dict[str, Any]]:
    """Span annotations of Phoenix's API (`POST /v1/span_annotations` takes a list of them as `data`).

    Its server keeps one annotation for each span, name and identifier: what is sent twice is there once.
    """
    for name, score in scores.items():
        yield {"span_id": step.meta["span_id"], "name": name, "annotator_kind": KIND, "result": {"score": score},
               "identifier": IDENTIFIER}  # fmt: skip


def _messages(value: object) -> list[Mapping[str, Any]]:
    """Messages in OpenAI's shape of those of a span."""
    value = parsed(value)
    made: list[Mapping[str, Any]] = []
    for one in value if isinstance(value, list) else []:
        message = one.get("message", one) if isinstance(one, Mapping) else {}
        if not isinstance(message, Mapping) or not message:
            continue
        # `content` is a text; messages with images have `contents`, a list of parts.
        content = message.get("content")
        if isinstance(message.get("contents"), list):
            content = [_part(part) for part in message["contents"] if isinstance(part, Mapping)]
        calls = [
            {"id": call.get("id"), **dict(call["function"])}
            for entry in message.get("tool_calls") or ()
            if isinstance(entry, Mapping) and isinstance(call := entry.get("tool_call", entry), Mapping)
            and isinstance(call.get("function"), Mapping)
        ]  # fmt: skip
        if isinstance(message.get("function_call_name"), str):
            calls.append({"name": message["function_call_name"], "arguments": message.get(
                "function_call_arguments_json")})  # fmt: skip
        extra = {name: message[name] for name in ("tool_call_id", "name", "reasoning_content") if name in message}
        made.append({"role": message.get("role", "user"), "content": content, "tool_calls": calls or None, **extra})
    return made


def _part(part: Mapping[str, Any]) -> Mapping[str, Any]:
    """A part of a message, in OpenAI's shape."""
    inner = part.get("message_content", part)
    if not isinstance(inner, Mapping):
        return {"type": "text", "text": plain_text(inner)}
    image = first_value(inner, "image.image.url", "image.url")
    return {"type": "image_url", "image_url": {"url": image}} if isinstance(image, str) else inner


# Exporters write spans as they end: those of a trace may be anywhere in the file.
FORMATS: tuple[Format, ...] = (
    Format("openinference", "OpenInference spans of Phoenix", matches, read,
           rows=partial(gathered, key=trace_of, parts=spans_of), scores=ScoreLayout(place, with_scores, api_rows)),
)  # fmt: skip
