"""Processes for programs of Python that need not load torch again: each is forked off one that has loaded it.

Of this package nothing is loaded there, so that a program's own imports are tried from the start.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
import tempfile
from collections.abc import Callable, Collection, Sequence
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


def ran(
    path: Path,
    folder: Path,
    log: Path,
    *,
    words: Sequence[str] = (),
    stdin: str = "",
    without: Collection[str] = (),
    seconds: float = 200,
) -> CompletedProcess[str]:
    """Runs a file of Python in a folder as `python PATH WORDS` would; its output goes to the folder `log`.

    Packages in `without` are as if no one had loaded them: for programs that must not, since none can be loaded twice.
    """
    log.mkdir(exist_ok=True)
    (log / "in").write_text(stdin, encoding="utf-8")
    process = started(_program, str(path), str(folder), str(log), list(words), list(without))
    process.join(seconds)
    process.kill()
    process.join()
    out, err = ((log / name).read_text(encoding="utf-8") for name in ("out", "err"))
    return CompletedProcess(str(path), process.exitcode or 0, out, err)


def coded(
    code: str, folder: Path, *, words: Sequence[str] = (), stdin: str = "", without: Collection[str] = ()
) -> CompletedProcess[str]:
    """Runs code in a folder as `python -c CODE WORDS` would."""
    with tempfile.TemporaryDirectory() as log:
        (Path(log) / "code.py").write_text(code, encoding="utf-8")
        return ran(Path(log) / "code.py", folder, Path(log), words=words, stdin=stdin, without=without)


def _program(path: str, folder: str, log: str, words: list[str], without: list[str]) -> None:
    for descriptor, name, how in ((0, "in", os.O_RDONLY), (1, "out", os.O_WRONLY), (2, "err", os.O_WRONLY)):
        opened = os.open(f"{log}/{name}", how | os.O_CREAT | (os.O_TRUNC if descriptor else 0))
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    for name in [name for name in sys.modules if name.partition(".")[0] in without]:
        del sys.modules[name]
    os.chdir(folder)
    sys.argv[:] = [path, *words]
    try:
        runpy.run_path(path, run_name="__main__")
    finally:
        sys.stdout.flush()
