"""`stepreward score`: one number a step, from a checkpoint."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import typer

from stepreward.cli.flags.engines import EngineFlags, plain_paths
from stepreward.cli.flags.format_options import format_options
from stepreward.cli.flags.parts import PartFlags, plan
from stepreward.cli.flags.read_flags import ReadFlags
from stepreward.cli.flags.scorers import RecipeFlags
from stepreward.cli.terminal.left_out import tell_blank, tell_left_out
from stepreward.cli.terminal.progress import Watched
from stepreward.core.errors import InputError
from stepreward.core.failures import Failure, Failures, shown_failure
from stepreward.core.files.atomic_files import plain
from stepreward.core.runtime.flows import Scorer
from stepreward.core.runtime.made_in_parts import Engine, make_parts, read_parts
from stepreward.core.table import row_of
from stepreward.core.types import SCORE, Trajectory
from stepreward.formats import trajectories
from stepreward.formats.files.rows_of_files import Numbered, read_rows
from stepreward.formats.format import Format
from stepreward.formats.registry import NothingReadError, Reading, by_name, detect, write
from stepreward.formats.scored_logs import Goal
from stepreward.formats.steps.unlabelled import UNLABELLED
from stepreward.formats.trajectories import OWN
from stepreward.verbs.score_logs import score_log
from stepreward.verbs.score_rows import AT_ONCE, SCORES, ScorePart, parts_beside, parts_of, scored

_LOOKED_AT = 20
_STANDARD_INPUT = Path("standard input")
_UNSCORED = (
    "their solutions are longer than the checkpoint's record allows, or the model gave none; allow more by a --record "
    'file with {"max_length": N}, or refuse such rows by one with {"too_long": "error"}'
)
_FORM = 'write {"question": "...", "steps": ["...", ...]}, or name its --format'


@dataclass(frozen=True)
class ScoreFlags:
    """What is scored, and by which model."""

    model: str
    """Folder, such as runs/demo/model, hub name, URL#NAME in a server, tool, or stored:TABLE for its scores."""
    data: Path | None = None
    """Rows with question (or prompt) and steps (or completions), or any format; standard input if left out."""
    out: Path | None = None
    """Table to write instead of lines, with one column more: a file (.parquet, .jsonl) or a folder of parts."""
    to: Literal["table", "log", "scores"] = "table"
    """What --out is: the table; the log of --data again, in its own layout and with the scores in it; or a row a score,
    as the log's platform takes them."""
    column: str = SCORE
    """Name of the step column in --out; `score:NAME` keeps the scores of several models apart."""
    also: tuple[str, ...] = ()
    """Further number of each step from the same pass, as name=formula: low=q10; a column score:low. May be repeated."""


def score(flags: ScoreFlags, reading: ReadFlags, recipe: RecipeFlags, parts: PartFlags, engine: EngineFlags) -> None:
    """Score the steps of solutions; one JSON line {"scores": [...], ...} a row, {"error": ...} for a bad row.

    A line is the row itself with its scores, which every command reads; with --out they are a table, and bad rows are
    named on standard error.
    Labels are not needed. A format whose rows hold several solutions gives a line for each. Observations
    have no score (null); "unscored" counts the steps that have none though they should, such as those past the most
    tokens that the checkpoint's record allows.

    Example: echo '{"question": "1 + 1?", "steps": ["1 + 1 = 2"]}' | stepreward score --model runs/demo/model
    """
    if flags.column.split(":")[0] != SCORE:
        raise InputError(f"--column {flags.column!r} is no column of scores", remedy=f"{SCORE} or {SCORE}:NAME")
    elsewhere = engine.chosen()
    if flags.to != "table":
        _write_log(flags, reading, partial(recipe.scorer, flags.model, also=_formulas(flags.also)), flags.to, elsewhere)
        return
    if elsewhere is not None and (flags.out is None or flags.data is None):
        raise InputError("an engine makes a table of a file", remedy="pass --data and --out, or drop --engine")
    items = _items(flags.data, reading, labelled=flags.out is not None)
    # A file that cannot be read is an error before a model is loaded, which takes seconds.
    if flags.data is not None:
        ahead = parts_of(items, AT_ONCE)
        items = chain.from_iterable(chain([next(ahead)], ahead))
    load = partial(recipe.scorer, flags.model, also=_formulas(flags.also))
    if flags.out is None:
        counts = _print_lines(items, load(), at_once=1 if flags.data is None else AT_ONCE, strict=reading.strict)
    else:
        reads = (flags.data, Path(flags.model), *([recipe.user_pairs] if recipe.user_pairs else []))
        purpose = plan("score", replace(flags, out=None), reading, recipe, reads=reads)
        work = _Scoring(load, flags.column, reading.strict, elsewhere)
        counts = _write_table(flags.out, items, work, parts.rows_per_part, purpose)
    if counts["unscored"]:
        typer.echo(f"{counts['unscored']} steps have no score: {_UNSCORED}", err=True)
    if counts["bad"]:
        raise typer.Exit(1)


