"""`stepreward blame`: which agent lost a trace, at which turn, and what each agent's turns are worth."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from stepreward.cli.flags.from_dataclasses import JsonFlag
from stepreward.cli.flags.read_flags import ReadFlags
from stepreward.cli.terminal.console import plain_console
from stepreward.core.errors import InputError
from stepreward.core.files.atomic_files import write_text
from stepreward.evaluate.agent_blame import BlameReport, Rule, blame_agents
from stepreward.pipeline.run_report import decimal, percent


@dataclass(frozen=True)
class BlameFlags:
    """By which numbers who is blamed."""

    column: str = "value"
    """Step column of values or scores."""
    rule: Rule = "lost"
    """Which turn is to blame: the first at or below --threshold, the largest drop of the value, or the lowest."""
    threshold: float = 0.0
    """Of --rule lost."""
    success: float = 0.5
    """A trace with an outcome below it failed."""
    truth: Path | None = None
    """The same traces with their decisive errors, such as Who&When, to measure the blame by."""
    out: Path | None = None
    """JSON lines to write, one a failed trace: problem, step, agent, text."""
    seed: int = 0
    """Of intervals."""


def blame(
    rows: Annotated[Path, typer.Argument(help="Labelled or scored traces of several agents, any format.")],
    *,
    flags: BlameFlags,
    reading: ReadFlags,
    json_output: JsonFlag = False,
) -> None:
    """Say which agent lost a trace and at which turn, and what each agent's turns are worth.

    Example: stepreward blame labels/labels.parquet --out blame.jsonl
    """
    truth = [] if flags.truth is None else [*reading.solutions(flags.truth, quiet=json_output)]
    made = blame_agents(
        reading.solutions(rows, quiet=json_output), truth, column=flags.column, rule=flags.rule,
        threshold=flags.threshold, success=flags.success, seed=flags.seed,
    )  # fmt: skip
    if flags.truth is not None and not made.accuracy:
        what = "no failed trace with a number on each turn is in it with a decisive error"
        raise InputError(what, source=flags.truth, remedy="give the same attempts: equal problem ids, equal steps")
    if flags.out is not None:
        write_text(flags.out, "".join(json.dumps(one.to_json(), ensure_ascii=False) + "\n" for one in made.blames))
    typer.echo(json.dumps(made.to_json(), allow_nan=False)) if json_output else _print(made)


def _print(made: BlameReport) -> None:
    table = Table(title=f"{made.traces:,} traces, {made.failed:,} failed; by {made.column}", title_justify="left")
    table.add_column("agent", overflow="fold")
    for head in ("turns", "value", "lost", "to blame"):
        table.add_column(head)
    for name, one in made.agents.items():
        table.add_row(
            name, f"{one.turns:,}", decimal(one.value.to_json()), decimal(one.lost.to_json()), f"{one.blamed:,}"
        )
    console = plain_console()
    console.print(table)
    for found in made.blames[:10]:
        who = f"{found.agent}, step {found.step}: {found.text:.80}" if found.step >= 0 else "no turn"
        console.print(f"{found.problem}: {who}", soft_wrap=True, markup=False)
    if (more := len(made.blames) - 10) > 0:
        console.print(f"... and {more:,} more: --out FILE, or --json", soft_wrap=True)
    if made.ungraded:
        console.print(f"{made.ungraded:,} traces have no outcome, and are not among the failed", soft_wrap=True)
    if made.unmeasured:
        console.print(f"{made.unmeasured:,} failed traces lack a number on some turn, and blame no agent")
    for what, share in made.accuracy.items():
        rate = f"{percent(share.to_json())} of {share.n:,} traces"
        console.print(f"blamed rightly, {what.replace('_', ' ')}: {rate}", soft_wrap=True)
