"""OpenTelemetry's GenAI spans: conversations out of exported traces, OTLP JSON or a span a line."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from stepreward.core.errors import InputError
from stepreward.core.segment.tool_calls import parsed
from stepreward.core.types import Step, Trajectory
from stepreward.formats.agents.messages import MODEL, ProblemEnd, Reasoning, turns_of
from stepreward.formats.agents.runs import gathered, gathered_runs, lines_of
from stepreward.formats.fields import as_text, first_value, list_at, object_at, plain_text, text_at
from stepreward.formats.files.rows_of_files import Numbered
from stepreward.formats.format import Format
from stepreward.formats.recorded_scores import RECORDED, ScoreLayout, Scores, Take, numbers_of
from stepreward.formats.rows import Row, other_fields, shown
from stepreward.formats.traces.call_payloads import Call, messages, runs

INPUT, OUTPUT, SYSTEM = "gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.system_instructions"
_CONTENT = (INPUT, OUTPUT, SYSTEM, "gen_ai.prompt", "gen_ai.completion", "gen_ai.output")
_EVENT = re.compile(r"gen_ai\.(choice|(?:system|user|assistant|tool)\.message)")
"""Names of a message's event in earlier conventions."""
EVALUATION = "gen_ai.evaluation.result"
"""The event of an evaluation of the operation in whose span it is."""
EVALUATED, VALUE = "gen_ai.evaluation.name", "gen_ai.evaluation.score.value"
_CALLS = ("chat", "text_completion", "generate_content", "call_llm", "stream", None)
"""Operations that call a model, as opposed to those of agents and workflows around them."""
_TRACE = ("context.trace_id", "trace_id", "traceId", "context.traceId")
_SPAN = ("spanId", "span_id", "context.span_id", "context.spanId")
_PARENT = ("parentSpanId", "parent_id", "parent_span_id", "parentId")
_END = ("endTimeUnixNano", "end_time", "end_time_unix_nano", "endTime")
_START = ("start_time", "startTimeUnixNano", "start_time_unix_nano", "startTime")
_REMEDY = "export spans with the content of messages recorded"


def spans_of(row: Row) -> list[Mapping[str, Any]]:
    """The spans of a row: it is one, or an OTLP export of many."""
    if "resourceSpans" not in row:
        return [row]
    return [
        span
        for resource in list_at(row, "resourceSpans")
        for scope in list_at(resource, "scopeSpans")
        for span in list_at(scope, "spans") if isinstance(span, Mapping)
    ]  # fmt: skip


def with_spans(row: Row, made: Callable[[Row], Row]) -> Row:
    """The row with each of its spans replaced."""
    if "resourceSpans" not in row:
        return made(row)
    return {**row, "resourceSpans": [
        {**resource, "scopeSpans": [
            {**scope, "spans": [made(span) if isinstance(span, Mapping) else span for span in list_at(scope, "spans")]}
            for scope in list_at(resource, "scopeSpans")
        ]}
        for resource in row["resourceSpans"]
    ]}  # fmt: skip


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


def otlp_value(value: str | float) -> dict[str, Any]:
    """A value as OTLP's JSON types it."""
    return {"stringValue": value} if isinstance(value, str) else {"doubleValue": value}


