"""Items of untrusted text, answered in an isolated process that is killed when one takes too much time or memory.

`core.sandbox.bounded` says why these are two mechanisms.
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stepreward.core.errors import InputError

START = 60.0
"""Seconds in which a process must be ready."""
SLACK = 0.5
"""Seconds beyond an item's limit, for a process that ends it by itself."""


def answers_of(script: str, job: Mapping[str, Any], items: Sequence[Any], seconds: float) -> list[Any]:
    """One answer an item; None where an item ended its process, which is then restarted with the next item.

    The process reads one JSON object with `items`, writes a line once it is ready, and then one line of JSON an item.

    Args:
        script: path of a Python file that imports nothing of the package.
        job: further fields of that object.
        items: what each is, as JSON.
        seconds: for each.

    Raises:
        InputError: it was never ready; the message is the last line of its error output.
    """
    made: list[Any] = []
    while len(made) < len(items):
        made += _run(script, {**job, "items": list(items[len(made) :])}, len(items) - len(made), seconds)
    return made


def _run(script: str, job: Mapping[str, Any], n: int, seconds: float) -> list[Any]:
    """Answers up to the first item that ended the process, that one included."""
    command = [sys.executable, "-I", str(Path(script))]
    with tempfile.TemporaryFile() as request, tempfile.TemporaryFile() as errors:
        request.write(json.dumps(job).encode())  # ASCII only: lone surrogates are JSON escapes
        request.seek(0)
        with subprocess.Popen(  # noqa: S603 - our own file, by this interpreter
            command, stdin=request, stdout=subprocess.PIPE, stderr=errors, env={}
        ) as process:
            try:
                lines = _Lines(process)
                if lines.next(START) is None:
                    process.kill()
                    process.wait()
                    errors.seek(0)
                    said = errors.read().decode(errors="replace").strip().splitlines()
                    raise InputError(said[-1] if said else "the process ended")
                made: list[Any] = []
                while len(made) < n:
                    line = lines.next(seconds + SLACK)
                    made.append(None if line is None else json.loads(line))
                    if line is None:
                        break
                return made
            finally:
                process.kill()


class _Lines:
    """Lines of a process's output, each with a limit of time."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        self._pipe, self._rest = process.stdout, b""

    def next(self, seconds: float) -> bytes | None:
        """The next line; None where none came in time, or the process ended."""
        end = time.monotonic() + seconds
        while b"\n" not in self._rest:
            ready = select.select([self._pipe], [], [], max(0.0, end - time.monotonic()))[0]
            part = self._pipe.read1(65536) if ready else b""  # type: ignore[attr-defined]
            if not part:
                return None
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\n")
        return line
