"""The drivers: run thousands of flows together and answer their questions.

`Driver` runs flows that are all given at the start, in the caller's thread, and fills batches: it suits a run. In a
`ResidentDriver` flows come and go from any thread, and a batch starts as soon as its answerer is free: it suits a
server. Both are thin loops over a `Dispatcher`. They stay two classes because each loop waits for something else: the
first for full batches and for the caller to take a result, the second for requests.

Equal questions are answered once. With a log, a killed run resumes by running its flows again: known answers are read.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Generic, TypeVar

from stepreward.core.errors import SteprewardError
from stepreward.core.runtime.answer_log import AnswerLog
from stepreward.core.runtime.answerers import Answerers
from stepreward.core.runtime.dispatcher import Dispatcher
from stepreward.core.runtime.flows import (
    Compare,
    Extract,
    Flow,
    Grade,
    Grader,
    Judge,
    Policy,
    Propose,
    Score,
    Scorer,
)
from stepreward.core.runtime.running import RunningFlow
from stepreward.core.runtime.spending import Bill, Budget, Prices

T = TypeVar("T")
FAILURES = 16
"""Flows that may fail in a row, with no question answered in between, before the run itself fails."""


@dataclass(frozen=True, slots=True)
class Finished(Generic[T]):
    """A flow that ended."""

    index: int
    """Position of the flow among those given to `run`."""
    result: T
    bill: Bill
    """What this flow spent; an answer shared by several flows is billed to the first of them."""
    seconds: float = 0.0
    """From its first question to its end; flows run side by side, so these overlap."""
    stopped: str = ""
    """The limit of its budget that refused a question or cut an answer, such as `seconds`; "" where none did."""
    given_tokens: int = 0
    """Generated tokens that it received; more than on its bill where other flows paid for shared answers."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A flow that could not go on: one of its questions failed, or it raised."""

    index: int
    """Position of the flow among those given."""
    error: Exception
    bill: Bill
    """What it had spent."""
    seconds: float = 0.0
    """From its first question to the error."""


