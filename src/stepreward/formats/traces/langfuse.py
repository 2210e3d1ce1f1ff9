"""Exports of Langfuse: traces with their observations, and observations alone."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from stepreward.core.errors import InputError
from stepreward.core.segment.tool_calls import parsed
from stepreward.core.types import Step, Trajectory
from stepreward.formats.agents.messages import MODEL, Reasoning
from stepreward.formats.agents.runs import gathered, lines_of
from stepreward.formats.fields import first_value, json_fields, list_at, object_at, outcome_or_nan, text_at
from stepreward.formats.format import Format
from stepreward.formats.recorded_scores import IDENTIFIER, RECORDED, ScoreLayout, Scores, Take, numbers_of, stable_id
from stepreward.formats.rows import Row, other_fields, text_or_none
from stepreward.formats.traces.call_payloads import Call, finish, messages, runs

_TYPES = frozenset({"GENERATION", "SPAN", "EVENT", "AGENT", "TOOL", "CHAIN", "RETRIEVER", "EVALUATOR", "EMBEDDING",
                    "GUARDRAIL"})  # fmt: skip
_KEPT = ("usage", "usageDetails", "costDetails", "startTime", "endTime", "level", "statusMessage", "modelParameters",
         "usage_details", "cost_details", "start_time", "end_time", "status_message", "model_parameters")  # fmt: skip
_OF = ("observationId", "observation_id")
"""What a score is about, where that is no whole trace."""
_TRACE = frozenset({"projectId", "htmlPath", "observations", "userId", "sessionId", "latency", "totalCost", "release",
                    "bookmarked", "environment", "public"})  # fmt: skip


def _is_observation(line: object) -> bool:
    if not isinstance(line, Mapping) or not ("traceId" in line or "trace_id" in line):
        return False
    return isinstance(line.get("type"), str) and line["type"].upper() in _TYPES


def _is_trace(line: object) -> bool:
    if not isinstance(line, Mapping) or "run_type" in line:
        return False
    observations = line.get("observations")
    if isinstance(observations, list) and any(map(_is_observation, observations)):
        return True
    return {"id", "input", "output"} <= line.keys() and "object" not in line and len(_TRACE & line.keys()) >= 2


def matches(row: Row) -> bool:
    """Whether a row is a trace or an observation of Langfuse, or such lines gathered."""
    return any(_is_observation(line) or _is_trace(line) for line in lines_of(row))


def read(
    row: Row, number: int, *, score: str = "", scale: float = 1.0, reasoning: Reasoning = "keep"
) -> Iterator[Trajectory]:
    """Reads the generations of a trace, or its `input` and `output` where it has none.

    A generation that a later one continues is part of that one. The outcome is the score named, else the only
    numeric one of the trace, NaN where that is no number from 0 to `scale`; all scores stay in meta. Those of a
    generation are columns of scores by name.

    Args:
        row: a trace, or gathered `lines`.
        number: its 1-based number, used where it has no id.
        score: the name of the score that is the outcome.
        scale: the largest score; outcomes are scores divided by it.
        reasoning: whether recorded reasoning opens an action's text.

    Raises:
        InputError: no generation has an output, its messages are of another shape, or there is no such score.
    """
    lines = [line for line in lines_of(row) if isinstance(line, Mapping)]
    trace = next(filter(_is_trace, lines), {})
    if isinstance(trace.get("trace"), Mapping):  # As it is downloaded from a trace's page.
        scores = first_value(trace, "scores", "trace.scores")
        trace = {**trace["trace"], "observations": trace.get("observations"), "scores": scores}
    observations = trace["observations"] if isinstance(trace.get("observations"), list) else lines
    listed = [one for one in list_at(trace, "scores") if isinstance(one, Mapping) and "name" in one]
    calls = [_call(one, listed) for one in observations if _is_observation(one) and one["type"].upper() == "GENERATION"]
    found = [call for call in calls if call.outputs]
    if not found and trace:
        inputs, outputs = messages(trace.get("input"), "user"), messages(trace.get("output"), MODEL)
        # An agent's output often holds the whole conversation.
        whole = outputs[: len(inputs)] == inputs
        found = [Call([] if whole else inputs, outputs)] if outputs else []
    scores = {str(name): value for name, value in object_at(trace, "scores").items()}
    # Those of an observation are about one step.
    scores |= {str(one["name"]): one.get("value") for one in listed if first_value(one, *_OF) is None}
    # Scores of categories and comments are texts: only a number can be the outcome.
    numbers = [name for name, value in scores.items() if isinstance(value, int | float)]
    if score and score not in scores:
        raise InputError(f"no score is called {score!r}", remedy=f"the trace has {', '.join(scores) or 'none'}")
    name = score or (numbers[0] if len(numbers) == 1 else "")
    marked = trace.get("id") or next((first_value(one, "traceId", "trace_id") for one in lines), None) or number
    yield from runs(
        found, f"langfuse-{marked}", "langfuse trace", won=outcome_or_nan(scores.get(name), scale), reasoning=reasoning,
        reference=text_or_none(first_value(trace, "expectedOutput", "expected_output")),
        meta=other_fields(trace, "observations", "input", "output", "scores") | ({"scores": scores} if scores else {}),
    )  # fmt: skip


def _call(one: Mapping[str, Any], listed: Sequence[Mapping[str, Any]]) -> Call:
    own, trace = text_at(one, "id"), text_at(one, "traceId", "trace_id")
    mine = {score["name"]: score.get("value") for score in listed if own and first_value(score, *_OF) == own}
    meta = json_fields(one, *_KEPT) | ({"observation_id": own} if own else {}) | ({"trace_id": trace} if trace else {})
    meta |= {RECORDED: scores} if (scores := numbers_of(mine)) else {}
    start = text_at(one, "startTime", "start_time")
    model = text_at(one, "model", "providedModelName", "provided_model_name")
    return Call(
        messages(one.get("input"), "user"), messages(one.get("output"), MODEL), start,
        model, finish(parsed(one.get("output"))), meta,
    )  # fmt: skip


def place(number: int, nth: int, step: Step) -> Hashable | None:
    """The observation of an action, by its trace and its own id."""
    meta = step.meta
    return (meta.get("trace_id", ""), meta["observation_id"]) if "observation_id" in meta else None


def with_scores(row: Row, number: int, take: Take) -> Row:
    """The trace with scores of its observations among its `scores`, those of an earlier time replaced by id.

    Raises:
        InputError: the row is an observation, or has scores by name: neither can hold those of observations.
    """
    of_page = isinstance(row.get("trace"), Mapping)
    observations = [one for one in list_at(row, "observations") or [row] if isinstance(one, Mapping)]
    made = [score for one in observations for score in _scores_of(one, take)]
    if not made:
        return row
    outer = row["trace"] if of_page and "scores" not in row else row
    if not _is_trace(row) or isinstance(outer.get("scores"), Mapping):
        what = "is an observation" if not _is_trace(row) else "has its scores by name"
        raise InputError(f"row {number} {what}, which can hold no scores of steps", remedy="write --to scores")
    ids = {score["id"] for score in made}
    kept = [one for one in list_at(outer, "scores") if not (isinstance(one, Mapping) and one.get("id") in ids)]
    scored = {**outer, "scores": [*kept, *made]}
    return {**row, "trace": scored} if outer is not row else scored


def _scores_of(one: Mapping[str, Any], take: Take) -> Iterator[dict[str, Any]]:
    own, trace = text_at(one, "id"), text_at(one, "traceId", "trace_id")
    return (_score(trace, own, name, value) for name, value in take((trace, own)).items())


def _score(trace: str, observation: str, name: str, value: float) -> dict[str, Any]:
    """A score, as Langfuse's API takes it; its id follows from what it is of: what is sent twice is there once."""
    return {"id": stable_id(IDENTIFIER, trace, observation, name), "traceId": trace, "observationId": observation,
            "name": name, "value": value, "dataType": "NUMERIC", "comment": IDENTIFIER}  # fmt: skip


def api_rows(step: Step, scores: Scores) -> Iterator[dict[str, Any]]:
    """Scores of Langfuse's API: each is the body of `POST /api/public/scores`."""
    for name, value in scores.items():
        yield _score(step.meta.get("trace_id", ""), step.meta["observation_id"], name, value)


FORMATS: tuple[Format, ...] = (
    Format("langfuse", "Langfuse traces and observations", matches, read,
           rows=partial(gathered, key=lambda line: text_at(line, "traceId", "trace_id"), whole=_is_trace),
           scores=ScoreLayout(place, with_scores, api_rows)),
)  # fmt: skip
