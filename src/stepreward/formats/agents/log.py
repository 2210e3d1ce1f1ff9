"""Shared by readers of agents' logs: lines gathered into runs, outcomes from rewards, runs as solutions."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from stepreward.core.errors import InputError
from stepreward.core.types import Problem, Trajectory
from stepreward.formats.agents.messages import ENDS, MODEL, Asked, Reasoning, Turn, episode
from stepreward.formats.files.rows_of_files import Numbered, read_rows
from stepreward.formats.rows import Row, annotated

LINES = "lines"
"""Field of a gathered row: the lines of one run."""
CUT = frozenset({
    "length", "max_tokens", "max_output_tokens", "model_length", "model_context_window_exceeded", "content_filter",
    "error", "abort", "aborted", "cancelled",
})  # fmt: skip
"""Finish reasons, in lower case, of answers that were cut."""
_THOUGHT = re.compile(r"<think>.*?</think>", re.DOTALL)


def lines_of(row: Row) -> list[Any]:
    """The lines of a gathered row; a line alone is its own."""
    return row[LINES] if _is_gathered(row) else [row]


def _is_gathered(row: Row) -> bool:
    return row.keys() == {LINES} and isinstance(row[LINES], list)


def gathered(
    path: Path,
    key: Callable[[Row], str],
    whole: Callable[[Row], bool] = _is_gathered,
    parts: Callable[[Row], Sequence[Row]] = lambda row: [row],
) -> Iterator[Numbered]:
    """A row a run: the lines with one key in the order of the file, which is in memory; bad lines are rows alone.

    Args:
        path: the file.
        key: what the lines of a run share; lines with "" belong to the run of the line before.
        whole: whether a row is no line, but a run already.
        parts: the lines that a row holds: itself, or those of an export.
    """
    runs: dict[str, list[Row]] = {}
    starts: dict[str, int] = {}
    now = ""
    for number, row in read_rows(path):
        lines: Sequence[Row] = () if isinstance(row, InputError) or _is_gathered(row) or whole(row) else parts(row)
        if not lines or isinstance(row, InputError):
            yield number, row
            continue
        for line in lines:
            now = key(line) or now
            runs.setdefault(now, []).append(line)
            starts.setdefault(now, number)
    if "" in runs and len(runs) > 1:  # Lines before the first line with a key belong to its run.
        first = next(name for name in runs if name)
        runs[first][:0] = runs.pop("")
    for name, lines in runs.items():
        yield starts[name], {LINES: lines}


def _marks(talk: Sequence[Turn]) -> list[int]:
    """A mark for each beginning of a talk, equal where the same was said.

    Thinking and outer white space do not count: clients leave them out where they repeat an answer.
    """
    whole, marks = 0, []
    for turn in talk:
        whole = hash((whole, turn.role == MODEL, _THOUGHT.sub("", turn.said).strip(), turn.images))
        marks.append(whole)
    return marks


def before(talks: Sequence[Sequence[Turn]]) -> list[int | None]:
    """For each conversation the longest other one that is its beginning, in any order; None if there is none.

    Of several equal ones, as samples with one answer, each is gone on with by another.
    """
    marks = [_marks(talk) for talk in talks]
    ends: dict[int, list[int]] = {}
    for at, own in enumerate(marks):
        if own:
            ends.setdefault(own[-1], []).append(at)
    taken: set[int] = set()
    found: list[int | None] = []
    for own in marks:
        same = next((ends[mark] for mark in reversed(own[:-1]) if mark in ends), [])
        found.append(next((one for one in same if one not in taken), same[0]) if same else None)
        taken |= {one for one in found[-1:] if one is not None}
    return found


def whole_runs(talks: Sequence[Sequence[Turn]]) -> list[tuple[int, list[Turn]]]:
    """The conversations that no other continues, with each answer as its own call recorded it.

    A call repeats all that was said before it: K calls of one run are one talk of K answers.
    """
    earlier = before(talks)
    inner = set(earlier)
    made = []
    for at, talk in enumerate(talks):
        if at in inner:
            continue
        turns, above = list(talk), earlier[at]
        while above is not None:
            place, own = len(talks[above]) - 1, talks[above][-1]
            if own.role == MODEL:
                turns[place] = replace(own, place=turns[place].place)
            above = earlier[above]
        made.append((at, turns))
    return made


def gathered_runs(numbered: Iterable[Numbered], talks: Callable[[Row], Sequence[Sequence[Turn]]]) -> Iterator[Numbered]:
    """A row for each run: the calls of a log that continue each other, as `lines`; the calls are in memory.

    Args:
        numbered: the rows of the log.
        talks: what is said in a call up to each of its answers; none for a row that is no call. What it raises is left
            to the reader of the row, which stays alone.
    """
    numbers: list[int] = []
    rows: list[Row] = []
    said: list[Sequence[Turn]] = []
    owners: list[int] = []
    for number, row in numbered:
        made: Sequence[Sequence[Turn]] = ()
        if not isinstance(row, InputError):
            with suppress(InputError, TypeError, KeyError, AttributeError, ValueError):
                made = talks(row)
        # A row whose answer cannot be read is reported alone: its other calls are still read.
        if isinstance(row, InputError) or not made or not all(any(turn.role == MODEL for turn in one) for one in made):
            yield number, row
            continue
        owners += [len(rows)] * len(made)
        said += made
        numbers.append(number)
        rows.append(row)
    groups = {at: [at] for at in range(len(rows))}
    for talk, earlier in enumerate(before(said)):
        if earlier is not None and groups[owners[talk]] is not groups[owners[earlier]]:
            both = sorted({*groups[owners[talk]], *groups[owners[earlier]]})
            groups |= dict.fromkeys(both, both)
    for at, group in groups.items():
        if at == group[0]:
            yield (
                numbers[at],
                rows[at] if len(group) == 1 else {LINES: [line for one in group for line in lines_of(rows[one])]},
            )


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
    """The first of the named fields that has a value; dots in a name lead into nested objects."""
    for name in names:
        value: object = row
        for part in name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is not None:
            return value
    return None


def text_of(value: object) -> str:
    """A tool's result as text: a text, the texts of parts, or JSON."""
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
    """A text that is not empty, else None."""
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
    problem: Asked = "lead",
) -> Trajectory:
    """A run without step labels as a solution; what comes before the first action is the problem.

    Raises:
        InputError: the model says nothing, or an unknown option.
    """
    task, steps = episode(turns, name, reference=reference, meta=problem_meta, reasoning=reasoning, problem=problem)
    made = annotated(task, steps, None, by, policy=policy, outcome=won, answer=answer, facts=meta or {})
    return ended(made, None if terminal else "error")


def apart(item: Trajectory, known: dict[str, list[Problem]]) -> Trajectory:
    """The solution, with an id of its own where `known` runs of that id begin otherwise, as those of several agents."""
    same = known.setdefault(item.problem.id, [])
    if item.problem not in same:
        same.append(item.problem)
    place = same.index(item.problem)
    return replace(item, problem=replace(item.problem, id=f"{item.problem.id}/{place}")) if place else item


def ended(item: Trajectory, reason: object = None) -> Trajectory:
    """The solution, not terminal where its last answer ended for `reason`, or what it states itself, before its end."""
    last = next((step for step in reversed(item.steps) if step.kind == "action"), None)
    reasons = [reason, *((last.meta.get(name) for name in ENDS) if last is not None else ())]
    cut = any(isinstance(one, str) and one.lower() in CUT for one in reasons)
    return replace(item, terminal=False) if cut else item
