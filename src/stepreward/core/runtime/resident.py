"""A driver that stays: flows come and go while it runs, as in a server."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

from stepreward.core.errors import SteprewardError
from stepreward.core.runtime.driver import Finished, finished
from stepreward.core.runtime.engine import Answerers, Engine
from stepreward.core.runtime.flows import Bill, Budget, Compare, Extract, Flow, Grade, Prices, Propose, Score
from stepreward.core.runtime.running import Running

T = TypeVar("T")


class ResidentDriver:
    """Runs flows as they are submitted, from any thread, in a thread of its own; a context manager.

    Open questions of all flows share batches, as under `Driver`. What differs: a batch starts as soon as its answerer
    is free; a flow whose question fails ends with that error and no other flow does (questions of a failed batch are
    asked again one by one); a flow is told of the end of its seconds in the middle of a question, with the samples that
    are there by then; and a flow whose future is cancelled is dropped, with what only it had asked for.

    Args:
        answerers: who answers.
        prices: of tokens, for budgets in money.
        clock: seconds, for budgets in time.
    """

    def __init__(
        self, answerers: Answerers, *, prices: Prices | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._engine = Engine(answerers, prices=prices, clock=clock, threads=True, failed=self._failed)
        self._futures: dict[Running[Any], Future[Any]] = {}
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
        return self._engine.bill

    @property
    def active(self) -> int:
        """Flows that have not ended."""
        return len(self._futures)

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._thread.is_alive()

    def heartbeat(self) -> Future[None]:
        """Done once the driver's thread has come round: not while a flow's own code holds it."""
        future: Future[None] = Future()

        def beat() -> None:
            if future.set_running_or_notify_cancel():
                future.set_result(None)

        self._engine.events.put(beat)
        return future

    @property
    def stuck(self) -> dict[str, float]:
        """For who answers, by role: seconds for which all that may be asked at once is, and nothing has come back."""
        roles = {"policy": Propose, "scorer": Score, "judge": Compare}
        told = {role: self._engine.stuck(kind) for role, kind in roles.items()}
        return told | {"grader": max(self._engine.stuck(kind) for kind in (Grade, Extract))}

    def submit(self, flow: Flow[T], budget: Budget | None = None) -> Future[Finished[T]]:
        """Takes a flow in; its end, or the error that ended it. Cancelling the future drops the flow.

        Args:
            flow: not started.
            budget: the most that it may spend; its time begins now.

        Raises:
            SteprewardError: the driver is not running.
        """
        if self._closing or not self.alive:
            raise SteprewardError("the driver is not running: enter it as a context first")
        future: Future[Finished[T]] = Future()
        running = Running(flow, budget or Budget(), self._engine.clock())
        future.add_done_callback(partial(self._left, running))
        self._engine.events.put(partial(self._enter, running, future))
        return future

    def close(self) -> None:
        """Ends: flows that have not ended fail."""
        if self.alive:
            self._engine.events.put(self._close)
            self._thread.join()

    def _run(self) -> None:
        engine = self._engine
        try:
            while not self._closing:
                # A flow that asks nothing is ready again at once: events are heard between two rounds all the same.
                for _ in range(len(engine.ready)):
                    running = engine.ready.popleft()
                    if engine.advance(running):
                        self._finished(running)
                engine.launch()
                engine.hear()
        finally:
            self._closing = True
            engine.close()
            while not engine.events.empty():
                engine.handle(engine.events.get())
            for running in list(self._futures):
                engine.drop(running)
                self._failed(running, SteprewardError("the driver has been closed"))

    def _close(self) -> None:
        self._closing = True

    def _enter(self, running: Running[Any], future: Future[Any]) -> None:
        if not future.cancelled():
            self._futures[running] = future
            self._engine.start(running)

    def _left(self, running: Running[Any], future: Future[Any]) -> None:
        if future.cancelled():
            self._engine.events.put(partial(self._drop, running))

    def _drop(self, running: Running[Any]) -> None:
        if self._futures.pop(running, None) is not None:
            self._engine.drop(running)

    def _finished(self, running: Running[Any]) -> None:
        future = self._futures.pop(running, None)
        if future is not None and future.set_running_or_notify_cancel():
            future.set_result(finished(running, self._engine.clock()))

    def _failed(self, running: Running[Any], error: Exception) -> None:
        future = self._futures.pop(running, None)
        if future is not None and future.set_running_or_notify_cancel():
            future.set_exception(error)
