"""Logs of OpenAI's Responses API: requests with their responses, chained by id or by repeated input."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from stepreward.core.errors import InputError
from stepreward.core.types import TOOLS, Trajectory
from stepreward.formats.agents.messages import Reasoning, Turn
from stepreward.formats.agents.openai_chat import request_of, response_of
from stepreward.formats.agents.response_items import is_item, turns_of_items
from stepreward.formats.agents.runs import LINES, continued_from, lines_of, path_to, trajectory_of
from stepreward.formats.agents.tool_definitions import tools_apart
from stepreward.formats.fields import as_text, first_value, json_fields, list_at, outcome_or_nan
from stepreward.formats.files.rows_of_files import Numbered, read_rows
from stepreward.formats.format import Format
from stepreward.formats.rows import Row, other_fields, shown, text_or_none

_OWN = ("input", "output", "request", "response", "body", "instructions", "reference", "reward", "previous_response_id")
_KEPT = ("usage", "status", "incomplete_details", "error", "created_at", "service_tier")


def _response(line: Row) -> Mapping[str, Any]:
    """The response of a line: under `response`, or the line itself."""
    return response_of(line) or line


def _is_line(line: object) -> bool:
    if not isinstance(line, Mapping) or "traceId" in line or "trace_id" in line or line.get("run_type"):
        return False
    made = _response(line)
    output = list_at(made, "output")
    has_items = any(is_item(one) or (isinstance(one, Mapping) and one.get("type") == "message") for one in output)
    return has_items and (made.get("object") == "response" or "input" in request_of(line))


def matches(row: Row) -> bool:
    """Whether a row is a request and response of the Responses API, or such lines gathered."""
    return any(map(_is_line, lines_of(row)))


def _previous(line: Row) -> str:
    return as_text(_response(line).get("previous_response_id") or request_of(line).get("previous_response_id"))


def runs(path: Path) -> Iterator[Numbered]:
    """A row a run: responses joined by `previous_response_id`, without runs that another one repeats and continues.

    The file is in memory.
    """
    alone: list[tuple[int, Row]] = []
    for number, row in read_rows(path):
        if isinstance(row, InputError) or row.keys() == {LINES}:
            yield number, row
        else:
            alone.append((number, row))
    of = {as_text(_response(row).get("id")): at for at, (_, row) in enumerate(alone)}
    named = [of.get(_previous(row)) if _previous(row) else None for _, row in alone]
    # A response can only continue one before it: ids that occur twice must not make circles.
    earlier = [None if one is not None and one >= at else one for at, one in enumerate(named)]
    inner = {one for one in earlier if one is not None}
    chains = []
    talks: list[list[Turn]] = []
    for at, (number, _) in enumerate(alone):
        if at not in inner:
            chains.append((number, {LINES: [alone[one][1] for one in path_to(at, earlier)]}))
            talks.append([])
            with suppress(InputError):  # The reader reports what is wrong with a chain.
                talks[-1] = turns_of_items(_items(chains[-1][1][LINES]))[0]
    repeated = set(continued_from(talks))
    yield from (chain for at, chain in enumerate(chains) if at not in repeated)


def _items(lines: list[Any]) -> list[Any]:
    """The items of a chain of responses: instructions, and the input and output of each."""
    items: list[Any] = []
    for at, line in enumerate(lines):
        request, response = request_of(line), _response(line)
        instructions = response.get("instructions") or request.get("instructions")
        inputs = request.get("input", response.get("input"))
        for name, value in (("instructions", instructions), ("input", inputs)):
            if not isinstance(value, str | list | None):
                raise InputError(f"'{name}' must be text or a list of items, got {shown(value)}")
        if instructions and at == 0:
            items += [{"role": "system", "content": instructions}] if isinstance(instructions, str) else instructions
        items += [{"role": "user", "content": inputs}] if isinstance(inputs, str) else inputs or []
        output = response.get("output")
        if not isinstance(output, list):
            raise InputError(f"'output' must be a list of items, got {shown(output)}")
        items += output
    return items


def read(row: Row, number: int, *, scale: float = 1.0, reasoning: Reasoning = "keep") -> Iterator[Trajectory]:
    """Reads `input` and `output`, of the row or of its `request` and `response`; `instructions` open the problem.

    Responses that name the one before by `previous_response_id` are one trajectory. Reasoning, message and calls up to
    the next result are one action. A response that is not complete leaves the trajectory not terminal. The outcome is
    `reward` or `score` of the last row, NaN where it is no number from 0 to `scale`.

    Args:
        row: the row, or gathered `lines`.
        number: its 1-based number, used where the response has no id.
        scale: the largest reward; outcomes are rewards divided by it.
        reasoning: whether recorded reasoning opens an action's text.

    Raises:
        InputError: an item has another shape, or the model says nothing.
    """
    lines = lines_of(row)
    if not lines or not all(isinstance(line, Mapping) for line in lines):
        raise InputError(f"'{LINES}' must be a list of objects, got {shown(lines)}")
    turns, others = turns_of_items(_items(lines))
    last, response = lines[-1], _response(lines[-1])
    tools, meta = tools_apart(
        json_fields(response, TOOLS) | other_fields(last, *_OWN) | other_fields(request_of(last), *_OWN)
    )
    meta |= json_fields(response, *_KEPT)
    meta |= {"other_items": others} if others else {}
    name = response.get("id") or first_value(last, "custom_id", "id") or number
    yield trajectory_of(
        turns, f"openai-responses-{name}", "openai responses log", reasoning=reasoning,
        reference=text_or_none(last.get("reference")), won=outcome_or_nan(first_value(last, "reward", "score"), scale),
        policy=as_text(response.get("model") or request_of(last).get("model")),
        problem_meta=tools, terminal=response.get("status") in (None, "completed"), meta=meta,
    )  # fmt: skip


FORMATS: tuple[Format, ...] = (
    Format("openai-responses", "OpenAI Responses API logs with chained responses", matches, read, rows=runs),
)
