"""Programs of a stranger, run and tested in sandboxes; no verdict is formed where they run.

A test runs in a second sandbox. What it calls of the program is answered by the first one, as values and never as
objects: a program that prints a verdict, ends early, or changes `==` or the test itself, changes only its own values.
"""

from __future__ import annotations

import importlib
import json
import select
import signal
import subprocess
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from stepreward.core.errors import ModelError
from stepreward.core.sandbox import isolation, program_child
from stepreward.core.sandbox.isolation import SandboxLimits, isolated, used_by

End = Literal["", "error", "time", "memory", "output", "died"]
"""Why there is no answer: the code raised something, or was ended at a limit; or its process died."""
_CHILD = Path(program_child.__file__)
_START = 60.0
"""Seconds that a sandbox has to start, on however busy a machine."""
_SLICE = 0.1
"""Seconds between looks at what a sandbox uses."""
_STARVED = 10
"""How much longer than its limit a process may take that always computes: the machine may have other work."""
_TESTS = 50
"""Tests that a sandbox of tests runs before another one is started: its processor time adds up."""


@dataclass(frozen=True)
class ProgramVerdict:
    """What a test says of a program."""

    passed: bool | None
    """None where the test cannot say it: the test itself cannot be read or sent to the program."""
    why: str = ""
    """Of a program that did not pass: what was raised, or the limit."""


@dataclass(frozen=True)
class Output:
    """What a whole program wrote."""

    text: str
    """Standard output up to where it ended, or "" where a limit ended it."""
    status: int | None
    """Its exit status, negative for a signal; None where a limit ended it."""
    why: str = ""
    """The limit."""


class _Ended(Exception):  # noqa: N818 - no error of ours
    def __init__(self, why: End, text: str) -> None:
        super().__init__(text)
        self.why, self.text = why, text


