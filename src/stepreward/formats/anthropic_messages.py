"""Anthropic message logs: rows of messages with a system prompt, and requests with their responses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from stepreward.core.annotations import Annotated
from stepreward.core.errors import InputError
from stepreward.formats.format import Format
from stepreward.formats.messages import Asked, Reasoning, chosen_outcome, episode, list_of_messages, turns_of
from stepreward.formats.openai_chat import anthropic_style, has_messages, identity, request_of, response_of
from stepreward.formats.rows import Row, annotated, rest_of, shown, text_or_none

_OWN = ("messages", "request", "response", "body", "system", "reward", "reference")


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
) -> Iterator[Annotated]:
    """Reads `system` and `messages`, or `request` with its `response`.

    `tool_use` blocks stand in the action that makes them, as JSON; each `tool_result` block is an observation of its
    own under the role `tool`; `thinking` opens the action's text.

    Args:
        row: the row.
        number: its 1-based number, used where the row has no `id`.
        problem: all before the first action, or before the last, as if earlier ones were examples or someone else's.
        outcome: field of the outcome; `reward`, `outcome` or `success` where empty.
        scale: the largest reward; outcomes are rewards divided by it.
        reasoning: whether thinking opens an action's text.

    Raises:
        InputError: the messages have another shape, none is of the assistant, or the reward is none.
    """
    request, response = request_of(row), response_of(row)
    opening: list[Mapping[str, Any]] = []
    if request.get("system") is not None:
        opening = [{"role": "system", "content": request["system"]}]
    asked = [*opening, *list_of_messages(request.get("messages"))]
    end = [response] if response.get("role") == "assistant" else []
    if response and not end:
        raise InputError(f"'response' is no message of the assistant: {shown(response)}", remedy="drop the row")
    task, steps = episode(
        turns_of([*asked, *end]), identity(row, "anthropic", number), reference=text_or_none(row.get("reference")),
        reasoning=reasoning, problem=problem,
    )  # fmt: skip
    meta = {**rest_of(row, *_OWN), **rest_of(request, *_OWN)}
    for name in ("id", "stop_reason", "usage"):
        meta |= {f"response_{name}": response[name]} if response.get(name) is not None else {}
    yield annotated(
        task, steps, np.full(len(steps), np.nan), "anthropic log",
        policy=str(response.get("model") or request.get("model") or ""), outcome=chosen_outcome(row, outcome, scale),
        meta=meta,
    )  # fmt: skip


FORMATS: tuple[Format, ...] = (Format("anthropic", "Anthropic message logs with tool use", matches, read),)
