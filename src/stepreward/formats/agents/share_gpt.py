"""ShareGPT's conversations, with the tool roles that trainers added to them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from stepreward.core.errors import InputError
from stepreward.core.segment.tool_calls import parsed
from stepreward.core.types import Trajectory
from stepreward.formats.agents.messages import MODEL, Reasoning, Turn, joined_turns
from stepreward.formats.agents.runs import LINES, gathered, lines_of, trajectory_of
from stepreward.formats.fields import decoded, first_value, id_at, json_fields, outcome_or_nan, plain_text, text_at
from stepreward.formats.files.rows_of_files import CONVERSATIONS
from stepreward.formats.format import Format
from stepreward.formats.rows import Row, other_fields, shown, text_or_none

FIELDS = (CONVERSATIONS, "conversation", "items", "messages", "trajectory")
_ROLES = {
    "human": "user", "user": "user", "prompter": "user", "gpt": MODEL, "assistant": MODEL, "chatgpt": MODEL,
    "bing": MODEL, "bard": MODEL, "claude": MODEL, "model": MODEL, "bot": MODEL, "ai": MODEL, "system": "system",
    "observation": "tool", "tool": "tool", "function_response": "tool", "tool_response": "tool",
    "function-response": "tool", "environment": "tool", "ipython": "tool", "function": "tool",
}  # fmt: skip
_CALLS = frozenset({"function_call", "function-call", "tool_call", "tool_calls"})


def _is_message(value: object) -> bool:
    return isinstance(value, Mapping) and {"from", "value"} <= value.keys()


def _conversation(row: Row) -> tuple[str, list[Any]]:
    """The field of the conversation and its messages; none where there are none."""
    for name in FIELDS:
        value = decoded(row.get(name), "[")
        if isinstance(value, list) and value and _is_message(value[0]):
            return name, value
    lines = lines_of(row)
    return LINES, lines if lines and _is_message(lines[0]) else []


def matches(row: Row) -> bool:
    """Whether a row holds messages with `from` and `value`, or is one, and compares no answers."""
    return bool(_conversation(row)[1]) and not {"chosen", "rejected"} & row.keys()


def read(row: Row, number: int, *, scale: float = 1.0, reasoning: Reasoning = "keep") -> Iterator[Trajectory]:
    """Reads `conversations` of messages with `from` and `value`; a `system` text opens the problem.

    `gpt` and its like, with the `function_call` that follows, are actions; `human` and `observation` are not. The
    outcome is `reward`, `score` or `success`, NaN where it is no number from 0 to `scale`.

    Args:
        number: its 1-based number, used where the row has no id.
        scale: the largest reward; outcomes are rewards divided by it.
        reasoning: `keep`, as the reasoning is part of the texts; `drop` is the same.

    Raises:
        InputError: a message has another shape, or none is of the model.
    """
    name, messages = _conversation(row)
    turns = [Turn("system", row["system"])] if text_at(row, "system") else []
    for place, message in enumerate(messages):
        turn = _turn(message, place)
        # Trainers write the text of an answer, and its calls, as two messages.
        if turns and turns[-1].role == MODEL and turn.calls and not turns[-1].calls:
            turns[-1] = joined_turns([turns[-1], turn])
        else:
            turns.append(turn)
    yield trajectory_of(
        turns, f"share-gpt-{id_at(row, number, 'id', 'item_id', 'conversation_id', 'idx')}", "sharegpt log",
        reasoning=reasoning, reference=text_or_none(first_value(row, "reference", "answer")),
        policy=text_or_none(row.get("model")) or "", meta=other_fields(row, name, "system"),
        won=outcome_or_nan(first_value(row, "reward", "score", "success"), scale),
    )  # fmt: skip


def _turn(message: Any, place: int) -> Turn:
    if not _is_message(message) or not isinstance(message["from"], str):
        raise InputError(f"message {place} needs 'from' and 'value', got {shown(message)}")
    speaker, text = message["from"].lower(), plain_text(message["value"])
    meta = json_fields(message, "loss", "weight", "train", "timestamp")
    if speaker in _CALLS:
        given = parsed(message["value"])
        given = given if isinstance(given, list) else [given]
        if all(isinstance(one, Mapping) and isinstance(one.get("name"), str) for one in given):
            calls = tuple(
                {"name": one["name"], "arguments": parsed(first_value(one, "arguments", "parameters", "args"))}
                for one in given
            )  # fmt: skip
            return Turn(MODEL, "", calls, place=place, meta=meta)
        return Turn(MODEL, text, place=place, meta=meta)
    # A speaker of another name is one of several in a role play, and not the model.
    role = _ROLES.get(speaker)
    return Turn(role or "user", text, agent=None if role else message["from"], place=place, meta=meta)


FORMATS: tuple[Format, ...] = (
    Format("share-gpt", "ShareGPT conversations, tool roles included", matches, read,
           rows=partial(gathered, whole=lambda row: not _is_message(row))),
)  # fmt: skip
