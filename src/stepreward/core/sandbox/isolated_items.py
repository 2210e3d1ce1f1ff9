"""Items of untrusted text, answered in a process that is killed when one takes too much time or memory.

The process is a script of ours that sets limits on itself and holds what it reads back by its own means, such as those
of a database engine. Where bubblewrap is here it also runs in a sandbox without network and files, so that a hole in an
engine leads nowhere; where not, as on macOS, it runs as an isolated script. Answers are the same.
`core.sandbox.bounded` says why that is another mechanism.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from stepreward.core.errors import InputError, ModelError
from stepreward.core.sandbox.isolation import SandboxLimits, isolated
from stepreward.core.sandbox.programs import refuse_unless_isolated

START = 60.0
"""Seconds in which a process must be ready."""
SLACK = 0.5
"""Seconds beyond an item's limit, for a process that ends it by itself."""


def answers_of(
    script: str, job: Mapping[str, Any], items: Sequence[Any], seconds: float, packages: Sequence[str] = ()
) -> list[Any]:
    """One answer an item; None where an item ended its process, which is then restarted with the next item.

    The process reads one JSON object with `items`, writes a line once it is ready, and then one line of JSON an item.
    As root it gets a `user` too, which it should become: one that owns nothing.

    Args:
        script: path of a Python file that imports nothing of the package.
        job: further fields of that object.
        items: what each is, as JSON.
        seconds: for each.
        packages: installed ones that it imports.

    Raises:
        InputError: it was never ready; the message is the last line of its error output.
    """
    made: list[Any] = []
    while len(made) < len(items):
        rest = {**job, "items": list(items[len(made) :])}
        made += _run(_command(script, packages), rest, len(items) - len(made), seconds)
    return made


@cache
def is_isolated() -> bool:
    """Whether scripts run in sandboxes here."""
    try:
        refuse_unless_isolated()
    except ModelError:
        return False
    return True


def _command(script: str, packages: Sequence[str]) -> list[str]:
    """What starts the script, in a sandbox where there is one."""
    if not is_isolated():
        return [sys.executable, "-I", script]
    found = [find_spec(name) for name in packages]
    folders = [Path(spec.origin).resolve().parents[1] for spec in found if spec is not None and spec.origin]
    return isolated(Path(script), SandboxLimits().files, [*dict.fromkeys(folders)])


def _run(command: Sequence[str], job: Mapping[str, Any], n: int, seconds: float) -> list[Any]:
    """Answers up to the first item that ended the process, that one included."""
    if is_isolated() and os.getuid() == 0:
        job = {**job, "user": SandboxLimits().inside()["user"]}
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
