"""Conversations in no format of their own: lines of chat messages or response items, or a list of them in a field."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from stepreward.core.errors import InputError
from stepreward.core.types import Trajectory
from stepreward.formats.agents.messages import Reasoning, message_list, turns_of
from stepreward.formats.agents.response_items import is_item, turns_of_any
from stepreward.formats.agents.runs import LINES, gathered, lines_of, trajectory_of
from stepreward.formats.agents.tool_definitions import tools_apart
from stepreward.formats.fields import decoded, first_value, id_at, outcome_or_nan, text_at
from stepreward.formats.format import Format
from stepreward.formats.rows import Row, other_fields, shown, text_or_none

FIELDS = ("messages", "conversations", "conversation", "trajectory", "traj", "history", "dialogue", "dialog", "chat")
"""Fields of the messages of a conversation."""
KEYS = ("conversation_id", "session_id", "thread_id", "trajectory_id", "episode_id")
"""Fields that name the conversation of a line, where a file has lines of several."""
IDS = ("id", "trajectory_id", "traj_id", "instance_id", "task_id", "conversation_id", *KEYS)
_ELSEWHERE = frozenset({
    "info", "replay_config", "chosen", "rejected", "distilabel_metadata", "mistake_agent", "mistake_step",
    "trial_name", "episode", "test_result", "pred", "gt", "prompt", "completion", "step_labels", "request", "response",
})  # fmt: skip
"""Fields of other formats whose rows hold a list of messages."""
_LINE = frozenset({"uuid", "parentUuid", "payload", "traceId", "trace_id", "messages", "object", "choices", "source"})


def _is_line(value: object) -> bool:
    if not isinstance(value, Mapping) or _LINE & value.keys():
        return False
    spoken = isinstance(value.get("role"), str) and ("content" in value or "tool_calls" in value)
    return spoken or is_item(value)


def is_lines(row: Row) -> bool:
    """Whether a row is a chat message, or such lines gathered."""
    return any(map(_is_line, lines_of(row)))


def _key(line: Row) -> str:
    value = first_value(line, *KEYS)
    return f"{value}" if isinstance(value, str | int) else ""


def read_lines(row: Row, number: int, *, reasoning: Reasoning = "keep") -> Iterator[Trajectory]:
    """Reads messages with a `role` and `content`, or items of the Responses API, as one conversation.

    Args:
        row: gathered `lines`.
        number: the number of the first, used where they name no conversation.
        reasoning: whether recorded reasoning opens an action's text.

    Raises:
        InputError: the messages have another shape, or none is of the assistant.
    """
    lines = message_list(lines_of(row), LINES)
    turns = turns_of_any(lines)
    yield trajectory_of(turns, f"messages-{_key(lines[0]) or number}", "bare messages", reasoning=reasoning)


def _conversation(row: Row) -> tuple[str, Any]:
    """The field of the conversation and its messages; "" where there is none."""
    for name in FIELDS:
        value = decoded(row.get(name), "[")
        # `openai-chat` reads rows whose `messages` are a list; here they are the JSON of one.
        if name == "messages" and not isinstance(row.get(name), str):
            continue
        first = value[0] if isinstance(value, list) and value else None
        if isinstance(first, Mapping) and isinstance(first.get("role"), str) and "from" not in first:
            return name, value
    return "", None


def is_conversation(row: Row) -> bool:
    """Whether a row has a conversation, other than a list in `messages`, and is of no other format."""
    return bool(_conversation(row)[0]) and not _ELSEWHERE & row.keys() and not isinstance(row.get("messages"), list)


def read_conversation(
    row: Row, number: int, *, scale: float = 1.0, reasoning: Reasoning = "keep"
) -> Iterator[Trajectory]:
    """Reads `conversation`, `conversations`, `trajectory`, `history`, `dialogue` or `chat`: messages, or their JSON.

    `messages` is read where it is JSON in a text. The outcome is `reward`, `resolved`, `success`, `score` or `target`,
    NaN where it is no number from 0 to `scale`. Messages may have their text in `text` or `system_prompt`.

    Args:
        number: its 1-based number, used where the row has no id.
        scale: the largest reward; outcomes are rewards divided by it.
        reasoning: whether recorded reasoning opens an action's text.

    Raises:
        InputError: the messages have another shape, or none is of the assistant.
    """
    name, value = _conversation(row)
    if not name:
        raise InputError(f"no field has a list of messages: {', '.join(map(shown, row))}")
    # Published trajectories of SWE-agent have the prompt in `system_prompt` and all else in `text`.
    messages = [
        message
        if "content" in message
        else {**message, "content": first_value(message, "text", "system_prompt", "value")}
        for message in message_list(value, name)
    ]
    won = first_value(row, "reward", "resolved", "success", "outcome", "score", "target")
    tools, meta = tools_apart(other_fields(row, name))
    yield trajectory_of(
        turns_of(messages), f"conversation-{id_at(row, number, *IDS)}", "conversation log", reasoning=reasoning,
        reference=text_or_none(first_value(row, "reference", "answer")), policy=text_at(row, "model", "model_name"),
        won=outcome_or_nan(won, scale), problem_meta=tools, meta=meta,
    )  # fmt: skip


FORMATS: tuple[Format, ...] = (
    Format("bare-messages", "chat messages or response items without a frame", is_lines, read_lines,
           rows=partial(gathered, key=_key)),
    Format("conversation", "rows with messages in conversation, trajectory, history or chat", is_conversation,
           read_conversation),
)  # fmt: skip
