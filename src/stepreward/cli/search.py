"""`stepreward search`: solve problems with a policy, a reward model and a search."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

from stepreward.cli.flags.engines import EngineFlags, plain_paths
from stepreward.cli.flags.from_dataclasses import JsonFlag
from stepreward.cli.flags.method_settings import blamed_on_settings, shortcut
from stepreward.cli.flags.parts import plan
from stepreward.cli.flags.policies import OWN_SCORE, AgentFlags, HelperFlags, cut_note
from stepreward.cli.flags.scorers import EnsembleFlags, RecipeFlags
from stepreward.cli.terminal.console import plain_console
from stepreward.cli.terminal.left_out import tell_left_out
from stepreward.cli.terminal.progress import StageProgress
from stepreward.core.catalog import aggregate as aggregates
from stepreward.core.catalog import search as searches
from stepreward.core.errors import InputError
from stepreward.core.failures import Failures
from stepreward.core.files.row_files import check_ending
from stepreward.core.keys import Key
from stepreward.core.measure.statistics import bootstrap
from stepreward.core.optional import VLLM
from stepreward.core.runtime.answer_log import AnswerLog
from stepreward.core.runtime.flows import Grader
from stepreward.core.runtime.made_in_parts import MadePart, make_parts, read_parts
from stepreward.core.runtime.spending import Bill, Budget, Prices
from stepreward.core.settings_text import read_settings
from stepreward.core.types import Problem, Trajectory
from stepreward.core.vocabulary import Flag
from stepreward.formats.registry import write
from stepreward.formats.trajectories import OWN
from stepreward.pipeline.compare import REFERENCE, comparable, verdict
from stepreward.pipeline.compare import compare as comparison
from stepreward.pipeline.compose import Solver, compose
from stepreward.pipeline.run_report import percent, points
from stepreward.score.baselines import WITHOUT_MODEL
from stepreward.score.judges.pairwise import PolicyJudge
from stepreward.tasks.graders import grader_by_name, graders
from stepreward.verbs.read_rows import problems_of
from stepreward.verbs.score_rows import parts_beside
from stepreward.verbs.search_problems import SearchPart

_FOUND = "found"
"""Stem of the files of parts."""


@dataclass(frozen=True)
class SearchFlags:
    """What is searched for, and how."""

    problems: Annotated[Path, Flag("--problems", "--data")]
    """JSONL of problems with prompt and, to grade, reference."""
    out: Path
    """Table to write, a row a candidate: a file (.jsonl, .parquet) or a folder of parts."""
    method: Annotated[str, Flag(choices=searches)] = "beam"
    """How to search: {choices}."""
    samples: Annotated[int | None, Flag(low=1)] = None
    """Solutions of each problem, for majority, best-of-n and weighted-vote."""
    beams: Annotated[int | None, Flag(low=1)] = None
    """Beams of beam search, subtrees of DVTS."""
    width: Annotated[int | None, Flag(low=1)] = None
    """Continuations of each beam or subtree."""
    aggregate: Annotated[str | None, Flag(choices=aggregates)] = None
    """Total of a solution's step scores: {choices}."""
    settings: Annotated[tuple[str, ...], Flag("--set")] = ()
    """Setting of the search as name=value; may be repeated."""
    temperature: Annotated[float | None, Flag(low=0.0)] = None
    """Of sampling; left to the policy if not given."""
    top_p: Annotated[float | None, Flag(low=0.01, high=1.0)] = None
    """Share of the probability to sample from."""
    grader: Annotated[str, Flag(choices=graders)] = "mathematics"
    """Who reads answers: {choices}."""
    seed: int = 0
    """Seed of all samples."""
    strict: bool = False
    """End with an error at the first bad row instead of leaving it out."""


@dataclass(frozen=True)
class CompareFlags:
    """Whether searches are compared, which, and at which budgets."""

    compare: Annotated[bool, Flag("--compare")] = False
    """Compare searches at several budgets; OUT is then a folder."""
    only: Annotated[tuple[str, ...], Flag(choices=comparable())] = ()
    """Search to compare; may be repeated. One of {choices}."""
    budgets: Annotated[tuple[int, ...], Flag("--budget", low=1)] = ()
    """Samples or walks to compare at; may be repeated."""


