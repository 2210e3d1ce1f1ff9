"""`stepreward methods`: the table of contents of the library."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.table import Table

from stepreward.cli.flags.from_dataclasses import JsonFlag
from stepreward.cli.terminal.console import plain_console
from stepreward.core.catalog import families
from stepreward.core.errors import UnknownNameError


def methods(
    family: Annotated[str, typer.Argument(help="Show one family only.")] = "", json_output: JsonFlag = False
) -> None:
    """List every method with its family, paper, data and settings.

    What tries to follow a paper that could not be checked is marked as unverified, and says what is not confirmed.

    Example: stepreward methods aggregate
    """
    if family and family not in families:
        raise UnknownNameError("family", family, families)
    chosen = [f for f in families.values() if family in ("", f.name)]
    if json_output:
        rows: list[dict[str, Any]] = [
            {"family": f.name, "name": m.name, "summary": m.summary, "paper": m.paper, "equation": m.equation}
            | {
                "note": m.note,
                "unverified": m.unverified,
                "plugin": m.plugin,
                "asks": m.asks,
                "budget": m.budget.unit if m.budget is not None else None,
                "transform": m.transform,
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
            settings += f"; labels: {m.transform}" if m.transform else ""
            table.add_row(m.listed, m.summary, m.source, settings)
        console.print(table)
