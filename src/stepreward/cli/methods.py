"""`stepreward methods`: the table of contents of the library."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from typing import Annotated

import typer
from rich.table import Table

from stepreward.cli.console import plain_console
from stepreward.core.catalog import Family, families
from stepreward.core.errors import UnknownNameError

_REGISTERING = (
    "core.segment", "label", "train.objectives", "core.aggregation", "core.selection", "score.calibration",
    "score.conformal", "search", "credit", "evaluate",
)  # fmt: skip
"""Packages and modules that register methods; none of them loads torch."""


def all_families() -> Iterator[Family]:
    """Every family that has methods, with all that register any imported."""
    for name in _REGISTERING:
        importlib.import_module(f"stepreward.{name}")
    return (family for family in families.values() if len(family))


def methods(
    family: Annotated[str, typer.Argument(help="Show one family only.")] = "",
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """List every method with its family, paper, data and settings.

    What tries to follow a paper that could not be checked is marked as unverified, and says what is not confirmed.

    Example: stepreward methods aggregate
    """
    known = list(all_families())
    if family and family not in {f.name for f in known}:
        raise UnknownNameError("family", family, (f.name for f in known))
    chosen = [f for f in known if family in ("", f.name)]
    if json_output:
        rows = [
            {"family": f.name, "name": m.name, "summary": m.summary, "paper": m.paper, "equation": m.equation}
            | {
                "note": m.note,
                "unverified": m.unverified,
                "data": m.data,
                "settings": {k: repr(v) for k, v in m.settings.items()},
            }
            for f in chosen
            for m in f
        ]
        typer.echo(json.dumps(rows))
        return
    console = plain_console()
    for one in chosen:
        table = Table(title=f"{one.name}: {one.signature}", title_justify="left", caption=one.about)
        for head in ("name", "what it does", "source", "settings"):
            table.add_column(head)
        for m in one:
            settings = ", ".join(f"{k}={v}" for k, v in m.settings.items())
            table.add_row(m.listed, m.summary, m.source, settings)
        console.print(table)
