"""The engine under the drivers: moves flows forward, routes their questions, and hands out the answers.

It belongs to one thread. Answers that other threads make, and calls from other threads, come in through `events`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from stepreward.core.answer_log import AnswerLog, digest
from stepreward.core.errors import BudgetExhausted, SteprewardError
from stepreward.core.flows import (
    Bill,
    Budget,
    Compare,
    Continuation,
    Extract,
    Flow,
    Grade,
    Grader,
    Interruptible,
    Judge,
    Policy,
    Prices,
    Propose,
    Question,
    Score,
    Scored,
    Scorer,
)
from stepreward.core.lanes import Ask, Asked, Batch, Lane, Open

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Running(Generic[T]):
    """A flow between two answers."""

    flow: Flow[T]
    budget: Budget
    started: float
    index: int = 0
    answers: list[Any] | None = None
    """None before the first question: a generator must be started with it."""
    missing: int = 0
    open: list[tuple[Lane, Open, tuple[Running[T], int]]] = field(default_factory=list)
    """Its questions that are under way, and as whom it waits for each."""
    bill: Bill = field(default_factory=Bill)
    rollouts: int = 0
    tokens: int = 0
    scored: int = 0
    stopped: str = ""
    """The limit of its budget that refused a question, if any."""
    ended: bool = False
    result: Any = None
    """What it returned; set once it ended."""

    @property
    def proposing(self) -> bool:
        """Whether it waits for continuations, so that the end of its budget can be told to it."""
        return any(isinstance(entry.question, Propose) for _, entry, _ in self.open)


@dataclass(frozen=True)
class Answerers:
    """Who answers questions: `Propose`, `Score`, `Compare`, and `Grade` with `Extract`."""

    policy: Policy | None = None
    scorer: Scorer | None = None
    judge: Judge | None = None
    grader: Grader | None = None

    def of(self, question: Asked) -> tuple[str, Policy | Scorer | Judge | None]:
        """The role that answers a question, and who has it."""
        if isinstance(question, Propose):
            return "policy", self.policy
        return ("scorer", self.scorer) if isinstance(question, Score) else ("judge", self.judge)


class Engine:
    """Moves flows forward.

    Args:
        answerers: who answers.
        log: where paid answers are kept and looked up.
        prices: of tokens, for budgets in money.
        clock: seconds, for budgets in time.
        bill: where all that is spent is added.
        threads: nothing is answered in the engine's own thread, so that events are always heard.
        failed: told of a flow whose question could not be answered, and why. None raises the error instead.
    """

    def __init__(
        self,
        answerers: Answerers,
        *,
        log: AnswerLog | None = None,
        prices: Prices | None = None,
        clock: Callable[[], float] = time.monotonic,
        bill: Bill | None = None,
        threads: bool = False,
        failed: Callable[[Running[Any], Exception], None] | None = None,
    ) -> None:
        self.answerers, self.log, self.prices, self.clock = answerers, log, prices or Prices(), clock
        self.failed = failed
        self.bill = bill or Bill()
        self.ready: deque[Running[Any]] = deque()
        self.events: SimpleQueue[Future[list[Any]] | Callable[[], None]] = SimpleQueue()
        self._lanes = self._opened(threads)
        self._timed: set[Running[Any]] = set()
        """Flows that have a limit in seconds."""

    @property
    def hungry(self) -> bool:
        """True while more flows would make fuller batches."""
        return all(lane.hungry for lane in self._lanes.values())

    def start(self, running: Running[Any]) -> None:
        """Takes a flow in."""
        if running.budget.seconds is not None:
            self._timed.add(running)
        self.ready.append(running)

    def advance(self, running: Running[Any]) -> bool:
        """Sends a flow its answers and routes its next questions; True if it ended, with `result` set."""
        if not running.ended:
            running.open.clear()
            self._move(running, lambda: running.flow.send(running.answers))  # type: ignore[arg-type]
        return running.ended

    def drop(self, running: Running[Any]) -> None:
        """Forgets a flow: what only it waits for is not asked any more."""
        self._withdraw(running)
        self._timed.discard(running)
        running.flow.close()

    def answer_some(self) -> bool:
        """Answers a batch at least: full ones first, partial ones when all else waits. False if nothing is open."""
        answered = [(lane, pair) for lane in self._lanes.values() for pair in lane.launch(partial=False)]
        flying = any(lane.flying for lane in self._lanes.values())
        if not answered and not flying:
            fullest = max(self._lanes.values(), key=lambda lane: lane.rows / lane.size, default=None)
            if fullest is None or not fullest.queue:
                return False
            answered = [(fullest, pair) for pair in fullest.launch(partial=True)]
        for lane, (batch, answers) in answered:
            self._distribute(lane, batch, answers)
        if not answered:
            self.hear()
        return True

    def launch(self) -> None:
        """Starts whatever may start, also batches that are not full."""
        for lane in self._lanes.values():
            lane.launch(partial=True)

    def hear(self) -> None:
        """Waits for an event and handles all that have come; tells flows whose time is over."""
        ends = [self._end(running) for running in self._timed if running.proposing]
        try:
            self.handle(self.events.get(timeout=max(0.0, min(ends) - self.clock()) if ends else None))
            while True:
                self.handle(self.events.get_nowait())
        except Empty:
            pass
        now = self.clock()
        for running in [running for running in self._timed if running.proposing and self._end(running) <= now]:
            self._expire(running)

    def handle(self, event: Future[list[Any]] | Callable[[], None]) -> None:
        """Hands out a batch of answers that came, or does what another thread asked for."""
        if not isinstance(event, Future):
            event()
            return
        for lane in self._lanes.values():
            if event in lane.flying:
                self._land(lane, lane.flying.pop(event), event)

    def close(self) -> None:
        """Starts nothing more."""
        for lane in self._lanes.values():
            lane.close()

    def _opened(self, threads: bool) -> dict[type, Lane]:
        policy, scorer, judge = self.answerers.policy, self.answerers.scorer, self.answerers.judge
        lanes: dict[type, Lane] = {}
        if policy is not None:
            ask = policy.propose_while if isinstance(policy, Interruptible) else _plainly(policy.propose)
            lanes[Propose] = Lane(policy.batch_size, policy.concurrency, ask, self.events.put, threads=threads)
        if scorer is not None:
            lanes[Score] = Lane(scorer.batch_size, 1, _plainly(scorer.score_many), self.events.put, threads=threads)
        if judge is not None:
            lanes[Compare] = Lane(judge.batch_size, 1, _plainly(judge.compare_many), self.events.put, threads=threads)
        return lanes

    @staticmethod
    def _end(running: Running[Any]) -> float:
        return running.started + (running.budget.seconds or 0.0)

    def _land(self, lane: Lane, batch: Batch, future: Future[list[Any]]) -> None:
        error = future.exception()
        if error is None and len(future.result()) != len(batch):
            error = SteprewardError(f"expected {len(batch)} answers to as many questions, got {len(future.result())}")
        if error is None:
            self._distribute(lane, batch, future.result())
        elif self.failed is None or not isinstance(error, Exception):
            raise error
        elif len(batch) > 1:
            lane.again(batch)
        else:
            lane.settle(batch)
            for running in {id(r): r for r, _ in batch[0].askers}.values():
                self.drop(running)
                self.failed(running, error)

    def _move(self, running: Running[Any], on: Callable[[], Sequence[Question]]) -> None:
        """Moves a flow on to its next questions, or to its end."""
        try:
            questions = on()
            while limit := self._limit_reached(running, questions):
                questions = self._refuse(running, limit)
            self._ask(running, questions)
        except StopIteration as stop:
            self._timed.discard(running)
            running.result, running.ended = stop.value, True
        except Exception as error:
            # With somebody to tell, one flow's fault is no other's: this is the boundary.
            if self.failed is None:
                raise
            self.drop(running)
            self.failed(running, error)

    def _expire(self, running: Running[Any]) -> None:
        """Tells a flow that its time is over while it waits for continuations; they are not wanted any more."""
        self._withdraw(running)
        self._move(running, lambda: self._refuse(running, "seconds"))
        if running.ended:
            self.ready.append(running)

    def _refuse(self, running: Running[Any], limit: str) -> Sequence[Question]:
        running.stopped = limit
        return running.flow.throw(BudgetExhausted(f"the flow's budget {running.budget} does not hold this"))

    def _withdraw(self, running: Running[Any]) -> None:
        for lane, entry, asker in running.open:
            lane.withdraw(entry, asker)
        running.open.clear()
        running.missing = 0

    def _ask(self, running: Running[Any], questions: Sequence[Question]) -> None:
        running.answers = [None] * len(questions)
        running.missing = len(questions)
        for slot, question in enumerate(questions):
            self._route(running, slot, question)
        if running.missing == 0:
            self.ready.append(running)

    def _limit_reached(self, running: Running[Any], questions: Sequence[Question]) -> str:
        """The limit of its budget for which a flow's next questions are refused; "" if they are not."""
        asked = sum(question.n for question in questions if isinstance(question, Propose))
        if not asked:
            return ""
        limit = running.budget
        if limit.rollouts is not None and running.rollouts + asked > limit.rollouts:
            return "rollouts"
        spent = {
            "tokens": (limit.tokens, running.tokens),
            "scored_tokens": (limit.scored_tokens, running.scored),
            "seconds": (limit.seconds, self.clock() - running.started),
            "money": (limit.money, self.prices.of(running.tokens, running.scored)),
        }
        return next((name for name, (most, used) in spent.items() if most is not None and used >= most), "")

    def _route(self, running: Running[Any], slot: int, question: Question) -> None:
        if isinstance(question, Grade | Extract):
            self._answer_now(running, slot, question)
            return
        role, answerer = self.answerers.of(question)
        name = digest(question, answerer.name if answerer is not None else "")
        known = self.log.get(name) if self.log is not None else None
        if known is not None:
            _receive(running, slot, question, known)
            for bill in (running.bill, self.bill):
                _charge_cached(bill, question, known)
        elif type(question) in self._lanes:
            lane, asker = self._lanes[type(question)], (running, slot)
            running.open.append((lane, lane.push(name, question, asker), asker))
        else:
            raise SteprewardError(f"a flow asked {type(question).__name__} but there is no {role}: pass {role}=")

    def _answer_now(self, running: Running[Any], slot: int, question: Grade | Extract) -> None:
        grader = self.answerers.grader
        if grader is None:
            raise SteprewardError(f"a flow asked {type(question).__name__} but there is no grader: pass grader=")
        assert running.answers is not None
        if isinstance(question, Grade):
            running.answers[slot] = grader.grade(question.problem, question.steps)
            running.bill.grades += 1
            self.bill.grades += 1
        else:
            running.answers[slot] = grader.answer(question.problem, question.steps)
        running.missing -= 1

    def _distribute(self, lane: Lane, batch: Batch, answers: Sequence[Any]) -> None:
        lane.settle(batch)
        if self.log is not None:
            self.log.put(zip((entry.name for entry in batch), answers, strict=True))
        for entry, answer in zip(batch, answers, strict=True):
            payers = [entry.askers[0][0].bill] if entry.askers else []
            for bill in (*payers, self.bill):
                _charge(bill, entry.question, answer)
            for running, slot in entry.askers:
                _receive(running, slot, entry.question, answer)
                if running.missing == 0:
                    self.ready.append(running)


