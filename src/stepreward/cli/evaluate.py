"""`stepreward evaluate`: step scores against labels, recorded or by a model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

from stepreward.cli import on_demand
from stepreward.cli.benchmark import measure, show
from stepreward.cli.flags.engines import EngineFlags
from stepreward.cli.flags.from_dataclasses import JsonFlag
from stepreward.cli.flags.method_settings import blamed_on_settings, shortcut
from stepreward.cli.flags.parts import PartFlags
from stepreward.cli.flags.read_flags import ReadFlags
from stepreward.cli.flags.scorers import RecipeFlags
from stepreward.cli.rows.evaluated_rows import MODEL, read_and_score, with_measured
from stepreward.cli.terminal.console import plain_console
from stepreward.core.catalog import aggregate as aggregates
from stepreward.core.catalog import bench
from stepreward.core.catalog import calibrate as calibrators
from stepreward.core.errors import InputError
from stepreward.core.files.row_files import check_ending
from stepreward.core.keys import Key
from stepreward.core.settings_text import read_settings
from stepreward.core.vocabulary import Flag
from stepreward.evaluate.data.solution_numbers import SolutionNumbers
from stepreward.evaluate.labelled_solutions import LabelledSolutions
from stepreward.formats.registry import write
from stepreward.formats.trajectories import OWN
from stepreward.pipeline.run_report import percent, points
from stepreward.score.baselines import POSITION
from stepreward.score.encode.record_file import CALIBRATOR_FILE
from stepreward.tasks.graders import grader_by_name, graders


@dataclass(frozen=True)
class EvaluateFlags:
    """What is measured, and how."""

    data: Path
    """Labelled solutions in any format; of a benchmark also a folder, a file a subset."""
    benchmark: str = ""
    """Measure by a public benchmark's protocol: `stepreward methods bench`."""
    scorer: tuple[str, ...] = ()
    """With --benchmark: tool, random, length, constant, a recorded scorer, or a checkpoint."""
    settings: Annotated[tuple[str, ...], Flag("--set")] = ()
    """Setting of the benchmark, name=value; may be repeated."""
    model: str | None = None
    """Folder, hub name or URL#NAME to score with; recorded scores are evaluated as well."""
    threshold: float | None = None
    """Steps scored at or below it are wrong; left out: chosen on the share --tune."""
    tune: Annotated[float, Flag(low=0.05, high=0.9)] = 0.5
    """Share of the problems on which the threshold is chosen."""
    aggregate: Annotated[str, Flag(choices=aggregates)] = ""
    """Total of a solution: {choices}. Left out: min, or what checkpoint or benchmark state."""
    grader: Annotated[str, Flag(choices=graders)] = ""
    """Who reads answers and outcomes that the rows do not state: {choices}."""
    calibrate: Annotated[str, Flag(choices=calibrators)] = ""
    """Fit a calibrator of --model's step scores to the labels: {choices}; it goes to --calibrator, by default into the
    model's folder."""
    out: Path | None = None
    """Table to write: the rows with the model's scores, the first error that each scorer predicts, and which steps it
    left unscored; a file (.parquet, .jsonl) or a folder of parts."""
    seed: int = 0
    """Seed of splits and bootstraps."""


