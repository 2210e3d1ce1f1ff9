"""Rows with a question, the lines of a solution, and a mark for each."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stepreward.core.types import Problem, Step, Trajectory
from stepreward.formats.format import Format
from stepreward.formats.rows import Row, annotated, need


def matches(row: Row) -> bool:
    """Whether a row has the three fields."""
    return {"toy_question", "toy_lines", "toy_marks"} <= row.keys()


def read(row: Row, number: int) -> Iterator[Trajectory]:
    """Reads `toy_question`, `toy_lines` and `toy_marks`, 1 for a right line."""
    problem = Problem(f"toy-{number}", need(row, "toy_question"))
    marks = np.array(row["toy_marks"], np.float64)
    yield annotated(problem, tuple(Step(line) for line in row["toy_lines"]), marks, "toy marks", policy="people")


FORMATS = (Format("toy", "lines with marks", matches, read),)
