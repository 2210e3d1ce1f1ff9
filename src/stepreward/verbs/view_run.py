"""The verb view."""

from __future__ import annotations

import webbrowser
from pathlib import Path

from stepreward.core.errors import InputError


def view(run: str | Path, *, browser: bool = False) -> str:
    """The address of a run's report, one file that opens offline.

    Args:
        run: folder that `stepreward run` wrote.
        browser: open it in the default browser.

    Raises:
        InputError: the run has no report.
    """
    report = (Path(run) / "report.html").resolve()
    if not report.is_file():
        raise InputError("this run has no report yet", source=run, remedy="finish it: stepreward run --out FOLDER")
    if browser:
        webbrowser.open(report.as_uri())
    return report.as_uri()
