"""Results of the verifiers library: rows of rollouts, and the message graphs of its version 1."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from stepreward.core.errors import InputError
from stepreward.core.types import Problem, Trajectory
from stepreward.formats.agents.messages import (
    MODEL,
    Reasoning,
    Turn,
    message_list,
    name_tools,
    prompt_of,
    read_message,
    step_of,
    turns_of,
)
from stepreward.formats.agents.runs import path_to, trajectory_of
from stepreward.formats.fields import first_value, json_fields, object_at, outcome_or_nan, text_at
from stepreward.formats.format import Format
from stepreward.formats.rows import Row, annotated, id_of, need, other_fields, shown, text_or_none
from stepreward.formats.samples.rollout_logs import cut

_MARKS = frozenset({"example_id", "task", "generation_ms", "timing", "is_completed", "info", "stop_condition"})
_OWN = ("prompt", "completion", "answer", "reward")


def matches(row: Row) -> bool:
    """Whether a row looks like a rollout of verifiers."""
    return {"prompt", "completion", "reward"} <= row.keys() and bool(_MARKS & row.keys())


def read(row: Row, number: int, *, scale: float = 1.0, reasoning: Reasoning = "keep") -> Iterator[Trajectory]:
    """Reads `prompt` and `completion`, messages or texts; `answer` is the reference, `reward` the outcome.

    Rollouts of one `example_id` are trajectories of one problem. A reward that is no number from 0 to `scale` is NaN
    as an outcome and stays in meta, as do metrics, `info` and errors. A truncated or failed rollout is not terminal.

    Args:
        number: its 1-based number.
        scale: the largest reward; outcomes are rewards divided by it.
        reasoning: whether recorded reasoning opens an action's text.

    Raises:
        InputError: a field is missing or of another shape, or the model says nothing.
    """
    prompt = prompt_of(row.get("prompt"), "prompt")
    said = row.get("completion")
    if isinstance(said, str):
        if not said:
            raise InputError("'completion' is empty")
        steps = cut(said)
    else:
        turns = turns_of(message_list(said, "completion"))
        steps = tuple(step_of(turn, reasoning=reasoning) for turn in turns)
        if not any(step.kind == "action" for step in steps):
            raise InputError("no message of 'completion' is of the model")
    marked = row.get("example_id", row.get("id"))
    name = f"verifiers-{row.get('task') or ''}{marked}" if marked is not None else id_of("verifiers", prompt)
    made = annotated(
        Problem(name, prompt, text_or_none(row.get("answer")) or None), steps, None,
        "verifiers rewards", policy=text_at(row, "model"), outcome=outcome_or_nan(row.get("reward"), scale),
        facts=other_fields(row, *_OWN[:3]),
    )  # fmt: skip
    ended = row.get("is_truncated") is not True and not row.get("error")
    yield made if ended else replace(made, terminal=False)


def is_trace(row: Row) -> bool:
    """Whether a row looks like a trace of verifiers 1."""
    nodes = row.get("nodes")
    first = nodes[0] if isinstance(nodes, list) and nodes else None
    return isinstance(first, Mapping) and "message" in first and "task" in row


def read_trace(row: Row, number: int, *, scale: float = 1.0, reasoning: Reasoning = "keep") -> Iterator[Trajectory]:
    """Reads `nodes`: a trajectory for each path from a root to a leaf; what was `sampled` is an action.

    Token ids and log-probabilities are those of the sampled tokens, advantages stay with their steps. The outcome is
    the sum of the weighted `rewards`, NaN where there is none or it is not from 0 to `scale`; all of them stay in meta.

    Args:
        row: the trace.
        number: its 1-based number, used where it has no id.
        scale: the largest reward; outcomes are rewards divided by it.
        reasoning: whether recorded reasoning opens an action's text.

    Raises:
        InputError: a node has another shape, points to itself, or nothing was sampled.
    """
    nodes = need(row, "nodes", list)
    parents = [_parent(node, at) for at, node in enumerate(nodes)]
    inner = {parent for parent in parents if parent is not None}
    task = object_at(row, "task")
    data = object_at(task, "data")
    calls = [call for call in row.get("calls") or () if isinstance(call, Mapping)]
    leaves = [at for at in range(len(nodes)) if at not in inner]
    policy = next((text_at(call, "model") for call in calls if call.get("model")), "")
    name = first_value(task, "key", "hash", "data.id", "data.example_id", "data.idx") or row.get("id") or number
    for branch, leaf in enumerate(leaves):
        ends = {call.get("node"): call for call in calls}
        turns = [turn for at in path_to(leaf, parents) for turn in _turns(nodes[at], at, ends.get(at, {}))]
        yield trajectory_of(
            name_tools(turns), f"verifiers-{name}", "verifiers rewards", reasoning=reasoning, policy=policy,
            reference=text_or_none(first_value(data, "answer", "reference", "target")), won=_won(row, scale),
            problem_meta={"task": dict(task)},
            terminal=not row.get("errors") and row.get("is_completed") is not False
            and ends.get(leaf, {}).get("finish_reason") != "length",
            meta=other_fields(row, "nodes", "calls", "task") | ({"branch": branch} if len(leaves) > 1 else {}),
        )  # fmt: skip


def _parent(node: Any, at: int) -> int | None:
    """The place of a node's parent, which comes before it; None for a root."""
    if not isinstance(node, Mapping) or not isinstance(node.get("message"), Mapping):
        raise InputError(f"node {at} must have a 'message', got {shown(node)}")
    parent = node.get("parent")
    if parent is not None and not (isinstance(parent, int) and 0 <= parent < at):
        raise InputError(f"node {at} has the parent {shown(parent)}, which is none before it")
    return parent


