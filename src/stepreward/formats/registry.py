"""The table of formats, and reading and writing by name."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from stepreward.core.errors import InputError, UnknownNameError
from stepreward.core.failures import MOST_KEPT, Failure, Failures
from stepreward.core.files.row_files import ROWS_PER_PART, holds, names_a_folder, write_parts, write_rows
from stepreward.core.plugins import Plugin, PluginRegistry, declared, leave_out
from stepreward.core.table import REMEDY
from stepreward.core.types import Comparison, Trajectory
from stepreward.formats import trajectories
from stepreward.formats.files.rows_of_files import read_rows
from stepreward.formats.format import Format, Kind
from stepreward.formats.labels import blank_as_context
from stepreward.formats.problems import prompt_field
from stepreward.formats.rows import Row, shown
from stepreward.formats.samples import step_rewards

Item = TypeVar("Item", Trajectory, Comparison)


def _of_plugin(plugin: Plugin) -> dict[str, Format]:
    """The formats of a plug-in: a `matches` that raises fits no row, and is reported once."""

    def guarded(form: Format) -> Format:
        reported: list[Exception] = []

        def matches(row: Row) -> bool:
            try:
                return form.matches(row)
            except Exception as error:
                # Code of others, called with every row of every file: its errors must not stop the reading.
                if not reported:
                    reported.append(error)
                    leave_out(plugin, error)
                return False

        return replace(form, matches=matches)

    return {form.name: guarded(form) for form in plugin.objects(Format, "FORMATS")}


formats: Mapping[str, Format] = PluginRegistry(
    lambda: {form.name: form for form in declared(__name__.rpartition(".")[0], "FORMATS")}, "stepreward.formats",
    _of_plugin,
)  # fmt: skip
"""Every format by name: those of plug-ins, and `FORMATS` of each module of this folder and of the folders in it."""

_NAMED = re.compile(r"`([a-z_]+)`")
"""Fields as readers' descriptions name them."""
_WIDER = {"trl": "masprm"}
"""Formats that some rows of another fit too, as MASPRM's without a negative value: a file with both is the other's."""
GENERAL = frozenset({"conversation", "share-gpt", "bare-messages"})
"""Formats of any conversation: a row, or a file, that fits another format too is of that one."""
_REMEDY = "compare the row with the format's layout, or drop it"
MISSHAPEN = (TypeError, KeyError, IndexError, AttributeError, ValueError, OverflowError)
"""What reading nested values of the wrong shape may raise, InputError among them, which is a ValueError.

A reader checks by name only what it can explain better.
"""


def by_name(name: str) -> Format:
    """The format of that name.

    Raises:
        UnknownNameError: there is none.
    """
    if name not in formats:
        raise UnknownNameError("format", name, formats)
    return formats[name]


def fitting(row: Row) -> list[Format]:
    """The formats that a row fits: our own alone where it says so, a general one only where no other does."""
    # Our own rows may carry any other columns, those by which other formats are known too.
    for own, says in ((trajectories.OWN, trajectories.matches), (step_rewards.NAME, step_rewards.matches)):
        if says(row):
            return [formats[own]]
    fits = [form for form in formats.values() if form.matches(row)]
    return [form for form in fits if form.name not in GENERAL] or fits


@dataclass(frozen=True, slots=True)
class Evidence:
    """Why a file is taken to be of a format."""

    format: Format
    row: int
    """1-based number of the first row that decided."""
    fields: tuple[str, ...]
    """Its fields."""
    agreeing: int = 1
    """Rows looked at that fit this format."""
    seen: int = 1
    """Rows looked at."""

    def __str__(self) -> str:
        return (
            f"{self.format.name} ({self.format.about}): row {self.row} has {', '.join(self.fields)}"
            f"; {self.agreeing} of the first {self.seen} rows fit it and no other"
        )


def evidence(path: str | Path, *, rows: int = 20) -> Evidence:
    """The one format that the first rows of a file fit, with the first row that shows it.

    Rows that fit no format, and unreadable ones, are left to the reader to report.

    Args:
        path: the file.
        rows: how many rows to look at.

    Raises:
        InputError: no format fits any of them, a row fits several, or two rows fit different ones.
    """
    found: dict[str, Evidence] = {}
    first: Row = {}
    seen, broken = 0, ""
    for (number, row), _ in zip(read_rows(path), range(rows), strict=False):
        seen += 1
        if isinstance(row, InputError):
            broken = broken or f"; row {number}: {row.problem}"
            continue
        first = first or row
        fits = fitting(row)
        if len(fits) > 1:
            names = " and ".join(form.name for form in fits)
            what = f"ambiguous: the fields {', '.join(row)} fit {names}"
            raise InputError(what, source=path, row=number, remedy="name the format")
        for form in fits:
            known = found.get(form.name, Evidence(form, number, tuple(row), agreeing=0))
            found[form.name] = replace(known, agreeing=known.agreeing + 1)
    for wider, narrower in _WIDER.items():
        if wider in found and narrower in found:
            both = found.pop(wider).agreeing
            found[narrower] = replace(found[narrower], agreeing=found[narrower].agreeing + both)
    if not found.keys() <= GENERAL:
        found = {name: one for name, one in found.items() if name not in GENERAL}
    if len(found) > 1:
        conflict = " but ".join(f"row {one.row} fits {name}" for name, one in found.items())
        raise InputError(f"ambiguous: {conflict}", source=path, remedy="name the format, or part the file")
    for one in found.values():
        return replace(one, seen=seen)
    what = "no readable row"
    if first:
        what = f"no format fits; the first row has the fields {', '.join(map(str, first))}{_nearest(list(first))}"
    if prompt_field(first) is not None and not {"steps", "completion", "completions"} & first.keys():
        broken += "; a problem without a solution is read by --problems, and by formats.read_problems"
    raise InputError(
        what + broken, source=path, remedy=f"name the format; `stepreward convert --formats` lists them; or {REMEDY}"
    )


