"""Exports of LangSmith: runs of models, chains and tools."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from stepreward.core.errors import InputError
from stepreward.core.segment.tool_calls import parsed
from stepreward.core.types import Trajectory
from stepreward.formats.agents.messages import MODEL, Reasoning
from stepreward.formats.agents.runs import gathered, lines_of
from stepreward.formats.fields import as_text, first_value, json_fields, list_at, outcome_or_nan, text_at
from stepreward.formats.format import Format
from stepreward.formats.rows import Row, text_or_none
from stepreward.formats.traces.call_payloads import Call, finish, messages, runs

_MODELS = ("extra.metadata.ls_model_name", "extra.invocation_params.model", "extra.invocation_params.model_name")
_KEPT = ("start_time", "end_time", "total_tokens", "prompt_tokens", "completion_tokens", "error", "status")


def _is_run(line: object) -> bool:
    return isinstance(line, Mapping) and isinstance(line.get("run_type"), str) and "inputs" in line


def matches(row: Row) -> bool:
    """Whether a row is a run of LangSmith, or such lines gathered."""
    return any(map(_is_run, lines_of(row)))


def _whole(lines: list[Any]) -> list[Mapping[str, Any]]:
    """The runs and those inside them, depth first."""
    found = []
    waiting = lines[::-1]
    while waiting:
        run = waiting.pop()
        if _is_run(run):
            found.append(run)
            waiting += list_at(run, "child_runs")[::-1]
    return found


def read(
    row: Row, number: int, *, feedback: str = "", scale: float = 1.0, reasoning: Reasoning = "keep"
) -> Iterator[Trajectory]:
    """Reads the `inputs` and `outputs` of a trace's runs of type `llm`, or of its root where there is none.

    A call that a later one continues is part of that one. The outcome is the mean of the feedback named, else of
    the only one, NaN where that is no number from 0 to `scale`. A trace with an `error` at its root keeps it in meta.

    Args:
        row: a run, or gathered `lines`.
        number: its 1-based number, used where no run names its trace.
        feedback: the key of the feedback that is the outcome.
        scale: the largest feedback; outcomes are feedback divided by it.
        reasoning: whether recorded reasoning opens an action's text.

    Raises:
        InputError: no run has an output of a model, its messages are of another shape, or there is no such feedback.
    """
    found = _whole(lines_of(row))
    root = next((run for run in found if not run.get("parent_run_id")), found[0] if found else {})
    calls = [call for run in found if run["run_type"] == "llm" and (call := _call(run)).outputs]
    if not calls and root:
        inputs, outputs = messages(parsed(root["inputs"]), "user"), messages(parsed(root.get("outputs")), MODEL)
        # A graph's output holds the whole conversation, its input included.
        whole = len(outputs) > len(inputs) and [one.get("content") for one in outputs[: len(inputs)]] == [
            one.get("content") for one in inputs
        ]  # fmt: skip
        calls = [Call([] if whole else inputs, outputs, meta=json_fields(root, *_KEPT))] if outputs else []
    given = [run.get("feedback_stats") for run in [root, *found]]
    stats: Mapping[str, Any] = next((one for one in given if isinstance(one, Mapping) and one), {})
    if feedback and feedback not in stats:
        raise InputError(f"no feedback is called {feedback!r}", remedy=f"the trace has {', '.join(stats) or 'none'}")
    name = feedback or (next(iter(stats)) if len(stats) == 1 else "")
    value = stats.get(name)
    won = first_value(value, "avg", "score") if isinstance(value, Mapping) else value
    marked = first_value(root, "trace_id", "id") or number
    yield from runs(
        calls, f"langsmith-{marked}", "langsmith trace", won=outcome_or_nan(won, scale), reasoning=reasoning,
        reference=text_or_none(first_value(root, "reference_outputs.answer", "reference_outputs.output")),
        meta=json_fields(root, "name", "tags", "session_id", "error", "status", "extra")
        | ({"feedback": dict(stats)} if stats else {}),
    )  # fmt: skip


def _call(run: Mapping[str, Any]) -> Call:
    outputs = parsed(run.get("outputs"))
    return Call(
        messages(parsed(run["inputs"]), "user"), messages(outputs, MODEL),
        text_at(run, "dotted_order") or text_at(run, "start_time"), text_at(run, *_MODELS),
        finish(outputs), json_fields(run, *_KEPT),
    )  # fmt: skip


FORMATS: tuple[Format, ...] = (
    Format("langsmith", "LangSmith runs", matches, read,
           rows=partial(gathered, key=lambda line: as_text(line.get("trace_id") or line.get("id")))),
)  # fmt: skip
