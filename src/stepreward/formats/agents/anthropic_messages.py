"""Anthropic message logs: rows of messages with a system prompt, and requests with their responses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from stepreward.core.errors import InputError
from stepreward.core.types import Problem, Trajectory
from stepreward.formats.agents.log import apart, ended, gathered_runs, lines_of, whole_runs
from stepreward.formats.agents.messages import (
    MODEL,
    Asked,
    Reasoning,
    Turn,
    chosen_outcome,
    episode,
    list_of_messages,
    turns_of,
)
from stepreward.formats.agents.openai_chat import (
    anthropic_style,
    has_messages,
    identity,
    messages_of,
    request_of,
    response_of,
)
from stepreward.formats.files.rows_of_files import Numbered, read_rows
from stepreward.formats.format import Format
from stepreward.formats.rows import Row, annotated, other_fields, shown, text_or_none

_OWN = ("messages", "request", "response", "body", "request_body", "response_body", "system", "reward", "reference")
_ENDED = ("id", "stop_reason", "usage")


def matches(row: Row) -> bool:
    """Whether a row looks like an Anthropic message log."""
    return has_messages(row) and anthropic_style(row)


def read(
    row: Row,
    number: int,
    *,
    problem: Asked = "lead",
    outcome: str = "",
    scale: float = 1.0,
    reasoning: Reasoning = "keep",
) -> Iterator[Trajectory]:
    """Reads `system` and `messages`, or `request` with its `response`.

    `tool_use` blocks stand in the action that makes them, as JSON; each `tool_result` block is an observation of its
    own under the role `tool`; `thinking` opens the action's text. Calls that go on with each other are one trajectory;
    an answer that ended at `max_tokens` leaves it not terminal.

    Args:
        row: the row, or gathered `lines`.
        number: its 1-based number, used where the row has no `id`.
        problem: all before the first action, or before the last, as if earlier ones were examples or someone else's.
        outcome: field of the outcome; `reward`, `outcome` or `success` where empty.
        scale: the largest reward; outcomes are rewards divided by it.
        reasoning: whether thinking opens an action's text.

    Raises:
        InputError: the messages have another shape, none is of the assistant, or the reward is none.
    """
    lines = lines_of(row)
    known: dict[str, list[Problem]] = {}
    for at, turns in whole_runs([_turns(line) for line in lines]):
        request, response = request_of(lines[at]), response_of(lines[at])
        task, steps = episode(
            turns, identity(lines[at], "anthropic", number), reference=text_or_none(lines[at].get("reference")),
            reasoning=reasoning, problem=problem,
        )  # fmt: skip
        meta = {**other_fields(lines[at], *_OWN), **other_fields(request, *_OWN)}
        for name in _ENDED:
            meta |= {f"response_{name}": response[name]} if response.get(name) is not None else {}
        made = annotated(
            task, steps, None, "anthropic log",
            policy=str(response.get("model") or request.get("model") or ""),
            outcome=chosen_outcome(lines[at], outcome, scale), facts=meta,
        )  # fmt: skip
        yield apart(ended(made, lines[at].get("stop_reason")), known)


def _turns(line: Row) -> list[Turn]:
    """What a line says, with the answer to its request.

    Raises:
        InputError: a message is of another shape.
    """
    request, response = request_of(line), response_of(line)
    opening = [{"role": "system", "content": request["system"]}] if request.get("system") is not None else []
    if response and response.get("role") != MODEL:
        raise InputError(f"'response' is no message of the assistant: {shown(response)}")
    turns = turns_of([*opening, *list_of_messages(messages_of(line)), *([response] if response else [])])
    more = {name: response[name] for name in _ENDED if response.get(name) is not None}
    turns[-1] = replace(turns[-1], meta={**turns[-1].meta, **more})
    return turns


def calls(path: Path) -> Iterator[Numbered]:
    """A row a run: requests with their responses that go on with each other; rows of messages as they are."""
    yield from gathered_runs(read_rows(path), lambda row: [_turns(row)] if response_of(row) else [])


FORMATS: tuple[Format, ...] = (Format("anthropic", "Anthropic message logs with tool use", matches, read, rows=calls),)
