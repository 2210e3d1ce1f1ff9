"""`stepreward rl`: reinforcement learning by step credit on the built-in world."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from stepreward.cli.console import plain_console
from stepreward.cli.progress import StageProgress
from stepreward.core.optional import optional
from stepreward.pipeline.learning import ReinforceSettings
from stepreward.pipeline.run_report import percent, points

_DEFAULT = ReinforceSettings()


def rl(
    out: Annotated[Path, typer.Option(help="Folder; trainings finished in it are not done again.")] = Path("runs/rl"),
    credit: Annotated[
        list[str] | None,
        typer.Option(help="Method of the family credit; may be repeated. The others are held against the first."),
    ] = None,
    model: Annotated[str, typer.Option(help="Step reward model, such as runs/demo/model.")] = _DEFAULT.model,
    policy: Annotated[str, typer.Option(help="builtin:arithmetic, a model folder, or a hub name.")] = _DEFAULT.policy,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each credit.")] = _DEFAULT.seeds,
    steps: Annotated[int, typer.Option(min=1, help="Updates of the policy.")] = _DEFAULT.steps,
    problems: Annotated[int, typer.Option(min=1, help="Problems of an update.")] = _DEFAULT.problems,
    generations: Annotated[int, typer.Option(min=2, help="Solutions of each.")] = _DEFAULT.generations,
    learning_rate: Annotated[float, typer.Option(help="Constant after two updates.")] = _DEFAULT.learning_rate,
    max_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of a solution.")] = _DEFAULT.max_tokens,
    evaluate_every: Annotated[int, typer.Option(min=1, help="Updates between points.")] = _DEFAULT.evaluate_every,
    held_out: Annotated[int, typer.Option(min=2, help="Problems to measure on.")] = _DEFAULT.held_out,
    samples: Annotated[int, typer.Option(min=1, help="Solutions of each.")] = _DEFAULT.samples,
    json_output: Annotated[bool, typer.Option("--json", help="Print the summary as JSON, show no progress.")] = False,
) -> None:
    """Train the policy with TRL under several step credits and compare their learning curves; needs the extra `trl`.

    Example: stepreward rl --model runs/demo/model --credit rloo --credit pure
    """
    given = locals() | {"credits": tuple(credit or _DEFAULT.credits)}
    settings = ReinforceSettings(**{f.name: given[f.name] for f in fields(ReinforceSettings)})
    reinforce = optional("stepreward.pipeline.reinforce").reinforce
    with StageProgress(quiet=json_output) as progress:
        summary = reinforce(out, settings, progress)
    typer.echo(json.dumps(summary)) if json_output else _print(summary, out)


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
