"""The verb score."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import overload

from stepreward.core.row_files import stamp
from stepreward.core.runtime.flows import Score, Scorer
from stepreward.core.types import SCORE, Provenance, Trajectory
from stepreward.formats.registry import Reading
from stepreward.formats.registry import write as write_format
from stepreward.formats.trajectories import OWN
from stepreward.verbs.names import scorer_of
from stepreward.verbs.rows import Rows, read, rows_of

_AT_ONCE = 256


@overload
def score(rows: Rows, scorer: str | Path | Scorer, *, column: str = SCORE, out: None = None) -> list[Trajectory]: ...
@overload
def score(rows: Rows, scorer: str | Path | Scorer, *, column: str = SCORE, out: str | Path) -> Reading[Trajectory]: ...
def score(
    rows: Rows, scorer: str | Path | Scorer, *, column: str = SCORE, out: str | Path | None = None
) -> list[Trajectory] | Reading[Trajectory]:
    """Scores the steps of solutions: the same rows with one column more.

    Args:
        rows: a file of any format, or trajectories.
        scorer: a name that `stepreward.load` takes, or a scorer.
        column: name of the column; `score:NAME` keeps those of several scorers apart.
        out: file or folder to write the table to, streaming; None returns a list. A folder, of a path and a name of a
            scorer, goes on after a kill at its first missing part.

    Returns:
        Trajectories with the column, NaN at observations and where nothing could be scored; with `out` a reading of it.

    Raises:
        InputError: rows cannot be read.
        ModelError: the scorer cannot be loaded.
    """
    made, source = scorer_of(scorer), rows_of(rows)
    if out is None:
        return list(_scored(source, made, column))
    plan = None
    if isinstance(rows, str | Path) and isinstance(scorer, str | Path):
        plan = {"scorer": str(scorer), "column": column, "reads": [stamp(rows), stamp(scorer)]}
    write_format(out, source, OWN, strict=True, plan=plan, work=lambda some: _scored(some, made, column))
    return read(out)


def _scored(rows: Iterable[Trajectory], scorer: Scorer, column: str) -> Iterator[Trajectory]:
    source = iter(rows)
    while part := list(islice(source, _AT_ONCE)):
        answers = scorer.score_many([Score(one.problem, one.steps) for one in part])
        for one, answer in zip(part, answers, strict=True):
            yield one.with_columns({column: answer.scores}, Provenance(scorer.name, what=(column,)))
