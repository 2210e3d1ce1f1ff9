"""Runs of agents out of logs: lines of a run gathered, calls that continue each other joined, a run as a trajectory."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from stepreward.core.errors import InputError
from stepreward.core.types import Problem, Trajectory
from stepreward.formats.agents.messages import ENDS, MODEL, ProblemEnd, Reasoning, Turn, problem_and_steps
from stepreward.formats.files.rows_of_files import Numbered, read_rows
from stepreward.formats.recorded_scores import with_recorded
from stepreward.formats.rows import Row, annotated

LINES = "lines"
"""Field of a gathered row: the lines of one run."""
CUT = frozenset({
    "length", "max_tokens", "max_output_tokens", "model_length", "model_context_window_exceeded", "content_filter",
    "error", "abort", "aborted", "cancelled",
})  # fmt: skip
"""Finish reasons, in lower case, of answers that were cut, as OpenAI, Anthropic, Inspect and vLLM name them."""
_THOUGHT = re.compile(r"<think>.*?</think>", re.DOTALL)


def is_cut(reason: object) -> bool:
    """Whether a finish reason says that the answer was cut."""
    return isinstance(reason, str) and reason.lower() in CUT


def lines_of(row: Row) -> list[Any]:
    """The lines of a gathered row; a row that is a line is the only one."""
    return row[LINES] if _is_gathered(row) else [row]


def _is_gathered(row: Row) -> bool:
    return row.keys() == {LINES} and isinstance(row[LINES], list)


def gathered(
    path: Path,
    key: Callable[[Row], str] = lambda line: "",
    whole: Callable[[Row], bool] = _is_gathered,
    parts: Callable[[Row], Sequence[Row]] = lambda row: [row],
) -> Iterator[Numbered]:
    """A row a run: the lines with one key in the order of the file, which is in memory. A bad line is its own row.

    Args:
        path: the file.
        key: what the lines of a run share; a line with "" belongs to the run of the line before it.
        whole: whether a row is a run already.
        parts: the lines of a row: itself, or those of an export.
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
    """A hash of each beginning of a conversation, equal where the same was said."""
    whole, marks = 0, []
    for turn in talk:
        # Clients leave out thinking and outer white space where they repeat an answer in their next request.
        whole = hash((whole, turn.role == MODEL, _THOUGHT.sub("", turn.said).strip(), turn.images))
        marks.append(whole)
    return marks


def continued_from(talks: Sequence[Sequence[Turn]]) -> list[int | None]:
    """For each conversation the place of the longest other one that is its beginning; None if there is none."""
    marks = [_marks(talk) for talk in talks]
    ends: dict[int, list[int]] = {}
    for at, own in enumerate(marks):
        if own:
            ends.setdefault(own[-1], []).append(at)
    taken: set[int] = set()
    found: list[int | None] = []
    for own in marks:
        same = next((ends[mark] for mark in reversed(own[:-1]) if mark in ends), [])
        # Samples of one prompt may give equal answers: each is then continued by another conversation.
        found.append(next((one for one in same if one not in taken), same[0]) if same else None)
        taken |= {one for one in found[-1:] if one is not None}
    return found


def whole_runs(talks: Sequence[Sequence[Turn]]) -> list[tuple[int, list[Turn]]]:
    """The conversations that no other continues, by their places.

    A call repeats all that was said before it, so K calls of one run are one conversation of K answers. Each answer is
    taken from the call that made it: repeats lack its thinking, tokens, usage and finish reason.
    """
    earlier = continued_from(talks)
    made = []
    for at in sorted(set(range(len(talks))) - set(earlier)):
        turns = list(talks[at])
        for above in path_to(at, earlier)[:-1]:
            place, own = len(talks[above]) - 1, talks[above][-1]
            if own.role == MODEL:
                turns[place] = replace(own, place=turns[place].place)
        made.append((at, turns))
    return made


def path_to(at: int, parents: Sequence[int | None]) -> list[int]:
    """The places from a root to this one, where each place but a root has a parent."""
    path = [at]
    while (parent := parents[path[-1]]) is not None:
        path.append(parent)
    return path[::-1]


def gathered_runs(numbered: Iterable[Numbered], talks: Callable[[Row], Sequence[Sequence[Turn]]]) -> Iterator[Numbered]:
    """A row for each run: the calls of a log that continue each other, as `lines`; the calls are in memory.

    Args:
        numbered: the rows of the log.
        talks: the conversation of a call up to each of its answers; none for a row that is no call. A row for which
            this raises stays alone, and its reader reports the error.
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
        if isinstance(row, InputError) or not made or not all(any(turn.role == MODEL for turn in one) for one in made):
            yield number, row
            continue
        owners += [len(rows)] * len(made)
        said += made
        numbers.append(number)
        rows.append(row)
    groups = {at: [at] for at in range(len(rows))}
    for talk, earlier in enumerate(continued_from(said)):
        if earlier is not None and groups[owners[talk]] is not groups[owners[earlier]]:
            both = sorted({*groups[owners[talk]], *groups[owners[earlier]]})
            groups |= dict.fromkeys(both, both)
    for at, group in groups.items():
        if group == [at]:
            yield numbers[at], rows[at]
        elif at == group[0]:
            yield numbers[at], {LINES: [line for one in group for line in lines_of(rows[one])]}


def trajectory_of(
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
    problem: ProblemEnd = "lead",
) -> Trajectory:
    """A run without step labels as a trajectory; what comes before the first action is the problem.

    Args:
        turns: the run.
        name: the problem's id.
        by: what recorded it.
        reasoning, problem: as of `problem_and_steps`.
        reference, problem_meta: of the problem.
        policy: the model, where it is named.
        won: the outcome.
        terminal: whether the run came to its own end; an answer that says that it was cut is never one.
        answer, meta: the trajectory's answer and facts.

    Raises:
        InputError: the model says nothing, or an unknown option.
    """
    task, steps = problem_and_steps(
        turns, name, reference=reference, meta=problem_meta, reasoning=reasoning, problem=problem
    )
    made = annotated(task, steps, None, by, policy=policy, outcome=won, answer=answer, facts=meta)
    return terminal_unless_cut(with_recorded(made if terminal else replace(made, terminal=False)))


def with_own_problem(item: Trajectory, known: dict[str, list[Problem]]) -> Trajectory:
    """The trajectory, under an id of its own where runs in `known` have its id and another problem.

    The runs of one trace may be of several agents, each with its own prompt.
    """
    same = known.setdefault(item.problem.id, [])
    if item.problem not in same:
        same.append(item.problem)
    place = same.index(item.problem)
    return replace(item, problem=replace(item.problem, id=f"{item.problem.id}/{place}")) if place else item


def terminal_unless_cut(item: Trajectory, reason: object = None) -> Trajectory:
    """The trajectory, not terminal where `reason`, or what its last action says, is that the answer was cut."""
    last = next((step for step in reversed(item.steps) if step.kind == "action"), None)
    reasons = [reason, *(last.meta.get(name) for name in ENDS)] if last is not None else [reason]
    return replace(item, terminal=False) if any(map(is_cut, reasons)) else item
