"""The driver: runs thousands of flows together and answers their questions.

Open questions of all flows are coalesced into full batches for a local model, or sent as bounded concurrent requests
to a server; each flow advances as soon as its own answers are there. Equal questions are asked once. With a log, a
killed run resumes by running its flows again: what was answered is read, not paid for.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from stepreward.core.answer_log import AnswerLog, digest
from stepreward.core.errors import BudgetExhausted, SteprewardError
from stepreward.core.flows import (
    Bill,
    Budget,
    Compare,
    Extract,
    Flow,
    Grade,
    Grader,
    Judge,
    Policy,
    Prices,
    Propose,
    Question,
    Score,
    Scored,
    Scorer,
)

T = TypeVar("T")


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


@dataclass(slots=True)
class _Running(Generic[T]):
    """A flow between two answers."""

    index: int
    flow: Flow[T]
    answers: list[Any] | None = None
    """None before the first question: a generator must be started with it."""
    missing: int = 0
    bill: Bill = field(default_factory=Bill)
    rollouts: int = 0
    tokens: int = 0
    scored: int = 0
    started: float = 0.0


class _Lane:
    """The open questions for one answerer, each once, and the batches in flight."""

    def __init__(self, size: int, concurrency: int, ask: Callable[[Sequence[Any]], list[Any]]) -> None:
        self.size, self.concurrency, self.ask = size, concurrency, ask
        self.queue: deque[tuple[str, Any]] = deque()
        self.waiting: dict[str, list[tuple[_Running[Any], int]]] = {}
        self.rows = 0
        self.flying: dict[Future[list[Any]], list[tuple[str, Any]]] = {}
        self.pool = ThreadPoolExecutor(concurrency) if concurrency > 1 else None

    @property
    def hungry(self) -> bool:
        """True while more open questions would make fuller batches."""
        waiting = len(self.queue) + len(self.flying)
        return self.rows < self.size * self.concurrency or waiting < self.concurrency

    def push(self, name: str, question: Any, asker: tuple[_Running[Any], int]) -> None:
        if name not in self.waiting:
            self.queue.append((name, question))
            self.rows += _rows(question)
        self.waiting.setdefault(name, []).append(asker)

    def take(self) -> list[tuple[str, Any]]:
        """Questions for one batch: as many as fit, at least one."""
        batch: list[tuple[str, Any]] = []
        rows = 0
        while self.queue and (not batch or rows + _rows(self.queue[0][1]) <= self.size):
            name, question = self.queue.popleft()
            rows += _rows(question)
            batch.append((name, question))
        self.rows -= rows
        return batch

    def launch(self, *, partial: bool) -> list[tuple[list[tuple[str, Any]], list[Any]]]:
        """Starts what may start; returns what was answered at once (an answerer without concurrency)."""
        if self.pool is None:
            if not self.queue or not (partial or self.rows >= self.size):
                return []
            batch = self.take()
            return [(batch, self.ask([question for _, question in batch]))]
        while self.queue and len(self.flying) < self.concurrency and (partial or self.rows >= self.size):
            batch = self.take()
            self.flying[self.pool.submit(self.ask, [question for _, question in batch])] = batch
        return []

    def land(self, done: set[Future[list[Any]]]) -> list[tuple[list[tuple[str, Any]], list[Any]]]:
        return [(self.flying.pop(future), future.result()) for future in done if future in self.flying]

    def close(self) -> None:
        if self.pool is not None:
            self.pool.shutdown(wait=False, cancel_futures=True)


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
        self.policy, self.scorer, self.grader, self.judge = policy, scorer, grader, judge
        self.prices, self.clock = prices or Prices(), clock
        self.budget, self.log, self.window = budget or Budget(), log, window
        self.bill = Bill()
        """What all flows so far have spent."""

    def run(self, flows: Iterable[Flow[T]]) -> Iterator[Finished[T]]:
        """Runs flows to their ends, in order of completion.

        Raises:
            SteprewardError: a flow asked something that nobody here answers.
        """
        lanes = self._lanes()
        source = enumerate(flows)
        active = 0
        ready: deque[_Running[T]] = deque()
        try:
            while True:
                if ready:
                    finished = self._advance(ready.popleft(), lanes, ready)
                    if finished is not None:
                        active -= 1
                        yield finished
                elif (
                    active < self.window and all(lane.hungry for lane in lanes.values()) and (new := next(source, None))
                ):
                    active += 1
                    ready.append(_Running(*new, started=self.clock()))
                elif not self._answer_some(lanes, ready):
                    return
        finally:
            for lane in lanes.values():
                lane.close()

    def _lanes(self) -> dict[type, _Lane]:
        lanes: dict[type, _Lane] = {}
        if self.policy is not None:
            lanes[Propose] = _Lane(self.policy.batch_size, self.policy.concurrency, self.policy.propose)
        if self.scorer is not None:
            lanes[Score] = _Lane(self.scorer.batch_size, 1, self.scorer.score_many)
        if self.judge is not None:
            lanes[Compare] = _Lane(self.judge.batch_size, 1, self.judge.compare_many)
        return lanes

    def _advance(self, running: _Running[T], lanes: dict[type, _Lane], ready: deque[_Running[T]]) -> Finished[T] | None:
        """Sends a flow its answers and routes its next questions; the finished flow, if it ended."""
        try:
            questions = running.flow.send(running.answers)  # type: ignore[arg-type]
            while self._over_budget(running, questions):
                questions = running.flow.throw(BudgetExhausted(f"the flow's budget {self.budget} does not hold this"))
        except StopIteration as stop:
            return Finished(running.index, stop.value, running.bill, self.clock() - running.started)
        running.answers = [None] * len(questions)
        running.missing = len(questions)
        for slot, question in enumerate(questions):
            self._route(running, slot, question, lanes)
        if running.missing == 0:
            ready.append(running)
        return None

    def _over_budget(self, running: _Running[Any], questions: Sequence[Question]) -> bool:
        asked = sum(question.n for question in questions if isinstance(question, Propose))
        if not asked:
            return False
        limit = self.budget
        spent = (
            (limit.tokens, running.tokens),
            (limit.scored_tokens, running.scored),
            (limit.seconds, self.clock() - running.started),
            (limit.money, self.prices.of(running.tokens, running.scored)),
        )
        too_many = limit.rollouts is not None and running.rollouts + asked > limit.rollouts
        return too_many or any(most is not None and used >= most for most, used in spent)

    def _route(self, running: _Running[Any], slot: int, question: Question, lanes: dict[type, _Lane]) -> None:
        if isinstance(question, Grade | Extract):
            self._answer_now(running, slot, question)
            return
        role, answerer = self._answerer(question)
        name = digest(question, answerer.name if answerer is not None else "")
        known = self.log.get(name) if self.log is not None else None
        if known is not None:
            self._receive(running, slot, question, known)
            for bill in (running.bill, self.bill):
                _charge_cached(bill, question, known)
        elif type(question) in lanes:
            lanes[type(question)].push(name, question, (running, slot))
        else:
            raise SteprewardError(f"a flow asked {type(question).__name__} but there is no {role}: pass {role}=")

    def _answerer(self, question: Propose | Score | Compare) -> tuple[str, Policy | Scorer | Judge | None]:
        if isinstance(question, Propose):
            return "policy", self.policy
        return ("scorer", self.scorer) if isinstance(question, Score) else ("judge", self.judge)

    def _answer_now(self, running: _Running[Any], slot: int, question: Grade | Extract) -> None:
        if self.grader is None:
            raise SteprewardError(f"a flow asked {type(question).__name__} but there is no grader: pass grader=")
        assert running.answers is not None
        if isinstance(question, Grade):
            running.answers[slot] = self.grader.grade(question.problem, question.steps)
            running.bill.grades += 1
            self.bill.grades += 1
        else:
            running.answers[slot] = self.grader.answer(question.problem, question.steps)
        running.missing -= 1

    def _answer_some(self, lanes: dict[type, _Lane], ready: deque[_Running[Any]]) -> bool:
        """Answers at least one batch if anything is open: full ones first, a partial one only when all else waits."""
        answered = [pair for lane in lanes.values() for pair in lane.launch(partial=False)]
        flying = {future for lane in lanes.values() for future in lane.flying}
        if not answered and not flying:
            fullest = max(lanes.values(), key=lambda lane: lane.rows / lane.size, default=None)
            if fullest is None or not fullest.queue:
                return False
            answered = fullest.launch(partial=True)
            flying = set(fullest.flying)
        if not answered:
            done, _ = wait(flying, return_when=FIRST_COMPLETED)
            answered = [pair for lane in lanes.values() for pair in lane.land(done)]
        for batch, answers in answered:
            self._distribute(batch, answers, lanes, ready)
        return True

    def _distribute(
        self,
        batch: list[tuple[str, Any]],
        answers: list[Any],
        lanes: dict[type, _Lane],
        ready: deque[_Running[Any]],
    ) -> None:
        if self.log is not None:
            self.log.put(zip((name for name, _ in batch), answers, strict=True))
        for (name, question), answer in zip(batch, answers, strict=True):
            askers = lanes[type(question)].waiting.pop(name)
            for bill in (askers[0][0].bill, self.bill):
                _charge(bill, question, answer)
            for running, slot in askers:
                self._receive(running, slot, question, answer)
                if running.missing == 0:
                    ready.append(running)

    @staticmethod
    def _receive(running: _Running[Any], slot: int, question: Propose | Score | Compare, answer: Any) -> None:
        assert running.answers is not None
        if isinstance(question, Propose):
            running.rollouts += question.n
            running.tokens += sum(continuation.n_tokens for continuation in answer)
        elif isinstance(question, Score):
            running.scored += answer.tokens
        running.answers[slot] = answer.scores if isinstance(answer, Scored) else answer
        running.missing -= 1


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


def _rows(question: Any) -> int:
    return question.n if isinstance(question, Propose) else 1


def _charge_cached(bill: Bill, question: Propose | Score | Compare, answer: Any) -> None:
    bill.cached += 1
    if isinstance(question, Propose):
        bill.cached_generated_tokens += sum(continuation.n_tokens for continuation in answer)
    elif isinstance(question, Score):
        bill.cached_scored_tokens += answer.tokens


def _charge(bill: Bill, question: Propose | Score | Compare, answer: Any) -> None:
    if isinstance(question, Propose):
        bill.proposals += question.n
        bill.generated_tokens += sum(continuation.n_tokens for continuation in answer)
    elif isinstance(question, Compare):
        bill.comparisons += 1
    else:
        bill.scored_steps += len(question.steps)
        bill.scored_tokens += answer.tokens
        bill.scored_tokens_unshared += answer.tokens_unshared
