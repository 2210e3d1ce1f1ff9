"""FC-RewardBench (arXiv:2509.11963): the right and a wrong function call for a request, with the tools at hand."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from stepreward.core.errors import InputError
from stepreward.core.types import TOOLS, Comparison, Problem, Step
from stepreward.formats.format import Format, has
from stepreward.formats.rows import Row, compared, shown, text_or_none

_ABOUT = ("error_type", "model_name", "test_category")


def _decoded(value: object) -> object:
    """A value, or what a text of JSON holds; other texts as they are."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _call(row: Row, side: str) -> str:
    """The text of a candidate: as it is, or as JSON where the file holds objects."""
    value = row.get(side)
    if value is None or value == "":
        raise InputError(f"'{side}' must hold a call, got {shown(value)}")
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def read(row: Row, number: int) -> Iterator[Comparison]:
    """Reads `conversation`, `tools`, and the calls `chosen_output` and `rejected_output`, which are next messages.

    The fields are the data card's; whether their values are objects or JSON in texts is not, so both are read.

    Args:
        row: the row; `error_type` becomes the subset, and is kept with `model_name` and `test_category`.
        number: its 1-based number, used where the row has no `test_id`.

    Raises:
        InputError: a field is missing or of another shape.
    """
    chat = _decoded(row.get("conversation"))
    if not isinstance(chat, list) or not chat or not all(_is_message(one) for one in chat):
        raise InputError(f"'conversation' must hold messages with a role and a text, got {shown(chat)}")
    messages = tuple({"role": str(one["role"]), "content": one["content"]} for one in chat)
    tools: Any = _decoded(row.get("tools"))
    # A test of BFCL is there once for each wrong call that was kept.
    name = f"fc-reward-bench-{text_or_none(row.get('test_id')) or number}"
    problem = Problem(name, messages, meta={TOOLS: tools} if tools else {})
    pair = [[Step(_call(row, side) + "\n")] for side in ("chosen_output", "rejected_output")]
    meta = {about: row[about] for about in _ABOUT if row.get(about) is not None}
    yield compared(problem, pair, (1.0, 0.0), text_or_none(row.get("error_type")) or "", terminal=False, meta=meta)


def _is_message(value: object) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("content"), str) and bool(value.get("role"))


FORMATS: tuple[Format, ...] = (
    Format("fc-reward-bench", "FC-RewardBench: right and wrong function calls", has("conversation", "chosen_output",
           "rejected_output"), read, kind="comparisons"),
)  # fmt: skip
