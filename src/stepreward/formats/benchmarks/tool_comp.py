"""ToolComp's process supervision (arXiv:2501.01290): a step of a tool user, as people corrected it and as it was."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from stepreward.core.errors import InputError
from stepreward.core.types import Comparison, Problem, Step
from stepreward.formats.format import Format, has
from stepreward.formats.rows import Row, compared, need, other_fields, shown, text_or_none

PLAN = "action plan"
_ACTION = ("thought", "action", "action_input")
"""Parts of a step other than the plan."""


def _history(value: object) -> list[Mapping[str, Any]]:
    """The steps so far, which the file holds as JSON in a string."""
    try:
        made = json.loads(value) if isinstance(value, str) and value.strip() else value or []
    except ValueError as error:
        raise InputError(f"'history' is no JSON: {error}") from error
    if not isinstance(made, list) or not all(isinstance(one, Mapping) for one in made):
        raise InputError(f"'history' must be a list of steps, got {shown(value)}")
    return made


def _text(step: Mapping[str, Any], names: Iterable[str]) -> str:
    """These parts of a step, each on a line under its title."""
    lines = []
    for name in names:
        part = step.get(name)
        text = part.get("text") if isinstance(part, Mapping) else None
        if not isinstance(text, str):
            raise InputError(f"'{name}' of a step needs a 'text', got {shown(part)}")
        lines.append(f"{name.replace('_', ' ').title()}: {text}\n")
    return "".join(lines)


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
    before = [Step(_text(past[0], [PLAN]))] if past else []
    for step in past[1:]:
        before.append(Step(_text(step, _ACTION)))
        before.append(Step(_text(step, ["observation"]), kind="observation", role="tool"))
    pair = [need(row, name, Mapping) for name in ("preferred", "dispreferred")]
    tools = row.get("tools")
    if isinstance(tools, str):
        # The file has the names of the tools as a Python list in a text.
        with suppress(ValueError, SyntaxError, MemoryError, RecursionError):
            tools = ast.literal_eval(tools)
    meta = {"tools": tools, "historical_date": row.get("historical_date")}
    problem = Problem(
        f"tool-comp-{number}", need(row, "prompt"), reference=text_or_none(row.get("final_answer")),
        meta={name: value for name, value in meta.items() if value is not None},
    )  # fmt: skip
    candidates = [(*before, Step(_text(one, _ACTION if past else [PLAN]))) for one in pair]
    own = ("prompt", "preferred", "dispreferred", "history", "tools", "historical_date", "final_answer")
    yield compared(problem, candidates, (1.0, 0.0), "react step" if past else PLAN, terminal=False,
                   meta=other_fields(row, *own))  # fmt: skip


FORMATS: tuple[Format, ...] = (
    Format("tool-comp", "ToolComp: steps of tool users, corrected and as they were",
           has("prompt", "preferred", "dispreferred", "history"), read, kind="comparisons"),
)  # fmt: skip
