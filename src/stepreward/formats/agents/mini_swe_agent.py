"""Trajectories of mini-swe-agent, versions 1 and 2."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from stepreward.core.types import Trajectory
from stepreward.formats.agents.log import kept, named_text, outcome, solution, stated
from stepreward.formats.agents.messages import Reasoning, list_of_messages, turns_of
from stepreward.formats.agents.response_items import is_item, turns_of_items
from stepreward.formats.format import Format
from stepreward.formats.rows import Row, other_fields, text_or_none

_ENDED = frozenset({"", "Submitted", "submitted"})
"""Exit states of an agent that ended by itself."""


def matches(row: Row) -> bool:
    """Whether a row looks like a trajectory of mini-swe-agent."""
    form, info = row.get("trajectory_format"), row.get("info")
    named = isinstance(form, str) and form.startswith("mini-swe-agent")
    known = isinstance(info, Mapping) and ("mini_version" in info or {"exit_status", "submission"} <= info.keys())
    return isinstance(row.get("messages"), list) and (named or known)


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
    info: Mapping[str, Any] = row["info"] if isinstance(row.get("info"), Mapping) else {}
    messages = list_of_messages(row.get("messages"))
    ends = [message for message in messages if message.get("role") == "exit"]
    items: list[Any] = []
    for message in messages:
        if message.get("role") == "exit":
            continue
        output = message.get("output")
        items += output if message.get("object") == "response" and isinstance(output, list) else [message]
    turns, _ = turns_of_items(items) if any(map(is_item, items)) else (turns_of(items), [])
    extras = [item.get("extra") for item in items]
    turns = [
        replace(turn, meta={**turn.meta, **kept({"extra": extras[turn.place]}, "extra")})
        if 0 <= turn.place < len(extras) else turn
        for turn in turns
    ]  # fmt: skip
    status = named_text(info.get("exit_status"))
    if not status and ends:
        status = named_text(stated(ends[-1], "extra.exit_status"))
    model = stated(info, "config.model.model_name", "config.agent.model_name")
    yield solution(
        turns, f"mini-swe-agent-{stated(row, 'instance_id', 'id') or number}", "mini-swe-agent", reasoning=reasoning,
        policy=named_text(model), won=outcome(stated(row, "reward", "resolved")), terminal=status in _ENDED,
        answer=text_or_none(info.get("submission")) or None,
        meta={**other_fields(row, "messages", "info"), **other_fields(info, "submission"),
              **({"exit": other_fields(ends[-1])} if ends else {})},
    )  # fmt: skip


FORMATS: tuple[Format, ...] = (Format("mini-swe-agent", "mini-swe-agent trajectories, .traj.json", matches, read),)
