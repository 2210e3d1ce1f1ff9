"""ToolPRMBench (arXiv:2601.12294): the right next action of a tool user and a plausible wrong one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from stepreward.core.errors import InputError
from stepreward.core.types import Comparison, Problem, Step
from stepreward.formats.format import Format, has
from stepreward.formats.rows import Row, compared, other_fields

_OWN = ("history", "functions", "action_chosen", "action_rejected")


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def read(row: Row, number: int) -> Iterator[Comparison]:
    """Reads `history` and the next actions `action_chosen` and `action_rejected`.

    What is no text, as a history in a list or a call in an object, is read as its JSON. The layout is that of programs
    which read the published files; the files themselves could not be seen.

    Args:
        row: the row; `functions`, the descriptions of the tools, are kept in the problem's meta.
        number: its 1-based number, used where the row has no `sample_id` and no `index`.

    Raises:
        InputError: a field is missing.
    """
    for name in ("action_chosen", "action_rejected"):
        if row.get(name) in (None, "", [], {}):
            raise InputError(f"'{name}' is missing or empty")
    pair = [[Step(_text(row[name]) + "\n")] for name in ("action_chosen", "action_rejected")]
    tools: dict[str, Any] = {"tools": row["functions"]} if row.get("functions") is not None else {}
    name = row.get("sample_id", row.get("index", number))
    problem = Problem(f"tool-prm-bench-{name}", _text(row.get("history")), meta=tools)
    yield compared(problem, pair, (1.0, 0.0), terminal=False, meta=other_fields(row, *_OWN))


FORMATS: tuple[Format, ...] = (
    Format("tool-prm-bench", "ToolPRMBench: next actions of tool users",
           has("history", "action_chosen", "action_rejected"), read, kind="comparisons"),
)  # fmt: skip
