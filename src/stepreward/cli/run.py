"""`stepreward run`: the main job in one command."""

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
from stepreward.pipeline.run_report import percent, points
from stepreward.pipeline.settings import RunSettings
from stepreward.tasks.mathematics import MathGrader

_DEFAULT = RunSettings()


def run(
    out: Annotated[Path, typer.Option(help="Run folder; an interrupted run in it is resumed.")] = Path("runs/run"),
    policy: Annotated[str, typer.Option(help="builtin:arithmetic, a model folder, or a hub name.")] = _DEFAULT.policy,
    problems: Annotated[
        str,
        typer.Option(
            help="JSONL of problems with prompt and reference; graded as mathematics. Empty: the built-in world."
        ),
    ] = _DEFAULT.problems,
    seed: Annotated[int, typer.Option(help="Seed of everything that is random.")] = _DEFAULT.seed,
    train_problems: Annotated[
        int, typer.Option(min=1, help="Problems to label and learn from.")
    ] = _DEFAULT.train_problems,
    validation_problems: Annotated[
        int, typer.Option(min=1, help="Problems to choose thresholds on.")
    ] = _DEFAULT.validation_problems,
    held_out_problems: Annotated[int, typer.Option(min=2, help="Problems to measure on.")] = _DEFAULT.held_out_problems,
    train_samples: Annotated[
        int, typer.Option(min=1, help="Solutions of each training problem.")
    ] = _DEFAULT.train_samples,
    held_out_samples: Annotated[
        int, typer.Option(min=1, help="Solutions of each held-out problem.")
    ] = _DEFAULT.held_out_samples,
    estimator: Annotated[
        str, typer.Option(help="How steps are labelled; `stepreward methods estimate`.")
    ] = _DEFAULT.estimator,
    rollouts: Annotated[int, typer.Option(min=1, help="Rollouts of each probed prefix.")] = _DEFAULT.rollouts,
    at_once: Annotated[
        int, typer.Option(min=0, help="Rollouts asked at a time, none after one succeeded; 0: all together.")
    ] = _DEFAULT.at_once,
    transform: Annotated[
        str, typer.Option(help="Labels of measurements; `stepreward methods transform`.")
    ] = _DEFAULT.transform,
    objective: Annotated[
        str, typer.Option(help="What training minimises; `stepreward methods loss`.")
    ] = _DEFAULT.objective,
    surprise: Annotated[
        bool, typer.Option(help="The reward model also reads how surprised its own language model is.")
    ] = _DEFAULT.surprise,
    epochs: Annotated[float, typer.Option(min=0.01, help="Passes over the labelled trees.")] = _DEFAULT.epochs,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate.")] = _DEFAULT.learning_rate,
    batch_tokens: Annotated[int, typer.Option(min=64, help="Tokens of a training batch.")] = _DEFAULT.batch_tokens,
    aggregate: Annotated[
        str, typer.Option(help="One score of many; `stepreward methods aggregate`.")
    ] = _DEFAULT.aggregate,
    beams: Annotated[int, typer.Option(min=1, help="Beams kept in beam search, subtrees in DVTS.")] = _DEFAULT.beams,
    width: Annotated[int, typer.Option(min=1, help="Continuations of each beam.")] = _DEFAULT.width,
    json_output: Annotated[bool, typer.Option("--json", help="Print the summary as JSON, show no progress.")] = False,
) -> None:
    """Sample, label, train, score, search, evaluate and report, in one folder that resumes after a kill.

    Example: stepreward run --out runs/demo
    """  # fmt: skip
    given = locals()
    settings = RunSettings(**{f.name: given[f.name] for f in fields(RunSettings)})
    with StageProgress(quiet=json_output) as progress:
        job = optional("stepreward.pipeline.run").Run(
            out, settings, grader=MathGrader() if problems else None, on_progress=progress
        )
        summary = job.execute()
    typer.echo(json.dumps(summary)) if json_output else _print(summary, out)


def _print(summary: dict[str, Any], out: Path) -> None:
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
    if "first_error" in evaluation:
        f1 = evaluation["first_error"]["f1"]
        console.print(f"first-error F1 {f1['value']:.3f} [{f1['low']:.3f}, {f1['high']:.3f}]")
    console.print(f"report: {out / 'report.html'}", soft_wrap=True)
