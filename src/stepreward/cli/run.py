"""`stepreward run`: the main job in one command."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import typer
from rich.table import Table

from stepreward.cli import on_demand
from stepreward.cli.flags.from_dataclasses import JsonFlag
from stepreward.cli.terminal.console import plain_console
from stepreward.cli.terminal.progress import StageProgress
from stepreward.pipeline.run_report import failed_lines, percent, points
from stepreward.pipeline.run_settings import OF_WORLD, QUICK, RunSettings
from stepreward.tasks.mathematics import MathGrader


@dataclass(frozen=True)
class RunFlags:
    """Where the command works."""

    out: Path = Path("runs/run")
    """Run folder; an interrupted run in it is resumed."""
    quick: bool = False
    """A whole report in about a minute: fewer problems, where no flag sets them."""


def run(flags: RunFlags, settings: RunSettings, json_output: JsonFlag = False) -> None:
    """Sample, label, train, score, search, evaluate and report, in one folder that resumes after a kill.

    Example: stepreward run --out runs/demo
    """
    few: dict[str, Any] = OF_WORLD[settings.world] | (QUICK if flags.quick else {})
    default = RunSettings()
    settings = replace(settings, **{n: v for n, v in few.items() if getattr(settings, n) == getattr(default, n)})
    with StageProgress(quiet=json_output) as progress:
        grader = MathGrader() if settings.problems else None
        job = on_demand.Run(flags.out, settings, grader=grader, on_progress=progress)
        summary = job.execute()
    typer.echo(json.dumps(summary)) if json_output else _print(summary, flags.out)


def _print(summary: dict[str, Any], out: Path) -> None:
    console = plain_console()
    if "evaluate" in summary:
        _print_selection(summary)
    if "acting" in summary:
        acting = summary["acting"]
        plain, guided = (percent(acting[name]["accuracy"]) for name in ("plain", "guided"))
        console.print(f"agent {plain}, by step scores {guided}: {points(acting['gain'])} points at equal actions")
    for line in failed_lines(summary):
        console.print(line, soft_wrap=True, markup=False)
    console.print(f"report: {out / 'report.html'}", soft_wrap=True)


def _print_selection(summary: dict[str, Any]) -> None:
    evaluation, console = summary["evaluate"], plain_console()
    n = summary["settings"]["held_out_samples"]
    main, rows = evaluation["main"], {name: row[-1] for name, row in evaluation["curves"].items()}
    table = Table(title="held-out accuracy", title_justify="left")
    for head in (f"N = {n}", "accuracy", "points over majority"):
        table.add_column(head)
    aggregate = summary["settings"]["aggregate"]
    for name in ("majority", f"best-of-n:{aggregate}", main, "oracle"):
        versus = evaluation["versus_majority"].get(name)
        table.add_row(name, percent(rows[name]), points(versus) if versus else "")
    for name in ("beam", "dvts"):
        table.add_row(name, percent(summary["search"][name]["accuracy"]), "")
    console.print(table)
    headline = evaluation["headline"]
    each = ", ".join(points(one["versus_majority"]) for one in headline["seeds"])
    console.print(f"{main} over majority: {points(headline['versus_majority'])} points; by training seed {each}")
    if "first_error" in evaluation:
        f1 = evaluation["first_error"]["f1"]
        console.print(f"first-error F1 {f1['value']:.3f} [{f1['low']:.3f}, {f1['high']:.3f}]")
