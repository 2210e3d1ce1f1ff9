"""Runs the tests in several processes: `pytest -p tests.workers --workers 3`.

Each worker is forked off a process that has collected the tests, so importing and collecting are paid once.
pytest-xdist would pay them for every worker: 25 CPU seconds each.
"""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import shutil
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests import forked

_FORK = multiprocessing.get_context("fork")
_FOLDER = "worker"
"""Begins the names of workers' temporary folders."""
NEXT, FINISHED = "next", "finished"
"""What a worker says beside its reports: it asks for a group; it has finished a test."""


@dataclass
class _Worker:
    process: ForkProcess
    pipe: Connection
    tests: list[int] = field(default_factory=list)
    """Places in `session.items` of the tests that it has to finish, in order."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds `--workers`."""
    parser.addoption("--workers", type=int, default=0, help="processes that run groups of tests (0: this one)")


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Hands out the groups of tests in their order, and passes on what the workers report."""
    count = session.config.getoption("workers")
    if not count or session.testsfailed or session.config.option.collectonly:
        return None
    places = range(len(session.items))
    waiting = deque([*group] for _, group in groupby(places, lambda place: _group(session.items[place])))
    session.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
    workers: list[_Worker] = []
    try:
        for _ in range(count):
            workers.append(_started(session, workers))
        while workers:
            wait([worker.pipe for worker in workers], timeout=1)
            for worker in [*workers]:
                alive = worker.process.is_alive()  # Seen before its last messages are read.
                _read(session, worker, waiting)
                if not alive:
                    workers.remove(worker)
                if not alive and worker.tests:
                    _report_death(session, worker)
                    waiting.appendleft(worker.tests[1:])
                    workers.append(_started(session, workers))
        if waiting:
            raise session.Interrupted(f"all workers died before {sum(map(len, waiting))} tests")
    finally:
        for worker in workers:
            worker.process.kill()
    return True


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """This worker's copy of a folder that the first worker to need it has filled.

    Args:
        factory: pytest's own.
        name: of the folder; another one of the same name is not made.
        make: fills an empty folder.
    """
    shared = factory.getbasetemp()
    shared = shared.parent if shared.name.startswith(_FOLDER) else shared
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (shared / name).exists():
            draft = Path(tempfile.mkdtemp(dir=shared))
            make(draft)
            draft.rename(shared / name)
    return Path(shutil.copytree(shared / name, factory.mktemp(name), dirs_exist_ok=True))


def _group(item: pytest.Item) -> str:
    mark = item.get_closest_marker("xdist_group")
    assert mark is not None
    return str(mark.args[0])


def _read(session: pytest.Session, worker: _Worker, waiting: deque[list[int]]) -> None:
    """Reads all that a worker has sent by now."""
    hook = session.config.hook
    while worker.pipe.poll():
        try:
            message = worker.pipe.recv()
        except (EOFError, ConnectionResetError):
            return
        if message == NEXT:
            group = waiting.popleft() if waiting else []
            worker.tests += group
            worker.pipe.send(group)
        elif message == FINISHED:
            item = session.items[worker.tests.pop(0)]
            hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        else:
            report = hook.pytest_report_from_serializable(config=session.config, data=message)
            hook.pytest_runtest_logreport(report=report)
            if session.shouldfail:
                raise session.Failed(session.shouldfail)


def _report_death(session: pytest.Session, worker: _Worker) -> None:
    item = session.items[worker.tests[0]]
    why = f"the worker died in this test with exit code {worker.process.exitcode}"
    session.config.hook.pytest_runtest_logreport(
        report=pytest.TestReport(item.nodeid, item.location, {}, "failed", why, "call")
    )


def _started(session: pytest.Session, others: Sequence[_Worker]) -> _Worker:
    here, there = _FORK.Pipe()
    # A worker that kept the pipes of others would not see that they were closed.
    process = _FORK.Process(target=_work, args=(session, there, [here, *(other.pipe for other in others)]))
    process.start()
    there.close()
    return _Worker(process, here)


def _work(session: pytest.Session, pipe: Connection, not_mine: Sequence[Connection]) -> None:
    """Runs groups of tests until none is left."""
    for other in not_mine:
        other.close()
    _make_own(session.config, pipe)
    group = _next_group(pipe)
    while group:
        following: list[int] = []
        for place, after in zip(group, [*group[1:], None], strict=True):
            if after is None:  # What the last test tears down depends on the test after it.
                following = _next_group(pipe)
                after = next(iter(following), None)
            item = session.items[place]
            upcoming = None if after is None else session.items[after]
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=upcoming)
            pipe.send(FINISHED)
        group = following


def _next_group(pipe: Connection) -> list[int]:
    pipe.send(NEXT)
    group: list[int] = pipe.recv()
    return group


class _Sender:
    """Sends reports to the process that prints them."""

    def __init__(self, config: pytest.Config, pipe: Connection) -> None:
        self.config, self.pipe = config, pipe

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.pipe.send(self.config.hook.pytest_report_to_serializable(config=self.config, report=report))


def _make_own(config: pytest.Config, pipe: Connection) -> None:
    """Gives a forked process its own folders, captured output and reports."""
    plugins: Any = config.pluginmanager
    capture = plugins.getplugin("capturemanager")
    capture.stop_global_capturing()
    capture.start_global_capturing()
    plugins.getplugin("terminalreporter")._tw._file = open(os.devnull, "w")  # noqa: SIM115
    config.pluginmanager.register(_Sender(config, pipe))
    factory: Any = config._tmp_path_factory  # type: ignore[attr-defined]
    factory._basetemp = factory.getbasetemp() / f"{_FOLDER}{os.getpid()}"
    factory._basetemp.mkdir(mode=0o700)
    forked.share_server()
    # Processes that tests start would otherwise import the main module, which is pytest.
    sys.modules["__main__"] = ModuleType("__main__")
