"""`stepreward convert`: from one public format to another."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from stepreward.cli.format_options import ReadFlag, format_options
from stepreward.cli.inputs import filled, shown_format
from stepreward.cli.progress import SECONDS_BETWEEN_LINES, speed
from stepreward.cli.row_by_row import tell_blank, tell_left_out
from stepreward.core.errors import InputError, UnknownNameError
from stepreward.formats.description import formats_table
from stepreward.formats.registry import Reading, by_name, detect, formats, write
from stepreward.formats.trajectories import OWN

_WRITABLE = tuple(one.name for one in formats.values() if one.write)
_TOLD = 10
T = TypeVar("T")


def convert(
    source: Annotated[
        Path | None, typer.Argument(help="File to read: .json, .jsonl or .parquet, plain or .gz.")
    ] = None,
    out: Annotated[Path | None, typer.Argument(help="File to write.")] = None,
    to: Annotated[str, typer.Option(help="Format to write; `--formats` lists them.")] = OWN,
    form: Annotated[
        str, typer.Option("--from", "--format", help="Format of the source; detected where left out.")
    ] = "",
    read_option: ReadFlag = None,
    write_option: Annotated[
        list[str] | None,
        typer.Option("--write", help="Option of the written format as name=value; repeatable."),
    ] = None,
    listing: Annotated[bool, typer.Option("--formats", help="List every format with its options, and end.")] = False,
    strict: Annotated[bool, typer.Option(help="Stop at the first bad row instead of leaving it out.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Convert data between formats, streaming; says by which evidence it chose the format of the source.

    Example: stepreward convert rows.jsonl labels.parquet
    """
    if listing:
        typer.echo(formats_table())
        return
    if source is None or out is None:
        raise InputError("a file to read and one to write are needed", remedy="stepreward convert IN OUT --to NAME")
    _check(source, out, to)
    origin = shown_format(source, form)
    kind, items, reading = _items(source, form, read_option or [], strict=strict)
    watched = Watched(items, quiet=json_output)
    given = write_option or []
    made, refused = _write(watched, kind, source, out, to, given, ended_by=_separator(reading), strict=strict)
    seen = watched.count
    if json_output:
        done = {"out": str(out), "from": origin, "to": to, "kind": kind, "read": seen, "written": made}
        lost = {"refused": refused, "bad_rows": reading.left_out}
        typer.echo(json.dumps({**done, **lost, "seconds": round(watched.seconds, 3)}))
    else:
        left = f"; {refused:,} that {to} cannot hold were left out" if refused else ""
        typer.echo(f"{made:,} {kind} in {out}{left}\nread as {origin}")


def _check(source: Path, out: Path, to: str) -> None:
    if to not in formats:
        raise UnknownNameError("format", to, _WRITABLE)
    if to not in _WRITABLE:
        raise InputError(f"format {to} can only be read", remedy=f"write one of {', '.join(_WRITABLE)}")
    if source.exists() and out.exists() and source.samefile(out):
        raise InputError("is read and written at once", source=out, remedy="write another file")


def _same_kind(kind: str, other: str, source: Path, to: str) -> None:
    if kind != other:
        able = ", ".join(name for name, one in formats.items() if one.write and one.kind == kind) or "none"
        raise InputError(
            f"holds {kind} and cannot become {to}, which holds {other}", source=source,
            remedy=f"formats of {kind} that can be written: {able}",
        )  # fmt: skip


def _items(source: Path, form: str, given: Sequence[str], *, strict: bool) -> tuple[str, Iterable[Any], Reading[Any]]:
    """What the source holds: its kind, its solutions or comparisons, and their reading."""
    chosen = by_name(form) if form else detect(source)
    reading: Reading[Any] = Reading(source, chosen, format_options(chosen, chosen.read, given), strict)
    return chosen.kind, _told(reading), reading


def _told(reading: Reading[Any]) -> Iterator[Any]:
    """The items of a file; bad rows are told on standard error as they come, the first ones in full."""
    told = 0
    for item in filled(reading):
        yield item
        for error in reading.bad[told:_TOLD]:
            print(f"stepreward: left out: {error}", file=sys.stderr)
            told += 1
    for error in reading.bad[told:_TOLD]:
        print(f"stepreward: left out: {error}", file=sys.stderr)
    if reading.left_out > _TOLD:
        print(f"stepreward: left out: {reading.left_out - _TOLD:,} more rows", file=sys.stderr)
    tell_blank(reading.blank)


class Watched:
    """Counts what passes and says on standard error how fast, now and then."""

    def __init__(self, items: Iterable[T], *, quiet: bool) -> None:
        self.items, self.quiet, self.count = items, quiet, 0
        self.began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Time since it was made."""
        return time.monotonic() - self.began

    def __iter__(self) -> Iterator[Any]:
        told = self.began
        for item in self.items:
            self.count += 1
            if not self.count % 1024 and not self.quiet and time.monotonic() - told > SECONDS_BETWEEN_LINES:
                told = time.monotonic()
                print(f"convert: {self.count:,} at {speed(self.count / self.seconds)}", file=sys.stderr, flush=True)
            yield item


def _separator(reading: Reading[Any]) -> str:
    """What the source's format puts at the end of each step; "" where it says none."""
    known = reading.format.options(reading.format.read)
    return str({**known, **reading.options}.get("separator", ""))


def _write(
    items: Watched, kind: str, source: Path, out: Path, to: str, given: Sequence[str], *, ended_by: str, strict: bool
) -> tuple[int, int]:
    """Writes them and returns how many were written and how many the format cannot hold.

    What the source's format put at the end of each step (`ended_by`) is what the other takes away, unless it was told.
    """
    target = by_name(to)
    assert target.write is not None
    _same_kind(kind, target.kind, source, to)
    options = format_options(target, target.write, given)
    if ended_by and "separator" in target.options(target.write):
        options.setdefault("separator", ended_by)
    errors = write(out, items, to, strict=strict, **options)
    made = items.count - len(errors)
    if made:
        tell_left_out(errors)
    if not made:
        raise InputError(f"{to} can hold none of the {len(errors):,} {kind}: {errors[0].problem}", source=source)
    return made, len(errors)
