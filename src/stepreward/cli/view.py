"""`stepreward view`: where a run's report is, in a browser with `--browser`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from stepreward.cli.flags.from_dataclasses import JsonFlag
from stepreward.verbs.view_run import view as open_report


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
    address = open_report(run, browser=flags.browser)
    typer.echo(json.dumps({"report": address, "summary": str(run / "summary.json")}) if json_output else address)
