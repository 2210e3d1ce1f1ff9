"""The run folder: each stage's results on disk in one move, so that a killed run continues where it was.

settings.json     the settings of the run; a resumed run must have the same
answers.sqlite     every paid answer (`core.runtime.answer_log`)
stages/NAME.json  the numbers of a finished stage, with its seconds
...               what the stages make: trees, labels, checkpoint, summary.json, report.html
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from stepreward.core.errors import InputError
from stepreward.core.files.atomic_files import claim, plain, read_object, write_json


class RunFolder:
    """A folder that remembers which stages of a run are finished.

    Args:
        path: the folder; made if absent.
        settings: of the run, JSON values.

    Raises:
        InputError: the folder holds a run with other settings.
        StoreError: the folder cannot be written.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path = path
        differing = claim(path / "settings.json", settings)
        if differing:
            changes = ", ".join(f"{name} was {old!r} and is now {new!r}" for name, (old, new) in differing.items())
            what = f"this folder holds a run with other settings: {changes}"
            raise InputError(what, source=path, remedy="run with the old settings to resume, or choose another --out")

    def stage(self, name: str, compute: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """The numbers of a stage: read if it is finished, computed and kept if not.

        Returns:
            What `compute` returned, with the `seconds` it took unless it measured them itself.
        """
        path = self.path / "stages" / f"{name}.json"
        if path.exists():
            return read_object(path, remedy="delete this one file and run again, which computes the stage again")
        start = time.perf_counter()
        numbers: dict[str, Any] = dict(compute())
        numbers.setdefault("seconds", round(time.perf_counter() - start, 3))
        # A stage that was just run returns what a resumed run would read.
        numbers = plain(numbers)
        write_json(path, numbers)
        return numbers

    def finished(self, name: str) -> bool:
        """True if the stage has been run to its end."""
        return (self.path / "stages" / f"{name}.json").exists()