def evaluate(
    flags: EvaluateFlags,
    reading: ReadFlags,
    recipe: RecipeFlags,
    parts: PartFlags,
    engine: EngineFlags,
    json_output: JsonFlag = False,
) -> None:
    """Measure step scores: first-error F1, AUROC and calibration; selection where problems have several solutions.

    First errors are measured as ProcessBench does; the threshold is chosen on other problems than those measured on.
    Soft labels above 1/2 count as right. Selection needs the same number of solutions of every problem.

    Example: stepreward evaluate --data labels/labels.parquet --model model
    """
    data, model, threshold, elsewhere = flags.data, flags.model, flags.threshold, engine.chosen()
    recipe.require(model is not None or bool(flags.scorer))
    if flags.out is not None and (flags.benchmark or flags.calibrate):
        raise InputError("--out writes rows of labelled solutions", remedy="drop --benchmark and --calibrate, or --out")
    if flags.calibrate:
        if model is None or flags.benchmark:
            raise InputError("--calibrate is about --model and labels", remedy="pass --model, and no --benchmark")
        calibrators[flags.calibrate]
        raw = partial(recipe.scorer, model, calibrated=False)
        scored = read_and_score(data, reading, raw, None, engine=elsewhere, quiet=json_output)
        _calibrate(model, scored, flags.calibrate, recipe.calibrator, flags.seed, json_output)
        return
    if flags.benchmark:
        protocol = bench[flags.benchmark]
        given = [
            *shortcut(protocol, "--threshold", threshold, "threshold"),
            *shortcut(protocol, "--aggregate", flags.aggregate or None, "aggregate"),
            *flags.settings,
        ]
        (own,) = read_settings(given, protocol)
        names = [*flags.scorer, *([model] if model is not None else ())]
        with blamed_on_settings(protocol):
            measured = measure(
                flags.benchmark, data, names, own, reading=reading, recipe=recipe, engine=elsewhere, quiet=json_output
            )
        typer.echo(json.dumps(measured)) if json_output else show(measured)
        return
    if flags.scorer or flags.settings:
        raise InputError("--scorer and --set belong to --benchmark", remedy="name a benchmark, or drop them")
    aggregate = flags.aggregate or "min"
    aggregates[aggregate]
    if threshold is not None and not np.isfinite(threshold):
        raise InputError(f"--threshold must be a finite number, got {threshold}")
    judge = grader_by_name(flags.grader) if flags.grader else None
    if flags.out is not None:
        check_ending(flags.out)
    load = None if model is None else partial(recipe.scorer, model)
    solutions = read_and_score(data, reading, load, judge, engine=elsewhere, quiet=json_output)
    key = Key.seed(flags.seed).fold("evaluate")
    made = LabelledSolutions(solutions, key, threshold, flags.tune, aggregate, judged=judge is not None)
    attempts = made.attempts()
    if not solutions.names and attempts is None:
        remedy = "pass --model, recorded scores, or a --grader of outcomes"
        raise InputError("the rows hold no step scores and no outcomes", source=data, remedy=remedy)
    outcome: dict[str, Any] = {
        "solutions": len(solutions),
        "problems": len(np.unique(solutions.problem)),
        "scorers": {name: made.measured(name) for name in dict.fromkeys([*solutions.names, POSITION])},
    }
    if attempts is not None:
        outcome["attempts"] = attempts
    if judge is not None and (lost := (solutions.gradable & np.isnan(solutions.outcome)).sum()):
        outcome["ungraded"] = int(lost)
    if (solutions.names or attempts is None) and all(
        set(one) <= {"solutions", "unscored"} for one in outcome["scorers"].values()
    ):
        raise InputError("the rows hold no labels, first errors or groups", source=data, remedy="label them first")
    if flags.out is not None:
        found = {
            name: one["first_error"]["threshold"] for name, one in outcome["scorers"].items() if "first_error" in one
        }
        thresholds = found if threshold is None else dict.fromkeys(outcome["scorers"], threshold)
        # Rows that cannot be read were named when they were read first.
        rows = with_measured(reading.solutions(data, quiet=True), made, thresholds, model)
        write(flags.out, rows, OWN, strict=True, rows_per_part=parts.rows_per_part)
    typer.echo(json.dumps(outcome, allow_nan=False)) if json_output else _print(outcome)


def _calibrate(
    model: str, scored: SolutionNumbers, method: str, out: Path | None, seed: int, json_output: bool
) -> None:
    """Fits a calibrator, says what it is worth, and keeps it."""
    path = out or Path(model) / CALIBRATOR_FILE
    if out is None and not Path(model).is_dir():
        raise InputError(f"{model} is no folder that could keep a calibrator", remedy="pass --calibrator FILE")
    key, problems = Key.seed(seed).fold("calibrate"), scored.problem_of_labelled_steps(MODEL)
    fitted = on_demand.fit_calibrator(calibrators[method], *scored.labelled_steps(MODEL), problems, key)
    on_demand.save_calibrator(fitted.calibrator, path)
    if json_output:
        typer.echo(json.dumps({"calibrator": str(path), "method": method, **fitted.to_json()}, allow_nan=False))
        return
    before, after, change = (
        f"{e.value:.4f} [{e.low:.4f}, {e.high:.4f}]" for e in (fitted.before, fitted.after, fitted.change)
    )
    typer.echo(f"{path}: {method} on {fitted.pairs:,} steps of {fitted.problems:,} problems")
    typer.echo(f"Brier score on problems not fitted on: {before} before, {after} after, change {change}")


def _print(outcome: dict[str, Any]) -> None:
    console = plain_console()
    table = Table(title=f"{outcome['solutions']:,} solutions of {outcome['problems']:,} problems", title_justify="left")
    table.add_column("scorer", overflow="fold")
    for head in ("first-error F1", "threshold", "step AUROC", "Brier", "ECE"):
        table.add_column(head, no_wrap=True)
    for name, made in outcome["scorers"].items():
        found, steps = made.get("first_error"), made.get("steps", {})
        numbers = [f"{steps[k]:.3f}" if k in steps else "" for k in ("auroc", "brier", "ece")]
        table.add_row(
            name, percent(found["f1"]) if found else "", f"{found['threshold']:.3f}" if found else "", *numbers
        )
    console.print(table)
    if "attempts" in outcome:
        passed = ", ".join(f"{percent(one)} of {k}" for k, one in outcome["attempts"]["pass_at"].items())
        console.print(f"a right solution is among: {passed}", soft_wrap=True)
    if "ungraded" in outcome:
        console.print(f"{outcome['ungraded']:,} solutions could not be graded and count neither way")
    for name, made in outcome["scorers"].items():
        if "selection" in made:
            n, versus = made["selection"]["sizes"][-1], made["selection"]["versus_majority"]
            for selector, row in made["selection"]["accuracy"].items():
                beside = f", {points(versus[selector])} over majority" if selector in versus else ""
                console.print(f"{name}, {selector} of {n}: {percent(row[-1])}{beside}", soft_wrap=True)
        if "unscored" in made:
            lack = f"{made['unscored']:,} of {made['solutions']:,} solutions lack a score that is needed for it"
            console.print(f"{name}, first error: {lack}", soft_wrap=True)
        for what in ("first_error", "selection"):
            if f"no_{what}" in made:
                why = made[f"no_{what}"]
                console.print(f"{name}, no {what.replace('_', ' ')}: {why}", soft_wrap=True)