def search(
    flags: SearchFlags,
    models: EnsembleFlags,
    recipe: RecipeFlags,
    policy: AgentFlags,
    helpers: HelperFlags,
    stop: Budget,
    prices: Prices,
    comparing: CompareFlags,
    engine: EngineFlags,
    json_output: JsonFlag = False,
) -> None:
    """Search for solutions; a row of the table for each candidate, with the bill in that of the chosen one.

    What was generated and scored is kept beside OUT and read again after a kill.

    Example: stepreward search --problems problems.jsonl --grader arithmetic --model model --out found.jsonl
    """
    compare, out, elsewhere = comparing.compare, flags.out, engine.chosen()
    if compare and elsewhere is not None:
        raise InputError("a comparison is made in one process", remedy="drop --engine, or --compare")
    if not compare:
        check_ending(out)
    chosen, reader = searches[flags.method], grader_by_name(flags.grader)
    recipe.require(bool(models.model))
    needs = ("scorer",) if compare else chosen.asks
    if not models.model and "scorer" in needs:
        what = "a comparison" if compare else flags.method
        raise InputError(f"{what} needs a reward model", remedy="pass --model, or --method majority")
    _check_judge(helpers.judge, "--compare" if compare else flags.method, needed="judge" in needs)
    if "self_certainty" in needs and policy.policy.startswith(("http://", "https://", VLLM)):
        what = f"{flags.method} needs the whole distribution of each token, which servers and engines do not return"
        raise InputError(what, remedy="take a policy on this machine, a folder or hub name, or --method self-prm")
    priced = prices.generated + prices.scored + (prices.expert or 0) + prices.action
    if stop.money is not None and not priced and not policy.environment:
        raise InputError("--max-money needs prices", remedy="pass --price-generated, --price-scored or others")
    given = [
        *shortcut(chosen, "--samples", flags.samples, "n"),
        *shortcut(chosen, "--beams", flags.beams, "beams", "trees"),
        *shortcut(chosen, "--width", flags.width, "width"),
    ]
    if flags.aggregate is not None:
        aggregates[flags.aggregate]
        given += [] if compare else shortcut(chosen, "--aggregate", flags.aggregate, "aggregate")
    if compare and given:
        raise InputError(f"{given[0]} is of one search", remedy="with --compare write --set SEARCH.NAME=VALUE")
    own = {} if compare else read_settings([*given, *flags.settings], chosen)[0]
    each = _of_each(flags.settings, comparing.only or [*comparable()]) if compare else {}
    aggregates[own.get("aggregate", "min")]
    unread = Failures()
    rows = problems_of(flags.problems, None if flags.strict else unread)
    how = dict(search=flags.method, stop=stop, prices=prices, temperature=flags.temperature, top_p=flags.top_p, **own)
    build = partial(_solver, models, recipe, policy, helpers, flags.grader, how)
    if elsewhere is not None:
        purpose = plan("search", flags, models, recipe, policy.lasting, helpers, stop, prices, reads=(flags.problems,))
        with StageProgress(quiet=json_output) as progress, blamed_on_settings(chosen):
            made = make_parts(
                parts_beside(out), _FOUND, rows, SearchPart(build, flags.seed), elsewhere, plain_paths(purpose),
                strict=flags.strict,
                on_part=lambda done, so_far: progress("search", done, len(rows), _spent(so_far)),
            )  # fmt: skip
        unread.join(made.failed)
        _tell(out, read_parts(parts_beside(out), _FOUND), unread, None, flags.seed, json_output)
        return
    solver = build()
    if compare:
        tell_left_out(unread)
        _compare(rows, flags, solver, reader, comparing, each, json_output)
        raise typer.Exit(int(bool(unread)))
    with (
        AnswerLog(out.with_name(out.name + ".answers.sqlite")) as log,
        StageProgress(quiet=json_output) as progress,
        blamed_on_settings(chosen),
    ):

        def tell(done: int, total: int, bill: Bill) -> None:
            progress("search", done, total, f"{bill.generated_tokens:,} tokens")

        resumed = len(log) > 0
        solutions = solver.solve(rows, seed=flags.seed, log=log, on_progress=tell)
    solutions.unread = unread
    if flags.strict:
        solutions.failed.refuse("could not be searched")
    rows_made = (row for one in solutions for row in one.rows())
    _tell(out, rows_made, solutions.failed, solver, flags.seed, json_output)
    if resumed and set(models.model) - WITHOUT_MODEL.keys() and models.cache_memory.strip() != "0":
        print(
            "stepreward: answers of an earlier run were used: with the cache of prefixes, scores may differ in their "
            "last digits from those of a run at once; with --cache-memory 0 they do not",
            file=sys.stderr,
        )


