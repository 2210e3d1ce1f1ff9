"""`stepreward score`: one number a step, from a checkpoint."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from stepreward.cli.models import scorer_at
from stepreward.cli.recipes import AnswersFlag, CalibratorFlag, DeviceFlag, DtypeFlag, LikeFlag, RecordFlag, recipe_of
from stepreward.core.errors import InputError
from stepreward.core.json_file import plain


def score(
    model: Annotated[
        str, typer.Option(help="Folder, such as runs/demo/model, hub name, URL#NAME in a server, or tool.")
    ],
    data: Annotated[
        Path | None, typer.Option(help='JSONL rows {"question": ..., "steps": [...]}; standard input if left out.')
    ] = None,
    like: LikeFlag = "",
    record: RecordFlag = None,
    calibrator: CalibratorFlag = None,
    answers: AnswersFlag = 1,
    device: DeviceFlag = "cpu",
    dtype: DtypeFlag = "",
    strict: Annotated[
        bool, typer.Option(help="Stop at the first bad row instead of reporting it and going on.")
    ] = False,
) -> None:
    """Score the steps of solutions; one JSON line {"scores": [...]} a row, {"error": ...} for a bad row.

    Example: echo '{"question": "1 + 1?", "steps": ["1 + 1 = 2"]}' | stepreward score --model runs/demo/model
    """
    scorer = scorer_at(model, device, recipe_of(like, record, calibrator, answers, dtype))
    source = data if data is not None else Path("standard input")
    bad = 0
    for number, line in _lines(data):
        try:
            question, steps = _row(source, number, line)
            typer.echo(json.dumps({"scores": plain(scorer.score(question, steps).tolist())}))
        except InputError as error:
            if strict:
                raise
            bad += 1
            typer.echo(json.dumps({"error": str(error)}))
    if bad:
        raise typer.Exit(1)


def _lines(path: Path | None) -> Iterator[tuple[int, str]]:
    try:
        with path.open(encoding="utf-8") if path is not None else sys.stdin as lines:
            yield from ((number, line) for number, line in enumerate(lines, 1) if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read rows: {error}", source=path, remedy="pass a JSONL file") from error


def _row(source: Path, number: int, line: str) -> tuple[str, list[str]]:
    form = '{"question": "...", "steps": ["...", ...]}'
    try:
        row = json.loads(line)
    except ValueError as error:
        raise InputError(f"broken JSON: {error}", source=source, row=number, remedy=f"write {form}") from error
    if not isinstance(row, dict) or not isinstance(row.get("question"), str):
        raise InputError("field 'question' is missing", source=source, row=number, remedy=f"write {form}")
    steps = row.get("steps")
    if not isinstance(steps, list) or not steps or not all(isinstance(s, str) and s.strip() for s in steps):
        raise InputError(
            "'steps' must be a list of texts, none empty", source=source, row=number, remedy=f"write {form}"
        )
    return row["question"], steps