def _nearest(fields: Sequence[str], most: int = 3) -> str:
    """The formats whose readers' descriptions name the most of these fields, with those that are there and missing."""
    ranked = []
    for form in formats.values():
        summary = (inspect.getdoc(form.read) or "").split("\nArgs:")[0]
        named = list(dict.fromkeys(_NAMED.findall(summary)))
        there = [name for name in named if name in fields]
        if there:
            missing = [name for name in named if name not in fields]
            ranked.append((len(there) / len({*named, *fields}), form.name, there, missing))
    ranked.sort(key=lambda one: (-one[0], one[1]))
    shown_ = [
        f"{name} (has {', '.join(there)}" + (f"; lacks {', '.join(missing)})" if missing else ")")
        for _, name, there, missing in ranked[:most]
    ]
    return f"; nearest: {', '.join(shown_)}" if shown_ else ""


def detect(path: str | Path, *, rows: int = 20) -> Format:
    """The format that `evidence` finds, which raises the errors."""
    return evidence(path, rows=rows).format


class NothingReadError(InputError):
    """A file of which no row could be read."""


@dataclass
class Reading(Generic[Item]):
    """The solutions or comparisons of a file, read as they are iterated; iterating again reads again."""

    path: Path
    format: Format
    options: dict[str, Any] = field(default_factory=dict)
    strict: bool = False
    """Raise at the first bad row instead of leaving it out."""
    bad: list[InputError] = field(default_factory=list)
    """What was wrong with the rows left out by the last iteration, the first `MOST_KEPT` of them."""
    left_out: int = 0
    """How many rows the last iteration left out."""
    blank: int = 0
    """How many steps of white space the last iteration made context of."""
    number: int = 0
    """1-based number of the row that the last item came from."""

    def __repr__(self) -> str:
        return f"<{self.format.kind} of {str(self.path)!r}, read as {self.format.name}>"

    def __iter__(self) -> Iterator[Item]:
        self.bad.clear()
        self.left_out = self.blank = 0
        found, fields = False, list[str]()
        for number, row in self.format.rows(self.path):
            self.number = number
            try:
                if isinstance(row, InputError):
                    raise row
                fields = fields or list(map(str, row))
                # A row counts as a whole or not at all: half of a problem's samples would bias its pass rate.
                made = [
                    blank_as_context(item) if isinstance(item, Trajectory) else (item, 0)
                    for item in self.format.read(row, number, **self.options)
                ]
            except MISSHAPEN as error:
                located = self._located(error, number)
                if self.strict:
                    raise located from error
                self.left_out += 1
                if len(self.bad) < MOST_KEPT:
                    self.bad.append(located)
            else:
                found = found or bool(made)
                self.blank += sum(blank for _, blank in made)
                yield from cast(list[Item], [item for item, _ in made])
        if not found and (fields or self.bad):
            raise self._nothing(fields)

    def _nothing(self, fields: Sequence[str]) -> NothingReadError:
        """Why there is no item: an empty result would say that the file has none."""
        what = f"no {self.format.kind[:-1]} of format {self.format.name} is here" if fields else "no row is here"
        row, remedy = None, f"repair the rows, name another format, or {REMEDY}"
        if self.bad:
            first, more = self.bad[0], self.left_out - 1
            what, row = first.problem + (f", and {more:,} more rows cannot be read" if more else ""), first.row
            remedy = remedy if first.remedy in ("", _REMEDY) else f"{first.remedy}; or {remedy}"
        what += f"; read as {self.format.name}, the first row has the fields {', '.join(fields)}" if fields else ""
        return NothingReadError(what, source=self.path, row=row, remedy=remedy)

    def _located(self, error: Exception, number: int) -> InputError:
        """The error with the file, the row and what to do."""
        if not isinstance(error, InputError):
            error = InputError(f"not a {self.format.name} row: {shown(error)}")
        if error.row is not None:  # The file's own reader knows the place.
            return error
        return InputError(error.problem, source=self.path, row=number, remedy=error.remedy or _REMEDY)


