"""`stepreward convert`: from one public format to another."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from stepreward.cli.flags.format_options import format_options
from stepreward.cli.flags.from_dataclasses import JsonFlag
from stepreward.cli.flags.parts import PartFlags, plan
from stepreward.cli.flags.read_flags import ReadFlags, filled, shown_format
from stepreward.cli.terminal.left_out import tell_blank, tell_left_out
from stepreward.cli.terminal.progress import Watched
from stepreward.core.errors import InputError, UnknownNameError
from stepreward.core.failures import Failures
from stepreward.core.vocabulary import Flag
from stepreward.formats.description import formats_table
from stepreward.formats.preferences.as_solutions import as_solutions
from stepreward.formats.registry import Reading, by_name, detect, formats, write
from stepreward.formats.trajectories import OWN
from stepreward.verbs.read_rows import unread

_WRITABLE = tuple(one.name for one in formats.values() if one.write)


@dataclass(frozen=True)
class ConvertFlags:
    """What is converted into what."""

    data: Path | None = None
    """File to read, in place of the first argument."""
    out: Path | None = None
    """File or folder to write, in place of the second argument."""
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
    target: Annotated[Path | None, typer.Argument(help="File, or folder of parts, to write.")] = None,
    *,
    flags: ConvertFlags,
    reading: SourceFlags,
    parts: PartFlags,
    json_output: JsonFlag = False,
) -> None:
    """Convert data between formats, streaming; says by which evidence it chose the format of the source.

    Comparisons can become solutions: a row for each candidate, with how good it is as the outcome.

    Example: stepreward convert rows.jsonl labels.parquet
    """
    if flags.listing:
        typer.echo(formats_table())
        return
    source, out, to = _one(source, flags.data, "--data"), _one(target, flags.out, "--out"), flags.to
    if source.exists() and out.exists() and source.samefile(out):
        raise InputError("is read and written at once", source=out, remedy="write another file")
    goal = writable(to)
    origin = shown_format(source, reading.form)
    chosen = by_name(reading.form) if reading.form else detect(source)
    given = format_options(chosen, chosen.read, reading.read)
    kind = chosen.kind
    if kind != goal.kind and kind == "solutions":
        able = ", ".join(name for name, one in formats.items() if one.write and one.kind == kind) or "none"
        what = f"holds {kind} and cannot become {to}, which holds {goal.kind}"
        remedy = f"make pairs of them with `stepreward pairs`; formats of {kind} that can be written: {able}"
        raise InputError(what, source=source, remedy=remedy)
    options = format_options(goal, goal.write, flags.write)
    # What the source's format puts at the end of each step, the target's takes away.
    ended_by = {**chosen.options(chosen.read), **given}.get("separator")
    if ended_by and "separator" in goal.options(goal.write):
        options.setdefault("separator", ended_by)
    rows: Reading[Any] = Reading(source, chosen, given, reading.strict)
    # A comparison becomes a solution for each candidate.
    items = filled(rows) if kind == goal.kind else as_solutions(filled(rows))
    watched = Watched(items, "convert", quiet=json_output)
    refused = Failures()
    write(
        out, watched, to, strict=reading.strict, rows_per_part=parts.rows_per_part, failed=refused,
        plan=plan("convert", replace(flags, data=None, out=None), reading, reads=(source,)), **options,
    )  # fmt: skip
    tell_left_out(unread(rows))
    tell_blank(rows.blank)
    made = watched.count - refused.total
    if not made:
        raise InputError(f"{to} can hold none of the {refused.total:,} {goal.kind}: {refused[0][1]}", source=source)
    tell_left_out(refused)
    if json_output:
        done = {"out": str(out), "from": origin, "to": to, "kind": goal.kind, "read": watched.count, "written": made}
        lost = {"refused": refused.total, "bad_rows": rows.left_out}
        typer.echo(json.dumps({**done, **lost, "seconds": round(watched.seconds, 3)}))
    else:
        left = f"; {refused.total:,} that {to} cannot hold were left out" if refused else ""
        typer.echo(f"{made:,} {goal.kind} in {out}{left}\nread as {origin}")
    if refused or rows.left_out:
        raise typer.Exit(1)


def _one(argument: Path | None, option: Path | None, flag: str) -> Path:
    """A file that is named by an argument or by a flag."""
    found = [path for path in (argument, option) if path is not None]
    if len(found) == 2:
        raise InputError(f"{flag} and an argument both name a file", remedy="drop one of them")
    if not found:
        raise InputError("a file to read and one to write are needed", remedy="stepreward convert IN OUT --to NAME")
    return found[0]


def writable(name: str) -> Any:
    """The format to write.

    Raises:
        InputError: it can only be read.
        UnknownNameError: there is none of this name.
    """
    if name not in formats:
        raise UnknownNameError("format", name, _WRITABLE)
    if name not in _WRITABLE:
        raise InputError(f"format {name} can only be read", remedy=f"write one of {', '.join(_WRITABLE)}")
    return formats[name]
