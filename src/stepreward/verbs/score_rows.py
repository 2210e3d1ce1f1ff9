"""The verb score."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import tee
from pathlib import Path
from typing import overload

from stepreward.core.errors import InputError
from stepreward.core.results import Failures, TrajectoryList, warn_of_failures
from stepreward.core.row_files import stamp
from stepreward.core.runtime.flows import Score, Scorer
from stepreward.core.types import SCORE, Provenance, Trajectory
from stepreward.formats.registry import Reading
from stepreward.formats.registry import write as write_format
from stepreward.formats.trajectories import OWN
from stepreward.verbs.names import scorer_of
from stepreward.verbs.read_rows import Rows, read, rows_of

AT_ONCE = 256
"""Solutions that are scored together."""


@overload
def score(
    rows: Rows, scorer: str | Path | Scorer, *, column: str = SCORE, out: None = None, strict: bool = False
) -> TrajectoryList: ...
@overload
def score(
    rows: Rows, scorer: str | Path | Scorer, *, column: str = SCORE, out: str | Path, strict: bool = False
) -> Reading[Trajectory]: ...
def score(
    rows: Rows,
    scorer: str | Path | Scorer,
    *,
    column: str = SCORE,
    out: str | Path | None = None,
    strict: bool = False,
) -> TrajectoryList | Reading[Trajectory]:
    """Scores the steps of solutions: the same rows with one column more.

    Args:
        rows: a file of any format, or trajectories.
        scorer: a name that `stepreward.load` takes, or a scorer.
        column: name of the column; `score:NAME` keeps those of several scorers apart.
        out: file or folder to write the table to, streaming; None returns a list. A folder, of a path and a name of a
            scorer, goes on after a kill at its first missing part.
        strict: raise at the first row that cannot be read or scored, instead of warning and listing all in `.failed`.

    Returns:
        Trajectories with the column, NaN at observations and where nothing could be scored; with `out` a reading of it.

    Raises:
        InputError: rows cannot be read, or strict and a row is bad.
        ModelError: the scorer cannot be loaded.
    """
    failed = Failures()
    made, source = scorer_of(scorer), rows_of(rows, failed, strict=strict)

    def work(some: Iterable[Trajectory]) -> Iterator[Trajectory]:
        return _good(some, made, column, failed, strict=strict)

    found = TrajectoryList(work(source) if out is None else ())
    if out is not None:
        plan = None
        if isinstance(rows, str | Path) and isinstance(scorer, str | Path):
            plan = {"scorer": str(scorer), "column": column, "reads": [stamp(rows), stamp(scorer)]}
        write_format(out, source, OWN, strict=True, plan=plan, work=work)
    warn_of_failures(failed, "could not be scored")
    found.failed = failed
    return found if out is None else read(out)


def _good(
    rows: Iterable[Trajectory], scorer: Scorer, column: str, failed: Failures, *, strict: bool
) -> Iterator[Trajectory]:
    """The scored solutions; those that the scorer refuses are added to `failed`."""
    first, second = tee(rows)
    for one, made in zip(first, scored(second, scorer, column, strict=strict), strict=True):
        if isinstance(made, InputError):
            failed.append((one.problem.id, made))
        else:
            yield made


def scored(
    items: Iterable[Trajectory | InputError],
    scorer: Scorer,
    column: str = SCORE,
    *,
    at_once: int = AT_ONCE,
    strict: bool = False,
) -> Iterator[Trajectory | InputError]:
    """Each solution with its scores, streaming; where the scorer refuses one of several, each is scored by itself.

    Args:
        items: solutions, and in the place of a row that cannot be read its error, which is passed on.
        scorer: who scores.
        column: name of the step column.
        at_once: solutions that are scored together.
        strict: raise the error of a solution that the scorer refuses, instead of yielding it.

    Raises:
        InputError: strict, and a solution is refused.
    """
    for part in parts_of(items, at_once):
        yield from _scored(part, scorer, column, strict=strict)


def parts_of(items: Iterable[Trajectory | InputError], size: int) -> Iterator[list[Trajectory | InputError]]:
    """Lists of at most `size`; what came before an error is passed on before the error is raised."""
    part: list[Trajectory | InputError] = []
    try:
        for item in items:
            part.append(item)
            if len(part) == size:
                yield part
                part = []
    except InputError:
        if part:
            yield part
        raise
    yield part


def _scored(
    part: Sequence[Trajectory | InputError], scorer: Scorer, column: str, *, strict: bool
) -> Iterator[Trajectory | InputError]:
    good = [item for item in part if isinstance(item, Trajectory)]
    try:
        found = iter(scorer.score_many([Score(one.problem, one.steps) for one in good]))
    except InputError as error:
        if strict and len(good) == 1:
            raise
        if len(part) == 1:
            yield error
            return
        for item in part:
            yield from _scored([item], scorer, column, strict=strict)
        return
    for item in part:
        if isinstance(item, InputError):
            yield item
        else:
            yield item.with_columns({column: next(found).scores}, Provenance(scorer.name, what=(column,)))
