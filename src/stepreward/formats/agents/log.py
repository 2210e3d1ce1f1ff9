"""What readers of agents' logs share: lines gathered into runs, an outcome out of a reward, a run as a solution."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from stepreward.core.annotations import Annotated
from stepreward.core.errors import InputError
from stepreward.formats.files import Numbered, read_rows
from stepreward.formats.messages import Reasoning, Turn, episode
from stepreward.formats.rows import Row, annotated

LINES = "lines"
"""Field of a gathered row: the lines of one run."""


def lines_of(row: Row) -> list[Any]:
    """The lines of a gathered row; a line alone is its own."""
    return row[LINES] if isinstance(row.get(LINES), list) else [row]


def _is_gathered(row: Row) -> bool:
    return isinstance(row.get(LINES), list)


def gathered(path: Path, key: Callable[[Row], str], whole: Callable[[Row], bool] = _is_gathered) -> Iterator[Numbered]:
    """A row a run: the lines with one key in the order of the file, which is in memory; bad lines are rows alone.

    Args:
        path: the file.
        key: what the lines of a run share; lines with "" belong to the run of the line before.
        whole: whether a row is no line, but a run already.
    """
    runs: dict[str, list[Row]] = {}
    starts: dict[str, int] = {}
    now = ""
    for number, row in read_rows(path):
        if isinstance(row, InputError) or _is_gathered(row) or whole(row):
            yield number, row
            continue
        now = key(row) or now
        runs.setdefault(now, []).append(row)
        starts.setdefault(now, number)
    if "" in runs and len(runs) > 1:  # What stands before the first line with a key belongs to it.
        first = next(name for name in runs if name)
        runs[first][:0] = runs.pop("")
    for name, lines in runs.items():
        yield starts[name], {LINES: lines}


def continued(talks: Sequence[Sequence[str]]) -> list[bool]:
    """Whether a later talk begins with all that was said in this one and goes on: one run of several calls."""
    longer: set[int] = set()
    found = []
    for said in reversed(talks):
        whole, prefixes = 0, []
        for text in said:
            prefixes.append(whole)
            whole = hash((whole, text))
        found.append(bool(said) and whole in longer)
        longer.update(prefixes[1:])
    return found[::-1]


def outcome(value: object, scale: float = 1.0) -> float:
    """A reward as an outcome, `value / scale`: NaN where it is no number in [0, scale], as it then stays in meta only.

    Raises:
        InputError: the scale is no positive number.
    """
    if not (isinstance(scale, int | float) and math.isfinite(scale) and scale > 0):
        raise InputError(f"scale must be a positive number, got {scale!r}", remedy="pass the largest reward")
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return math.nan
    if not isinstance(value, bool | int | float) or not 0 <= value / scale <= 1:
        return math.nan
    return float(value) / scale


def stated(row: Row, *names: str) -> object:
    """The first of the named fields that holds a value; a path of dots names one further in."""
    for name in names:
        value: object = row
        for part in name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is not None:
            return value
    return None


def text_of(value: object) -> str:
    """What a tool returned, as text: a text, the texts of parts, or JSON."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        inner = next((value[name] for name in ("text", "content", "output") if isinstance(value.get(name), str)), None)
        return inner if inner is not None else json.dumps(value, ensure_ascii=False)
    if isinstance(value, list) and value and all(isinstance(one, Mapping) and "type" in one for one in value):
        return "\n".join(one["text"] for one in value if isinstance(one.get("text"), str))
    return json.dumps(value, ensure_ascii=False)


def named_text(value: object) -> str:
    """A name where there is one, else nothing."""
    return value if isinstance(value, str) else ""


def kept(row: Row, *names: str) -> dict[str, Any]:
    """Those of the named fields that hold a JSON value."""
    return {name: row[name] for name in names if isinstance(row.get(name), str | int | float | bool | list | dict)}


def solution(
    turns: Sequence[Turn],
    name: str,
    by: str,
    *,
    reasoning: Reasoning = "keep",
    reference: str | None = None,
    problem_meta: Mapping[str, Any] | None = None,
    policy: str = "",
    won: float = math.nan,
    terminal: bool = True,
    answer: str | None = None,
    meta: Mapping[str, Any] | None = None,
) -> Annotated:
    """A run without step labels as a solution; what comes before the first action is the problem.

    Raises:
        InputError: the model says nothing, or an unknown option.
    """
    problem, steps = episode(turns, name, reference=reference, meta=problem_meta, reasoning=reasoning)
    made = annotated(
        problem, steps, np.full(len(steps), np.nan), by, policy=policy, outcome=won, answer=answer, meta=meta or {}
    )
    return made if terminal else replace(made, trajectory=replace(made.trajectory, terminal=False))
