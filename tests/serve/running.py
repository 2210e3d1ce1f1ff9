"""A real server in a thread, and worlds to put behind it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn

from stepreward.core.runtime.flows import Continuation, Propose, Score, Scored, Wanted, always
from stepreward.core.types import Problem, Step
from stepreward.serve.http_app import build
from stepreward.serve.requests.connections import doors
from stepreward.serve.service import Served

DEPTH = 3


@contextmanager
def serving(served: Served) -> Iterator[str]:
    """The address of a server on loopback; it has ended when the context does."""
    config = uvicorn.Config(
        build(served), port=0, log_level="error", access_log=False, ws="none", http=doors(served.limits),
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive(), "the server did not end"


def first_line(process: ForkServerProcess, log: Path) -> str:
    """What a server prints first, once it does; `tests.forked.begun` started it, and its output goes to `log`."""
    out = log / "out"
    until(lambda: not process.is_alive() or (out.exists() and "\n" in out.read_text()), 120)
    assert process.is_alive(), (log / "err").read_text()
    return out.read_text().splitlines()[0]


def until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    """Waits until something is true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.005)


class Digits:
    """Three digits are a solution; each step is drawn by its key and bears the prompt's mark, so that none is crossed.

    A prompt that says "wait" is answered once the gate opens or nobody waits any more; "fail" raises `fault`.
    """

    name, batch_size, concurrency = "digits", 1, 16

    def __init__(self, fault: Exception | None = None) -> None:
        self.gate, self.fault = threading.Event(), fault
        self.asked: list[Propose] = []
        self.abandoned = 0

    def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
        return self.propose_while(always, questions)

    def propose_while(self, wanted: Wanted, questions: Sequence[Propose]) -> list[list[Continuation]]:
        self.asked += questions
        for question in questions:
            if "fail" in question.problem.text and self.fault is not None:
                raise self.fault
            while "wait" in question.problem.text and not self.gate.wait(0.01):
                if not wanted(0):
                    self.abandoned += 1
                    return [[Continuation((), False, 0, True, interrupted=True)] * q.n for q in questions]
        return [[self._one(question, key) for key in question.sample_keys()] for question in questions]

    @staticmethod
    def _one(question: Propose, key: Any) -> Continuation:
        done, mark = len(question.prefix), question.problem.text[-8:]
        count = 1 if question.until == "step" else DEPTH - done
        count = min(count, question.max_tokens or count)
        steps = tuple(Step(f"{mark} {int(d)}\n") for d in key.rng().integers(10, size=count))
        ended = done + count == DEPTH
        cut = not ended and question.until == "end"
        return Continuation(steps, ended, count, truncated=cut, n_prompt_tokens=10 + done)


class LastDigit:
    """A step is worth its digit, in tenths."""

    name, batch_size = "last-digit", 64

    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        made = []
        for question in questions:
            values = [int(s.text.strip()[-1]) / 10 if s.kind == "action" else np.nan for s in question.steps]
            made.append(Scored(np.array(values), 1, len(values)))
        return made


class SaysAll:
    """The answer is the last step."""

    name = "says-all"

    def grade(self, problem: Problem, steps: Sequence[Step]) -> float:
        return 1.0

    def answer(self, problem: Problem, steps: Sequence[Step]) -> str | None:
        return steps[-1].text.strip() if steps else None
