"""`stepreward rounds`: models that learn from what the one before them found or labelled."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import typer
from rich.table import Table

from stepreward.cli import on_demand
from stepreward.cli.flags.from_dataclasses import JsonFlag
from stepreward.cli.flags.policies import AgentFlags
from stepreward.cli.terminal.console import plain_console
from stepreward.cli.terminal.progress import StageProgress
from stepreward.pipeline.rounds_settings import RoundsSettings
from stepreward.train.settings import TrainSettings


@dataclass(frozen=True)
class RoundsFlags:
    """Where the command works."""

    out: Path = Path("runs/rounds")
    """Folder; finished rounds in it are not done again."""


def rounds(
    flags: RoundsFlags, settings: RoundsSettings, training: TrainSettings, policy: AgentFlags,
    json_output: JsonFlag = False,
) -> None:  # fmt: skip
    """Train in rounds, each on what the model before found or labelled; shows a held-out curve, and resumes.

    Example: stepreward rounds --labelled some.parquet --solutions more.parquet --held-out-data kept.parquet
    """
    with StageProgress(quiet=json_output) as progress:
        summary = on_demand.train_in_rounds(
            flags.out, settings, training, policy=policy.load, on_progress=progress
        )  # fmt: skip
    if json_output:
        typer.echo(json.dumps(summary))
        return
    head, rows = on_demand.rows_of_table(summary)
    table = Table(title=f"{summary['problems']:,} held-out problems", title_justify="left")
    for name in head:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = plain_console()
    console.print(table)
    console.print(f"report: {flags.out / 'rounds.html'}", soft_wrap=True)
