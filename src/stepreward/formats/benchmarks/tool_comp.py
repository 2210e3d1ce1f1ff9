"""ToolComp's process supervision (arXiv:2501.01290): a step of a tool user, as people corrected it and as it was."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from typing import Any

from stepreward.core.errors import InputError
from stepreward.core.types import Comparison, Problem, Step, Trajectory
from stepreward.formats.format import Format
from stepreward.formats.rows import Row, need, rest_of, shown, text_or_none

PLAN = "action plan"
_PARTS = (("thought", "Thought"), ("action", "Action"), ("action_input", "Action Input"))
_OBSERVED = "observation"


def matches(row: Row) -> bool:
    """Whether a row looks like ToolComp's process supervision."""
    return {"prompt", "preferred", "dispreferred", "history"} <= row.keys()


def _history(value: object) -> list[Mapping[str, Any]]:
    """The steps so far, which the file holds as JSON in a string."""
    try:
        made = json.loads(value) if isinstance(value, str) and value.strip() else value or []
    except ValueError as error:
        raise InputError(f"'history' is no JSON: {error}", remedy="drop the row") from error
    if not isinstance(made, list) or not all(isinstance(one, Mapping) for one in made):
        raise InputError(f"'history' must be a list of steps, got {shown(value)}", remedy="drop the row")
    return made


def _said(step: Mapping[str, Any], name: str) -> str:
    part = step.get(name)
    text = part.get("text") if isinstance(part, Mapping) else None
    if not isinstance(text, str):
        raise InputError(f"'{name}' of a step needs a 'text', got {shown(part)}", remedy="drop the row")
    return text


def _plan(step: Mapping[str, Any]) -> Step:
    return Step(f"Action Plan: {_said(step, PLAN)}\n")


def _act(step: Mapping[str, Any]) -> Step:
    return Step("".join(f"{title}: {_said(step, name)}\n" for name, title in _PARTS))


def _observation(step: Mapping[str, Any]) -> Step:
    return Step(f"Observation: {_said(step, _OBSERVED)}\n", kind="observation", role="tool")


def _tools(value: object) -> object:
    """The names of the tools, of which the file holds the Python list in a string."""
    if not isinstance(value, str):
        return value
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return value


def read(row: Row, number: int) -> Iterator[Comparison]:
    """Reads `prompt`, the steps so far (`history`), and the step `preferred` by people over the one `dispreferred`.

    The first step is the plan, and where there is no history yet it is plans that are compared. Tool results are
    observations; what came of the two steps compared is left out, as a step is scored before that is known. The subset
    is "action plan" or "react step", as the authors count them.

    Args:
        row: the row; `tools` and `historical_date` are kept in the problem's meta.
        number: its 1-based number, part of the problem's id.

    Raises:
        InputError: a field is missing or of another shape.
    """
    past = _history(row.get("history"))
    before = [_plan(past[0]), *(step for one in past[1:] for step in (_act(one), _observation(one)))] if past else []
    pair = [need(row, name, Mapping) for name in ("preferred", "dispreferred")]
    meta = {"tools": _tools(row.get("tools")), "historical_date": row.get("historical_date")}
    problem = Problem(
        f"tool-comp-{number}", need(row, "prompt"), reference=text_or_none(row.get("final_answer")),
        meta={name: value for name, value in meta.items() if value is not None},
    )  # fmt: skip
    candidates = tuple(
        Trajectory(problem, (*before, _act(one) if past else _plan(one)), outcome=right, terminal=False)
        for one, right in zip(pair, (1.0, 0.0), strict=True)
    )
    own = ("prompt", "preferred", "dispreferred", "history", "tools", "historical_date", "final_answer")
    subset = "react step" if past else PLAN
    yield Comparison(problem, candidates, (1.0, 0.0), subset, {}, rest_of(row, *own))


FORMATS: tuple[Format, ...] = (
    Format("tool-comp", "ToolComp: steps of tool users, corrected and as they were", matches, read,
           kind="comparisons"),
)  # fmt: skip
