"""Harbor's agent trajectory interchange format (ATIF), versions 1.0 to 1.8, and the rows that Harbor exports of it."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Hashable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from stepreward.core.errors import InputError
from stepreward.core.segment.tool_calls import parsed
from stepreward.core.types import TOOLS, Step, Trajectory
from stepreward.formats.agents.messages import MODEL, Reasoning, Turn, message_list, name_tools, read_message, turns_of
from stepreward.formats.agents.runs import trajectory_of
from stepreward.formats.agents.tool_definitions import tool_definitions
from stepreward.formats.fields import (
    decoded,
    first_value,
    json_fields,
    list_at,
    object_at,
    outcome_or_nan,
    plain_text,
    text_at,
)
from stepreward.formats.format import Format
from stepreward.formats.recorded_scores import RECORDED, ScoreLayout, Take, numbers_of
from stepreward.formats.rows import Row, need, other_fields, shown, text_or_none

_DEFINED = "tool_definitions"
_SOURCES = {"agent": MODEL, "user": "user", "system": "system"}
_STEP = ("step_id", "timestamp", "model_name", "reasoning_effort", "metrics", "llm_call_count", "is_copied_context",
         "extra")  # fmt: skip
_REWARDS = (
    "reward", "verifier_result.rewards.reward", "verifier_result.reward", "extra.reward", "final_metrics.reward",
    "extra.verifier_result.rewards.reward", "final_metrics.extra.reward",
)  # fmt: skip


def matches(row: Row) -> bool:
    """Whether a row looks like a trajectory in ATIF."""
    row = _unwrapped(row)
    version = row.get("schema_version")
    return isinstance(version, str) and version.upper().startswith("ATIF") and "steps" in row


def _unwrapped(row: Row) -> Row:
    """The trajectory and the fields beside it, where a row has it in `trajectory`, as an object or as JSON text."""
    inner = decoded(row.get("trajectory"), "{")
    if "steps" in row or not isinstance(inner, Mapping):
        return row
    return {**{name: one for name, one in row.items() if name != "trajectory"}, **inner}


def read(row: Row, number: int, *, scale: float = 1.0, reasoning: Reasoning = "keep") -> Iterator[Trajectory]:
    """Reads `steps`: an agent's is an action, with an observation for each result; then the embedded sub-agents.

    Steps copied from another run are context, not actions. Token ids, their log-probabilities, metrics and `extra`
    stay with their steps; numbers in `extra.step_scores` are columns of scores by name. The layout has no outcome:
    `reward`, or a verifier's, is read where one is beside the steps.

    Args:
        row: the trajectory.
        number: its 1-based number, used where it has no id.
        scale: the largest reward; outcomes are rewards divided by it.
        reasoning: whether recorded reasoning opens an action's text.

    Raises:
        InputError: a step has another shape, or the agent does nothing.
    """
    turns: list[Turn] = []
    row = _unwrapped(row)
    for place, step in enumerate(need(row, "steps", list)):
        turns += _turns(step, place)
    agent = object_at(row, "agent")
    name = first_value(row, "trajectory_id", "session_id") or number
    won = first_value(row, *_REWARDS)
    rewards = object_at(row, "verifier_result.rewards")
    if won is None and len(rewards) == 1:
        won = next(iter(rewards.values()))  # A verifier may call its only reward by any name.
    tools = tool_definitions(agent.get(_DEFINED))
    about = {field: value for field, value in agent.items() if not (tools and field == _DEFINED)}
    meta = other_fields(row, "steps", "subagent_trajectories", "agent") | {"agent": about}
    yield trajectory_of(
        name_tools(turns), f"atif-{name}", "atif log", reasoning=reasoning, policy=text_at(agent, "model_name"),
        reference=text_or_none(row.get("reference")), won=outcome_or_nan(won, scale), meta=meta,
        problem_meta={TOOLS: tools} if tools else None,
    )  # fmt: skip
    for at, other in enumerate(list_at(row, "subagent_trajectories")):
        if not isinstance(other, Mapping):
            raise InputError(f"sub-agent {at} must be an object, got {shown(other)}")
        marked = first_value(other, "trajectory_id", "session_id") or f"{name}/{at}"
        yield from read({**other, "trajectory_id": marked}, number, scale=scale, reasoning=reasoning)


def _turns(step: Any, place: int) -> list[Turn]:
    """The turns of a step: what its source says, then the results of the calls that it makes."""
    if not isinstance(step, Mapping) or step.get("source") not in _SOURCES:
        raise InputError(f"step {place} must have a source among {', '.join(_SOURCES)}, got {shown(step)}")
    calls = step.get("tool_calls") or []
    if not isinstance(calls, list):
        raise InputError(f"'tool_calls' of step {place} must be a list, got {shown(calls)}")
    made = read_message(
        {"role": _SOURCES[step["source"]], "content": step.get("message"),
         "reasoning_content": step.get("reasoning_content"),
         "tool_calls": [
             {"id": call.get("tool_call_id"), "name": call.get("function_name"), "arguments": call.get("arguments")}
             for call in calls
         ]}, place,
    )  # fmt: skip
    tokens, logprobs = _sampled(object_at(step, "metrics"))
    copied = step.get("is_copied_context") is True
    meta = json_fields(step, *_STEP)
    scores = numbers_of(first_value(meta, f"extra.{RECORDED}"))
    if scores:
        extra = {name: value for name, value in meta.pop("extra").items() if name != RECORDED}
        meta |= {RECORDED: scores} | ({"extra": extra} if extra else {})
    turns = [replace(turn, copied=copied, tokens=tokens, logprobs=logprobs, meta=meta) for turn in made]
    results: Any = first_value(step, "observation.results")
    for result in results or []:
        content = first_value(result, "content", "subagent_trajectory_ref")
        # The content is a text, or a list of typed parts, images among them.
        typed = isinstance(content, list) and all(isinstance(part, Mapping) and "type" in part for part in content)
        parts = read_message({"role": "tool", "content": content if typed else plain_text(content)}, place)
        turns += [
            Turn("tool", part.text, answers=text_at(result, "source_call_id") or None, images=part.images,
                 place=place, meta=json_fields(result, "extra", "subagent_trajectory_ref"))
            for part in parts
        ]  # fmt: skip
    return turns


def _sampled(metrics: Mapping[str, Any]) -> tuple[tuple[int, ...] | None, tuple[float, ...] | None]:
    """The sampled tokens and their log-probabilities, each None where it is incomplete."""
    ids, logs = list_at(metrics, "completion_token_ids"), list_at(metrics, "logprobs")
    tokens = tuple(ids) if ids and all(type(one) is int for one in ids) else None
    finite = all(isinstance(one, int | float) and not isinstance(one, bool) and math.isfinite(one) for one in logs)
    fits = tokens is None or len(tokens) == len(logs)
    return tokens, tuple(map(float, logs)) if logs and finite and fits else None


def place(number: int, nth: int, step: Step) -> Hashable:
    """Where an action is: the row, the trajectory among those that the row embeds, and the step."""
    return number, nth, step.meta.get("message")


def with_scores(row: Row, number: int, take: Take) -> Row:
    """The row with scores in `extra.step_scores` of its steps, which validators of the layout leave to its writers."""
    count = iter(range(sys.maxsize))
    wrapped = _unwrapped(row) is not row
    made = _with_scores(_unwrapped(row), number, count, take)
    if not wrapped:
        return made
    inner = row["trajectory"]
    of_row = {name: made[name] for name in (decoded(inner, "{"))}
    return {**row, "trajectory": json.dumps(of_row, ensure_ascii=False) if isinstance(inner, str) else of_row}


def _with_scores(row: Row, number: int, count: Iterator[int], take: Take) -> Row:
    nth, steps = next(count), []
    for at, step in enumerate(row["steps"]):
        scores = take((number, nth, at)) if isinstance(step, Mapping) else {}
        if scores:
            extra = object_at(step, "extra")
            step = {**step, "extra": {**extra, RECORDED: {**object_at(extra, RECORDED), **scores}}}
        steps.append(step)
    inner = [_with_scores(one, number, count, take) for one in list_at(row, "subagent_trajectories")]
    return {**row, "steps": steps, **({"subagent_trajectories": inner} if inner else {})}


def is_trove(row: Row) -> bool:
    """Whether a row looks like one of AgentTrove's, or another export of Harbor's traces."""
    messages = parsed(row.get("conversations"))
    first = messages[0] if isinstance(messages, list) and messages else None
    marks = row.keys() & {"trial_name", "episode", "run_id", "result"}
    return isinstance(first, Mapping) and "role" in first and "agent" in row and bool(marks)


def read_trove(row: Row, number: int, *, reasoning: Reasoning = "keep") -> Iterator[Trajectory]:
    """Reads `conversations`; `result` is the outcome where it is a number, else the name of what went wrong.

    Attempts at one `task` are trajectories of one problem. A trial that an exception ended is not terminal.

    Args:
        number: its 1-based number, used where the row has no `task`.
        reasoning: whether recorded reasoning opens an action's text.

    Raises:
        InputError: the conversation has another shape, or the model says nothing.
    """
    turns = turns_of(message_list(parsed(row.get("conversations")), "conversations"))
    result = row.get("result")
    # Harbor writes the reward as a text, "1.0", and in its place the name of the exception that ended a trial.
    failed = isinstance(result, str) and result != ""
    with suppress(ValueError):
        failed = failed and math.isnan(float(str(result)))
    meta = other_fields(row, "conversations", "conversations_sharegpt") | ({"failure": result} if failed else {})
    yield trajectory_of(
        turns, f"agent-trove-{row.get('task') or number}", "agent trove", reasoning=reasoning,
        policy=text_at(row, "model"), won=outcome_or_nan(result), terminal=not failed, meta=meta,
    )  # fmt: skip


FORMATS: tuple[Format, ...] = (
    Format(
        "atif", "agent trajectories of Harbor, ATIF 1.0 to 1.8", matches, read, scores=ScoreLayout(place, with_scores)
    ),
    Format("agent-trove", "AgentTrove rows, exports of Harbor's traces", is_trove, read_trove),
)
