"""`stepreward convert`: from one public format to another."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from stepreward.cli.flags.format_options import format_options
from stepreward.cli.flags.from_dataclasses import JsonFlag
from stepreward.cli.flags.rows import ReadFlags, filled, shown_format
from stepreward.cli.terminal.left_out import tell_blank, tell_left_out
from stepreward.cli.terminal.progress import SECONDS_BETWEEN_LINES, speed
from stepreward.core.errors import InputError, UnknownNameError
from stepreward.core.vocabulary import Flag
from stepreward.formats.description import formats_table
from stepreward.formats.registry import Reading, by_name, detect, formats, write
from stepreward.formats.trajectories import OWN

_WRITABLE = tuple(one.name for one in formats.values() if one.write)
T = TypeVar("T")


@dataclass(frozen=True)
class ConvertFlags:
    """What is converted into what."""

    data: Path | None = None
    """File to read, in place of the first argument."""
    out: Path | None = None
    """File to write, in place of the second argument."""
    to: str = OWN
    """Format to write; `--formats` lists them."""
    write: tuple[str, ...] = ()
    """Option of the written format as name=value; repeatable."""
    listing: Annotated[bool, Flag("--formats")] = False
    """List every format with its options, and end."""


@dataclass(frozen=True)
class SourceFlags(ReadFlags):
    """How the rows of the source are read."""

    form: Annotated[str, Flag("--format", "--from")] = ""
    """Format of the source; detected where left out."""


def convert(
    source: Annotated[
        Path | None, typer.Argument(help="File to read: .json, .jsonl or .parquet, plain or .gz.")
    ] = None,
    target: Annotated[Path | None, typer.Argument(help="File to write.")] = None,
    *,
    flags: ConvertFlags,
    reading: SourceFlags,
    json_output: JsonFlag = False,
) -> None:
    """Convert data between formats, streaming; says by which evidence it chose the format of the source.

    Example: stepreward convert rows.jsonl labels.parquet
    """
    if flags.listing:
        typer.echo(formats_table())
        return
    source, out, to = _one(source, flags.data, "--data"), _one(target, flags.out, "--out"), flags.to
    _check(source, out, to)
    origin = shown_format(source, reading.form)
    kind, items, rows = _items(source, reading)
    watched = Watched(items, quiet=json_output)
    made, refused = _write(
        watched, kind, source, out, to, flags.write, ended_by=_separator(rows), strict=reading.strict
    )
    seen = watched.count
    if json_output:
        done = {"out": str(out), "from": origin, "to": to, "kind": kind, "read": seen, "written": made}
        lost = {"refused": refused, "bad_rows": rows.left_out}
        typer.echo(json.dumps({**done, **lost, "seconds": round(watched.seconds, 3)}))
    else:
        left = f"; {refused:,} that {to} cannot hold were left out" if refused else ""
        typer.echo(f"{made:,} {kind} in {out}{left}\nread as {origin}")


def _one(argument: Path | None, option: Path | None, flag: str) -> Path:
    """A file that is named by an argument or by a flag."""
    found = [path for path in (argument, option) if path is not None]
    if len(found) == 2:
        raise InputError(f"{flag} and an argument both name a file", remedy="drop one of them")
    if not found:
        raise InputError("a file to read and one to write are needed", remedy="stepreward convert IN OUT --to NAME")
    return found[0]


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


def _items(source: Path, flags: ReadFlags) -> tuple[str, Iterable[Any], Reading[Any]]:
    """What the source holds: its kind, its solutions or comparisons, and their reading."""
    chosen = by_name(flags.form) if flags.form else detect(source)
    reading: Reading[Any] = Reading(source, chosen, format_options(chosen, chosen.read, flags.read), flags.strict)
    return chosen.kind, _reported(reading), reading


def _reported(reading: Reading[Any]) -> Iterator[Any]:
    """The items of a file; bad rows are named on standard error at its end."""
    try:
        yield from filled(reading)
    finally:
        tell_left_out(reading.bad, more=reading.left_out - len(reading.bad))
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
        reported = self.began
        for item in self.items:
            self.count += 1
            if not self.count % 1024 and not self.quiet and time.monotonic() - reported > SECONDS_BETWEEN_LINES:
                reported = time.monotonic()
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

    `ended_by`, the source's end of each step, is what the target takes away, unless `given` says otherwise.
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