def read(path: str | Path, form: str | None = None, *, strict: bool = False, **options: Any) -> Reading[Trajectory]:
    """Reads a file of any known format of solutions.

    Args:
        path: .json, .jsonl, .eval or .parquet, plain or .gz.
        form: name of the format; detected where None.
        strict: raise at the first bad row; otherwise good rows are kept and bad ones are listed in `.bad`.
        options: of the format's reader.

    Raises:
        InputError: the file cannot be read, no format fits, or it holds comparisons.
        UnknownNameError: no such format or option.
    """
    return Reading(Path(path), _chosen(path, form, "solutions", options), options, strict)


def read_comparisons(
    path: str | Path, form: str | None = None, *, strict: bool = False, **options: Any
) -> Reading[Comparison]:
    """Reads a file of any known format of comparisons; as `read` otherwise.

    Raises:
        InputError: the file cannot be read, no format fits, or it holds solutions.
        UnknownNameError: no such format or option.
    """
    return Reading(Path(path), _chosen(path, form, "comparisons", options), options, strict)


def _chosen(path: str | Path, form: str | None, kind: Kind, options: Iterable[str]) -> Format:
    chosen = detect(path) if form is None else by_name(form)
    if chosen.kind != kind:
        able = ", ".join(name for name, other in formats.items() if other.kind == kind)
        raise InputError(
            f"format {chosen.name} holds {chosen.kind}, not {kind}", source=path,
            remedy=f"call read{'' if chosen.kind == 'solutions' else '_comparisons'}, or name one of {able}",
        )  # fmt: skip
    chosen.check(chosen.read, options)
    return chosen


def _of_problem(error: InputError, item: object) -> InputError:
    """The error, with the id of the item's problem."""
    problem = getattr(item, "problem", None)
    if problem is None:
        return error
    return InputError(f"problem {problem.id!r:.60}: {error.problem}", source=error.source, row=error.row,
                      remedy=error.remedy)  # fmt: skip


class _NothingToWriteError(Exception):
    """A format can hold none of the items."""


def write(
    path: str | Path,
    items: Iterable[Any],
    form: str,
    *,
    strict: bool = False,
    rows_per_part: int = ROWS_PER_PART,
    plan: Mapping[str, Any] | None = None,
    work: Callable[[Iterable[Any]], Iterable[Trajectory | Comparison | Failure]] = iter,
    failed: Failures | None = None,
    counts: Counter[str] | None = None,
    **options: Any,
) -> list[InputError]:
    """Writes solutions or comparisons in a format and returns why others are not written.

    Where the format can hold none of them, no file is written, and a file that was there stays.

    Args:
        path: .jsonl, .json or .parquet, or the first two with .gz; a folder of Parquet parts if it ends in `/`, is a
            folder, or has no suffix.
        items: what the format holds, streamed; with `work` what that function takes.
        form: name of the format.
        strict: raise at the first that the format cannot hold.
        rows_per_part: items of a part, in a folder.
        plan: settings of what is written into a folder, JSON values: a run that was killed and is started again with
            the same plan goes on at its first missing part.
        work: makes what is written, or the reason why there is none, of each item, where that is costly: a run that is
            started again does not call it for parts that are there.
        failed: gets what is returned, with the names that `work` gives it.
        counts: what `work` counts, which parts that are there have counted before.
        options: of the format's writer.

    Raises:
        InputError: the format has no writer, the folder is for another plan, or strict.
        UnknownNameError: no such format or option.
        StoreError: the file cannot be written.
    """
    chosen = by_name(form)
    if chosen.write is None:
        able = ", ".join(name for name, other in formats.items() if other.write)
        raise InputError(f"format {form} can only be read", remedy=f"write one of {able}")
    chosen.check(chosen.write, options)
    refused = Failures() if failed is None else failed
    before, seen, kept_out = len(refused), 0, 0
    needed = Comparison if chosen.kind == "comparisons" else Trajectory

    def rows(some: Iterable[Any]) -> Iterator[dict[str, Any] | Failure]:
        assert chosen.write is not None
        nonlocal seen, kept_out
        for item in work(some):
            if isinstance(item, tuple):
                yield item
                continue
            seen += 1
            try:
                if not isinstance(item, needed):
                    raise InputError(
                        f"format {form} holds {chosen.kind}, got a {type(item).__name__}", remedy="name another format"
                    )
                row = chosen.write(item, **options)
                holds(Path(path), row)
                yield row
            except InputError as error:
                named = _of_problem(error, item)
                if strict:
                    raise named from error
                kept_out += 1
                yield "", named

    def good() -> Iterator[dict[str, Any]]:
        for row in rows(items):
            if isinstance(row, tuple):
                refused.add(row)
            else:
                yield row
        if kept_out and kept_out == seen:
            raise _NothingToWriteError

    if names_a_folder(path):
        write_parts(
            path, items, rows, schema=chosen.schema, rows_per_part=rows_per_part, plan=plan, failed=refused,
            counts=counts,
        )  # fmt: skip
    else:
        with suppress(_NothingToWriteError):
            write_rows(path, good(), schema=chosen.schema)
    return [error for _, error in refused[before:] if isinstance(error, InputError)]
