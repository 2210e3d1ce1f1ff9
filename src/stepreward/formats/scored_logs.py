"""Scores of steps written back into a log: its own file again, with the scores where its layout has a place for them.

What holds no score stays byte for byte in JSON lines, and value for value elsewhere.
"""

from __future__ import annotations

import codecs
import gzip
import io
import json
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from stepreward.core.errors import InputError
from stepreward.core.files.atomic_files import alone_in_one_move
from stepreward.core.files.row_files import write_rows
from stepreward.core.types import Step, Trajectory
from stepreward.formats.files.rows_of_files import open_bytes, read_rows
from stepreward.formats.format import Format
from stepreward.formats.recorded_scores import ScoreLayout, Scores, scores_at
from stepreward.formats.registry import MISSHAPEN, formats

Goal = Literal["log", "scores"]
"""The log itself with the scores in it, or a row a score as the log's platform takes them."""


def layout_of(form: Format, to: Goal) -> ScoreLayout:
    """How a format holds scores of steps.

    Raises:
        InputError: it holds none, or no platform takes them.
    """
    able = {one.name: one.scores for one in formats.values() if one.scores and (to == "log" or one.scores.rows)}
    layout = able.get(form.name)
    if layout is None:
        what = f"format {form.name} has no place for scores of steps"
        what = what if to == "log" else f"no platform is known that takes scores of steps of format {form.name}"
        raise InputError(what, remedy=f"write the table, or pass one of {', '.join(able)}")
    return layout


@dataclass
class PlacedScores:
    """The scores of a file's actions by their places.

    Args:
        layout: of the file.
        columns: step columns to write.
    """

    layout: ScoreLayout
    columns: tuple[str, ...]
    found: dict[Hashable, tuple[Step, Scores]] = field(default_factory=dict)
    unscored: int = 0
    """Actions without a score: nothing is written of them."""
    homeless: int = 0
    """Scored actions for which the log has no place: what it only repeats, such as an earlier turn in a prompt."""
    placed: set[Hashable] = field(default_factory=set)
    """Places that were found again in the file."""

    def add(self, run: Trajectory, number: int, nth: int) -> None:
        """Keeps the scores of a run.

        Args:
            run: with scores.
            number: of its row in the file.
            nth: number of the run among those of its row, from 0.
        """
        for at, step in enumerate(run.steps):
            if step.kind != "action":
                continue
            scores = scores_at(run, at, self.columns)
            place = self.layout.place(number, nth, step)
            self.unscored += not scores
            self.homeless += bool(scores) and place is None
            if scores and place is not None:
                self.found[place] = (step, scores)

    def take(self, place: Hashable) -> Scores:
        """The scores at a place."""
        if place not in self.found:
            return {}
        self.placed.add(place)
        return self.found[place][1]

    @property
    def lost(self) -> int:
        """Scored actions that are not in the written log."""
        return self.homeless + len(self.found) - len(self.placed)


def check_log(source: Path, out: Path) -> None:
    """Checks before long work that the scored log can be written under a name.

    Raises:
        InputError: the source is a folder, or the endings differ.
    """
    if source.is_dir():
        raise InputError("a folder cannot be written again with scores", source=source, remedy="pass one of its files")
    kinds = [path.name.removesuffix(".gz").rpartition(".")[2] for path in (source, out)]
    if kinds[0] != kinds[1]:
        what = f"a .{kinds[0]} log stays one, and {out.name} is a .{kinds[1]} file"
        raise InputError(what, source=source, remedy=f"name a .{kinds[0]} file")


def write_log(source: Path, out: Path, scores: PlacedScores) -> None:
    """Writes a log again with scores in it.

    Args:
        source: the log; JSON lines, JSON or Parquet, plain or .gz.
        out: file to write, of the same kind.
        scores: of its actions.

    Raises:
        InputError: a row has no place for its scores.
        StoreError: it cannot be written.
    """
    if source.suffix.lower() == ".parquet":
        write_rows(out, (_scored(row, number, scores, source) for number, row in _rows(source)))
        return
    with open_bytes(source) as file:
        data = file.read()
    opened = gzip.open if out.suffix == ".gz" else open
    with alone_in_one_move(out) as partial, opened(partial, "wb") as to:
        to.writelines(_parts(data, source, scores))


def api_rows(scores: PlacedScores) -> Iterator[dict[str, Any]]:
    """A row a score, as the platform of the log takes them."""
    assert scores.layout.rows is not None
    for place, (step, mine) in scores.found.items():
        scores.placed.add(place)
        yield from scores.layout.rows(step, mine)


def _rows(source: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, row in read_rows(source):
        if isinstance(row, InputError):
            raise row
        yield number, row


def _scored(row: Mapping[str, Any], number: int, scores: PlacedScores, source: Path) -> Mapping[str, Any]:
    """A row with its scores; one that the reader could not read stays as it is."""
    try:
        return scores.layout.put(row, number, scores.take)
    except InputError as error:
        raise InputError(error.problem, source=source, row=number, remedy=error.remedy) from error
    except MISSHAPEN:
        return row


def _parts(data: bytes, source: Path, scores: PlacedScores) -> Iterator[bytes]:
    """The bytes of the scored log: its lines, where these are values, else one value with rows in it."""
    lines = list(io.BytesIO(data))
    values = [_value(line) for line in lines]
    whole = None if isinstance(next((one for one in values if one is not None), None), Mapping) else _value(data)
    if whole is None and any(isinstance(one, Mapping) for one in values):
        for number, (line, row) in enumerate(zip(lines, values, strict=True), start=1):
            made = _scored(row, number, scores, source) if isinstance(row, Mapping) else row
            # A line without scores stays byte for byte, one that is no JSON too.
            yield line if made == row else _text(made) + line[len(line.rstrip(b"\r\n")) :]
        return
    if whole is None:
        what = "JSON values over several lines, one after the other, cannot be written again"
        raise InputError(what, source=source, remedy="convert them to JSON lines first: a value a line")
    yield _text(_whole(whole, source, scores), 2 if data.strip().count(b"\n") else None) + b"\n"


def _whole(whole: Any, source: Path, scores: PlacedScores) -> Any:
    """A value with scores in its rows: it is a list of them, one itself, or has them in a list beside plain fields."""
    if isinstance(whole, list):
        return _all(whole, source, scores)
    rows = [row for _, row in read_rows(source)]
    if rows == [whole]:
        return _scored(whole, 1, scores, source)
    name = next((name for name, one in whole.items() if isinstance(one, list) and one[:1] == rows[:1]), None)
    if name is None:
        raise InputError("its rows are not found again", source=source, remedy="convert it to JSON lines first")
    return {**whole, name: _all(whole[name], source, scores)}


def _all(rows: list[Any], source: Path, scores: PlacedScores) -> list[Any]:
    return [
        _scored(row, number, scores, source) if isinstance(row, Mapping) else row
        for number, row in enumerate(rows, start=1)
    ]


def _text(value: Any, indent: int | None = None) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, indent=indent).encode()
    except UnicodeEncodeError:  # Half a surrogate pair, which UTF-8 cannot hold, makes all of it escapes.
        return json.dumps(value, indent=indent).encode()


def _value(text: bytes) -> Any:
    try:
        return json.loads(text.removeprefix(codecs.BOM_UTF8))
    except (ValueError, RecursionError):
        return None