class Driver:
    """Runs given flows to their ends.

    Args:
        policy, scorer, judge, grader: who answers `Propose`, `Score`, `Compare`, and `Grade` with `Extract`. Where the
            policy is an agent (`core.runtime.agent`), its environment executes what is proposed and grades it.
        budget: the most that each flow may spend; past it, `BudgetExhausted` is thrown into the flow. Answers from the
            log count as spent, so that a resumed run ends as an uninterrupted one; only `seconds` are new.
        log: where paid answers are stored and looked up.
        prices: of tokens, for a budget in money.
        clock: seconds, for a budget in time.
        window: flows open at the same time; bounds memory.
    """

    def __init__(
        self,
        *,
        policy: Policy | None = None,
        scorer: Scorer | None = None,
        grader: Grader | None = None,
        judge: Judge | None = None,
        budget: Budget | None = None,
        log: AnswerLog | None = None,
        window: int = 1024,
        prices: Prices | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.answerers = Answerers(policy, scorer, judge, grader)
        self.prices, self.clock = prices or Prices(), clock
        self.budget, self.log, self.window = budget or Budget(), log, window
        self.bill = Bill()
        """What all flows so far have spent."""

    def run(self, flows: Iterable[Flow[T]]) -> Iterator[Finished[T]]:
        """Runs flows to their ends; yields results in order of completion.

        Raises:
            SteprewardError: there is no answerer for a question.
        """
        for ended in self._ends(flows, None):
            assert isinstance(ended, Finished)
            yield ended

    def outcomes(self, flows: Iterable[Flow[T]]) -> Iterator[Finished[T] | Failed]:
        """Like `run`, but a flow that fails is yielded as `Failed`, and the others go on.

        The questions of a failed batch are sent again one by one, so that the failure stays with its question.

        Raises:
            Exception: that of the last of `FAILURES` flows that failed in a row with no question answered in between,
                after it was yielded: a server is down, or there is no answerer for what all flows ask.
        """
        failures: deque[Failed] = deque()
        in_a_row, answered = 0, -1
        with closing(self._ends(flows, failures)) as ends:
            for one in ends:
                if isinstance(one, Failed):
                    in_a_row = in_a_row + 1 if self.bill.answered == answered else 1
                    answered = self.bill.answered
                yield one
                if isinstance(one, Failed) and in_a_row == FAILURES:
                    raise one.error

    def _ends(self, flows: Iterable[Flow[T]], failures: deque[Failed] | None) -> Generator[Finished[T] | Failed]:
        """The ends of flows; the dispatcher appends those that fail to `failures`, or raises where it is None."""

        def on_failure(running: RunningFlow[Any], error: Exception) -> None:
            assert failures is not None
            failures.append(Failed(running.index, error, running.bill, self.clock() - running.started))

        dispatcher = Dispatcher(
            self.answerers, log=self.log, prices=self.prices, clock=self.clock, bill=self.bill,
            on_failure=None if failures is None else on_failure,
        )  # fmt: skip
        source = enumerate(flows)
        active = 0
        try:
            while True:
                # First results, on which the caller can act; new flows before batches, so that
                # batches are full.
                if failures:
                    active -= 1
                    yield failures.popleft()
                elif dispatcher.ready:
                    running = dispatcher.ready.popleft()
                    if dispatcher.advance(running) and not running.dropped:
                        active -= 1
                        yield _finished(running, self.clock())
                elif active < self.window and dispatcher.hungry and (new := next(source, None)):
                    active += 1
                    index, flow = new
                    dispatcher.start(RunningFlow(self.answerers.placed(flow), self.budget, self.clock(), index))
                elif not dispatcher.answer_batch() and not failures and not dispatcher.ready:
                    return
        finally:
            dispatcher.close()


class ResidentDriver:
    """Runs flows as they are submitted, from any thread, in a thread of its own; a context manager.

    Open questions of all flows share batches, as in `Driver`. The differences: a batch starts as soon as its answerer
    is free; a flow whose question fails ends with that error, and the others go on; a flow whose seconds are over in
    the middle of a question gets the samples so far; a flow whose future is cancelled is dropped, with its questions.

    Args:
        answerers: who answers.
        prices: of tokens, for budgets in money.
        clock: seconds, for budgets in time.
    """

    def __init__(
        self, answerers: Answerers, *, prices: Prices | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._dispatcher = Dispatcher(answerers, prices=prices, clock=clock, threads=True, on_failure=self._fail)
        self._futures: dict[RunningFlow[Any], Future[Any]] = {}
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="resident-driver", daemon=True)

    def __enter__(self) -> ResidentDriver:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def bill(self) -> Bill:
        """What all flows so far have spent."""
        return self._dispatcher.bill

    @property
    def active(self) -> int:
        """Flows that have not ended."""
        return len(self._futures)

    @property
    def alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread.is_alive()

    def heartbeat(self) -> Future[None]:
        """A future that the driver's thread completes at its next turn; not while the code of a flow blocks it."""
        future: Future[None] = Future()

        def beat() -> None:
            if future.set_running_or_notify_cancel():
                future.set_result(None)

        self._dispatcher.events.put(beat)
        return future

    @property
    def stuck(self) -> dict[str, float]:
        """By role, the seconds without an answer while as many batches run as may."""
        roles = {"policy": Propose, "scorer": Score, "judge": Compare}
        seconds = {role: self._dispatcher.stuck(kind) for role, kind in roles.items()}
        return seconds | {"grader": max(self._dispatcher.stuck(kind) for kind in (Grade, Extract))}

    def submit(self, flow: Flow[T], budget: Budget | None = None) -> Future[Finished[T]]:
        """Starts a flow; the future holds its end, or the error that ended it. Cancelling the future drops the flow.

        Args:
            flow: not started.
            budget: the most that it may spend; its time begins now.

        Raises:
            SteprewardError: the driver is not running.
        """
        # A flow that is submitted just now is not lost: events that are left are handled while the thread ends.
        if self._closing or not self.alive:
            raise SteprewardError("the driver is not running: enter it as a context first")
        future: Future[Finished[T]] = Future()
        running = RunningFlow(self._dispatcher.answerers.placed(flow), budget or Budget(), self._dispatcher.clock())
        future.add_done_callback(partial(self._on_done, running))
        self._dispatcher.events.put(partial(self._enter, running, future))
        return future

    def close(self) -> None:
        """Ends: flows that have not ended fail."""
        if self.alive:
            # An event wakes the thread, which may wait for one without a limit of time.
            self._dispatcher.events.put(partial(setattr, self, "_closing", True))
            self._thread.join()

    def _run(self) -> None:
        dispatcher = self._dispatcher
        try:
            while not self._closing:
                # A flow without questions is ready again at once. Only one turn of each, so that events are handled.
                for _ in range(len(dispatcher.ready)):
                    running = dispatcher.ready.popleft()
                    if dispatcher.advance(running):
                        future = self._futures.pop(running, None)
                        if future is not None and future.set_running_or_notify_cancel():
                            future.set_result(_finished(running, self._dispatcher.clock()))
                dispatcher.launch()
                dispatcher.wait()
        finally:
            # Also after an error of the loop itself: a future without a result would be waited for without end.
            self._closing = True
            dispatcher.close()
            while not dispatcher.events.empty():
                dispatcher.handle(dispatcher.events.get())
            for running in list(self._futures):
                dispatcher.drop(running)
                self._fail(running, SteprewardError("the driver has been closed"))

    def _enter(self, running: RunningFlow[Any], future: Future[Any]) -> None:
        if future.cancelled():
            future.set_running_or_notify_cancel()
        else:
            self._futures[running] = future
            self._dispatcher.start(running)

    def _on_done(self, running: RunningFlow[Any], future: Future[Any]) -> None:
        # The caller's thread cancels; the flow belongs to the driver's.
        if future.cancelled():
            self._dispatcher.events.put(partial(self._drop, running))

    def _drop(self, running: RunningFlow[Any]) -> None:
        future = self._futures.pop(running, None)
        if future is not None:
            self._dispatcher.drop(running)
            # `concurrent.futures.wait` and `as_completed` return a cancelled future only after this call.
            future.set_running_or_notify_cancel()

    def _fail(self, running: RunningFlow[Any], error: Exception) -> None:
        future = self._futures.pop(running, None)
        if future is not None and future.set_running_or_notify_cancel():
            future.set_exception(error)


def _finished(running: RunningFlow[T], now: float) -> Finished[T]:
    seconds = now - running.started
    return Finished(running.index, running.result, running.bill, seconds, running.stopped, running.tokens)


def answer_all(
    flow: Flow[T],
    *,
    policy: Policy | None = None,
    scorer: Scorer | None = None,
    grader: Grader | None = None,
    judge: Judge | None = None,
) -> T:
    """Runs one flow to its end and returns its result."""
    return next(Driver(policy=policy, scorer=scorer, grader=grader, judge=judge).run([flow])).result
