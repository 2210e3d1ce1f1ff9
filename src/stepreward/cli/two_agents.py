"""`stepreward compare`: the runs of two agents on the same problems, number by number."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from stepreward.cli.flags.from_dataclasses import JsonFlag
from stepreward.cli.flags.read_flags import ReadFlags
from stepreward.cli.flags.scorers import RecipeFlags
from stepreward.cli.terminal.console import plain_console
from stepreward.cli.terminal.left_out import tell_left_out
from stepreward.cli.terminal.progress import Watched
from stepreward.core.errors import InputError
from stepreward.core.failures import Failures
from stepreward.core.files.row_files import check_ending, names_a_folder, write_rows
from stepreward.core.measure.statistics import Estimate
from stepreward.core.vocabulary import Flag
from stepreward.evaluate.agent_comparison import NAMED, AgentComparison
from stepreward.evaluate.measures.run_numbers import RUN_MEASURES
from stepreward.pipeline.run_report import percent, points
from stepreward.report.page import MISSING
from stepreward.verbs.compare_agents import compare_agents

_RESULTS = ("a", "b", "tie", None)


@dataclass(frozen=True)
class TwoAgentFlags:
    """What is compared, and how problems are joined."""

    by: str = ""
    """What says that two problems are the same: id, text, or a field of the runs' facts or problems, such as
    instance_id; left out: their ids, or their texts where no id is in both."""
    model: str = ""
    """Reward model that scores the steps of both first; else scores that are there are compared."""
    column: str = ""
    """Step column of the scores that are there, where there are several."""
    seeds: str = ""
    """Field that names the seed of a run, such as that of a training: intervals are then over seeds and problems."""
    out: Annotated[Path | None, Flag("--out", "-o")] = None
    """Table to write, a row a problem: who won it, and every number of both; a file (.jsonl, .json, .parquet)."""
    show: Annotated[int, Flag(low=0)] = 5
    """Problems to show of those that A wins, and of those that B wins: the largest differences."""
    seed: int = 0
    """Seed of the bootstrap."""


def compare(
    a: Annotated[Path, typer.Argument(help="Runs of agent A: a table, a folder or a log, any format; see `convert`.")],
    b: Annotated[Path, typer.Argument(help="Runs of agent B on the same problems, in the same or another format.")],
    *,
    flags: TwoAgentFlags,
    recipe: RecipeFlags,
    reading: ReadFlags,
    json_output: JsonFlag = False,
) -> None:
    """Compare two agents on the same problems: success, step scores, actions, tokens, cost, with paired intervals.

    Problems are the independent units: several runs of one are averaged first. What a log does not tell is not counted.

    Example: stepreward compare a.jsonl b.jsonl
    """
    recipe.require(bool(flags.model))
    if flags.model and flags.column:
        raise InputError("--column names scores that are there", remedy="drop it, or --model")
    if flags.out is not None:
        if names_a_folder(flags.out):
            raise InputError("--out is one file", source=flags.out, remedy="use .jsonl, .json or .parquet")
        check_ending(flags.out)
    scorer = recipe.scorer(flags.model) if flags.model else None
    lost = Failures()
    runs = [Watched(reading.solutions(path, lost, quiet=json_output), "compare", quiet=json_output) for path in (a, b)]
    made = compare_agents(
        runs[0], runs[1], scorer, column=flags.column, by=flags.by, seeds=flags.seeds, seed=flags.seed, failed=lost
    )
    if not json_output:
        tell_left_out(lost)
    if flags.out is not None:
        write_rows(flags.out, made.rows())
    if json_output:
        about = {name: str(path) for name, path in (("a", a), ("b", b))}
        typer.echo(json.dumps({**about, **made.to_json(), "left_out": lost.total}, allow_nan=False))
        return
    _print(made, [f"{path}, {one.count:,} runs" for path, one in zip((a, b), runs, strict=True)], flags.show)


def _print(made: AgentComparison, about: Sequence[str], show: int) -> None:
    console = plain_console()
    for who, what in zip("AB", about, strict=True):
        console.print(f"{who}: {what}", soft_wrap=True)
    for line in _joined(made):
        console.print(line, soft_wrap=True)
    title = f"{len(made.problems):,} problems, each once; 95 % intervals, paired by problem"
    table = Table(title=title, title_justify="left")
    for head in ("", "A", "B", "A - B", "A higher", "B higher", "equal"):
        table.add_column(head, no_wrap=True)
    for name, one in made.measures.items():
        share = RUN_MEASURES[name].is_share
        numbers = (_shown(one.a, share), _shown(one.b, share), _shown(one.difference, share, difference=True))
        table.add_row(name.replace("_", " "), *numbers, *(f"{n:,}" for n in (one.higher, one.lower, one.equal)))
    console.print(table)
    for name, one in made.measures.items():
        if any(one.runs_without):
            first, second = one.runs_without
            lack = f"missing in {first:,} runs of A and {second:,} of B"
            console.print(f"{name.replace('_', ' ')}: {lack}; over {one.difference.n:,} problems", soft_wrap=True)
    if made.apart:
        names = ", ".join(name.replace("_", " ") for name in made.apart)
        console.print(f"not compared, as no problem tells it of both: {names}", soft_wrap=True)
    rows = made.rows()
    won = {result: [row for row in rows if row["result"] == result] for result in _RESULTS}
    if "outcome" in made.measures:
        unknown = f"; {len(won[None]):,} without an outcome of both" if won[None] else ""
        console.print(f"A wins {len(won['a']):,} problems, B {len(won['b']):,}, {len(won['tie']):,} are ties{unknown}")
    for who, result in (("A", "a"), ("B", "b")):
        # In the order of the file where differences are equal.
        most = sorted(won[result], key=lambda row: -abs(row["outcome_difference"]))[:show]
        if most:
            shown = ", ".join(f"{row['problem']} ({row['outcome_a']:.2g} : {row['outcome_b']:.2g})" for row in most)
            console.print(f"{who} wins {shown}{', ...' if len(won[result]) > len(most) else ''}", soft_wrap=True)


def _joined(made: AgentComparison) -> list[str]:
    """How problems were joined, and what was left out."""
    said = [
        f"joined by {made.by}: {len(made.problems):,} problems, {made.runs[0]:,} runs of A and {made.runs[1]:,} of B"
    ]
    for name, some, left in zip("AB", made.only, made.nameless, strict=True):
        if some:
            more = ", ..." if len(some) > NAMED else ""
            said.append(f"left out, {name} alone has them: {len(some):,} problems, {', '.join(some[:NAMED])}{more}")
        if left:
            said.append(f"left out: {left:,} runs of {name} without {made.by!r}")
    if made.seeds:
        said.append(f"seeds {', '.join(made.seeds)}: intervals are over seeds and problems")
    if any(made.other_seeds):
        first, second = made.other_seeds
        said.append(f"left out: {first:,} runs of A and {second:,} of B with a seed that the other has not")
    if made.other_text:
        said.append(
            f"{made.other_text:,} problems have other texts in A than in B: other prompts of the same problem, or else "
            "join them by text (--by text)"
        )
    return said


def _shown(one: Estimate, share: bool, *, difference: bool = False) -> str:
    numbers: dict[str, Any] = one.to_json()
    if share:
        return points(numbers) if difference else percent(numbers)
    shown = [MISSING if numbers[name] is None else f"{numbers[name]:,.4g}" for name in ("value", "low", "high")]
    return f"{shown[0]} [{shown[1]}, {shown[2]}]"
