"""`stepreward generate`: problems with exact truth, out of programs that make them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from stepreward.cli.flags.from_dataclasses import JsonFlag
from stepreward.cli.flags.method_settings import blamed_on_settings
from stepreward.core.catalog import generate as generators
from stepreward.core.errors import InputError
from stepreward.core.files.row_files import ENDINGS, write_rows
from stepreward.core.keys import Key
from stepreward.core.settings_text import read_settings
from stepreward.core.vocabulary import Count, Flag


@dataclass(frozen=True)
class GenerateFlags:
    """Which problems are made, and how many."""

    out: Path
    """File of problems to write, .jsonl or .parquet."""
    n: Count = 100
    """Number of problems."""
    seed: int = 0
    """Of their randomness: equal ones give equal problems."""
    settings: Annotated[tuple[str, ...], Flag("--set")] = ()
    """Setting of the generator as name=value; may be repeated."""


def generate(
    generator: Annotated[str, typer.Argument(help="What makes problems; `stepreward methods generate` lists all.")],
    *,
    flags: GenerateFlags,
    json_output: JsonFlag = False,
) -> None:
    """Write problems with exact truth, as many as wanted; `label`, `search` and `rounds` read them.

    Example: stepreward generate logic --n 100 --out logic.jsonl --set depth=3
    """
    if flags.out.suffix not in ENDINGS:
        raise InputError(f"--out ends in {' or '.join(ENDINGS)}, got {flags.out}", remedy="name such a file")
    method = generators[generator]
    (settings,) = read_settings(flags.settings, method)
    made: Iterator[Any] = method.take({"key": Key.seed(flags.seed)}, **settings)

    def rows() -> Iterator[dict[str, Any]]:
        for problem in islice(made, flags.n):
            prompt = problem.prompt if isinstance(problem.prompt, str) else list(problem.prompt)
            yield {"id": problem.id, "prompt": prompt, "reference": problem.reference, **problem.meta}

    with blamed_on_settings(method):
        written = write_rows(flags.out, rows())
    less = "" if written == flags.n else f", all that there are of {flags.n:,}"
    if json_output:
        typer.echo(json.dumps({"out": str(flags.out), "generator": generator, "problems": written}))
    else:
        typer.echo(f"{flags.out}: {written:,} problems of {generator}{less}")
