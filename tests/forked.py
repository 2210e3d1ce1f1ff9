"""Processes for programs of Python that need not load torch again: each is forked off one that has loaded it.

Of this package nothing is loaded there, so that a program's own imports are tried from the start.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import shlex
import sys
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import chdir
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.loaded"])
_SERVER: Any = forkserver._forkserver  # type: ignore[attr-defined]
COMMAND = "import sys\nsys.argv[0] = 'stepreward'\n{before}\nfrom stepreward.cli import main\nmain()"
"""The program `stepreward`, after some lines of Python."""


def start_server() -> None:
    """Starts the process that others are forked off, unless it runs."""
    with chdir(Path(__file__).parents[1]):  # It finds `tests.loaded` from the folder that it is started in.
        _SERVER.ensure_running()


def share_server() -> None:
    """Uses the server of the process that this one was forked off, whose child it is: only that one can restart it."""
    if _SERVER._forkserver_pid is not None:
        _SERVER.ensure_running = lambda: None


def started(work: Callable[..., None], *args: Any) -> ForkServerProcess:
    """A process that does some work; a function of a module, whose module is loaded there first."""
    start_server()
    process = _CONTEXT.Process(target=work, args=args)
    process.start()
    return process


def begun(
    path: Path,
    folder: Path,
    log: Path,
    *,
    words: Sequence[str] = (),
    stdin: str = "",
    without: Collection[str] = (),
    environment: Mapping[str, str] | None = None,
) -> ForkServerProcess:
    """Starts a file of Python in a folder as `python PATH WORDS` would; its output goes to `log`/out and `log`/err.

    Packages in `without` are as if no one had loaded them: for programs that must not, since none can be loaded twice.
    """
    log.mkdir(exist_ok=True)
    (log / "in").write_text(stdin, encoding="utf-8")
    return started(_program, str(path), str(folder), str(log), list(words), list(without), dict(environment or {}))


def ended(process: ForkServerProcess, log: Path, seconds: float = 200) -> CompletedProcess[str]:
    """The output of what `begun` has started, once it has ended; it is killed after some seconds."""
    process.join(seconds)
    process.kill()
    process.join()
    out, err = ((log / name).read_text(encoding="utf-8") for name in ("out", "err"))
    return CompletedProcess(process.name, process.exitcode or 0, out, err)


def ran(path: Path, folder: Path, log: Path, *, seconds: float = 200, **settings: Any) -> CompletedProcess[str]:
    """Runs a file of Python to its end; `settings` are those of `begun`."""
    return ended(begun(path, folder, log, **settings), log, seconds)


def coded(code: str, folder: Path, **settings: Any) -> CompletedProcess[str]:
    """Runs code in a folder as `python -c CODE` would; `settings` are those of `ran`."""
    with tempfile.TemporaryDirectory() as log:
        (Path(log) / "code.py").write_text(code, encoding="utf-8")
        return ran(Path(log) / "code.py", folder, Path(log), **settings)


def command(line: str | Sequence[str], folder: Path, before: str = "", **settings: Any) -> CompletedProcess[str]:
    """Runs `stepreward LINE` in a folder, after some lines of Python; `settings` are those of `ran`."""
    words = shlex.split(line) if isinstance(line, str) else line
    return coded(COMMAND.format(before=before), folder, words=words, **settings)


def _program(
    path: str, folder: str, log: str, words: list[str], without: list[str], environment: dict[str, str]
) -> None:
    for descriptor, name, how in ((0, "in", os.O_RDONLY), (1, "out", os.O_WRONLY), (2, "err", os.O_WRONLY)):
        opened = os.open(f"{log}/{name}", how | os.O_CREAT | (os.O_TRUNC if descriptor else 0))
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    for name in [name for name in sys.modules if name.partition(".")[0] in without]:
        del sys.modules[name]
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv[:] = [path, *words]
    try:
        runpy.run_path(path, run_name="__main__")
    finally:
        sys.stdout.flush()
