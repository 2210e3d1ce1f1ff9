"""Programs: samples of HumanEval and MBPP problems (CodeT), and Reflexion's solutions with its reflections."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np

from stepreward.core.annotations import Annotated
from stepreward.core.errors import InputError
from stepreward.core.types import Problem, Step
from stepreward.formats.format import Format
from stepreward.formats.rows import Row, annotated, need, shown

Cut = Literal["whole", "lines"]
"""What a step of a program is: all of it, or a line."""


def is_samples(row: Row) -> bool:
    """Whether a row looks like samples of a problem."""
    return isinstance(row.get("samples"), list) and {"prompt", "entry_point", "test"} <= row.keys()


def is_reflexion(row: Row) -> bool:
    """Whether a row looks like Reflexion's result on a problem."""
    return {"prompt", "entry_point", "test", "is_solved", "reflections", "solution"} <= row.keys()


def read_samples(row: Row, number: int, *, cut: Cut = "whole") -> Iterator[Annotated]:
    """Reads `prompt` and its `samples`, a solution each. No row says whether it is right: that is what `test` is for.

    Nothing is run. Tests and the entry point stand in the problem's meta.

    Args:
        row: the row.
        number: its 1-based number, the problem's id where the row has no `task_id`.
        cut: `whole` makes a sample one step, `lines` a line each.

    Raises:
        InputError: a field is missing, a sample is no text, or an unknown option.
    """
    problem = _problem(row, str(row.get("task_id") or f"code-{number}"))
    for i, sample in enumerate(need(row, "samples", list)):
        if not isinstance(sample, str):
            raise InputError(f"sample {i} must be text, got {shown(sample)}", remedy="drop the row")
        steps = _steps(sample, cut)
        if steps:
            yield annotated(problem, steps, np.full(len(steps), np.nan), "nobody")


def read_reflexion(row: Row, number: int, *, cut: Cut = "whole") -> Iterator[Annotated]:
    """Reads `solution` with `is_solved` as its outcome; `reflections` come before it, as observations.

    The programs that the reflections are about are not in the file.

    Args:
        row: the row.
        number: its 1-based number, the problem's id where the row has no `name`.
        cut: `whole` makes the program one step, `lines` a line each.

    Raises:
        InputError: a field is missing or of another kind, or an unknown option.
    """
    problem = _problem(row, str(row.get("name") or f"code-{number}"))
    said = need(row, "reflections", list)
    if not all(isinstance(text, str) for text in said):
        raise InputError(f"'reflections' must be texts, got {shown(said)}", remedy="drop the row")
    seen = tuple(Step(text.rstrip("\n") + "\n", "observation", agent="reflection") for text in said if text.strip())
    steps = _steps(need(row, "solution"), cut)
    if not steps:
        raise InputError("'solution' is empty", remedy="drop the row")
    solved = need(row, "is_solved", bool)
    made = (*seen, *steps)
    yield annotated(problem, made, np.full(len(made), np.nan), "unit tests", outcome=float(solved))


def _problem(row: Row, name: str) -> Problem:
    meta = {key: row[key] for key in ("entry_point", "test", "canonical_solution") if isinstance(row.get(key), str)}
    return Problem(name, need(row, "prompt"), meta=meta)


def _steps(program: str, cut: Cut) -> tuple[Step, ...]:
    if cut not in ("whole", "lines"):
        raise InputError(f"cut must be whole or lines, got {cut!r}")
    if not program.strip():
        return ()
    return tuple(map(Step, program.splitlines(keepends=True) if cut == "lines" else [program]))


FORMATS: tuple[Format, ...] = (
    Format("code-samples", "samples of programming problems, not graded", is_samples, read_samples),
    Format("reflexion-code", "Reflexion's programs with its reflections", is_reflexion, read_reflexion),
)
