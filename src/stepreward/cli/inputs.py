"""What several commands read: problems, labelled solutions of any format, graders by name."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from stepreward.cli.format_options import format_options
from stepreward.core.annotations import Annotated
from stepreward.core.errors import InputError, UnknownNameError
from stepreward.core.flows import Grader
from stepreward.core.store import SCHEMA
from stepreward.core.types import Labels, Problem, first_error
from stepreward.formats.files import read_rows
from stepreward.formats.registry import Evidence, by_name, detect, evidence, formats, read
from stepreward.label.run import load_labels
from stepreward.pipeline.world import read_problems
from stepreward.score.texts import valid
from stepreward.tasks.arithmetic_truth import ArithmeticGrader
from stepreward.tasks.mathematics import MathGrader

GRADERS: dict[str, Callable[[], Grader]] = {"mathematics": MathGrader, "arithmetic": ArithmeticGrader}
OWN = "stepreward"
"""Name of the format that `stepreward label` writes."""
LABELS = "labels.parquet"
"""The file of labels in the folder of a label run."""
_SOLUTION_FIELDS = ("steps", "completions", "completion", "solution")
_TOLD = 10


def grader_by_name(name: str) -> Grader:
    """An outcome grader.

    Raises:
        UnknownNameError: there is none of that name.
    """
    if name not in GRADERS:
        raise UnknownNameError("grader", name, GRADERS)
    return GRADERS[name]()


def problems_of(path: Path) -> list[Problem]:
    """The problems of a JSONL file.

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
    if path.is_dir() or path.suffix == ".parquet":
        return False
    row = next((row for _, row in read_rows(path) if isinstance(row, Mapping)), {})
    return (
        isinstance(row.get("prompt"), str)
        and not any(name in row for name in _SOLUTION_FIELDS)
        and not any(form.matches(row) for form in formats.values())
    )


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
    if is_own(path, form):
        no_options(given)
        yield from (_annotated(one) for one in _own_labels(path))
        return
    chosen = by_name(form) if form else detect(path)
    reading = read(path, chosen.name, strict=strict, **format_options(chosen, chosen.read, given))
    found = False
    broken: list[InputError] = []
    for item in reading:
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
        what, row = "no row is here", None
        if bad := [*reading.bad, *broken]:
            first, more = bad[0], reading.left_out + len(broken) - 1
            what, row = f"{first.problem}" + (f", and {more:,} more rows cannot be read" if more else ""), first.row
        raise InputError(what, source=path, row=row, remedy="repair the rows, or name another format")
    told = [*reading.bad[:_TOLD], *broken][:_TOLD]
    for one in told:
        print(f"stepreward: left out: {one}", file=sys.stderr)
    if more := reading.left_out + len(broken) - len(told):
        print(f"stepreward: left out: {more:,} more rows", file=sys.stderr)


def no_options(given: Sequence[str]) -> None:
    """Refuses options of a format where our own labels are read.

    Raises:
        InputError: there are some.
    """
    if given:
        raise InputError(f"format {OWN} has no options to read", remedy="drop --read")


def read_labels_of(path: Path, form: str = "", *, given: Sequence[str] = (), strict: bool = False) -> Iterator[Labels]:
    """Yields labels of solutions, with their rollouts where `stepreward label` wrote them; otherwise as above."""
    if is_own(path, form):
        no_options(given)
        yield from _own_labels(path)
    else:
        yield from (item.to_labels() for item in read_solutions(path, form, given=given, strict=strict))


def is_own(path: Path, form: str = "") -> bool:
    """Whether a path holds what `stepreward label` wrote, by the format named or else by its columns.

    Raises:
        InputError: it ends in .parquet and is no Parquet file.
    """
    if form or path.is_dir():
        return form == OWN or (not form and _is_label_run(path))
    if path.suffix != ".parquet":
        return False
    try:
        return {"n_rollouts", "provenance"} <= set(pq.read_schema(path).names) <= set(SCHEMA.names)
    except (OSError, ValueError) as error:
        raise InputError(f"not a readable Parquet file ({error})", source=path, remedy="check the path") from error


def _is_label_run(folder: Path) -> bool:
    return (folder / LABELS).is_file() or (folder / "plan.json").is_file() or any(folder.glob("labels-*.parquet"))


def shown_format(path: Path, form: str = "") -> str:
    """The format that a file is read as, with the evidence.

    Raises:
        InputError: no format fits, or several do.
        UnknownNameError: no such format.
    """
    if is_own(path, form):
        return f"{OWN} (labels with rollouts and provenance)"
    found: Evidence | str = evidence(path) if not form else f"{by_name(form).name} ({formats[form].about}): as told"
    return str(found)


def _own_labels(path: Path) -> Iterator[Labels]:
    """The labels of a file or a label run: transformed ones, or what was measured where the run has not ended."""
    return load_labels(path / LABELS if (path / LABELS).is_file() else path)


def _annotated(one: Labels) -> Annotated:
    known = one.label[~np.isnan(one.label)]
    return Annotated(one.trajectory, one.label, one.provenance, first_error(one.label) if known.size else None)
