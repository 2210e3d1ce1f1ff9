"""Scores that a table has already, as a scorer: nothing is computed again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from stepreward.core.errors import InputError
from stepreward.core.runtime.flows import Score, Scored
from stepreward.core.table import read_table
from stepreward.core.types import SCORE, Floats, Problem, Step
from stepreward.score.short_call import ShortCall

STORED = "stored:"
"""Names of scorers that start like this are tables: `stored:scores.parquet`, `stored:scores.parquet#score:prm`."""
_Place = tuple[str, tuple[tuple[object, ...], ...]]
"""A problem's prompt, and the identities of the steps."""


@dataclass
class StoredScores(ShortCall):
    """Scores the solutions of a table by one of its columns, which `score --out` wrote.

    Raises:
        InputError: the table cannot be read, has no such column, or two scores of the same solution.
    """

    table: str
    """A Parquet file, and behind `#` the column, `score` where none is named."""
    batch_size: int = 1024
    name: str = field(init=False)
    """Identity for caches and provenance."""

    def __post_init__(self) -> None:
        place, _, column = self.table.partition("#")
        self.name, self._path, self._column = f"{STORED}{self.table}", Path(place), column or SCORE
        self._scores: dict[_Place, Floats] = {}
        for row, one in enumerate(read_table(self._path), 1):
            if self._column not in one.columns:
                there = ", ".join(sorted(one.columns)) or "none"
                what = f"the row has no column {self._column!r}; its columns: {there}"
                raise InputError(what, source=self._path, row=row, remedy=f"name one: {STORED}{place}#COLUMN")
            found = one.column(self._column)
            before = self._scores.setdefault(_place(one.problem, one.steps), found)
            if not np.array_equal(before, found, equal_nan=True):
                what = f"a solution of problem {one.problem.id!r} has other scores in an earlier row"
                raise InputError(what, source=self._path, row=row, remedy="keep one of the rows")

    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        """Scores of each question's steps, in order; NaN where the table has none. No token is encoded.

        Raises:
            InputError: a solution is not in the table.
        """
        made = []
        for question in questions:
            found = self._scores.get(_place(question.problem, question.steps))
            if found is None:
                what = f"has no such solution of problem {question.problem.id!r}"
                raise InputError(what, source=self._path, remedy="score the same data with --out first")
            made.append(Scored(found.copy()))
        return made


def _place(problem: Problem, steps: Sequence[Step]) -> _Place:
    return problem.text, tuple(step.identity for step in steps)
