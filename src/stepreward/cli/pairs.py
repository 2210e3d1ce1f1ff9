"""`stepreward pairs`: preference data out of labelled or graded solutions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from stepreward.cli.convert import writable
from stepreward.cli.flags.format_options import format_options
from stepreward.cli.flags.from_dataclasses import JsonFlag
from stepreward.cli.flags.read_flags import ReadFlags
from stepreward.cli.terminal.left_out import tell_left_out
from stepreward.core.errors import InputError
from stepreward.core.failures import Failures
from stepreward.core.files.stored_rows import StoredRows
from stepreward.core.types import LABEL, Comparison
from stepreward.core.vocabulary import Flag
from stepreward.formats.preferences.as_solutions import as_solutions
from stepreward.formats.registry import write
from stepreward.formats.trajectories import OWN
from stepreward.label.better_and_worse import PAIRS, pairs_of


@dataclass(frozen=True)
class PairFlags:
    """Which pairs are made of what."""

    data: Path
    """Solutions, several of a problem: what `label` or `search` wrote, or any format."""
    out: Path
    """File or folder to write."""
    by: Annotated[str, Flag(choices=PAIRS)] = "siblings"
    """Kind of pair: {choices}. Two next steps after a prefix, for pareto by several columns; two whole solutions with
    different outcomes, or different values at their last steps; a solution and the same with a step replaced by a
    worse sibling; a right and a wrong step after right ones."""
    column: str = LABEL
    """Step column with the values of steps; for pareto several with commas."""
    margin: Annotated[float, Flag(low=0.0)] = 0.0
    """Least difference of the two values."""
    above: float | None = None
    """The better one's value is above it."""
    below: float | None = None
    """The worse one's value is below it."""
    most: Annotated[int, Flag(low=0)] = 0
    """Most pairs of a problem, those with the largest margins; 0: all."""
    to: str = OWN
    """Format to write, of comparisons or of solutions; in the latter each candidate is a row, with outcome 1 or 0."""
    write: tuple[str, ...] = ()
    """Option of the written format as name=value; repeatable."""


def pairs(flags: PairFlags, reading: ReadFlags, json_output: JsonFlag = False) -> None:
    """Write preference data: pairs of a better and a worse step or solution, out of labelled or graded ones.

    Example: stepreward pairs --data labels/labels.parquet --out pairs.jsonl --to trl-preference
    """
    goal, rows = writable(flags.to), StoredRows()
    options = format_options(goal, goal.write, flags.write)
    rows.extend(reading.solutions(flags.data))
    bounds = {k: v for k, v in (("above", flags.above), ("below", flags.below)) if v is not None}
    made, with_pairs = 0, 0

    def found() -> Iterator[Comparison]:
        nonlocal made, with_pairs
        for number in range(len(rows)):
            some = pairs_of(
                rows.of(number), flags.by, column=flags.column, margin=flags.margin, most=flags.most, **bounds
            )
            made, with_pairs = made + len(some), with_pairs + bool(some)
            yield from some

    refused, some = Failures(), found()
    first = next(some, None)
    if first is None:
        what = f"no problem has two candidates for --by {flags.by} with different values"
        remedy = "pass several solutions of a problem, a --column that is there, or less strict bounds"
        raise InputError(what, source=flags.data, remedy=remedy)
    every = chain([first], some)
    items = as_solutions(every) if goal.kind == "solutions" else every
    write(flags.out, items, flags.to, strict=reading.strict, failed=refused, **options)
    tell_left_out(refused)
    if json_output:
        done = {"out": str(flags.out), "by": flags.by, "to": flags.to, "pairs": made, "problems": len(rows)}
        typer.echo(json.dumps({**done, "problems_with_pairs": with_pairs, "refused": refused.total}))
    else:
        typer.echo(f"{flags.out}: {made:,} pairs by {flags.by}, of {with_pairs:,} of {len(rows):,} problems")
    if refused:
        raise typer.Exit(1)
