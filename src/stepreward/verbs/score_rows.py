"""The verb score."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import overload

from stepreward.connect.ray_engine import engine_of
from stepreward.core.errors import InputError
from stepreward.core.failures import Failure, Failures, warn_of_failures
from stepreward.core.files.row_files import stamp
from stepreward.core.results import TrajectoryList
from stepreward.core.runtime.flows import Score, Scorer
from stepreward.core.runtime.made_in_parts import Engine, MadePart, make_parts, read_parts
from stepreward.core.runtime.refused_scores import scores_or_errors
from stepreward.core.types import SCORE, Provenance, Trajectory
from stepreward.formats.registry import Reading
from stepreward.formats.registry import write as write_format
from stepreward.formats.trajectories import OWN
from stepreward.verbs.names import scorer_of, shown_name
from stepreward.verbs.read_rows import Rows, read, rows_of

SCORES = "scores"
"""Stem of the files of parts."""
AT_ONCE = 256
"""Solutions that are scored together."""


@overload
def score(
    rows: Rows, scorer: str | Path | Scorer, *, column: str = SCORE, out: None = None, strict: bool = False,
    engine: str | Engine = "",
) -> TrajectoryList: ...  # fmt: skip
@overload
def score(
    rows: Rows, scorer: str | Path | Scorer, *, column: str = SCORE, out: str | Path, strict: bool = False,
    engine: str | Engine = "",
) -> Reading[Trajectory]: ...  # fmt: skip
def score(
    rows: Rows, scorer: str | Path | Scorer, *, column: str = SCORE, out: str | Path | None = None,
    strict: bool = False, engine: str | Engine = "",
) -> TrajectoryList | Reading[Trajectory]:  # fmt: skip
    """Scores the steps of solutions: the same rows with one column more.

    Args:
        rows: a file of any format, or trajectories.
        scorer: a name that `stepreward.load` takes, or a scorer.
        column: name of the column; `score:NAME` keeps those of several scorers apart.
        out: file or folder to write the table to, streaming; None returns a list. A folder, of a path and a name of a
            scorer, goes on after a kill at its first missing part.
        strict: raise at the first row that cannot be read or scored, instead of warning and listing all in `.failed`.
        engine: where parts of the rows are scored, as in `label`; with `out` finished parts are kept in `OUT.parts`.

    Returns:
        Trajectories with the column, NaN at observations and where nothing could be scored; with `out` a reading of it.

    Raises:
        InputError: rows cannot be read, or strict and a row is bad.
        ModelError: the scorer cannot be loaded.
    """
    elsewhere, unread, failed = engine_of(engine), Failures(), Failures()
    source = rows_of(rows, unread, strict=strict)
    found = TrajectoryList()
    if elsewhere is not None:
        part, of_parts = ScorePart(partial(scorer_of, scorer), column), {"scorer": shown_name(scorer), "column": column}
        with TemporaryDirectory() as temporary:
            folder = Path(temporary) if out is None else parts_beside(Path(out))
            failed.join(
                make_parts(folder, SCORES, source, part, elsewhere, of_parts, multiple=AT_ONCE, strict=strict).failed
            )
            rows_made = read_parts(folder, SCORES)
            found.extend(rows_made) if out is None else write_format(out, rows_made, OWN, strict=True)
        return _told(found, unread, failed, out)
    loaded = scorer_of(scorer)
    if out is None:
        for one in scored(source, loaded, column, strict=strict):
            failed.add(one) if isinstance(one, tuple) else found.append(one)
    else:
        plan = None
        if isinstance(rows, str | Path) and isinstance(scorer, str | Path):
            plan = {"scorer": str(scorer), "column": column, "reads": [stamp(rows), stamp(scorer)]}
        work = partial(scored, scorer=loaded, column=column, strict=strict)
        write_format(out, source, OWN, strict=True, plan=plan, work=work, failed=failed)
    return _told(found, unread, failed, out)


def _told(
    found: TrajectoryList, unread: Failures, failed: Failures, out: str | Path | None
) -> TrajectoryList | Reading[Trajectory]:
    """What `score` returns, after a warning of what is not in it."""
    found.failed = unread
    unread.join(failed)
    warn_of_failures(unread, "could not be scored")
    return found if out is None else read(out)


@dataclass(frozen=True)
class ScorePart:
    """Scores parts of a table, wherever it is called: loads the scorer there, once, and does as `scored` does."""

    scorer: Callable[[], Scorer]
    column: str = SCORE

    def __call__(self) -> Callable[[list[Trajectory]], MadePart]:
        """What scores a part."""
        return partial(self._made, self.scorer())

    def _made(self, scorer: Scorer, items: list[Trajectory]) -> MadePart:
        made = MadePart()
        for one in scored(items, scorer, self.column):
            made.failed.add(one) if isinstance(one, tuple) else made.rows.append(one)
        if not made.rows:
            made.lost = made.failed[0][1]
        return made


def parts_beside(out: Path) -> Path:
    """The folder beside a table that keeps what workers have done of it, until the table is whole and after."""
    return out.with_name(f"{out.name}.parts")


def scored(
    items: Iterable[Trajectory | Failure],
    scorer: Scorer,
    column: str = SCORE,
    *,
    at_once: int = AT_ONCE,
    strict: bool = False,
) -> Iterator[Trajectory | Failure]:
    """Each solution with its scores, streaming; one that the scorer refuses costs no other its scores.

    Args:
        items: solutions, and in the place of a row that cannot be read its failure, which is passed on.
        scorer: who scores.
        column: name of the step column; further numbers of the scorer are in columns `COLUMN:NAME`.
        at_once: solutions that are scored together.
        strict: raise the error of a solution that the scorer refuses, instead of yielding it with the problem's id.

    Raises:
        InputError: strict, and a solution is refused.
    """
    for part in parts_of(items, at_once):
        good = [item for item in part if isinstance(item, Trajectory)]
        found = scores_or_errors(scorer, [Score(one.problem, one.steps) for one in good])
        for item in part:
            if not isinstance(item, Trajectory):
                yield item
                continue
            answer = next(found)
            if not isinstance(answer, InputError):
                found_columns = {column: answer.scores}
                found_columns |= {f"{column}:{name}": values for name, values in answer.columns.items()}
                yield item.with_columns(found_columns, Provenance(scorer.name, what=tuple(found_columns)))
            elif strict:
                raise answer
            else:
                yield item.problem.id, answer


def parts_of(items: Iterable[Trajectory | Failure], size: int) -> Iterator[list[Trajectory | Failure]]:
    """Lists of at most `size`; what came before an error is passed on before the error is raised."""
    part: list[Trajectory | Failure] = []
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
