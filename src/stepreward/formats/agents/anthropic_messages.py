"""Anthropic message logs: rows of messages with a system prompt, and requests with their responses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from stepreward.core.errors import InputError
from stepreward.core.types import Problem, Trajectory
from stepreward.formats.agents.messages import MODEL, ProblemEnd, Reasoning, Turn, message_list, turns_of
from stepreward.formats.agents.openai_chat import (
    anthropic_style,
    has_messages,
    identity,
    messages_of,
    request_of,
    response_of,
)
from stepreward.formats.agents.runs import gathered_runs, is_cut, lines_of, trajectory_of, whole_runs, with_own_problem
from stepreward.formats.agents.tool_definitions import tools_apart
from stepreward.formats.fields import json_fields, recorded_outcome
from stepreward.formats.files.rows_of_files import Numbered, read_rows
from stepreward.formats.format import Format
from stepreward.formats.rows import Row, other_fields, shown, text_or_none

_OWN = ("messages", "request", "response", "body", "request_body", "response_body", "system", "reward", "reference")
_ABOUT = ("id", "stop_reason", "usage")
"""Fields of a response about its answer."""


def matches(row: Row) -> bool:
    """Whether a row looks like an Anthropic message log."""
    return has_messages(row) and anthropic_style(row)


def read(
    row: Row,
    number: int,
    *,
    problem: ProblemEnd = "lead",
    outcome: str = "",
    scale: float = 1.0,
    reasoning: Reasoning = "keep",
) -> Iterator[Trajectory]:
    """Reads `system` and `messages`, or `request` with its `response`.

    `tool_use` blocks are part of their action, as JSON; each `tool_result` block is an observation under the role
    `tool`; `thinking` opens the action's text. Calls that continue each other are one trajectory; it is not terminal
    if its last answer ended at `max_tokens`.

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
        line, request, response = lines[at], request_of(lines[at]), response_of(lines[at])
        tools, meta = tools_apart({**other_fields(line, *_OWN), **other_fields(request, *_OWN)})
        made = trajectory_of(
            turns, identity(line, "anthropic", number), "anthropic log", reasoning=reasoning, problem=problem,
            reference=text_or_none(line.get("reference")), won=recorded_outcome(line, outcome, scale),
            policy=str(response.get("model") or request.get("model") or ""),
            problem_meta=tools, terminal=not is_cut(line.get("stop_reason")),
            meta=meta | {f"response_{name}": value for name, value in json_fields(response, *_ABOUT).items()},
        )  # fmt: skip
        yield with_own_problem(made, known)


def _turns(line: Row) -> list[Turn]:
    """The turns of a line: of its messages, and of the response to its request.

    Raises:
        InputError: a message is of another shape.
    """
    request, response = request_of(line), response_of(line)
    opening = [{"role": "system", "content": request["system"]}] if request.get("system") is not None else []
    if response and response.get("role") != MODEL:
        raise InputError(f"'response' is no message of the assistant: {shown(response)}")
    turns = turns_of([*opening, *message_list(messages_of(line)), *([response] if response else [])])
    return [*turns[:-1], turns[-1].with_meta(**json_fields(response, *_ABOUT))]


def calls(path: Path) -> Iterator[Numbered]:
    """A row a run: requests with their responses that continue each other; rows of messages as they are."""
    yield from gathered_runs(read_rows(path), lambda row: [_turns(row)] if response_of(row) else [])


FORMATS: tuple[Format, ...] = (Format("anthropic", "Anthropic message logs with tool use", matches, read, rows=calls),)
