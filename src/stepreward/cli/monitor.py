"""`stepreward monitor`: fits and measures what says of a running agent, after each turn, continue, warn or stop."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import typer
from rich.table import Table

from stepreward.cli.flags.from_dataclasses import JsonFlag
from stepreward.cli.flags.read_flags import ReadFlags
from stepreward.cli.flags.scorers import RecipeFlags
from stepreward.cli.terminal.console import plain_console
from stepreward.core.errors import InputError
from stepreward.core.measure.false_alarms import Guarantee
from stepreward.core.measure.statistics import Estimate
from stepreward.core.vocabulary import Count, Flag
from stepreward.evaluate.monitoring import MEASURES, MonitorResult
from stepreward.pipeline.run_report import percent
from stepreward.score.monitor.run_monitor import Monitor
from stepreward.score.monitor.statistic import LEARNED, Reads
from stepreward.score.monitor.watched_runs import Good
from stepreward.verbs.monitor_runs import evaluate_monitor, fit_monitor


@dataclass(frozen=True)
class MonitorFlags:
    """What is watched, and at which rates of false alarms."""

    out: Path | None = None
    """Folder of the fitted monitor, of `fit`."""
    monitor: Path | None = None
    """Of `evaluate`: folder of a fitted monitor, measured on runs of other problems; else many splits by problem."""
    model: str = ""
    """Reward model that scores the steps first; it must not read what comes later in a run."""
    column: str = ""
    """Step column of scores to watch; that of --model where it is left out."""
    reads: Reads = LEARNED
    """What is watched; features is a small model on length, repetition, errors and scores."""
    good: Good = "success"
    """Which alarms are false: any in a run that succeeded, or those before the first wrong step of a run."""
    success: float = 1.0
    """Lowest outcome of a run that succeeded."""
    alpha: Annotated[float | None, Flag(low=0.0, high=1.0)] = None
    """Chance that a good run is ever stopped; 0.1, or that of the fitted --monitor."""
    warn: Annotated[float, Flag(low=0.0, high=1.0)] = 0.25
    """Chance that a good run is ever warned of."""
    guarantee: Guarantee = "p-value"
    """How alarms are bounded: on average over calibrations, for this one with --confidence, or at any rate chosen
    afterwards."""
    confidence: Annotated[float, Flag(low=0.0, high=1.0)] = 0.9
    """Of --guarantee confidence: how sure it is that this monitor's own rates are at most these."""
    splits: Count = 200
    """Of `evaluate` without --monitor: splits by problem."""
    seed: int = 0
    """Of splits and intervals."""


def monitor(
    task: Annotated[Literal["fit", "evaluate"], typer.Argument(help="fit a monitor, or evaluate what one is worth.")],
    rows: Annotated[Path, typer.Argument(help="Runs of past problems with outcomes, any format; see `convert`.")],
    *,
    flags: MonitorFlags,
    recipe: RecipeFlags,
    reading: ReadFlags,
    json_output: JsonFlag = False,
) -> None:
    """Watch agents: after each turn continue, warn or stop, at a stated rate of false alarms.

    A run that would succeed is ever stopped with a chance of at most --alpha, however many turns it has.

    Example: stepreward monitor fit runs.jsonl --out monitor
    """
    if (flags.out is None) == (task == "fit"):
        what = "fit writes a monitor to --out DIR, and evaluate writes none"
        raise InputError(what, remedy="pass --out to fit alone")
    if flags.monitor is not None and task == "fit":
        raise InputError("--monitor names what evaluate measures", remedy="drop it")
    recipe.require(bool(flags.model))
    runs = [*reading.solutions(rows, quiet=json_output)]
    scorer = recipe.scorer(flags.model) if flags.model else None
    names = ("column", "reads", "good", "success", "seed")
    watched: dict[str, Any] = {name: getattr(flags, name) for name in names}
    rate: dict[str, Any] = {} if flags.alpha is None else {"alpha": flags.alpha}
    bounded: dict[str, Any] = {"guarantee": flags.guarantee, "confidence": flags.confidence}
    if flags.out is not None:
        made = fit_monitor(runs, scorer, **watched, **rate, warn=flags.warn, **bounded)
        saved = str(made.save(flags.out))
        rates = {"alpha": made.alpha, "warn": made.warn, "can_stop": made.can_stop}
        typer.echo(json.dumps({"monitor": saved, **rates, **made.about})) if json_output else _say(made, saved)
        return
    own = {"splits": flags.splits, **bounded} if flags.monitor is None else {}
    measured = evaluate_monitor(runs, flags.monitor, scorer, **watched, **rate, **own)
    typer.echo(json.dumps(measured.to_json(), allow_nan=False)) if json_output else _print(measured)


def _say(made: Monitor, path: object) -> None:
    about = made.about
    typer.echo(
        f"{path}: bounded by {about['good_runs_calibrated_on']:,} good runs of {made.bound.problems:,} problems "
        f"(of {about['runs']:,} runs of {about['problems']:,})"
    )
    if about["runs_left_out"]:
        typer.echo(f"{about['runs_left_out']:,} runs without an outcome were left out")
    if not made.can_stop:
        typer.echo(f"it never stops a run: for --alpha {made.alpha:g} it needs more problems that succeeded")


def _print(made: MonitorResult) -> None:
    what = f"{made.runs:,} runs of {made.problems:,} problems: {made.bad:,} bad"
    table = Table(title=f"{what}; stopped at a rate of false alarms of at most {made.alpha:g}", title_justify="left")
    table.add_column("watches", overflow="fold")
    for head in ("false alarms", "recall", "turns left", "share left", f"{made.unit} saved"):
        table.add_column(head)
    for name, row in made.measures.items():
        table.add_row(name, *(_shown(row[measure], measure) for measure in MEASURES))
    console = plain_console()
    console.print(table)
    if made.above is not None:
        over = ", ".join(f"{name} {share:.0%}" for name, share in made.above.items())
        console.print(f"{made.splits:,} splits by problem; rates above {made.alpha:g} in: {over}", soft_wrap=True)
    if made.drift is not None:
        evidence = "evidence that these good runs are unlike those calibrated on"
        console.print(f"{evidence}: {made.drift:.3g}; at 20 or more they likely are", soft_wrap=True)
    if made.known:
        console.print(f"{made.known:,} runs of problems that it was fitted on were left out")
    if made.left_out:
        console.print(f"{made.left_out:,} runs without an outcome were left out")


def _shown(one: Estimate, measure: str) -> str:
    if np.isnan(one.value):
        return "-"
    if measure == "lead_turns":
        return f"{one.value:.1f} [{one.low:.1f}, {one.high:.1f}]"
    return percent(one.to_json())
