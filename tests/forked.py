"""Processes for programs of Python that need not load torch again: each is forked off one that has loaded it.

Of this package nothing is loaded there, so that a program's own imports are tried from the start.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.loaded"])


def started(work: Callable[..., None], *args: Any) -> ForkServerProcess:
    """A process that does some work; a function of a module, whose module is loaded there first."""
    process = _CONTEXT.Process(target=work, args=args)
    process.start()
    return process


def ran(path: Path, folder: Path, log: Path, *, seconds: float = 200) -> CompletedProcess[str]:
    """Runs a file of Python in a folder as `python PATH` would; what it printed, which is kept in `log` on the way."""
    log.mkdir(exist_ok=True)
    process = started(_program, str(path), str(folder), str(log))
    process.join(seconds)
    process.kill()
    process.join()
    out, err = ((log / name).read_text(encoding="utf-8") for name in ("out", "err"))
    return CompletedProcess(str(path), process.exitcode or 0, out, err)


def _program(path: str, folder: str, log: str) -> None:
    for descriptor, name in ((1, "out"), (2, "err")):
        opened = os.open(f"{log}/{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.chdir(folder)
    sys.argv[:] = [path]
    try:
        runpy.run_path(path, run_name="__main__")
    finally:
        sys.stdout.flush()
