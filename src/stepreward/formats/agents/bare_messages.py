"""Conversations without a frame: a JSON list or lines of chat messages or response items, or a list in a field."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stepreward.core.errors import InputError
from stepreward.core.segment.tool_calls import parsed
from stepreward.core.types import Trajectory
from stepreward.formats.agents.log import LINES, gathered, lines_of, named_text, outcome, solution, stated
from stepreward.formats.agents.messages import Reasoning, list_of_messages, turns_of
from stepreward.formats.agents.response_items import is_item, turns_of_items
from stepreward.formats.files.rows_of_files import Numbered
from stepreward.formats.format import Format
from stepreward.formats.rows import Row, other_fields, shown, text_or_none

FIELDS = ("messages", "conversations", "conversation", "trajectory", "traj", "history", "dialogue", "dialog", "chat")
"""Fields that hold the messages of a conversation."""
KEYS = ("conversation_id", "session_id", "thread_id", "trajectory_id", "episode_id")
"""Fields that separate the lines of several conversations in one file."""
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
    value = stated(line, *KEYS)
    return f"{value}" if isinstance(value, str | int) else ""


def open_lines(path: Path) -> Iterator[Numbered]:
    """The lines of a file as one conversation, or as several where they name theirs."""
    yield from gathered(path, _key)


def read_lines(row: Row, number: int, *, reasoning: Reasoning = "keep") -> Iterator[Trajectory]:
    """Reads messages with a `role` and `content`, or items of the Responses API, as one conversation.

    Args:
        row: gathered `lines`.
        number: the number of the first, used where they name no conversation.
        reasoning: whether recorded reasoning opens an action's text.

    Raises:
        InputError: the messages have another shape, or none is of the assistant.
    """
    lines = list_of_messages(lines_of(row), LINES)
    turns, _ = turns_of_items(lines) if any(map(is_item, lines)) else (turns_of(lines), [])
    yield solution(turns, f"messages-{_key(lines[0]) or number}", "bare messages", reasoning=reasoning)


def _held(row: Row) -> tuple[str, Any]:
    """The field that holds the conversation, and its value; OpenAI's reader has `messages` that are a list."""
    for name in FIELDS:
        value = row.get(name)
        if isinstance(value, str) and value.lstrip()[:1] == "[":
            value = parsed(value)
        elif name == "messages":
            continue
        first = value[0] if isinstance(value, list) and value else None
        if isinstance(first, Mapping) and isinstance(first.get("role"), str) and "from" not in first:
            return name, value
    return "", None


def is_held(row: Row) -> bool:
    """Whether a row holds a conversation, other than a list in `messages`, and is of no other format."""
    return bool(_held(row)[0]) and not _ELSEWHERE & row.keys() and not isinstance(row.get("messages"), list)


def read_held(row: Row, number: int, *, scale: float = 1.0, reasoning: Reasoning = "keep") -> Iterator[Trajectory]:
    """Reads `conversation`, `conversations`, `trajectory`, `history`, `dialogue` or `chat`: messages, or their JSON.

    `messages` is read where it is JSON in a text. The outcome is `reward`, `resolved`, `success`, `score` or `target`,
    NaN where it is no number from 0 to `scale`. Messages may hold their text in `text` or `system_prompt`.

    Args:
        row: the row.
        number: its 1-based number, used where the row has no id.
        scale: the largest reward; outcomes are rewards divided by it.
        reasoning: whether recorded reasoning opens an action's text.

    Raises:
        InputError: the messages have another shape, or none is of the assistant.
    """
    name, value = _held(row)
    if not name:
        raise InputError(f"no field holds a list of messages: {', '.join(map(shown, row))}")
    messages = [_with_content(one) for one in list_of_messages(value, name)]
    marked = stated(row, *IDS)
    won = stated(row, "reward", "resolved", "success", "outcome", "score", "target")
    yield solution(
        turns_of(messages), f"conversation-{marked if isinstance(marked, str | int) else number}", "conversation log",
        reasoning=reasoning, reference=text_or_none(stated(row, "reference", "answer")),
        policy=named_text(stated(row, "model", "model_name")), won=outcome(won, scale), meta=other_fields(row, name),
    )  # fmt: skip


def _with_content(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """The message with `content`, which some data sets call `text`, and a system's `system_prompt`."""
    if "content" in message:
        return message
    said = stated(message, "text", "system_prompt", "value")
    return message if said is None else {**message, "content": said}


FORMATS: tuple[Format, ...] = (
    Format("bare-messages", "chat messages or response items without a frame", is_lines, read_lines, rows=open_lines),
    Format("conversation", "rows with messages in conversation, trajectory, history or chat", is_held, read_held),
)