def attributes_of(span: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of a span or an event, by name: OTLP lists them as keys and typed values."""
    given = span.get("attributes")
    if isinstance(given, list):
        return {one["key"]: _plain(one.get("value")) for one in given if isinstance(one, Mapping) and "key" in one}
    return dict(given) if isinstance(given, Mapping) else {}


def trace_of(span: Mapping[str, Any]) -> str:
    """The id of a span's trace, as exporters name it; "" where it names none."""
    return as_text(first_value(span, *_TRACE) or span.get("context.trace_id"))


def place_of(span: Mapping[str, Any]) -> tuple[str, str, str]:
    """A span's own id, that of the span around it, and when it began, "" where it names none."""
    own = as_text(first_value(span, *_SPAN) or span.get("context.span_id"))
    return own, text_at(span, *_PARENT), plain_text(first_value(span, *_START))


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes with dots in their names as objects in objects, and numbered ones as lists."""
    made: dict[str, Any] = {}
    for name, value in flat.items():
        *above, last = str(name).split(".")
        place = made
        for part in above:
            inner = place.get(part)
            place[part] = inner if isinstance(inner, dict) else {}
            place = place[part]
        value = _inner(value)
        old = place.get(last)
        place[last] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
    listed = _lists(made)
    return listed if isinstance(listed, dict) else {}


def _inner(value: Any) -> Any:
    if isinstance(value, Mapping):
        return nested(value)
    return [_inner(one) for one in value] if isinstance(value, list) else value


def _lists(value: Any) -> Any:
    """The value with lists in the place of objects whose names are all numbers."""
    if isinstance(value, list):
        return [_lists(one) for one in value]
    if not isinstance(value, dict):
        return value
    if value and all(name.isdecimal() for name in value):
        return [_lists(value[name]) for name in sorted(value, key=int)]
    return {name: _lists(one) for name, one in value.items()}


def _messages(value: Any, name: str) -> list[Mapping[str, Any]]:
    """Messages as an attribute holds them, a list or its JSON, in OpenAI's shape."""
    made = parsed(value)
    made = [made] if isinstance(made, Mapping) else made
    if not isinstance(made, list) or not all(isinstance(one, Mapping) for one in made):
        raise InputError(f"'{name}' must be a list of messages, got {shown(value)}", remedy=_REMEDY)
    return [message for one in made for message in _in_openai_shape(one)]


def _in_openai_shape(message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """A message with `parts`, in OpenAI's shape: one, and one more for each tool result."""
    parts = message.get("parts")
    if not isinstance(parts, list):
        return [{"role": "user", **message}]
    content: list[Any] = []
    calls, results = [], []
    for part in parts:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "tool_call":
            calls.append({name: part.get(name) for name in ("id", "name", "arguments")})
        elif kind == "tool_call_response":
            result = plain_text(first_value(part, "response", "result", "content"))
            results.append({"role": "tool", "tool_call_id": part.get("id"), "content": result})
        elif kind == "reasoning":
            content.append({"type": "reasoning", "text": part.get("content")})
        elif isinstance(part, Mapping):
            content.append(_content(part))
        elif isinstance(part, str):
            content.append(part)
    whole = {"role": "user", **message, "content": content, "tool_calls": calls or None}
    return [*results, *([whole] if content or calls or not results else [])]


def _content(part: Mapping[str, Any]) -> Mapping[str, Any]:
    """A part of text or, by address or as bytes, of an image."""
    if part.get("modality") != "image":
        return {"type": "text", "text": part.get("content")}
    if isinstance(part.get("content"), str):
        return {"type": "image", "source": {"media_type": part.get("mime_type"), "data": part["content"]}}
    return {"type": "image", "image": first_value(part, "uri", "file_id", "path")}


def _recorded(
    attributes: Mapping[str, Any], events: Sequence[Any]
) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """The input and output messages of a call, as any version of the conventions records them."""
    if OUTPUT in attributes:
        opening = attributes.get(SYSTEM)
        lead = _in_openai_shape({"role": "system", "parts": parsed(opening)}) if opening is not None else []
        return [*lead, *_messages(attributes.get(INPUT, []), INPUT)], _messages(attributes[OUTPUT], OUTPUT)
    if INPUT in attributes and "gen_ai.output" in attributes:
        return _messages(attributes[INPUT], INPUT), messages(attributes["gen_ai.output"], MODEL)
    # The first versions, and OpenLLMetry, number the messages: `gen_ai.prompt.0.role`, `gen_ai.prompt.0.content`.
    inner = nested({name: value for name, value in attributes.items() if str(name).startswith("gen_ai.")})
    before = inner.get("gen_ai", {})
    if before.get("completion"):
        return messages(before.get("prompt"), "user"), messages(before["completion"], MODEL)
    # Before they were attributes, each message was an event of the span, and `gen_ai.choice` an answer.
    inputs: list[Mapping[str, Any]] = []
    outputs: list[Mapping[str, Any]] = []
    for event in events:
        role = _EVENT.fullmatch(text_at(event, "name"))
        if role is None:
            continue
        body = {**attributes_of(event), **(object_at(event, "body"))}
        said = parsed(body.get("message", body))
        said = {"content": said} if isinstance(said, str) else said
        (outputs if role[1] == "choice" else inputs).append(
            {"role": MODEL if role[1] == "choice" else role[1].removesuffix(".message"), **said,
             "tool_calls": parsed(said.get("tool_calls")), "tool_call_id": said.get("id")}
        )  # fmt: skip
    return inputs, outputs


def _calls(span: Mapping[str, Any]) -> list[Call]:
    """The calls of a span: one, and one more for each further answer to it."""
    attributes, events = attributes_of(span), list_at(span, "events")
    for event in events:
        # Exporters may write the content as attributes of an event, to keep it apart from the span's.
        if isinstance(event, Mapping):
            attributes |= {name: value for name, value in attributes_of(event).items() if name in _CONTENT}
    inputs, outputs = _recorded(attributes, events)
    if not outputs:
        return []
    own, _, start = place_of(span)
    meta = other_fields({name: value for name, value in attributes.items() if not str(name).startswith(_CONTENT)})
    meta |= {"span_id": own} if own else {}
    meta |= {"trace_id": trace} if (trace := trace_of(span)) else {}
    evaluated = [attributes_of(one) for one in events if text_at(one, "name") == EVALUATION]
    scores = numbers_of({one.get(EVALUATED): one.get(VALUE) for one in evaluated})
    meta |= {RECORDED: scores} if scores else {}
    model = as_text(attributes.get("gen_ai.response.model") or attributes.get("gen_ai.request.model"))
    reasons = parsed(attributes.get("gen_ai.response.finish_reasons"))
    reason = reasons[0] if isinstance(reasons, list) and reasons else reasons
    # Each message of the output is an answer of its own, except where a framework writes a whole run there.
    several = len(outputs) > 1 and all(isinstance(one.get("finish_reason"), str) for one in outputs)
    run = f"otel-{trace_of(span)}" if trace_of(span) else ""
    return [
        Call(inputs, answer, start, model, text_at(answer[-1], "finish_reason") or as_text(reason), meta, run)
        for answer in ([[one] for one in outputs] if several else [outputs])
    ]


def _outer(found: Sequence[tuple[Mapping[str, Any], Sequence[Call]]]) -> set[int]:
    """Places of spans that repeat the calls inside them: an agent's, or a framework's around that of a provider."""
    # Ids of spans are unique within their trace alone.
    ids = {(trace_of(span), place_of(span)[0]): at for at, (span, _) in enumerate(found) if place_of(span)[0]}
    outer: set[int] = set()
    for span, calls in found:
        seen: set[int] = set()
        above = ids.get((trace_of(span), place_of(span)[1]))
        while calls and above is not None and above not in seen:
            seen.add(above)
            around, own = found[above]
            is_agent = attributes_of(around).get("gen_ai.operation.name") not in _CALLS
            if own and (is_agent or _answers(own) == _answers(calls)):
                outer.add(above)
            above = ids.get((trace_of(around), place_of(around)[1]))
    return outer


def _answers(calls: Sequence[Call]) -> list[str]:
    return [turn.said for call in calls for turn in turns_of(call.outputs)]


def _all_calls(row: Row) -> list[Call]:
    spans = [(span, _calls(span)) for line in lines_of(row) for span in spans_of(line)]
    outer = _outer(spans)
    return [call for at, (_, calls) in enumerate(spans) if at not in outer for call in calls]


def traces(path: Path) -> Iterator[Numbered]:
    """A row a run: spans are gathered by trace, wherever they are in the file, and traces that continue each other.

    A span that cannot be read stays alone, so that it costs no other.
    """
    whole = gathered(path, trace_of, whole=_is_broken, parts=spans_of)
    yield from gathered_runs(whole, lambda row: [call.turns() for call in _all_calls(row)])


def _is_broken(row: Row) -> bool:
    try:
        made = [call.turns() for span in spans_of(row) for call in _calls(span)]
    except (InputError, TypeError, KeyError, AttributeError, ValueError):
        return True
    return not all(any(turn.role == MODEL for turn in turns) for turns in made)


def matches(row: Row) -> bool:
    """Whether a row looks like a GenAI span, an export that may hold some, or spans gathered."""
    if "resourceSpans" in row:
        return not is_open_inference(row)
    return any(
        str(name).startswith("gen_ai.") for line in lines_of(row) if isinstance(line, Mapping) for name in _names(line)
    )


def read(row: Row, number: int, *, problem: ProblemEnd = "lead", reasoning: Reasoning = "keep") -> Iterator[Trajectory]:
    """Reads `gen_ai.input.messages` and `gen_ai.output.messages` of spans, as the semantic conventions define them.

    Calls of the model in a trace that continue each other are one trajectory. An agent's span around its calls, which
    repeats them, and spans without messages, such as those of tools, are not read. Messages in events, and in
    `gen_ai.prompt` and `gen_ai.completion`, as earlier versions have them, are read too. Evaluations of a call, events
    `gen_ai.evaluation.result` of its span, are columns of scores by name. Traces have no outcome.

    Args:
        row: a span, an OTLP export in JSON, or gathered `lines`.
        number: its 1-based number, used where a span names no trace.
        problem: all before the first action, or before the last.
        reasoning: whether recorded reasoning opens an action's text.

    Raises:
        InputError: no span has messages, or they are of another shape.
    """
    calls = _all_calls(row)
    if not calls:
        raise InputError(f"no span has '{OUTPUT}'", remedy=_REMEDY)
    yield from runs(calls, f"otel-{number}", "otel spans", reasoning=reasoning, problem=problem)


def place(number: int, nth: int, step: Step) -> Hashable | None:
    """The span of an action, by its trace and its own id."""
    return (step.meta.get("trace_id", ""), step.meta["span_id"]) if "span_id" in step.meta else None


def with_scores(row: Row, number: int, take: Take) -> Row:
    """The row with scores as events of its spans, `gen_ai.evaluation.result`, at the time of the span's end."""
    return with_spans(row, lambda span: _with_events(span, take((trace_of(span), place_of(span)[0]))))


def _with_events(span: Row, scores: Scores) -> Row:
    if not scores:
        return span
    events = span.get("events")
    others = [
        one for one in (events if isinstance(events, list) else [])
        if text_at(one, "name") != EVALUATION or attributes_of(one).get(EVALUATED) not in scores
    ]  # fmt: skip
    # OTLP lists attributes; Python's exporter has an object of them.
    listed = isinstance(span.get("attributes"), list)
    ended = first_value(span, *_END)
    when = {} if ended is None else {"timeUnixNano" if listed else "timestamp": ended}
    made = []
    for name, score in scores.items():
        attributes: dict[str, str | float] = {EVALUATED: name, VALUE: score}
        typed = [{"key": key, "value": otlp_value(value)} for key, value in attributes.items()]
        made.append({"name": EVALUATION, **when, "attributes": typed if listed else attributes})
    return {**span, "events": [*others, *made]}


FORMATS: tuple[Format, ...] = (
    Format("otel-genai", "OpenTelemetry GenAI spans, OTLP JSON or a span a line", matches, read, rows=traces,
           scores=ScoreLayout(place, with_scores)),
)  # fmt: skip