class _Child:
    """A process in a sandbox of its own; from one thread at a time."""

    def __init__(self, limits: SandboxLimits, readable: Sequence[Path]) -> None:
        self.limits = limits
        command = isolated(_CHILD, limits.files, readable)
        self._process = subprocess.Popen(  # noqa: S603 - our own script
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={}
        )
        self._rest = b""
        self.close = weakref.finalize(self, _close, self._process)
        """Ends the process and all that it started."""
        try:
            self.send(limits.inside())
            self.receive(_START)
        except _Ended as error:
            assert self._process.stderr is not None
            self._process.kill()
            said = self._process.stderr.read(1000).decode(errors="replace").strip()
            self.close()
            raise ModelError(f"the sandbox does not start: {said or error.text}; {isolation.REMEDY}") from None

    @property
    def ended(self) -> bool:
        """Whether its process has ended."""
        return self._process.poll() is not None

    def send(self, message: Any) -> None:
        """Writes a line; a reader that has ended is noticed by the next `receive`."""
        self.forward(json.dumps(message).encode() + b"\n")

    def forward(self, line: bytes) -> None:
        """Writes a line as it is."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(line)
            self._process.stdin.flush()

    def receive(self, seconds: float | None = None, *, asks: _Child | None = None) -> bytes:
        """The next line.

        Args:
            seconds: of waiting, in place of its own limit.
            asks: another one that this one may wait for, whose memory is watched too.

        Raises:
            _Ended: there is none within the limits.
        """
        assert self._process.stdout is not None
        begun, seconds = time.monotonic(), self.limits.seconds + 1 if seconds is None else seconds
        last, waited = begun, 0.0
        while b"\n" not in self._rest:
            if select.select([self._process.stdout], [], [], _SLICE)[0]:
                part = self._process.stdout.read1(1 << 16)  # type: ignore[attr-defined]
                if not part:
                    raise self._end()
                self._rest += part
                if len(self._rest) > self.limits.output:
                    raise _Ended("output", f"more than {self.limits.output} bytes in one answer")
                continue
            memory, busy = used_by(self._process.pid)
            beside = 0 if asks is None else used_by(asks._process.pid)[0]
            if max(memory, beside) > self.limits.memory:
                raise _Ended("memory", f"more than {self.limits.memory} bytes of memory")
            now = time.monotonic()
            # Time in which nothing computes: a look that came late says little of the time before it.
            waited, last = waited + (0.0 if busy else min(now - last, 2 * _SLICE)), now
            if waited > seconds or now - begun > seconds * _STARVED:
                raise _Ended("time", f"no end within {seconds:g} s")
        line, _, self._rest = self._rest.partition(b"\n")
        return line + b"\n"

    def ask(self, message: Any) -> Any:
        """The answer to a message.

        Raises:
            _Ended: there is none within the limits, it is none, or an error.
        """
        self.send(message)
        answer = _object(self.receive())
        if "error" in answer:
            raise _Ended("error", str(answer["error"]))
        return answer

    def _end(self) -> _Ended:
        status = self._process.wait()
        # Bubblewrap ends with 128 and the signal: at the limit of processor time, 9 or 24.
        return _Ended("time", f"more than {self.limits.seconds:g} s") if status in (137, 152) else _Ended(
            "died", f"the process ended with status {status}"
        )  # fmt: skip


def _close(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        assert pipe is not None
        with suppress(OSError):
            pipe.close()


class Sandbox:
    """Runs and tests programs of strangers; may be used from any thread.

    Args:
        limits: of each program.
        readable: folders that programs may read and import from, such as one with packages.

    Raises:
        ModelError: bubblewrap is not installed, or what it isolates on this machine is not isolated.
    """

    def __init__(self, limits: SandboxLimits | None = None, readable: Sequence[Path] = ()) -> None:
        self.limits, self._readable = limits or SandboxLimits(), tuple(readable)
        self._testing: dict[str, list[tuple[_Child, int]]] = {}
        self._lock = threading.Lock()
        refuse_unless_isolated()

    def test(self, code: str, test: str, entry: str = "") -> ProgramVerdict:
        """Whether a program passes a test.

        Args:
            code: of the program, loaded as a module.
            test: code that calls functions and classes of the program by their names, and raises where they are wrong.
            entry: name of the function that the test has as `candidate`; if the test defines `check`, it is called with
                that.
        """
        with closing(self._started()) as program:
            try:
                made = program.ask({"do": "load", "code": code})
                names, modules = ([str(one) for one in made[part]] for part in ("names", "modules"))
            except _Ended as error:
                return ProgramVerdict(False, error.text)
            except (KeyError, TypeError):
                return ProgramVerdict(False, "it wrote something that is no answer")
            question = {"do": "test", "code": test, "names": names, "modules": modules, "entry": entry}
            tester, used = self._tester(test)
            try:
                verdict = _tested(tester, program, question)
            except _Ended as error:
                tester.close()
                return ProgramVerdict(False, error.text)
            except BaseException:
                tester.close()
                raise
            self._keep(test, tester, used + 1)
            return verdict

    def outputs(self, code: str, inputs: Iterable[str], before: str = "") -> Iterator[Output]:
        """Yields what a program writes for each text on its standard input; each time it runs from its start.

        After one that a limit ended, the next has a sandbox of its own.

        Args:
            code: of a whole program.
            inputs: what is read, one text a run.
            before: trusted code that each sandbox runs once, such as imports that take long; no run changes what the
                next one finds of it.

        Raises:
            ModelError: `before` fails.
        """
        program: _Child | None = None
        used = 0
        try:
            for text in inputs:
                got: Any = None
                while got is None:
                    program = program or self._started(before)
                    try:
                        got = program.ask({"do": "run", "code": code, "stdin": text})
                        status, used = int(got.get("status", 1)), used + 1
                    except (_Ended, TypeError, ValueError) as error:
                        # Its own processor time adds up over many runs: the last of them is not at fault.
                        worn = used > 0 and program.ended
                        program.close()
                        program, used = None, 0
                        if not worn:
                            yield Output("", None, str(error))
                            break
                else:
                    why = "a limit of time or memory" if status in (-signal.SIGKILL, -signal.SIGXCPU) else ""
                    yield Output(str(got.get("out")), None if why else status, why)
        finally:
            if program is not None:
                program.close()

    def close(self) -> None:
        """Ends the sandboxes that are kept."""
        with self._lock:
            kept, self._testing = self._testing, {}
        for children in kept.values():
            for child, _ in children:
                child.close()

    def _started(self, before: str = "") -> _Child:
        child = _Child(self.limits, self._readable)
        if before:
            try:
                child.ask({"do": "load", "code": before})
            except _Ended as error:
                child.close()
                raise ModelError(f"what a sandbox needs is not there: {error.text}") from error
        return child

    def _tester(self, test: str) -> tuple[_Child, int]:
        """A sandbox that has run nothing or this very test, and how often."""
        with self._lock:
            if self._testing.get(test):
                return self._testing[test].pop()
            others, self._testing = self._testing, {}
        for children in others.values():
            for child, _ in children:
                child.close()
        # Its processor time is that of many tests; the time of each is that of the program, which it waits for.
        return _Child(replace(self.limits, seconds=self.limits.seconds * _TESTS), ()), 0

    def _keep(self, test: str, tester: _Child, used: int) -> None:
        if used >= _TESTS:
            tester.close()
            return
        with self._lock:
            self._testing.setdefault(test, []).append((tester, used))


def _tested(tester: _Child, program: _Child, question: Any) -> ProgramVerdict:
    """Carries calls of a test to a program and their answers back.

    Raises:
        _Ended: the program or, with what the program gave it, the test does not end within the limits.
    """
    tester.send(question)
    while True:
        line = tester.receive(program.limits.seconds + 1, asks=program)
        message = _object(line)
        if "passed" in message:
            passed = message["passed"]
            return ProgramVerdict(passed if isinstance(passed, bool) else None, str(message.get("error", "")))
        program.forward(line)
        answer = program.receive()
        _object(answer)
        tester.forward(answer)


def _object(line: bytes) -> dict[str, Any]:
    """The JSON object of a line.

    Raises:
        _Ended: it is none: the program wrote where only its answers are written.
    """
    try:
        made = json.loads(line)
    except (ValueError, RecursionError):
        made = None
    if not isinstance(made, dict):
        raise _Ended("died", "it wrote something that is no answer")
    return made


_PROBE = """
import os, socket
def probe(port, folder):
    found = []
    if os.path.exists(folder): found.append("files of this machine")
    try: socket.create_connection(("127.0.0.1", port), 1); found.append("the network")
    except OSError: pass
    try:
        with open("/usr/probe", "w"): found.append("files that it may write")
    except OSError: pass
    try: bytearray(3 << 30); found.append("3 GB of memory")
    except MemoryError: pass
    children = 0
    try:
        for _ in range(100):
            child = os.fork()
            if not child:
                import time; time.sleep(20)
            children += 1
    except OSError: pass
    if children >= 100: found.append("100 processes")
    return found
"""


@cache
def refuse_unless_isolated() -> None:
    """Tries, once a process, what no code in a sandbox may do here.

    Raises:
        ModelError: there is no sandbox, or it holds back too little.
    """
    socket = importlib.import_module("socket")
    with socket.create_server(("127.0.0.1", 0)) as server, closing(_Child(SandboxLimits(), ())) as program:
        try:
            program.ask({"do": "load", "code": _PROBE})
            call = {"do": "call", "on": ["n", "probe"], "kwargs": {}}
            found = program.ask({**call, "args": [server.getsockname()[1], str(Path(__file__).parent)]})["value"]
        except _Ended as error:
            raise ModelError(f"the sandbox cannot be tried: {error.text}; {isolation.REMEDY}") from None
    if found != ["l"]:
        raise ModelError(f"code in the sandbox reaches {', '.join(map(str, found[1:]))}; {isolation.REMEDY}")
