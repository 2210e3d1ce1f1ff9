"""Calls that always end: a function of untrusted text runs in a process with limits of time and memory.

A worker is a fresh interpreter (no fork) that reads one line of JSON for each call and writes one back. It ends with
its caller, also where that is killed: at the end of its input while it is idle, by its own alarm while it computes.

`core.sandbox.isolated_items` is a second mechanism on purpose. Here a pool of warm workers answers single calls of a
function of this package, from many threads. There one process reads a trusted job (a database to build), answers many
items of it in order, restarts after an item that killed it, and starts as an isolated script without this package,
its environment or its import path: SQL written by a model must find nothing to reach.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from stepreward.core.errors import SteprewardError
from stepreward.core.sandbox import bounded_child

_START = 120.0
"""Seconds that a worker has to start, on however busy a machine."""
_ROOT = str(Path(__file__).resolve().parents[3])
_CHILD = (
    f"import sys; sys.path.insert(0, sys.argv[1]); from {bounded_child.__name__} import serve; serve(*sys.argv[2:])"
)


class Unbounded(SteprewardError, RuntimeError):  # noqa: N818 - the bound did its work
    """A call was stopped at its bound of time or memory."""


class _Worker:
    """One process; `call` from one thread at a time."""

    def __init__(self, target: str, seconds: float, memory: int) -> None:
        command = [sys.executable, "-c", _CHILD, _ROOT, target, str(seconds), str(memory)]
        self._process = subprocess.Popen(  # noqa: S603 - our own module, by this interpreter
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._lines: SimpleQueue[bytes] = SimpleQueue()
        # A thread reads, since waiting for a pipe with a limit is not the same on all systems.
        threading.Thread(target=self._read_output, name="bounded-worker", daemon=True).start()
        self._seconds = seconds
        if self._read_line(_START) != b"ready\n":
            self.kill()
            raise SteprewardError(f"a worker process for {target} does not start: {' '.join(command[:2])}")

    def call(self, argument: Any) -> Any:
        """The function's result.

        Raises:
            Unbounded: there is no answer in time; the caller must kill the worker, whose late answer may still come.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(argument).encode() + b"\n")
            self._process.stdin.flush()
            line = self._read_line(self._seconds)
        except OSError:
            line = b""
        if not line.endswith(b"\n"):
            raise Unbounded(f"no answer within {self._seconds:g} s and its memory")
        return json.loads(line)

    def kill(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()

    def _read_line(self, seconds: float) -> bytes:
        try:
            return self._lines.get(timeout=seconds)
        except Empty:
            return b""

    def _read_output(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as out:
            for line in out:
                self._lines.put(line)
        self._lines.put(b"")


class Bounded:
    """A function whose every call ends; workers start at the first calls, and may be used from any thread.

    Args:
        target: a function of a module, or its name as `module:name`; it takes one JSON value and returns one.
        seconds: of one call.
        memory: bytes of address space of a worker, where the system has such a limit.
        workers: most processes at once; calls beyond wait for one.

    Raises:
        ValueError: a bound is not positive.
    """

    def __init__(
        self, target: Callable[[Any], Any] | str, *, seconds: float = 5.0, memory: int = 1 << 30, workers: int = 0
    ) -> None:
        if seconds <= 0 or memory <= 0:
            raise ValueError(f"bounds must be positive, got seconds={seconds}, memory={memory}")
        self.seconds = seconds
        self.workers = workers or min(4, os.cpu_count() or 1)
        named = target if isinstance(target, str) else f"{target.__module__}:{target.__name__}"
        self._start: Callable[[], _Worker] = lambda: _Worker(named, seconds, memory)
        self._reset()

    def __call__(self, argument: Any) -> Any:
        """The function's result; what it raises comes as `ValueError`.

        Raises:
            Unbounded: the call was stopped.
            ValueError: the function raised.
        """
        if self._owner != os.getpid():
            # After a fork the pipes belong to the parent, whose answers this process must not read.
            self._reset()
        # A place is a right to one process; the pool has a process for a place once it was needed.
        with self._places:
            try:
                worker = self._idle.get_nowait()
            except Empty:
                worker = self._start()
            try:
                answer = worker.call(argument)
            except BaseException:
                # Also after an interrupt: a late answer would be read as the answer to the next call.
                worker.kill()
                raise
            self._idle.put(worker)
        if "error" in answer:
            raise Unbounded(answer["error"]) if answer.get("memory") else ValueError(answer["error"])
        return answer["result"]

    def close(self) -> None:
        """Ends the workers that are idle."""
        try:
            while True:
                self._idle.get_nowait().kill()
        except Empty:
            pass

    def _reset(self) -> None:
        self._owner = os.getpid()
        self._places = threading.BoundedSemaphore(self.workers)
        self._idle: SimpleQueue[_Worker] = SimpleQueue()
