"""Harbor's agent trajectory interchange format (ATIF), versions 1.0 to 1.8, and the rows that Harbor exports of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from stepreward.core.errors import InputError
from stepreward.core.segment.tool_calls import parsed
from stepreward.core.types import Trajectory
from stepreward.formats.agents.log import kept, named_text, outcome, solution, stated, text_of
from stepreward.formats.agents.messages import MODEL, Reasoning, Turn, list_of_messages, named, read_message, turns_of
from stepreward.formats.format import Format
from stepreward.formats.rows import Row, need, other_fields, shown, text_or_none

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
    value = row.get("trajectory")
    inner = parsed(value) if isinstance(value, str) and value.lstrip()[:1] == "{" else value
    if "steps" in row or not isinstance(inner, Mapping):
        return row
    return {**{name: one for name, one in row.items() if name != "trajectory"}, **inner}


def read(row: Row, number: int, *, scale: float = 1.0, reasoning: Reasoning = "keep") -> Iterator[Trajectory]:
    """Reads `steps`: an agent's is an action, with an observation for each result; then the embedded sub-agents.

    Steps copied from another run are context, not actions. Token ids, their log-probabilities, metrics and `extra`
    stay with their steps. The layout has no outcome: `reward`, or a verifier's, is read where one is beside the steps.

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
    agent = row["agent"] if isinstance(row.get("agent"), Mapping) else {}
    name = stated(row, "trajectory_id", "session_id") or number
    rewards = stated(row, "verifier_result.rewards")
    only = next(iter(rewards.values())) if isinstance(rewards, Mapping) and len(rewards) == 1 else None
    won = stated(row, *_REWARDS)
    meta = other_fields(row, "steps", "subagent_trajectories", "agent") | {"agent": dict(agent)}
    yield solution(
        named(turns), f"atif-{name}", "atif log", reasoning=reasoning, reference=text_or_none(row.get("reference")),
        policy=named_text(agent.get("model_name")), won=outcome(only if won is None else won, scale), meta=meta,
    )  # fmt: skip
    inner = row.get("subagent_trajectories")
    for at, other in enumerate(inner if isinstance(inner, list) else []):
        if not isinstance(other, Mapping):
            raise InputError(f"sub-agent {at} must be an object, got {shown(other)}")
        marked = stated(other, "trajectory_id", "session_id") or f"{name}/{at}"
        yield from read({**other, "trajectory_id": marked}, number, scale=scale, reasoning=reasoning)


def _turns(step: Any, place: int) -> list[Turn]:
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
    metrics = step["metrics"] if isinstance(step.get("metrics"), Mapping) else {}
    tokens, logprobs = _sampled(metrics)
    copied = step.get("is_copied_context") is True
    turns = [
        Turn(turn.role, turn.text, turn.calls, turn.reasoning, images=turn.images, place=place, copied=copied,
             tokens=tokens, logprobs=logprobs, meta=kept(step, *_STEP))
        for turn in made
    ]  # fmt: skip
    observation = step.get("observation")
    results = observation.get("results") if isinstance(observation, Mapping) else None
    for result in results or []:
        content = result.get("content")
        if content is None:
            content = result.get("subagent_trajectory_ref")
        typed = isinstance(content, list) and all(isinstance(part, Mapping) and "type" in part for part in content)
        parts = read_message({"role": "tool", "content": content if typed else text_of(content)}, place)
        turns += [
            Turn("tool", part.text, answers=named_text(result.get("source_call_id")) or None, images=part.images,
                 place=place, meta=kept(result, "extra", "subagent_trajectory_ref"))
            for part in parts
        ]  # fmt: skip
    return turns


def _sampled(metrics: Mapping[str, Any]) -> tuple[tuple[int, ...] | None, tuple[float, ...] | None]:
    """The sampled tokens and their log-probabilities, each None where it is incomplete."""
    ids, logs = metrics.get("completion_token_ids"), metrics.get("logprobs")
    tokens = tuple(ids) if isinstance(ids, list) and ids and all(type(one) is int for one in ids) else None
    whole = isinstance(logs, list) and logs and all(
        isinstance(one, int | float) and not isinstance(one, bool) and math.isfinite(one) for one in logs
    )  # fmt: skip
    logprobs = tuple(map(float, logs)) if whole and isinstance(logs, list) else None
    if tokens is not None and logprobs is not None and len(tokens) != len(logprobs):
        return tokens, None
    return tokens, logprobs


def is_trove(row: Row) -> bool:
    """Whether a row looks like one of AgentTrove's, or another export of Harbor's traces."""
    talk = row.get("conversations")
    talk = parsed(talk) if isinstance(talk, str) else talk
    first = talk[0] if isinstance(talk, list) and talk else None
    marks = row.keys() & {"trial_name", "episode", "run_id", "result"}
    return isinstance(first, Mapping) and "role" in first and "agent" in row and bool(marks)


def read_trove(row: Row, number: int, *, reasoning: Reasoning = "keep") -> Iterator[Trajectory]:
    """Reads `conversations`; `result` is the outcome where it is a number, else the name of what went wrong.

    Attempts at one `task` are trajectories of one problem. A trial that an exception ended is not terminal.

    Args:
        row: the row.
        number: its 1-based number, used where the row has no `task`.
        reasoning: whether recorded reasoning opens an action's text.

    Raises:
        InputError: the conversation has another shape, or the model says nothing.
    """
    talk = row.get("conversations")
    turns = turns_of(list_of_messages(parsed(talk) if isinstance(talk, str) else talk, "conversations"))
    result = row.get("result")
    won = outcome(result)
    failed = isinstance(result, str) and bool(result) and math.isnan(_number(result))
    meta = other_fields(row, "conversations", "conversations_sharegpt") | ({"failure": result} if failed else {})
    yield solution(
        turns, f"agent-trove-{row.get('task') or number}", "agent trove", reasoning=reasoning,
        policy=named_text(row.get("model")), won=won, terminal=not failed, meta=meta,
    )  # fmt: skip


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


FORMATS: tuple[Format, ...] = (
    Format("atif", "agent trajectories of Harbor, ATIF 1.0 to 1.8", matches, read),
    Format("agent-trove", "AgentTrove rows, exports of Harbor's traces", is_trove, read_trove),
)
