"""Reading and writing: a path of any format, or objects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from stepreward.core.errors import InputError
from stepreward.core.failures import Failures, warn_of_failures
from stepreward.core.types import Problem, Trajectory
from stepreward.formats.files.rows_of_files import read_rows
from stepreward.formats.preferences.as_solutions import as_solutions
from stepreward.formats.problems import prompt_field, read_problems
from stepreward.formats.registry import Item, Reading, detect, fitting, read_comparisons
from stepreward.formats.registry import read as read_format
from stepreward.formats.registry import write as write_format
from stepreward.formats.trajectories import OWN

Rows = str | Path | Trajectory | Iterable[Trajectory]
"""A file or folder of any format of solutions, or trajectories."""
Problems = str | Path | Problem | Iterable[Problem]
"""A file of problems, or problems."""
_SOLUTION_FIELDS = ("steps", "completions", "completion", "solution")


def read(path: str | Path, form: str | None = None, *, strict: bool = False, **options: Any) -> Reading[Trajectory]:
    """Reads the solutions of a file or folder of any known format, streaming; iterating again reads again.

    Args:
        path: .json, .jsonl, .eval or .parquet, plain or .gz.
        form: name of the format; detected where None.
        strict: raise at the first bad row; otherwise bad rows are left out and listed in `.bad`.
        options: of the format's reader.

    Raises:
        InputError: the file cannot be read, no format fits, or it holds comparisons.
        UnknownNameError: no such format or option.
    """
    return read_format(path, form, strict=strict, **options)


def write(
    path: str | Path, rows: Iterable[Trajectory], form: str = OWN, *, strict: bool = False, **options: Any
) -> list[InputError]:
    """Writes solutions, by default as the table that every verb reads; returns what kept rows from being written.

    Args:
        path: .parquet, .jsonl or .json, the last two also with .gz; a name without a suffix is a folder of Parquet
            parts.
        rows: streamed.
        form: name of the format.
        strict: raise at the first row that the format cannot hold.
        options: of the format's writer, or `rows_per_part` of a folder.

    Raises:
        InputError: the format has no writer, or strict.
        StoreError: the file cannot be written.
        UnknownNameError: no such format or option.
    """
    return write_format(path, rows, form, strict=strict, **options)


def rows_of(
    rows: Rows, failed: Failures | None = None, *, strict: bool = False, comparisons: bool = False
) -> Iterable[Trajectory]:
    """Trajectories, read where a path is given.

    Args:
        rows: a path or trajectories.
        failed: gets the rows of a file that cannot be read, once all are read; where None, a warning counts them.
        strict: raise at the first of these instead.
        comparisons: of a file of comparisons, take the candidates; such a file is refused otherwise.
    """
    if comparisons and isinstance(rows, str | Path) and detect(rows).kind == "comparisons":
        return as_solutions(readable(read_comparisons(rows, strict=strict), failed))
    if isinstance(rows, Trajectory):
        return [rows]
    return readable(read_format(rows, strict=strict), failed) if isinstance(rows, str | Path) else rows


def readable(reading: Reading[Item], failed: Failures | None = None) -> Iterator[Item]:
    """The items of a file; rows that cannot be read go to `failed`, or are counted by a warning where it is None."""
    yield from reading
    bad = unread(reading)
    if failed is None:
        warn_of_failures(bad, "could not be read")
    else:
        failed.join(bad)


def unread(reading: Reading[Item]) -> Failures:
    """The rows that the last iteration left out."""
    bad = Failures((f"row {error.row}", error) for error in reading.bad)
    bad.more = reading.left_out - len(bad)
    return bad


def problems_of(problems: Problems, failed: Failures | None = None, *, graded: bool = False) -> list[Problem]:
    """Problems, read where a path is given.

    Args:
        problems: a path or problems.
        failed: gets the rows of a file that are no problem; None raises the first.
        graded: a row of a file without a reference or tests is such a row.

    Raises:
        InputError: there is none, or two share an id, by which samples are drawn and kept.
    """
    source, bad = None, list[InputError]()
    if isinstance(problems, str | Path):
        source = problems
        made = list(read_problems(problems, bad=None if failed is None else bad, graded=graded))
    else:
        made = [problems] if isinstance(problems, Problem) else list(problems)
    if not made and bad:
        more = f", and {len(bad) - 1:,} more rows are bad" if bad[1:] else ""
        raise InputError(bad[0].problem + more, source=source, row=bad[0].row, remedy=bad[0].remedy)
    if not made:
        raise InputError("no problem is here", source=source, remedy='write rows {"prompt": ..., "reference": ...}')
    if failed is not None:
        failed += [(f"row {error.row}", error) for error in bad]
    twice = [name for name, count in Counter(problem.id for problem in made).items() if count > 1]
    if twice:
        raise InputError(f"{len(twice)} ids occur twice, first {twice[0]!r}", source=source, remedy="make ids differ")
    return made


def hold_problems(path: Path) -> bool:
    """Whether a file's first readable row is a bare problem: a prompt, no solution, and of no format of solutions.

    Raises:
        InputError: the file cannot be read.
    """
    if path.is_dir():
        return False
    row = next((row for _, row in read_rows(path) if isinstance(row, Mapping)), {})
    return prompt_field(row) is not None and not any(name in row for name in _SOLUTION_FIELDS) and not fitting(row)
