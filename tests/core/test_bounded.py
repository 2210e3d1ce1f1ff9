"""Every bounded call ends: at its time, at its memory, with its caller; and the next one is answered."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from stepreward.core.sandbox.bounded import Bounded, Unbounded

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of functions to call, known to this process's children."""
    (tmp_path / "to_be_bounded.py").write_text(
        "import os, time\n"
        "def double(x): return 2 * x\n"
        "def sleep(x): time.sleep(x); return x\n"
        "def hoard(x): return len(bytes(x))\n"
        "def fail(x): raise KeyError(x)\n"
        "def die(x): os._exit(3)\n"
        "def power(x): return (9 ** 9 ** x) % 7\n"
        "def chatter(x): print(x); return x\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "to_be_bounded"


def test_calls_are_answered_and_faults_told(module: str) -> None:
    assert [Bounded(f"{module}:double")(x) for x in (1, "a")] == [2, "aa"]
    with pytest.raises(ValueError, match="KeyError: 'x'"):
        Bounded(f"{module}:fail")("x")
    assert Bounded(f"{module}:chatter")("line") == "line"


def test_a_call_ends_at_its_time_and_the_next_is_answered(module: str) -> None:
    bounded = Bounded(f"{module}:sleep", seconds=1.5, workers=1)
    with pytest.raises(Unbounded, match=r"within 1\.5 s"):
        bounded(30)
    assert bounded(0) == 0


@pytest.mark.parametrize("bound", [{"seconds": 0.0}, {"memory": 0}, {"seconds": -1.0}])
def test_a_bound_of_nothing_is_refused(module: str, bound: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="bounds must be positive"):
        Bounded(f"{module}:double", **bound)


def test_one_long_operation_ends_too(module: str) -> None:
    with pytest.raises(Unbounded):
        Bounded(f"{module}:power", seconds=0.5)(9)


def test_memory_is_bounded(module: str) -> None:
    bounded = Bounded(f"{module}:hoard", memory=1 << 29, workers=1)
    with pytest.raises(Unbounded, match="memory"):
        bounded(1 << 30)
    assert bounded(8) == 8


def test_a_worker_that_dies_is_replaced(module: str) -> None:
    bounded = Bounded(f"{module}:die", workers=1)
    for _ in range(2):
        with pytest.raises(Unbounded):
            bounded(0)


def test_threads_get_their_own_answers(module: str) -> None:
    bounded = Bounded(f"{module}:double", workers=2)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(bounded, range(200))) == [2 * x for x in range(200)]


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks into /proc")
def test_a_worker_ends_with_its_killed_caller(module: str, tmp_path: Path) -> None:
    script = (
        "import threading, time; from stepreward.core.sandbox.bounded import Bounded\n"
        f"b = Bounded('{module}:sleep', seconds=2.0, workers=1); b(0)\n"
        "threading.Thread(target=b, args=(60,), daemon=True).start(); time.sleep(0.3)\n"
        "print(0, flush=True); time.sleep(60)\n"
    )
    source = str(Path(__file__).parents[2] / "src")
    caller = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": f"{source}:{tmp_path}"},
    )
    assert caller.stdout is not None
    caller.stdout.readline()
    workers = [
        int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and _parent(entry) == caller.pid
    ]
    assert workers
    caller.send_signal(signal.SIGKILL)
    caller.wait()
    caller.stdout.close()
    end = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() and _parent(Path(f"/proc/{pid}")) >= 0 for pid in workers):
        assert time.monotonic() < end
        time.sleep(0.1)


def _parent(process: Path) -> int:
    """The parent of a process; -1 for one that has ended."""
    try:
        state, parent = (process / "stat").read_text().rpartition(")")[2].split()[:2]
    except OSError:
        return -1
    return -1 if state == "Z" else int(parent)
