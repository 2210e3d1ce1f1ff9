"""`stepreward score`: one number a step, from a checkpoint."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import typer
from numpy.typing import NDArray

from stepreward.cli.flags.format_options import format_options
from stepreward.cli.flags.rows import ReadFlags
from stepreward.cli.flags.scorers import RecipeFlags
from stepreward.cli.terminal.left_out import tell_blank
from stepreward.core.atomic_files import plain
from stepreward.core.errors import InputError
from stepreward.core.runtime.flows import Score, Scorer
from stepreward.core.table import row_of
from stepreward.core.types import SCORE, Provenance, Trajectory
from stepreward.formats import trajectories
from stepreward.formats.files.rows_of_files import Numbered, read_rows
from stepreward.formats.registry import NothingReadError, Reading, by_name, detect
from stepreward.formats.steps.unlabelled import UNLABELLED

_AT_ONCE = 256
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
    """Folder, such as runs/demo/model, hub name, URL#NAME in a server, or tool."""
    data: Path | None = None
    """Rows with question (or prompt) and steps (or completions), or any format; standard input if left out."""


def score(flags: ScoreFlags, reading: ReadFlags, recipe: RecipeFlags) -> None:
    """Score the steps of solutions; one JSON line {"scores": [...], ...} a row, {"error": ...} for a bad row.

    A line is the row itself with its scores, which every command reads.
    Labels are not needed. A format whose rows hold several solutions gives a line for each. Observations
    have no score (null); "unscored" counts the steps that have none though they should, such as those past the most
    tokens that the checkpoint's record allows.

    Example: echo '{"question": "1 + 1?", "steps": ["1 + 1 = 2"]}' | stepreward score --model runs/demo/model
    """
    strict = reading.strict
    items = _items(flags.data, reading)
    bad = unscored = 0
    # What comes through a pipe is answered line by line.
    parts = _parts(items, 1 if flags.data is None else _AT_ONCE)
    # What is wrong with a file is told before a model is loaded, which takes seconds.
    first = [] if flags.data is None else [next(parts)]
    scorer = recipe.scorer(flags.model)
    for part in chain(first, parts):
        for line in _scored(scorer, part, strict=strict):
            bad += "error" in line
            unscored += line.get("unscored", 0)
            typer.echo(json.dumps(line))
    if unscored:
        typer.echo(f"{unscored} steps have no score: {_UNSCORED}", err=True)
    if bad:
        raise typer.Exit(1)


def _items(path: Path | None, flags: ReadFlags) -> Iterator[Trajectory | InputError]:
    """Solutions in the order of their rows, and in the place of a bad row its error."""
    chosen = by_name(flags.form) if flags.form else UNLABELLED if path is None or _is_plain(path) else detect(path)
    if chosen.kind != "solutions":
        raise InputError(f"format {chosen.name} holds {chosen.kind}, not solutions", source=path, remedy=_FORM)
    options = format_options(chosen, chosen.read, flags.read)
    if path is None:
        path, chosen = _STANDARD_INPUT, replace(chosen, rows=_standard_input)
    yield from _in_place(Reading(path, chosen, options, flags.strict))


def _is_plain(path: Path) -> bool:
    """Whether some of the first rows name their question and steps plainly, or none can be read at all."""
    first = [row for _, row in islice(read_rows(path), _LOOKED_AT) if not isinstance(row, InputError)]
    return not first or any(UNLABELLED.matches(row) and not trajectories.matches(row) for row in first)


def _in_place(reading: Reading[Trajectory]) -> Iterator[Trajectory | InputError]:
    # That no row can be read is told by each row's error.
    with suppress(NothingReadError):
        for item in reading:
            while reading.bad:
                yield reading.bad.pop(0)
            yield item
    yield from reading.bad
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


def _parts(items: Iterable[Trajectory | InputError], size: int) -> Iterator[list[Trajectory | InputError]]:
    """Lists of at most `size`; what came before an error is handed on before it is raised."""
    part: list[Trajectory | InputError] = []
    try:
        for item in items:
            part.append(item)
            if len(part) == size:
                yield part
                part = []
    except InputError:
        if part:
            yield part
        raise
    yield part


def _scored(scorer: Scorer, part: Sequence[Trajectory | InputError], *, strict: bool) -> Iterator[dict[str, Any]]:
    """A line for each; where the scorer refuses one of several, each is asked by itself."""
    good = [item for item in part if isinstance(item, Trajectory)]
    try:
        found = iter(scorer.score_many([Score(one.problem, one.steps) for one in good]))
    except InputError as error:
        if strict and len(good) == 1:
            raise
        if len(part) == 1:
            yield {"error": str(error)}
            return
        for item in part:
            yield from _scored(scorer, [item], strict=strict)
        return
    for item in part:
        if isinstance(item, InputError):
            yield {"error": str(item)}
        else:
            yield _line(item, next(found).scores, scorer.name)


def _line(item: Trajectory, scores: NDArray[np.float64], by: str) -> dict[str, Any]:
    """The scores, how many are missing, and the row of the table that they belong to, which every command reads."""
    steps = item.steps
    without = sum(step.kind == "action" and bool(np.isnan(score)) for step, score in zip(steps, scores, strict=True))
    row = row_of(item.with_columns({SCORE: scores}, Provenance(by)))
    del row[SCORE]  # The line names them `scores`.
    return {"scores": plain(scores.tolist()), **({"unscored": without} if without else {}), **row}
