"""Tree of Thoughts (arXiv:2305.10601): breadth-first traces of the Game of 24 with the model's own values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from stepreward.core.errors import InputError
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.formats.format import Format
from stepreward.formats.rows import Row, annotated, need, shown

VALUE = "value"


def matches(row: Row) -> bool:
    """Whether a row looks like a trace of Tree of Thoughts."""
    levels = row.get("steps")
    first = levels[0] if isinstance(levels, list) and levels else None
    return isinstance(first, Mapping) and {"new_ys", "values"} <= first.keys()


def _values(levels: list[object]) -> tuple[str, dict[str, float]]:
    """The puzzle, and the value of every prefix that was valued."""
    puzzle = ""
    values: dict[str, float] = {}
    for place, level in enumerate(levels):
        if not isinstance(level, Mapping):
            raise InputError(f"level {place} of 'steps' must be an object, got {shown(level)}")
        proposed, numbers = need(level, "new_ys", list), need(level, "values", list)
        if len(proposed) != len(numbers):
            raise InputError(f"level {place} has {len(proposed)} thoughts and {len(numbers)} values")
        puzzle = puzzle or need(level, "x")
        for text, value in zip(proposed, numbers, strict=True):
            if not isinstance(text, str) or isinstance(value, bool) or not isinstance(value, int | float):
                raise InputError(f"level {place} has the thought {shown(text)} of value {shown(value)}")
            # A thought that was proposed twice is valued once; its copies have the value 0.
            values[text] = max(float(value), values.get(text, 0.0))
    return puzzle, values


def read(row: Row, number: int) -> Iterator[Trajectory]:
    """Reads `steps`, the levels of the search, and the final `ys` with `infos`: a solution for each, a line a step.

    The values, sums of votes in the unit of the prompt (sure 20, likely 1, impossible 0.001), are the recorded scores
    "value"; the outcome is `r`.

    Args:
        number: its 1-based number, used where the row has no `idx`.

    Raises:
        InputError: a field is missing or empty, or thoughts and values differ in number.
    """
    puzzle, values = _values(need(row, "steps", list))
    ends, infos = need(row, "ys", list), need(row, "infos", list)
    if not ends or len(ends) != len(infos):
        raise InputError(f"{len(ends)} solutions in 'ys' have {len(infos)} 'infos'")
    lengths = {len(valued) for valued in values}
    problem = Problem(f"tot-{row.get('idx', number)}", puzzle)
    for text, info in zip(ends, infos, strict=True):
        right = info.get("r") if isinstance(info, Mapping) else None
        if not isinstance(text, str) or not text or not isinstance(right, int | float) or not 0 <= right <= 1:
            raise InputError(f"a solution needs a text and 'r' in [0, 1], got {shown(text)}, {shown(info)}")
        lines = text.splitlines(keepends=True)
        ends_at = np.cumsum([len(line) for line in lines]).tolist()
        # A prefix is cut out only where some valued text has its length: cutting out all takes quadratic time.
        scores = np.array([values.get(text[:end], np.nan) if end in lengths else np.nan for end in ends_at])
        yield annotated(
            problem, tuple(Step(line) for line in lines), np.full(len(lines), np.nan), "tot grader",
            outcome=float(right), scores={VALUE: scores},
        )  # fmt: skip


FORMATS: tuple[Format, ...] = (Format("tot", "breadth-first traces with values", matches, read),)
