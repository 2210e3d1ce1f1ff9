"""Scores a log and writes it again, in its own layout, with the scores in it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from stepreward.core.errors import InputError
from stepreward.core.failures import Failures, warn_of_failures
from stepreward.core.files.row_files import write_rows
from stepreward.core.runtime.flows import Scorer
from stepreward.core.types import SCORE, Trajectory
from stepreward.formats.registry import Reading
from stepreward.formats.scored_logs import Goal, PlacedScores, api_rows, check_log, layout_of, write_log
from stepreward.verbs.names import scorer_of
from stepreward.verbs.read_rows import read, unread
from stepreward.verbs.score_rows import scored


def score_log(
    log: str | Path | Reading[Trajectory],
    scorer: str | Path | Scorer | Callable[[], Scorer],
    out: str | Path,
    *,
    to: Goal = "log",
    column: str = SCORE,
    failed: Failures | None = None,
    watched: Callable[[Iterator[Trajectory]], Iterable[Trajectory]] = iter,
) -> PlacedScores:
    """Scores the steps of a log and writes the log again with the scores in it, or the scores alone.

    The log is in its own layout, with everything that it had; a score of the same name is replaced, so that a log that
    is scored twice has each score once. An action without a score has none in the file either.

    Args:
        log: a file of a format with a place for scores, or a reading of it.
        scorer: a name that `stepreward.load` takes, a scorer, or what loads one once the file can be written; the name
            `stored:TABLE` takes the scores that a table of the same log has.
        out: file to write; a log of the same kind of file, or JSON lines, JSON or Parquet of scores.
        to: `log`, or `scores` for a row a score as the log's platform takes them.
        column: name of the scores, `score:NAME` for those of one scorer among several.
        failed: gets the rows that cannot be read or scored, which stay in the log as they are; where None, a warning
            counts them.
        watched: shows progress over the runs.

    Returns:
        What was written, and what was not.

    Raises:
        InputError: the layout has no place for scores, nothing can be read, or strict and a row is bad.
    """
    reading = read(log) if isinstance(log, str | Path) else log
    source, path = reading.path, Path(out)
    layout = layout_of(reading.format, to)
    if to == "log":
        check_log(source, path)
    if source.exists() and path.exists() and source.samefile(path):
        raise InputError("is read and written at once", source=source, remedy="write another file")
    places: deque[tuple[int, int]] = deque()

    def runs() -> Iterator[Trajectory]:
        before, nth = 0, 0
        for run in reading:
            nth = nth + 1 if reading.number == before else 0
            before = reading.number
            places.append((before, nth))
            yield run

    made: PlacedScores | None = None
    refused, told = Failures(), Failures() if failed is None else failed
    for one in scored(watched(runs()), _loaded(scorer), column, strict=reading.strict):
        place = places.popleft()
        if isinstance(one, Trajectory):
            names = tuple(name for name in one.columns if name == column or name.startswith(f"{column}:"))
            made = made or PlacedScores(layout, names)
            made.add(one, *place)
        else:
            refused.add(one)
    told.join(unread(reading))
    told.join(refused)
    if made is None:
        raise InputError(f"no run of {told.total:,} could be scored", source=source, remedy="see their errors")
    if to == "log":
        write_log(source, path, made)
    else:
        write_rows(path, api_rows(made))
    if failed is None:
        warn_of_failures(told, "could not be scored")
    return made


def _loaded(scorer: str | Path | Scorer | Callable[[], Scorer]) -> Scorer:
    """A scorer by name, as it is, or made by a function or a class."""
    if callable(scorer) and (isinstance(scorer, type) or not hasattr(scorer, "score_many")):
        return scorer()
    return scorer_of(scorer)  # type: ignore[arg-type]