def _turns(node: Mapping[str, Any], at: int, call: Mapping[str, Any]) -> list[Turn]:
    # The mask is True at tokens that the model sampled; others of the node are of the chat template.
    ids, mask, logs = (node.get(name) or [] for name in ("token_ids", "mask", "logprobs"))
    whole = node.get("sampled") is True and len(ids) == len(mask) > 0
    tokens = tuple(one for one, sampled in zip(ids, mask, strict=True) if sampled) if whole else None
    logprobs = None
    if tokens is not None and len(logs) in (len(ids), len(tokens)):
        some = logs if len(logs) == len(tokens) else [one for one, sampled in zip(logs, mask, strict=True) if sampled]
        logprobs = tuple(map(float, some))
    meta = json_fields(node, "timestamp", "advantages", "loss_weights") | json_fields(
        call, "finish_reason", "usage", "error"
    )
    return [
        replace(turn, tokens=tokens, logprobs=logprobs, meta=meta,
                copied=turn.role == MODEL and node.get("sampled") is False)
        for turn in read_message(node["message"], at)
    ]  # fmt: skip


def _won(row: Row, scale: float) -> float:
    """The outcome: `reward`, or the sum of the weighted `rewards`."""
    rewards = row.get("rewards")
    if isinstance(row.get("reward"), int | float):
        return outcome_or_nan(row["reward"], scale)
    if not isinstance(rewards, Mapping) or not rewards:
        return math.nan
    total = 0.0
    for reward in rewards.values():
        # A number is a score of weight 1.
        score, weight = reward, 1.0
        if isinstance(reward, Mapping):
            score, weight = reward.get("score"), reward.get("weight", 1.0)
        if not isinstance(score, int | float) or not isinstance(weight, int | float):
            return math.nan
        total += score * weight
    return outcome_or_nan(total, scale)


FORMATS: tuple[Format, ...] = (
    Format("verifiers", "rollouts and rewards of verifiers, results.jsonl", matches, read),
    Format("verifiers-trace", "traces of verifiers 1: message graphs with token ids", is_trace, read_trace),
)