def _write_log(
    flags: ScoreFlags, reading: ReadFlags, load: Callable[[], Scorer], to: Goal, elsewhere: Engine | None
) -> None:
    """Writes the log again with the scores in it, or the scores alone, and says what is not there."""
    if flags.data is None or flags.out is None or elsewhere is not None:
        raise InputError(f"--to {to} is of a file, scored here", remedy="pass --data and --out, and no --engine")
    chosen = by_name(reading.form) if reading.form else detect(flags.data)
    rows: Reading[Trajectory] = Reading(
        flags.data, chosen, format_options(chosen, chosen.read, reading.read), reading.strict
    )
    failed = Failures()
    made = score_log(
        rows, load, flags.out, to=to, column=flags.column, failed=failed, watched=lambda runs: Watched(runs, "score")
    )
    tell_left_out(failed)
    tell_blank(rows.blank)
    if made.unscored:
        typer.echo(f"{made.unscored:,} actions have no score, and none in the file", err=True)
    if made.lost:
        typer.echo(f"{made.lost:,} scored actions have no place in the log, which only repeats them", err=True)
    typer.echo(f"scores of {len(made.placed):,} actions in {flags.out}, {chosen.name}", err=True)
    if failed.total:
        raise typer.Exit(1)


def _formulas(given: Sequence[str]) -> dict[str, str]:
    """Formulas by name of `name=formula`."""
    made: dict[str, str] = {}
    for text in given:
        name, equals, formula = (part.strip() for part in text.partition("="))
        if not (name and equals and formula) or name in made:
            raise InputError(f"--also {text!r} is no name=formula, or its name is taken", remedy="write low=q10")
        made[name] = formula
    return made


def _print_lines(items: Iterable[Trajectory | Failure], scorer: Scorer, *, at_once: int, strict: bool) -> Counter[str]:
    """Prints a line for each row, in order; `bad` and `unscored` count."""
    counts = Counter[str]()
    for item in scored(items, scorer, at_once=at_once, strict=strict):
        if isinstance(item, tuple):
            counts["bad"] += 1
            typer.echo(json.dumps({"error": shown_failure(item)}))
        else:
            counts["unscored"] += _without_score(item, SCORE)
            typer.echo(json.dumps(_line(item)))
    return counts


@dataclass(frozen=True)
class _Scoring:
    """How the rows of a table are scored."""

    load: Callable[[], Scorer]
    column: str
    strict: bool
    engine: Engine | None
    """Where, if not in this process."""


def _write_table(
    out: Path, items: Iterable[Trajectory | Failure], how: _Scoring, rows_per_part: int, purpose: dict[str, Any] | None
) -> Counter[str]:
    """Writes the table and names the rows that are not in it; `scored`, `bad` and `unscored` count those of all parts.

    Parts that an earlier run wrote are not scored again: the folder has a note of their rows.
    """
    counts, failed, fresh = Counter[str](), Failures(), 0
    # Rows that cannot be read are left out before rows become parts, and so every run names them.
    unread = Failures()
    source = Watched(_readable(items, unread), "score")
    work: Callable[[Iterable[Trajectory]], Iterable[Trajectory | Failure]] = iter
    if how.engine is None:
        work = partial(scored, scorer=how.load(), column=how.column, strict=how.strict)
    else:
        folder, part = parts_beside(out), ScorePart(how.load, how.column)
        failed.join(
            make_parts(folder, SCORES, source, part, how.engine, plain_paths(purpose), strict=how.strict).failed
        )
        source = Watched(read_parts(folder, SCORES), "write")

    def counted(some: Iterable[Trajectory]) -> Iterator[Trajectory | Failure]:
        nonlocal fresh
        for item in work(some):
            fresh += 1
            if isinstance(item, Trajectory):
                counts["scored"] += 1
                counts["unscored"] += _without_score(item, how.column)
            yield item

    write(
        out, source, OWN, strict=True, rows_per_part=rows_per_part, plan=purpose, work=counted, failed=failed,
        counts=counts,
    )  # fmt: skip
    unread.join(failed)
    tell_left_out(unread)
    kept = source.count - fresh
    before = f"; {kept:,} rows of parts that were there are not scored again" if kept else ""
    typer.echo(f"{counts['scored']:,} solutions in {out}{before}", err=True)
    return counts + Counter(bad=unread.total)


