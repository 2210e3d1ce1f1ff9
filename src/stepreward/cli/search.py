"""`stepreward search`: solve problems with a policy, a reward model and a search."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from stepreward.cli.inputs import GRADERS, grader_by_name, policy_at, problems_of, scorer_at
from stepreward.cli.progress import StageProgress
from stepreward.cli.recipes import LikeFlag, RecordFlag, recipe_of
from stepreward.cli.settings import blamed_on_settings, choices, shortcut
from stepreward.core.answer_log import AnswerLog
from stepreward.core.catalog import aggregate as aggregates
from stepreward.core.catalog import search as searches
from stepreward.core.driver import Driver, Finished
from stepreward.core.errors import InputError, StoreError
from stepreward.core.flows import Budget, Grader, Scorer
from stepreward.core.keys import Key
from stepreward.core.settings import read_settings
from stepreward.core.statistics import bootstrap
from stepreward.core.types import Problem
from stepreward.pipeline.compare import PLAN, REFERENCE, verdict
from stepreward.pipeline.compare import compare as comparison
from stepreward.pipeline.report import percent, points
from stepreward.search.found import Found

_CACHE_TOKENS = 1 << 18
_WITHOUT_SCORES = ("majority",)


def search(
    problems: Annotated[Path, typer.Option(help="JSONL of problems with prompt and, to grade, reference.")],
    out: Annotated[Path, typer.Option(help="JSONL to write, one row a problem.")],
    model: Annotated[Path | None, typer.Option(help="Checkpoint of a reward model; majority needs none.")] = None,
    policy: Annotated[
        str, typer.Option(help="Who writes: builtin:arithmetic, a model folder, a hub name, or URL#MODEL.")
    ] = "builtin:arithmetic",
    method: Annotated[str, typer.Option(help=f"How to search: {choices(searches)}.")] = "beam",
    samples: Annotated[
        int | None, typer.Option(min=1, help="Solutions of each problem, for majority, best-of-n and weighted-vote.")
    ] = None,
    beams: Annotated[int | None, typer.Option(min=1, help="Beams of beam search, subtrees of DVTS.")] = None,
    width: Annotated[int | None, typer.Option(min=1, help="Continuations of each beam or subtree.")] = None,
    aggregate: Annotated[
        str | None, typer.Option(help=f"Total of a solution's step scores: {choices(aggregates)}.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Setting of the search as name=value; may be repeated.")
    ] = None,
    grader: Annotated[str, typer.Option(help=f"Who reads answers: {', '.join(GRADERS)}.")] = "mathematics",
    seed: Annotated[int, typer.Option(help="Seed of all samples.")] = 0,
    like: LikeFlag = "",
    record: RecordFlag = None,
    device: Annotated[str, typer.Option(help="Torch device of the reward model.")] = "cpu",
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Most tokens generated for a problem; the best so far is its answer.")
    ] = None,
    max_seconds: Annotated[
        float | None, typer.Option(min=0.0, help="Most seconds for a problem; the best so far is its answer.")
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Compare searches at several budgets; OUT is then a folder.")
    ] = False,
    only: Annotated[
        list[str] | None, typer.Option(help=f"Search to compare; may be repeated. One of {', '.join(PLAN)}.")
    ] = None,
    budgets: Annotated[
        list[int] | None, typer.Option("--budget", min=1, help="Samples a step or solution to compare at; repeatable.")
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON, show no progress.")] = False,
) -> None:
    """Search for solutions; each row holds the answer, the solution, all candidates and the exact bill.

    What was generated and scored is kept beside OUT and read again after a kill.

    Example: stepreward search --problems problems.jsonl --grader arithmetic --model model --out found.jsonl
    """
    chosen, judge = searches[method], grader_by_name(grader)
    recipe = recipe_of(like, record, needed=model is not None)
    if compare:
        if model is None:
            raise InputError("a comparison needs a reward model", remedy="pass --model")
        rated = scorer_at(model, device, recipe, cache_tokens=_CACHE_TOKENS)
        _compare(problems, out, rated, policy, judge, seed, only or [], budgets or [4, 8, 16], json_output)
        return
    if model is None and method not in _WITHOUT_SCORES:
        raise InputError(f"{method} needs a reward model", remedy="pass --model, or --method majority")
    given = [
        *shortcut(chosen, "--samples", samples, "n"),
        *shortcut(chosen, "--beams", beams, "beams", "trees"),
        *shortcut(chosen, "--width", width, "width"),
        *shortcut(chosen, "--aggregate", aggregate, "aggregate"),
        *(settings or []),
    ]
    (own,) = read_settings(given, chosen)
    aggregates[own.get("aggregate", "min")]
    rows = problems_of(problems)
    scorer = None if model is None else scorer_at(model, device, recipe, cache_tokens=_CACHE_TOKENS)
    key = Key.seed(seed).fold("search")
    finished: list[Finished[Found]] = []
    with (
        AnswerLog(out.with_name(out.name + ".answers.jsonl")) as log,
        StageProgress(quiet=json_output) as progress,
        blamed_on_settings(chosen),
    ):
        budget = Budget(tokens=max_tokens, seconds=max_seconds)
        driver = Driver(policy=policy_at(policy), scorer=scorer, grader=judge, log=log, budget=budget)
        flows = (chosen.take({"problem": problem, "key": key.fold(problem.id)}, **own) for problem in rows)
        for done, one in enumerate(driver.run(flows), 1):
            finished.append(one)
            progress("search", done, len(rows), f"{driver.bill.generated_tokens:,} tokens")
    made = [_row(rows[one.index], one, judge) for one in sorted(finished, key=lambda one: one.index)]
    _write(out, made)
    graded = [row["correct"] for row in made if row["correct"] is not None]
    accuracy = bootstrap([float(right) for right in graded], key.fold("accuracy")).to_json() if graded else None
    outcome = {"out": str(out), "problems": len(made), "accuracy": accuracy, "bill": asdict(driver.bill)}
    if json_output:
        typer.echo(json.dumps(outcome))
        return
    told = "no references" if accuracy is None else f"{accuracy['value']:.1%} of {len(graded)} right"
    typer.echo(f"{len(made)} problems in {out}: {told}; {driver.bill.generated_tokens:,} tokens generated")


def _compare(
    problems: Path, out: Path, scorer: Scorer, policy: str, judge: Grader, seed: int,
    only: list[str], budgets: list[int], json_output: bool,
) -> None:  # fmt: skip
    """Runs and shows the comparison."""
    with StageProgress(quiet=json_output) as progress:
        summary = comparison(
            problems_of(problems), out, policy=policy_at(policy), scorer=scorer, grader=judge, methods=only,
            budgets=budgets, seed=seed, on_progress=progress,
        )  # fmt: skip
    if json_output:
        typer.echo(json.dumps(summary))
        return
    table = Table(
        title=f"{summary['problems']} problems; points over {REFERENCE} at equal tokens", title_justify="left"
    )
    for head in ("search", "budget", "tokens", "accuracy", "points", "verdict"):
        table.add_column(head, overflow="fold")
    for point in summary["points"]:
        gain = point["gain"]
        beside = "" if gain is None or gain["value"] is None else points(gain)
        cost = f"{point['cost']['value']:,.0f}"
        table.add_row(point["algorithm"], str(point["budget"]), cost, percent(point["accuracy"]), beside, verdict(gain))
    console = Console()
    if not console.is_terminal:
        console.width = 140
    console.print(table)
    console.print(f"report: {out / 'compare.html'}", soft_wrap=True)


def _row(problem: Problem, one: Finished[Found], grader: Grader) -> dict[str, Any]:
    found = one.result
    steps = found.trajectory.steps if found.trajectory is not None else ()
    right = None if problem.reference is None else bool(steps) and grader.grade(problem, steps) > 0.5
    candidates = [
        {"answer": answer, "score": None if np.isnan(total) else float(total), "text": trajectory.text}
        for answer, total, trajectory in zip(found.answers, found.totals, found.tree.trajectories(), strict=True)
    ]
    return {
        "id": problem.id,
        "answer": found.answer,
        "correct": right,
        "steps": [step.text for step in steps],
        "scores": found.scores(found.chosen) if found.chosen >= 0 else [],
        "chosen": found.chosen,
        "candidates": candidates,
        "bill": asdict(one.bill),
    }


def _write(out: Path, rows: list[dict[str, Any]]) -> None:
    unfinished = out.with_name(out.name + ".partial")
    try:
        unfinished.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        unfinished.replace(out)
    except OSError as error:
        raise StoreError(f"cannot write {out}: {error}; choose a writable folder") from error
