"""`stepreward label`: step labels from a policy's own rollouts."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from stepreward.cli.flags.from_dataclasses import JsonFlag
from stepreward.cli.flags.method_settings import blamed_on_settings, shortcut
from stepreward.cli.flags.policies import PolicyFlags, cut_note
from stepreward.cli.flags.read_flags import ReadFlags
from stepreward.cli.terminal.progress import StageProgress
from stepreward.core.catalog import estimate
from stepreward.core.catalog import transform as transforms
from stepreward.core.errors import InputError, SteprewardError
from stepreward.core.row_files import ENDINGS
from stepreward.core.runtime.flows import Bill, Budget
from stepreward.core.settings_text import read_settings
from stepreward.core.table import write_table
from stepreward.core.types import Problem, Provenance, Step, Trajectory
from stepreward.core.vocabulary import Count, Flag
from stepreward.formats.files.rows_of_files import LABELS
from stepreward.label.many_problems import LabelPlan, label_many, load_labels
from stepreward.label.rollouts import labelled
from stepreward.label.solutions import graded, known, sampled
from stepreward.tasks.graders import grader_by_name, graders
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
    transform: Annotated[str, Flag(choices=transforms)] = "hard"
    """Labels of measurements: {choices}."""
    settings: Annotated[tuple[str, ...], Flag("--set")] = ()
    """Setting of the estimator or the transform as name=value; may be repeated."""
    max_rollouts: Annotated[int | None, Flag(low=1)] = None
    """Most rollouts of one solution."""
    max_tokens: Annotated[int | None, Flag(low=1)] = None
    """Most generated tokens of one solution."""
    seed: int = 0
    """Seed of all rollouts."""
    skip_failed: bool = False
    """Leave out what the policy or the grader could not do, instead of ending with an error."""


def label(flags: LabelFlags, reading: ReadFlags, policy: PolicyFlags, json_output: JsonFlag = False) -> None:
    """Label the steps of solutions by rollouts; writes labels.parquet into OUT, and resumes after a kill.

    Example: stepreward label --problems problems.jsonl --grader arithmetic --out labels
    """
    data, problems = flags.data, flags.problems
    if (data is None) == (problems is None):
        raise InputError("expected either --data or --problems", remedy="pass one of them")
    if data is not None and not reading.form and hold_problems(data):
        data, problems = None, data
    method, rewrite, judge = estimate[flags.estimator], transforms[flags.transform], grader_by_name(flags.grader)
    given = [*shortcut(method, "--rollouts", flags.rollouts, "n"), *flags.settings]
    own, rewriting = read_settings(given, method, rewrite)
    with blamed_on_settings(rewrite):
        rewrite.take({"trajectory": _PROBE}, **rewriting)
    out = flags.out
    folder, path = (out.with_suffix(".run"), out) if out.suffix in ENDINGS else (out, out / LABELS)
    plan = LabelPlan(flags.estimator, own, flags.seed, Budget(flags.max_rollouts, flags.max_tokens))
    left_out, drawn = 0, Bill()
    with StageProgress(quiet=json_output) as progress, blamed_on_settings(method, rewrite):
        items: list[Problem] | list[Trajectory]
        if data is not None:
            gold = {} if flags.references is None else _references(flags.references)
            found = [_referred(item, gold, data) for item in reading.solutions(data)]
            found, drawn = graded(found, folder, judge)
            items = known(found)
        else:
            tasks = [_gradable(problem, problems) for problem in problems_of(problems or Path())]
            items = tasks
        # What is wrong with a file is told before a model is loaded, which takes seconds.
        roller = policy.load()
        if data is None and "trajectory" in method.data:
            found, failed, drawn = sampled(tasks, flags.samples, flags.seed, folder, roller, judge, progress)
            left_out += _counted(failed, "problems could not be sampled", flags.skip_failed)
            items = known(found)
        bill, failed = label_many(
            items,
            folder,
            plan,
            policy=roller,
            grader=judge,
            progress=lambda done, bill: progress("label", done, len(items), f"{bill.generated_tokens:,} tokens"),
            skip_failed=flags.skip_failed,
        )
        left_out += _counted(failed, "items could not be labelled", flags.skip_failed)
        unmeasured = _Unmeasured()
        made = write_table(
            path, (unmeasured.seen(rewrite.take({"trajectory": one}, **rewriting)) for one in load_labels(folder))
        )
    drawn.add(bill)
    note = cut_note(drawn, roller)
    if json_output:
        told = {"labels": str(path), "trajectories": made, "failed": left_out, "bill": asdict(bill)}
        typer.echo(json.dumps(told | {"cut": note, "without_labels": unmeasured.count, "ungraded": drawn.ungraded}))
    else:
        without = f", {left_out:,} failed and left out" if left_out else ""
        typer.echo(
            f"{made:,} labelled solutions in {path}{without}; {bill.proposals:,} rollouts, {bill.cached:,} from the log"
        )
        if drawn.ungraded:
            typer.echo(
                f"{drawn.ungraded:,} answers could not be graded: unknown, not wrong; whole solutions are left out"
            )
        if note:
            typer.echo(note)
    if unmeasured.count:
        print(
            f"stepreward: {unmeasured.count:,} of {made:,} solutions have no label on any step"
            + (
                ": most of their rollouts were cut, which tells nothing of steps; raise max_tokens" if drawn.cut else ""
            ),
            file=sys.stderr,
        )
    elif 2 * drawn.cut > drawn.drawn:
        print("stepreward: most samples were cut; labels tell what is solved within the limit", file=sys.stderr)


@dataclass
class _Unmeasured:
    """Counts solutions none of whose steps has a label."""

    count: int = 0

    def seen(self, trajectory: Trajectory) -> Trajectory:
        """The same trajectory."""
        self.count += bool(len(trajectory)) and bool(np.isnan(trajectory.labels).all())
        return trajectory


def _references(path: Path) -> dict[str, str | None]:
    """References by id and by prompt."""
    rows = problems_of(path)
    return {p.text: p.reference for p in rows} | {p.id: p.reference for p in rows}


def _referred(trajectory: Trajectory, gold: Mapping[str, str | None], source: Path) -> Trajectory:
    """The trajectory with its problem's reference, from elsewhere if it has none."""
    problem = trajectory.problem
    if problem.reference is None:
        problem = replace(problem, reference=gold.get(problem.id, gold.get(problem.text)))
    return replace(trajectory, problem=_gradable(problem, source))


def _gradable(problem: Problem, source: Path | None) -> Problem:
    """The problem, if rollouts of it can be graded at all: otherwise every label would be wrong without a word."""
    if problem.reference is None:
        what = f"problem {problem.id!r} has no reference to grade rollouts with"
        raise InputError(what, source=source, remedy="add it, or pass --references with it")
    return problem


def _counted(failed: list[tuple[str, Exception]], what: str, skip: bool) -> int:
    """The number of failures, where they may be left out."""
    if failed and not skip:
        name, error = failed[0]
        raise SteprewardError(
            f"{len(failed)} {what}, {name} first: {error}; "
            "run again, which asks only these again, or leave them out with --skip-failed"
        )
    return len(failed)