def _readable(items: Iterable[Trajectory | Failure], unread: Failures) -> Iterator[Trajectory]:
    """The rows that could be read; the others go to `unread`, the first with their errors."""
    for item in items:
        if isinstance(item, Trajectory):
            yield item
        else:
            unread.add(item)


def _items(path: Path | None, flags: ReadFlags, *, labelled: bool) -> Iterator[Trajectory | Failure]:
    """Solutions in the order of their rows, and in the place of a bad row why.

    Args:
        path: a file, or None for standard input.
        flags: its format, where it is named.
        labelled: read labels too, which a table keeps; lines have none, and rows need none.
    """
    chosen = by_name(flags.form) if flags.form else UNLABELLED if path is None else _format_of(path, labelled=labelled)
    if chosen.kind != "solutions":
        raise InputError(f"format {chosen.name} holds {chosen.kind}, not solutions", source=path, remedy=_FORM)
    options = format_options(chosen, chosen.read, flags.read)
    if path is None:
        path, chosen = _STANDARD_INPUT, replace(chosen, rows=_standard_input)
    yield from _in_place(Reading(path, chosen, options, flags.strict))


def _format_of(path: Path, *, labelled: bool) -> Format:
    if not labelled and _is_plain(path):
        return UNLABELLED
    try:
        return detect(path)
    except InputError:
        if _is_plain(path):
            return UNLABELLED
        raise


def _is_plain(path: Path) -> bool:
    """Whether some of the first rows name their question and steps plainly, or none can be read at all."""
    first = [row for _, row in islice(read_rows(path), _LOOKED_AT) if not isinstance(row, InputError)]
    return not first or any(UNLABELLED.matches(row) and not trajectories.matches(row) for row in first)


def _in_place(reading: Reading[Trajectory]) -> Iterator[Trajectory | Failure]:
    # Where no row can be read, the error of each says so.
    with suppress(NothingReadError):
        for item in reading:
            while reading.bad:
                yield "", reading.bad.pop(0)
            yield item
    yield from (("", error) for error in reading.bad)
    tell_blank(reading.blank)


def _standard_input(path: Path) -> Iterator[Numbered]:
    try:
        for number, line in enumerate(sys.stdin, 1):
            if line.strip():
                yield number, _row(path, number, line)
    except UnicodeDecodeError as error:
        raise InputError(f"cannot read rows: {error}", source=path, remedy="pass JSON lines in UTF-8") from error


def _row(path: Path, number: int, line: str) -> Any:
    try:
        row = json.loads(line)
    except ValueError as error:
        return InputError(f"broken JSON: {error}", source=path, row=number, remedy=_FORM)
    if not isinstance(row, dict):
        return InputError(f"expected an object, got {type(row).__name__}", source=path, row=number, remedy=_FORM)
    return row


def _line(item: Trajectory) -> dict[str, Any]:
    """The scores, how many are missing, and the row of the table that they belong to, which every command reads."""
    without = _without_score(item, SCORE)
    row = row_of(item)
    del row[SCORE]  # The line names them `scores`.
    return {"scores": plain(item.column(SCORE).tolist()), **({"unscored": without} if without else {}), **row}


def _without_score(item: Trajectory, column: str) -> int:
    """Actions without a score."""
    return int((item.action & np.isnan(item.column(column))).sum())