def _solver(
    models: EnsembleFlags, recipe: RecipeFlags, policy: AgentFlags, helpers: HelperFlags, grader: str,
    how: dict[str, Any],
) -> Solver:  # fmt: skip
    """The solver that flags mean, loaded where this is called."""
    scorer = models.scorer(recipe)
    return compose(
        policy.load(helpers.expert), () if scorer is None else scorer, grader=grader_by_name(grader),
        judge=helpers.load_judge(scorer), **how,
    )  # fmt: skip


def _spent(made: MadePart) -> str:
    return f"{made.bills.get('search', Bill()).generated_tokens:,} tokens"


class _Summed:
    """Sums up what the rows of candidates say of their problems, while they pass by."""

    def __init__(self, rows: Iterable[Trajectory]) -> None:
        self._rows = rows
        self.bill = Bill()
        self.problems = self.unknown = 0
        """Problems, and those with a reference whose solution could not be graded."""
        self.graded: list[float] = []

    def __iter__(self) -> Iterator[Trajectory]:
        for row in self._rows:
            # In one row of each problem.
            if "bill" in row.facts:
                self.problems += 1
                self.bill.add(Bill(**row.facts["bill"]))
                known = not np.isnan(row.outcome)
                self.graded += [float(row.outcome > 0.5)] * known
                self.unknown += not known and row.problem.reference is not None and "error" not in row.facts
            yield row


def _tell(
    out: Path, rows: Iterable[Trajectory], failed: Failures, solver: Solver | None, seed: int, json_output: bool
) -> None:
    """Writes the rows and says what became of the problems.

    Raises:
        typer.Exit: some failed.
    """
    summed = _Summed(rows)
    write(out, summed, OWN, strict=True)
    tell_left_out(failed)
    bill, graded, unknown = summed.bill, summed.graded, summed.unknown
    accuracy = bootstrap(graded, Key.seed(seed).fold("search", "accuracy")).to_json() if graded else None
    outcome = {
        "out": str(out),
        "problems": summed.problems,
        "failed": failed.total,
        "accuracy": accuracy,
        "ungraded": unknown,
        "bill": asdict(bill),
        "cut": (cut := cut_note(bill, None if solver is None else solver.policy)),
    }
    judge = None if solver is None else solver.judge
    used = judge.usage if isinstance(judge, PolicyJudge) else None
    if json_output:
        typer.echo(json.dumps(outcome | ({} if used is None else {"judge": asdict(used)})))
        raise typer.Exit(int(bool(failed)))
    none = "none graded" if unknown or failed else "no references"
    right = none if accuracy is None else f"{accuracy['value']:.1%} of {len(graded)} right"
    right += f" ({unknown} could not be graded and count neither way)" if unknown else ""
    typer.echo(f"{summed.problems} problems in {out}: {right}; {bill.generated_tokens:,} tokens generated")
    if cut:
        typer.echo(cut)
    if used is not None:
        typer.echo(
            f"{used.answers:,} verdicts of the judge ({used.tokens:,} tokens), {used.unread:,} unreadable, "
            f"{used.swayed:,} pairs swayed by the order"
        )
    if failed:
        typer.echo(f"{failed.total:,} failed; run again to try them again")
        raise typer.Exit(1)


def _check_judge(judge: str, search: str, *, needed: bool) -> None:
    """Refuses a search in pairs without a judge, and a judge that it does not use."""
    if judge and not needed:
        raise InputError(f"{search} uses no judge", remedy="drop --judge, or take --method knockout or elo")
    if needed and not judge:
        remedy = f"pass --judge POLICY, or --judge {OWN_SCORE} with --model"
        raise InputError(f"{search} needs a judge, who compares solutions", remedy=remedy)


def _of_each(given: Sequence[str], names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Settings of the searches to compare, by name: `beam.max_steps=9`, or a bare name that one alone has."""
    known = [name for name in dict.fromkeys([REFERENCE, *names]) if name in comparable()]
    return dict(zip(known, read_settings(given, *(searches[name] for name in known)), strict=True))


def _compare(
    problems: list[Problem], flags: SearchFlags, solver: Solver, grader: Grader, comparing: CompareFlags,
    settings: dict[str, dict[str, Any]], json_output: bool,
) -> None:  # fmt: skip
    """Runs and shows the comparison."""
    assert solver.scorer is not None
    with StageProgress(quiet=json_output) as progress:
        summary = comparison(
            problems, flags.out, policy=solver.policy, scorer=solver.scorer, grader=grader, methods=comparing.only,
            budgets=comparing.budgets or (4, 8, 16), aggregate=flags.aggregate or "", settings=settings,
            seed=flags.seed, on_progress=progress,
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
    console = plain_console()
    console.print(table)
    console.print(f"report: {flags.out / 'compare.html'}", soft_wrap=True)
