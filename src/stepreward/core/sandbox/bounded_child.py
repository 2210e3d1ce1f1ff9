"""The process behind `core.sandbox.bounded`: calls one function for each line of its input, under limits of its own."""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys


def serve(target: str, seconds: str, memory: str) -> None:
    """Answers lines until the input ends.

    Args:
        target: the function as `module:name`.
        seconds: after which a call ends this process, in case its caller is dead and cannot.
        memory: bytes of address space.
    """
    # Ctrl-C goes to every process of the terminal: the parent decides what becomes of its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Answers go through a copy of standard output; what the function prints must not mix with them.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    module, _, name = target.partition(":")
    function = getattr(importlib.import_module(module), name)
    # After the import, which may need more memory than a call.
    _limit(int(memory))
    out.write(b"ready\n")
    out.flush()
    for line in sys.stdin.buffer:
        _alarm(float(seconds) + 1.0)
        try:
            made = {"result": function(json.loads(line))}
        except MemoryError:
            made = {"error": "too much memory", "memory": True}
        except Exception as error:
            # This is the boundary: whatever untrusted text raises is data for the caller.
            made = {"error": f"{type(error).__name__}: {error}"[:500]}
        _alarm(0.0)
        out.write(json.dumps(made).encode() + b"\n")
        out.flush()


def _limit(memory: int) -> None:
    try:
        resource = importlib.import_module("resource")
    except ModuleNotFoundError:
        return  # Not a POSIX system: the caller's bound of time is all there is.
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _alarm(seconds: float) -> None:
    """The kernel ends this process after so many seconds, even in the middle of one long operation; 0 for never."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)
