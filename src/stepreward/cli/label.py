"""`stepreward label`: step labels from rollouts, tests or checkers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from stepreward.cli.flags.engines import EngineFlags, plain_paths
from stepreward.cli.flags.from_dataclasses import JsonFlag
from stepreward.cli.flags.method_settings import blamed_on_settings, shortcut
from stepreward.cli.flags.policies import AgentFlags, cut_note
from stepreward.cli.flags.read_flags import ReadFlags
from stepreward.cli.flags.scorers import EnsembleFlags, RecipeFlags
from stepreward.cli.terminal.left_out import tell_left_out
from stepreward.cli.terminal.progress import StageProgress
from stepreward.core.catalog import estimate
from stepreward.core.catalog import transform as transforms
from stepreward.core.errors import InputError
from stepreward.core.failures import Failures
from stepreward.core.files.row_files import ENDINGS
from stepreward.core.runtime.spending import Budget
from stepreward.core.settings_text import read_settings
from stepreward.core.table import write_table
from stepreward.core.types import Problem, Provenance, Step, Trajectory
from stepreward.core.vocabulary import Count, Flag
from stepreward.formats.files.rows_of_files import LABELS
from stepreward.formats.problems import WITHOUT_REFERENCE
from stepreward.label.many_problems import LabelPlan, load_labels
from stepreward.label.relabelling import transform_of, transformed
from stepreward.label.rollouts import labelled
from stepreward.tasks.graders import grader_by_name, graders
from stepreward.verbs.label_rows import LabelPart, label_in_parts, label_into
from stepreward.verbs.read_rows import hold_problems, problems_of

_PROBE = labelled(
    Trajectory(Problem("probe", "1 + 1?"), (Step("2"),), 1.0),
    np.ones(1),
    np.ones(1, np.int64),
    np.ones(1, np.int64),
    1.0,
    Provenance("probe"),
)
"""What a transform is tried on, so that its settings are refused before hours of rollouts and not after."""


@dataclass(frozen=True)
class LabelFlags:
    """What is labelled, by which method, and how far."""

    out: Path
    """Folder of the run, which ends in labels.parquet; or a .parquet or .jsonl, with the folder beside it."""
    data: Path | None = None
    """Solutions to label, in any format that `stepreward convert --help` lists, or problems."""
    problems: Path | None = None
    """Instead of --data: JSONL of problems with prompt and reference."""
    references: Path | None = None
    """JSONL of problems whose references --data lacks, found by id or else by prompt."""
    samples: Count = 8
    """Solutions to sample of each problem."""
    grader: Annotated[str, Flag(choices=graders)] = "mathematics"
    """Who decides: {choices}."""
    estimator: Annotated[str, Flag(choices=estimate)] = "bisection"
    """How steps are measured: {choices}."""
    rollouts: Annotated[int | None, Flag(low=1)] = None
    """Rollouts of each probed prefix."""
    transform: Annotated[str, Flag(choices=transforms)] = ""
    """Labels of measurements: {choices}; left out: the one that the estimator declares."""
    settings: Annotated[tuple[str, ...], Flag("--set")] = ()
    """Setting of the estimator or the transform as name=value; may be repeated."""
    max_rollouts: Annotated[int | None, Flag(low=1)] = None
    """Most rollouts of one solution."""
    max_tokens: Annotated[int | None, Flag(low=1)] = None
    """Most generated tokens of one solution."""
    seed: int = 0
    """Seed of all rollouts."""
    skip_failed: bool = False
    """Leave out for good what could not be read or done, and end with exit status 0; the next run does not try it
    again."""


def label(
    flags: LabelFlags,
    reading: ReadFlags,
    policy: AgentFlags,
    models: EnsembleFlags,
    recipe: RecipeFlags,
    engine: EngineFlags,
    json_output: JsonFlag = False,
) -> None:
    """Label steps of solutions by rollouts, tests or checkers; writes labels.parquet into OUT, resumes after a kill.

    Example: stepreward label --problems problems.jsonl --grader arithmetic --out labels
    """
    data, problems = flags.data, flags.problems
    if (data is None) == (problems is None):
        raise InputError("expected either --data or --problems", remedy="pass one of them")
    if data is not None and not reading.form and hold_problems(data):
        data, problems = None, data
    recipe.require(bool(models.model))
    method, elsewhere = estimate[flags.estimator], engine.chosen()
    rewrite = transform_of(flags.estimator, flags.transform)
    grader_by_name(flags.grader)
    given = [*shortcut(method, "--rollouts", flags.rollouts, "n"), *flags.settings]
    own, rewriting = read_settings(given, method, rewrite)
    with blamed_on_settings(rewrite):
        rewrite.take({"trajectory": _PROBE, "trajectories": [_PROBE]}, **rewriting)
    if ("scorer" in method.asks) != bool(models.model):
        what = "asks a reward model or a judge" if "scorer" in method.asks else "reads no reward model"
        remedy = "pass --model" if "scorer" in method.asks else "drop --model"
        raise InputError(f"{flags.estimator} {what}", remedy=remedy)
    out = flags.out
    folder, path = (out.with_suffix(".run"), out) if out.suffix in ENDINGS else (out, out / LABELS)
    plan = LabelPlan(flags.estimator, own, flags.seed, Budget(flags.max_rollouts, flags.max_tokens))
    failed, blank, with_label, actions, planted, votes = Failures(), 0, 0, 0, Counter[str](), Counter[str]()
    # What is wrong with a file is an error before a model is loaded, which takes seconds.
    items: list[Problem] | list[Trajectory]
    if data is not None:
        named = [] if flags.references is None else problems_of(flags.references)
        # An id names one problem; a prompt may stand under another id elsewhere, so it is looked up second.
        gold = {one.text: one.reference for one in named} | {one.id: one.reference for one in named}
        complete = partial(_with_reference, gold, needed="grader" in method.asks)
        items = [*reading.solutions(data, failed, prepared=complete)]
    else:
        # An environment knows the outcome without a reference.
        items = problems_of(problems or Path(), None if reading.strict else failed, graded=not policy.environment)
    rolls = "policy" in method.asks or data is None
    part = LabelPart(
        plan, flags.samples, partial(grader_by_name, flags.grader), policy.load if rolls else None,
        partial(models.scorer, recipe),
    )  # fmt: skip
    loaded = None if elsewhere is not None else part.loaded()
    roller = None if loaded is None else loaded["policy"]
    with StageProgress(quiet=json_output) as progress, blamed_on_settings(method, rewrite):
        if elsewhere is None:
            assert loaded is not None
            run = label_into(
                folder, items, plan, **loaded, samples=flags.samples, failed=failed, skip_failed=flags.skip_failed,
                on_progress=progress,
            )  # fmt: skip
        else:
            who = {"policy": asdict(policy.lasting) if rolls else None, "grader": flags.grader}
            who |= {"model": asdict(models), "recipe": asdict(recipe)} if models.model else {}
            run = label_in_parts(
                folder, items, part, elsewhere, plain_paths(who), failed=failed, skip_failed=flags.skip_failed,
                strict=reading.strict, on_progress=progress, total=len(items),
            )  # fmt: skip
        if reading.strict:
            failed.refuse("could not be labelled")

        def labels() -> Iterator[Trajectory]:
            nonlocal blank, with_label, actions
            for one in transformed(load_labels(folder), rewrite, rewriting):
                blank += bool(len(one)) and bool(np.isnan(one.labels).all())
                with_label, actions = with_label + int((~np.isnan(one.labels)).sum()), actions + int(one.action.sum())
                planted.update(one.facts.get("planted", one.facts.get("repaired", {})))
                votes.update({f"votes_{part}": one.facts.get("votes", {}).get(part, 0) for part in ("read", "unread")})
                yield one

        made = write_table(path, labels())
    tell_left_out(failed)
    tell_left_out(run.ungraded)
    bill, drawn, note = run.labelled, run.drawn, cut_note(run.drawn, roller) if rolls else ""
    if json_output:
        counts: dict[str, Any] = {"failed": failed.total, "without_labels": blank, "ungraded": drawn.ungraded}
        counts |= {"labelled_steps": with_label, "steps": actions} | ({"planted": planted} if planted else {})
        counts |= votes if votes.total() else {}
        typer.echo(json.dumps({"labels": str(path), "trajectories": made, **counts, "bill": asdict(bill), "cut": note}))
    else:
        without = f", {failed.total:,} failed and left out" if failed else ""
        judged = "scorer" in method.asks and "policy" not in method.asks
        paid = f"{bill.scorings:,} judged" if judged else f"{bill.proposals:,} rollouts"
        typer.echo(f"{made:,} labelled solutions in {path}{without}; {paid}, {bill.cached:,} from the log")
        if drawn.ungraded:
            typer.echo(
                f"{drawn.ungraded:,} answers could not be graded: unknown, not wrong; whole solutions are left out"
            )
        if note:
            typer.echo(note)
        if votes["votes_unread"]:
            typer.echo(f"{votes['votes_unread']:,} of {votes.total():,} votes could not be read, and are missing")
        if planted:
            unread, unconfirmed = planted["unread"], planted["unconfirmed"]
            what = f"{unread:,} could not be read or said nothing new, and {unconfirmed:,} were not confirmed"
            typer.echo(
                f"of {planted['asked']:,} {'repairs' if flags.estimator == 'int' else 'errors'} asked for {what}"
            )
        if "policy" not in method.asks:
            typer.echo(f"{with_label:,} of {actions:,} steps have a label; the others are unknown")
    if blank:
        cut = ": most of their rollouts were cut, which tells nothing of steps; raise max_tokens" if drawn.cut else ""
        typer.echo(f"stepreward: {blank:,} of {made:,} solutions have no label on any step{cut}", err=True)
    elif 2 * drawn.cut > drawn.drawn:
        typer.echo("stepreward: most samples were cut; labels tell what is solved within the limit", err=True)
    if failed and not flags.skip_failed:
        typer.echo("stepreward: run again to try what failed, or leave it out for good with --skip-failed", err=True)
        raise typer.Exit(1)


def _with_reference(gold: Mapping[str, str | None], trajectory: Trajectory, *, needed: bool) -> Trajectory:
    """The trajectory with its problem's reference, from elsewhere if it has none.

    Raises:
        InputError: there is none and it is needed: rollouts could not be graded, and every label would be wrong.
    """
    problem = trajectory.problem
    if not problem.gradable:
        problem = replace(problem, reference=gold.get(problem.id, gold.get(problem.text)))
    if needed and not problem.gradable:
        raise InputError(f"problem {problem.id!r} {WITHOUT_REFERENCE}", remedy="add it, or pass --references with it")
    return replace(trajectory, problem=problem)
