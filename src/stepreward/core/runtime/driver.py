"""The driver: runs thousands of flows together and answers their questions.

Open questions of all flows are coalesced into full batches for a local model, or sent as bounded concurrent requests
to a server; each flow advances as soon as its own answers are there. Equal questions are asked once. With a log, a
killed run resumes by running its flows again: what was answered is read, not paid for.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from stepreward.core.runtime.answer_log import AnswerLog
from stepreward.core.runtime.engine import Answerers, Engine
from stepreward.core.runtime.flows import Bill, Budget, Flow, Grader, Judge, Policy, Prices, Scorer
from stepreward.core.runtime.running import Running

T = TypeVar("T")
FAILURES = 16
"""Flows that may fail, with no question answered in between, before the fault is taken for everybody's."""


@dataclass(frozen=True, slots=True)
class Finished(Generic[T]):
    """A flow that ended."""

    index: int
    """Position of the flow among those given to `run`."""
    result: T
    bill: Bill
    """What this flow spent; an answer shared by several flows is billed to the first that asked."""
    seconds: float = 0.0
    """From its first question to its end; flows run side by side, so these overlap."""
    stopped: str = ""
    """The limit of its budget that refused a question or cut an answer, such as `seconds`; "" where none did."""
    given_tokens: int = 0
    """Generated tokens that it was given, whoever paid for them; more than on its bill where answers were shared."""


def finished(running: Running[T], now: float) -> Finished[T]:
    """The end of a flow that has just returned."""
    return Finished(running.index, running.result, running.bill, now - running.started, running.stopped, running.tokens)


@dataclass(frozen=True, slots=True)
class Failed:
    """A flow that could not go on: a question of its own could not be answered, or it raised."""

    index: int
    """Position of the flow among those given."""
    error: Exception
    bill: Bill
    """What it had spent."""
    seconds: float = 0.0
    """From its first question to the fault."""


class Driver:
    """Answers the questions of flows with a policy, a scorer, a judge and a grader.

    Args:
        policy, scorer, judge, grader: who answers `Propose`, `Score`, `Compare`, and `Grade` with `Extract`.
        budget: the most that each flow may spend; past it, `BudgetExhausted` is thrown into the flow. What a log
            answers counts as spent, so that a resumed run ends as an uninterrupted one; but for `seconds`.
        log: where paid answers are kept and looked up.
        prices: of tokens, for a budget in money.
        clock: seconds, for a budget in time.
        window: flows open at the same time; bounds memory, results come back in order of completion.
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
        """Runs flows to their ends, in order of completion.

        Raises:
            SteprewardError: a flow asked something that nobody here answers.
        """
        for ended in self._ends(flows, None):
            assert isinstance(ended, Finished)
            yield ended

    def outcomes(self, flows: Iterable[Flow[T]]) -> Iterator[Finished[T] | Failed]:
        """Like `run`, but a flow that fails is told of and no other flow is lost by it.

        The questions of a batch that failed are asked again one by one, so that it shows whose fault it was.

        Raises:
            Exception: that of the last of `FAILURES` flows that failed with no question answered in between: a server
                is down, or nobody here answers what all flows ask.
        """
        failures: deque[Failed] = deque()

        def failed(running: Running[Any], error: Exception) -> None:
            failures.append(Failed(running.index, error, running.bill, self.clock() - running.started))

        in_a_row, answered = 0, -1
        with closing(self._ends(flows, failed, failures)) as ends:
            for one in ends:
                if isinstance(one, Failed):
                    in_a_row = in_a_row + 1 if self.bill.answered == answered else 1
                    answered = self.bill.answered
                    if in_a_row == FAILURES:
                        raise one.error
                yield one

    def _ends(
        self,
        flows: Iterable[Flow[T]],
        failed: Callable[[Running[Any], Exception], None] | None,
        failures: deque[Failed] | None = None,
    ) -> Generator[Finished[T] | Failed]:
        """The ends of flows; those that failed come through `failures`, where `failed` has put them."""
        engine = Engine(
            self.answerers, log=self.log, prices=self.prices, clock=self.clock, bill=self.bill, failed=failed
        )
        source = enumerate(flows)
        active = 0
        try:
            while True:
                if failures:
                    active -= 1
                    yield failures.popleft()
                elif engine.ready:
                    running = engine.ready.popleft()
                    if engine.advance(running) and not running.dropped:
                        active -= 1
                        yield finished(running, self.clock())
                elif active < self.window and engine.hungry and (new := next(source, None)):
                    active += 1
                    index, flow = new
                    engine.start(Running(flow, self.budget, self.clock(), index))
                elif not engine.answer_some():
                    if failures or engine.ready:
                        continue
                    return
        finally:
            engine.close()


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
