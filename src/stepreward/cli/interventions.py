"""`stepreward interventions`: fits and measures a table that says when a search asks a stronger policy."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from stepreward.cli.flags.from_dataclasses import JsonFlag
from stepreward.cli.flags.read_flags import ReadFlags
from stepreward.cli.terminal.left_out import tell_left_out
from stepreward.core.errors import InputError
from stepreward.core.failures import Failures
from stepreward.core.types import Trajectory
from stepreward.core.vocabulary import Count, Flag
from stepreward.pipeline.run_report import decimal
from stepreward.search.intervention_tables import evaluate_interventions, fit_interventions, lacking, load_table


@dataclass(frozen=True)
class InterventionFlags:
    """What is fitted, and under which budget."""

    out: Path | None = None
    """File of the fitted table, of `fit`; `search --method intervention --set table=FILE` reads it."""
    table: Path | None = None
    """Of `evaluate`: the fitted table."""
    budget: Annotated[float, Flag("--questions", low=0.0)] = 1.0
    """Of `fit`: most questions to the stronger policy of a solution, in expectation."""
    bins: Count = 5
    """Of `fit`: bins of scores."""
    column: str = "score"
    """Step column of scores."""
    seed: int = 0
    """Of intervals."""


def interventions(
    task: Annotated[Literal["fit", "evaluate"], typer.Argument(help="fit a table, or evaluate what one is worth.")],
    rows: Annotated[Path, typer.Argument(help="Solutions of search --method intervention --set random=0.3.")],
    *,
    flags: InterventionFlags,
    reading: ReadFlags,
    json_output: JsonFlag = False,
) -> None:
    """Say when a search asks a stronger policy: a table by dynamic programming, within a budget.

    It reads graded and scored solutions in which the stronger policy wrote some steps at random.

    Example: stepreward interventions fit collected.jsonl --questions 1 --out table.json
    """
    if (flags.out is None) == (task == "fit"):
        raise InputError("fit writes a table to --out FILE, and evaluate writes none", remedy="pass --out to fit alone")
    if (flags.table is None) == (task == "evaluate"):
        raise InputError("evaluate measures --table FILE, and fit makes one", remedy="pass --table to evaluate alone")

    def whole(one: Trajectory) -> Trajectory:
        if lacks := lacking(one, flags.column):
            raise InputError(f"the solution of {one.problem.id!r} has no {lacks}", remedy="grade and score it first")
        return one

    lost = Failures()
    known = [*reading.solutions(rows, lost, prepared=whole, quiet=json_output)]
    if not json_output:
        tell_left_out(lost)
    if flags.out is not None:
        made = fit_interventions(known, budget=flags.budget, bins=flags.bins, column=flags.column)
        made.save(flags.out)
        summary = {"table": str(flags.out), "value": made.value, "uses": made.uses, "without": made.without}
        summary |= {"price": made.price, "edges": [*made.edges], "solutions": len(known), "left_out": lost.total}
        typer.echo(json.dumps(summary) if json_output else (
            f"{flags.out}: {made.value:.1%} expected right with {made.uses:.2f} questions a solution, "
            f"{made.without:.1%} without; by the rows that it was fitted to"
        ))  # fmt: skip
        return
    assert flags.table is not None
    measured = evaluate_interventions(load_table(flags.table), known, column=flags.column, seed=flags.seed)
    if json_output:
        about = {"solutions": len(known), "left_out": lost.total}
        typer.echo(json.dumps({**{name: one.to_json() for name, one in measured.items()}, **about}))
        return
    for name, one in measured.items():
        typer.echo(f"{name.replace('_', ' ')}: {decimal(one.to_json())}")
