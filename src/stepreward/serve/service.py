"""The parts of a server, and how its routes run work."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from copy import copy
from dataclasses import dataclass, field
from typing import Any, TypeVar

from starlette.requests import Request

from stepreward.core.errors import SteprewardError
from stepreward.core.runtime.answerers import Answerers
from stepreward.core.runtime.driver import Finished, ResidentDriver
from stepreward.core.runtime.flows import Flow, Grader, Judge, Policy, Score, Scored, Scorer
from stepreward.core.runtime.spending import Budget
from stepreward.core.segment.tool_calls import calls_of, spelled
from stepreward.core.types import Problem, Step
from stepreward.score.judges.pairwise import PolicyJudge, ScorerJudge
from stepreward.score.monitor.run_monitor import Monitor
from stepreward.serve.admission import Admission
from stepreward.serve.counters import Metrics
from stepreward.serve.model_turns import Check, Turns, Watch
from stepreward.serve.requests.http_errors import ApiError
from stepreward.serve.server_limits import Limits, OnStop

T = TypeVar("T")
GRACE = 10.0
"""Seconds past a request's deadline for scoring its candidates; then it fails."""


@dataclass(frozen=True)
class Served:
    """The models and settings of a server."""

    policy: Policy | None = None
    """None leaves out the search gateway."""
    scorer: Scorer | None = None
    """None leaves out the scoring server, and searches that need scores fail."""
    judge: Judge | None = None
    grader: Grader | None = None
    """Reads answers, for votes."""
    name: str = "policy"
    """Model name of the policy with a search."""
    scorer_name: str = "scorer"
    """Model name of the reward model."""
    method: str = "beam"
    """The default search."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the default search."""
    monitor: Monitor | None = None
    """Watches runs elsewhere, and the conversations that the gateway answers."""
    on_stop: OnStop = "tell"
    """What the gateway does with a conversation that the monitor would stop."""
    keys: Sequence[str] = field(default=(), repr=False)
    """API keys; without any, requests need none."""
    limits: Limits = field(default_factory=Limits)


class Exclusive:
    """A scorer with a lock, which threads that use its model directly must take too.

    Args:
        scorer: the scorer.
    """

    def __init__(self, scorer: Scorer) -> None:
        self.scorer, self.turns = scorer, Turns()
        self.name, self.batch_size = scorer.name, scorer.batch_size

    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        """Scores of each question's steps, in order."""
        with self.turns.turn():
            return self.scorer.score_many(questions)


class ReadsCalls:
    """A grader for which tool calls are an answer: equal calls are one vote.

    Args:
        grader: reads all other answers.
    """

    def __init__(self, grader: Grader) -> None:
        self.grader, self.name = grader, grader.name

    def grade(self, problem: Problem, steps: Sequence[Step]) -> float:
        """The grader's."""
        return self.grader.grade(problem, steps)

    def answer(self, problem: Problem, steps: Sequence[Step]) -> str | None:
        """The calls that a solution ends in, or else the grader's."""
        calls = calls_of(steps[-1]) if steps else []
        return "\n".join(map(spelled, calls)) if calls else self.grader.answer(problem, steps)


class Service:
    """The parts that all routes share.

    Args:
        served: what is served.
    """

    def __init__(self, served: Served) -> None:
        self.served, self.limits = served, served.limits
        self.metrics, self.admission = Metrics(), Admission(served.limits)
        grader = None if served.grader is None else ReadsCalls(served.grader)
        self.scorer = None if served.scorer is None else Exclusive(served.scorer)
        self._threads = ThreadPoolExecutor(served.limits.running, "request")
        self.driver = ResidentDriver(Answerers(served.policy, self.scorer, _taking_turns(served, self.scorer), grader))
        if isinstance(served.judge, PolicyJudge):
            judged = served.judge.usage
            self.metrics.watch("judge_tokens", "Tokens that the judge of pairs read and wrote", lambda: judged.tokens)
        self.metrics.watch("requests_running", "Requests worked on", lambda: self.admission.running)
        self.metrics.watch("requests_waiting", "Requests that wait for a place", lambda: self.admission.waiting)
        self.metrics.watch("flows_active", "Running searches and scorings", lambda: self.driver.active)

    def deadline(self, wanted: float | None = None) -> float:
        """When a request that came now must be answered, on the monotonic clock."""
        return time.monotonic() + min(wanted or self.limits.seconds, self.limits.seconds)

    async def run(self, flow: Flow[T], deadline: float, tokens: int | None = None) -> Finished[T]:
        """Runs a flow to its end; cancelling this drops it.

        Args:
            flow: not started.
            deadline: when its time is over.
            tokens: most tokens generated, within the server's own limit.

        Raises:
            ApiError: it did not end in time.
            SteprewardError: what ended it.
        """
        most = self.limits.generated_tokens
        budget = Budget(
            rollouts=self.limits.samples,
            tokens=most if tokens is None else min(tokens, most),
            seconds=max(0.0, deadline - time.monotonic()),
        )
        # The budget ends sampling at the deadline; the grace is for scoring what has been sampled by then.
        future = asyncio.wrap_future(self.driver.submit(flow, budget))
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic()) + GRACE):
                finished = await future
        except TimeoutError as error:
            raise ApiError(504, "the model behind this server did not answer in time", code="timeout") from error
        except SteprewardError:
            raise
        except ValueError as error:
            # Methods raise ValueError for settings out of range.
            raise ApiError(400, str(error)) from error
        self.metrics.spend(finished.bill)
        if finished.stopped:
            self.metrics.stopped.labels(finished.stopped).inc()
        return finished

    async def in_thread(self, request: Request, work: Callable[[Check], T]) -> T:
        """The result of some work in a thread, once there is a place for it.

        The place is freed when the thread has ended, also where its result is not wanted any more.

        Args:
            request: of the work; its body must have been read.
            work: calls its argument between its parts, and does not catch the errors of that.

        Raises:
            ApiError: the client left, or its time was over.
        """
        deadline = self.deadline()
        async with AsyncExitStack() as stack:
            await unless_left(request, stack.enter_async_context(self.admission.place(deadline)))
            watch, gone = Watch(deadline), asyncio.ensure_future(left(request))
            done = asyncio.get_running_loop().run_in_executor(self._threads, work, watch.check)
            both: set[asyncio.Future[Any]] = {done, gone}
            try:
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            finally:
                # A thread cannot be cancelled: it ends at its next check, and frees its place no earlier, so that no
                # more threads run than there are places.
                watch.leave()
                gone.cancel()
                await asyncio.wait(both)
            return done.result()


def _taking_turns(served: Served, scorer: Exclusive | None) -> Judge | None:
    """The judge; one that uses the scorer gets the scorer with the lock."""
    judge = served.judge
    if scorer is None or not isinstance(judge, ScorerJudge) or judge.scorer is not served.scorer:
        return judge
    made = copy(judge)
    made.scorer = scorer
    return made


async def unless_left(request: Request, work: Awaitable[T]) -> T:
    """The result of some work, which is cancelled if the client leaves first.

    Raises:
        ApiError: the client left.
    """
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(left(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ApiError(499, "the client left", code="left")
        return task.result()
    finally:
        # Awaited, so that no task outlives its request, nor its error is reported as never retrieved.
        for one in (task, gone):
            one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def left(request: Request) -> None:
    """Returns once a request's client has left; its body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def tell(request: Request, **facts: Any) -> None:
    """Adds facts to the request's line in the log; never texts of users."""
    request.scope["state"].setdefault("log_facts", {}).update(facts)
