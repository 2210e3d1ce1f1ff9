"""What several commands read: problems, labelled solutions of any format, graders by name."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from stepreward.cli.format_options import format_options
from stepreward.cli.row_by_row import tell_blank
from stepreward.core.annotations import Annotated
from stepreward.core.errors import InputError
from stepreward.core.types import Labels, Problem
from stepreward.formats.files.rows_of_files import read_rows
from stepreward.formats.problems import prompt_field, read_problems
from stepreward.formats.registry import Evidence, Item, Reading, by_name, detect, evidence, fitting, formats, read
from stepreward.score.encode.recipe_text import valid

_SOLUTION_FIELDS = ("steps", "completions", "completion", "solution")
_TOLD = 10


def problems_of(path: Path) -> list[Problem]:
    """The problems of a file.

    Raises:
        InputError: it cannot be read, holds none, or two share an id, by which samples are drawn and kept.
    """
    made = list(read_problems(path))
    if not made:
        raise InputError("no problem is here", source=path, remedy='write rows {"prompt": ..., "reference": ...}')
    twice = [name for name, count in Counter(problem.id for problem in made).items() if count > 1]
    if twice:
        raise InputError(f"{len(twice)} ids stand twice, first {twice[0]!r}", source=path, remedy="make ids differ")
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


def read_solutions(
    path: Path, form: str = "", *, given: Sequence[str] = (), strict: bool = False
) -> Iterator[Annotated]:
    """Yields the solutions of a file of any format, or of what `stepreward label` wrote.

    Rows that cannot be read are told on standard error and left out, unless `strict`.

    Args:
        path: a file, or the folder of a label run.
        form: name of the format; detected where empty.
        given: options of the format as `name=value`.
        strict: raise at the first bad row.

    Raises:
        InputError: nothing can be read.
    """
    chosen = by_name(form) if form else detect(path)
    reading = read(path, chosen.name, strict=strict, **format_options(chosen, chosen.read, given))
    found = False
    broken: list[InputError] = []
    for item in filled(reading):
        try:
            for text in (item.trajectory.problem.text, item.trajectory.text):
                valid(text)
        except InputError as error:
            located = InputError(error.problem, source=path, row=reading.number, remedy=error.remedy)
            if strict:
                raise located from error
            broken.append(located)
            continue
        found = True
        yield item
    if not found:
        first, more = broken[0], len(broken) - 1
        what = first.problem + (f", and {more:,} more rows cannot be read" if more else "")
        raise InputError(what, source=path, row=first.row, remedy="repair the rows")
    told = [*reading.bad[:_TOLD], *broken][:_TOLD]
    for one in told:
        print(f"stepreward: left out: {one}", file=sys.stderr)
    if more := reading.left_out + len(broken) - len(told):
        print(f"stepreward: left out: {more:,} more rows", file=sys.stderr)
    tell_blank(reading.blank)


def filled(reading: Reading[Item]) -> Iterator[Item]:
    """The items of a file.

    Raises:
        InputError: there is none.
    """
    found = False
    for item in reading:
        found = True
        yield item
    if not found:
        raise InputError("no row is here", source=reading.path, remedy="check the path")


def read_labels_of(path: Path, form: str = "", *, given: Sequence[str] = (), strict: bool = False) -> Iterator[Labels]:
    """Yields labels of solutions, with their rollouts where they are there; otherwise as above."""
    return (item.to_labels() for item in read_solutions(path, form, given=given, strict=strict))


def shown_format(path: Path, form: str = "") -> str:
    """The format that a file is read as, with the evidence.

    Raises:
        InputError: no format fits, or several do.
        UnknownNameError: no such format.
    """
    found: Evidence | str = evidence(path) if not form else f"{by_name(form).name} ({formats[form].about}): as told"
    return str(found)