def _plainly(ask: Callable[[Sequence[Any]], list[Any]]) -> Ask:
    return lambda _, questions: ask(questions)


def _receive(running: Running[Any], slot: int, question: Asked, answer: Any) -> None:
    assert running.answers is not None
    if isinstance(question, Propose):
        running.rollouts += question.n
        running.tokens += _generated(answer)
    elif isinstance(question, Score):
        running.scored += answer.tokens
    running.answers[slot] = answer.scores if isinstance(answer, Scored) else answer
    running.missing -= 1


def _generated(continuations: Sequence[Continuation]) -> int:
    return sum(continuation.n_tokens for continuation in continuations)


def _charge_cached(bill: Bill, question: Asked, answer: Any) -> None:
    bill.cached += 1
    if isinstance(question, Propose):
        bill.cached_generated_tokens += _generated(answer)
    elif isinstance(question, Score):
        bill.cached_scored_tokens += answer.tokens


def _charge(bill: Bill, question: Asked, answer: Any) -> None:
    if isinstance(question, Propose):
        bill.proposals += question.n
        bill.generated_tokens += _generated(answer)
        bill.prompt_tokens += sum(continuation.n_prompt_tokens for continuation in answer)
    elif isinstance(question, Compare):
        bill.comparisons += 1
    else:
        bill.scored_steps += len(question.steps)
        bill.scored_tokens += answer.tokens
        bill.scored_tokens_unshared += answer.tokens_unshared
