"""Trajectories of mini-swe-agent, versions 1 and 2."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from stepreward.core.types import Trajectory
from stepreward.formats.agents.messages import Reasoning, message_list
from stepreward.formats.agents.response_items import turns_of_any
from stepreward.formats.agents.runs import trajectory_of
from stepreward.formats.fields import first_value, json_fields, object_at, outcome_or_nan, text_at
from stepreward.formats.format import Format
from stepreward.formats.rows import Row, other_fields, text_or_none

_ENDED = frozenset({"", "Submitted", "submitted"})
"""Exit states of an agent that ended by itself."""


def has_mini_info(row: Row) -> bool:
    """Whether a row's `info` is that of mini-swe-agent, whose version 1 names no format."""
    info = row.get("info")
    return isinstance(info, Mapping) and ("mini_version" in info or {"exit_status", "submission"} <= info.keys())


def matches(row: Row) -> bool:
    """Whether a row looks like a trajectory of mini-swe-agent."""
    named = text_at(row, "trajectory_format").startswith("mini-swe-agent")
    return isinstance(row.get("messages"), list) and (named or has_mini_info(row))


def read(row: Row, number: int, *, reasoning: Reasoning = "keep") -> Iterator[Trajectory]:
    """Reads `messages`; the one of role `exit` and `info` say how the agent ended and what it submitted.

    An agent that a limit or an error stopped is not terminal. There is no outcome unless `resolved` or `reward` is
    beside it.

    Args:
        row: the file's object.
        number: 1, as a file holds one.
        reasoning: whether recorded reasoning opens an action's text.

    Raises:
        InputError: the messages have another shape, or the model says nothing.
    """
    info: Mapping[str, Any] = object_at(row, "info")
    messages = message_list(row.get("messages"))
    ends = [message for message in messages if message.get("role") == "exit"]
    items: list[Any] = []
    for message in messages:
        # With a model of the Responses API, version 2 logs each response as it is.
        is_response = message.get("object") == "response" and isinstance(message.get("output"), list)
        items += message["output"] if is_response else [message] if message.get("role") != "exit" else []
    # Version 2 keeps the actions that it ran, and their return codes, in `extra` of a message.
    turns = [turn.with_meta(**json_fields(items[turn.place], "extra")) for turn in turns_of_any(items)]
    status = text_at(info, "exit_status") or (text_at(ends[-1], "extra.exit_status") if ends else "")
    yield trajectory_of(
        turns, f"mini-swe-agent-{first_value(row, 'instance_id', 'id') or number}", "mini-swe-agent",
        reasoning=reasoning, policy=text_at(info, "config.model.model_name", "config.agent.model_name"),
        won=outcome_or_nan(first_value(row, "reward", "resolved")), terminal=status in _ENDED,
        answer=text_or_none(info.get("submission")) or None,
        meta={**other_fields(row, "messages", "info"), **other_fields(info, "submission"),
              **({"exit": other_fields(ends[-1])} if ends else {})},
    )  # fmt: skip


FORMATS: tuple[Format, ...] = (Format("mini-swe-agent", "mini-swe-agent trajectories, .traj.json", matches, read),)
