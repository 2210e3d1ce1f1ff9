"""`stepreward view`: where a run's report is, in a browser if asked."""

from __future__ import annotations

import json
import webbrowser
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from stepreward.cli.flags.from_dataclasses import JsonFlag
from stepreward.core.errors import InputError


@dataclass(frozen=True)
class ViewFlags:
    """How the report is shown."""

    browser: bool = False
    """Open the report in the default browser."""


def view(
    run: Annotated[Path, typer.Argument(help="Run folder, such as runs/demo.")],
    flags: ViewFlags,
    json_output: JsonFlag = False,
) -> None:
    """Print the address of a run's report; it is one file that opens offline.

    Example: stepreward view runs/demo --browser
    """
    report = (run / "report.html").resolve()
    if not report.is_file():
        raise InputError("this run has no report yet", source=run, remedy="finish it: stepreward run --out FOLDER")
    address = report.as_uri()
    typer.echo(json.dumps({"report": address, "summary": str(run / "summary.json")}) if json_output else address)
    if flags.browser:
        webbrowser.open(address)
