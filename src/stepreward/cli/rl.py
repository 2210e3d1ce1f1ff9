"""`stepreward rl`: reinforcement learning by step credit on the built-in world."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from rich.table import Table

from stepreward.cli import on_demand
from stepreward.cli.flags.from_dataclasses import JsonFlag
from stepreward.cli.terminal.console import plain_console
from stepreward.cli.terminal.progress import StageProgress
from stepreward.core.optional import require_installed
from stepreward.pipeline.learning import ReinforceSettings
from stepreward.pipeline.run_report import percent, points


@dataclass(frozen=True)
class ReinforceFlags:
    """Where the command works."""

    out: Path = Path("runs/rl")
    """Folder; trainings finished in it are not done again."""


def rl(flags: ReinforceFlags, settings: ReinforceSettings, json_output: JsonFlag = False) -> None:
    """Train the policy with TRL under several step credits and compare their learning curves; needs the extra `trl`.

    Example: stepreward rl --model runs/demo/model --credit rloo --credit pure
    """
    require_installed("trl")
    reinforce = on_demand.reinforce
    with StageProgress(quiet=json_output) as progress:
        summary = reinforce(flags.out, settings, progress)
    typer.echo(json.dumps(summary)) if json_output else _print(summary, flags.out)


def _print(summary: dict[str, Any], out: Path) -> None:
    first = summary["settings"]["credits"][0]
    table = Table(title=f"held-out accuracy after {summary['settings']['steps']} updates", title_justify="left")
    for head in ("credit", "climbs", "before", "after", f"points over {first}", "alarms"):
        table.add_column(head, overflow="fold")
    for name, made in summary["credits"].items():
        before, after = made["accuracy"][0], made["accuracy"][-1]
        beside = "" if name == first else points(made["versus_first"])
        table.add_row(name, made["objective"], percent(before), percent(after), beside, ", ".join(made["alarms"]))
    console = plain_console()
    console.print(table)
    console.print(f"report: {out / 'reinforce.html'}", soft_wrap=True)
