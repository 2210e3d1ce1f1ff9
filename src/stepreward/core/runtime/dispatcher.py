"""The dispatcher under the drivers: advances flows, puts their questions into queues, and distributes the answers.

It belongs to one thread. Answers made in other threads, and calls from other threads, arrive through `events`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any

from stepreward.core.errors import BudgetExhausted, SteprewardError, Unanswered
from stepreward.core.runtime.acts import Act
from stepreward.core.runtime.answer_log import AnswerLog, digest, keeps_grade
from stepreward.core.runtime.answerers import Answerers
from stepreward.core.runtime.flows import (
    Compare,
    Extract,
    Grade,
    Graded,
    Grader,
    Interruptible,
    Propose,
    Question,
    Score,
    Wanted,
    token_limit,
)
from stepreward.core.runtime.queue import PendingQuestion, QuestionQueue
from stepreward.core.runtime.running import QuestionPart, Round, RunningFlow, charge, charge_cached
from stepreward.core.runtime.spending import Bill, Prices

_ABSENT = object()
_GRADERS = 4
"""Grades that run at once, where there are threads: a slow one delays no other."""
INTERRUPT_SECONDS = 1.0
"""Seconds past its deadline that a flow waits for the unfinished samples of an interruptible policy."""


class Dispatcher:
    """Advances flows.

    Args:
        answerers: who answers.
        log: where paid answers are stored and looked up.
        prices: of tokens, for budgets in money.
        clock: seconds, for budgets in time; called from the threads of answerers too.
        bill: the total, to which every cost is added.
        threads: answer nothing in the dispatcher's own thread, so that events are always handled.
        on_failure: called with a flow that cannot go on, and the error. None raises the error instead.
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
        on_failure: Callable[[RunningFlow[Any], Exception], None] | None = None,
    ) -> None:
        self.answerers, self.log, self.prices, self.clock = answerers, log, prices or Prices(), clock
        self.bill = bill or Bill()
        self.ready: deque[RunningFlow[Any]] = deque()
        """Flows that can be advanced."""
        self.events: SimpleQueue[Future[list[Any]] | Callable[[], None]] = SimpleQueue()
        """Batches answered in other threads, and calls to make in the dispatcher's own."""
        self._on_failure = on_failure
        self._token_limit = token_limit(answerers.policy)
        self._queues = self._open_queues(threads)
        self._timed: set[RunningFlow[Any]] = set()
        """Flows that have a limit in seconds."""

    def stuck(self, kind: type[Any]) -> float:
        """Seconds without progress of the queue for one kind of question (`QuestionQueue.stuck`); from any thread."""
        return self._queues[kind].stuck if kind in self._queues else 0.0

    @property
    def hungry(self) -> bool:
        """Whether more flows would make fuller batches."""
        return all(queue.hungry for kind, queue in self._queues.items() if kind not in (Grade, Extract, Act))

    def start(self, running: RunningFlow[Any]) -> None:
        """Takes a flow in."""
        if running.budget.seconds is not None:
            self._timed.add(running)
        self.ready.append(running)

    def advance(self, running: RunningFlow[Any]) -> bool:
        """Sends a flow its answers and routes its next questions; True if it ended, with `result` set."""
        if not running.ended:
            running.sent.clear()
            self._step(running)
        return running.ended

    def drop(self, running: RunningFlow[Any]) -> None:
        """Gives a flow up; questions that only it waits for are withdrawn."""
        self._withdraw(running)
        self._timed.discard(running)
        running.flow.close()
        running.ended = running.dropped = True

    def answer_batch(self) -> bool:
        """Answers at least one batch: a full one if there is one, else the fullest. False if no question is open."""
        answered = [(queue, pair) for queue in self._queues.values() for pair in queue.launch(partial=False)]
        if not answered and not any(queue.running for queue in self._queues.values()):
            fullest = max(self._queues.values(), key=lambda queue: queue.rows / queue.size, default=None)
            if fullest is None or not fullest.waiting:
                return False
            answered = [(fullest, pair) for pair in fullest.launch(partial=True)]
        for queue, (batch, answers) in answered:
            self._complete(queue, batch, answers)
        if not answered:
            self.wait()
        return True

    def launch(self) -> None:
        """Starts every batch that may start, also those that are not full."""
        for queue in self._queues.values():
            queue.launch(partial=True)

    def wait(self) -> None:
        """Waits for an event unless a flow is ready, handles all events, and ends the rounds whose time is over."""
        ends = [self._waits_until(running) for running in self._timed if running.awaits_samples]
        ends += [self.clock()] if self.ready else []
        try:
            self.handle(self.events.get(timeout=max(0.0, min(ends) - self.clock()) if ends else None))
            for _ in range(self.events.qsize()):
                self.handle(self.events.get_nowait())
        except Empty:
            pass
        # All events first: an answer that is here counts, although the time of its flow is over.
        now = self.clock()
        for running in [one for one in self._timed if one.awaits_samples and self._waits_until(one) <= now]:
            # The flow gets the samples so far; what it still waits for is withdrawn.
            assert running.round is not None
            self._withdraw(running)
            running.round.limit = "seconds"
            running.round.unsent.clear()
            self.ready.append(running)

    def handle(self, event: Future[list[Any]] | Callable[[], None]) -> None:
        """Distributes a batch of answers, or makes the call of another thread."""
        if not isinstance(event, Future):
            event()
            return
        for queue in self._queues.values():
            if event in queue.running:
                queue.last_progress = time.monotonic()
                self._complete(queue, queue.running.pop(event), event)

    def close(self) -> None:
        """Starts no further batch."""
        for queue in self._queues.values():
            queue.close()

    def _open_queues(self, threads: bool) -> dict[type, QuestionQueue]:
        policy, scorer, judge = self.answerers.policy, self.answerers.scoring, self.answerers.judge
        grader, environment = self.answerers.deciding, self.answerers.environment
        queues: dict[type, QuestionQueue] = {}

        def opened(size: int, concurrency: int, answer: Callable[[Wanted, Sequence[Any]], list[Any]]) -> QuestionQueue:
            return QuestionQueue(size, concurrency, answer, self._still_waits, self.events.put, threads=threads)

        if policy is not None:
            ask = policy.propose_while if isinstance(policy, Interruptible) else lambda _, batch: policy.propose(batch)
            queues[Propose] = opened(policy.batch_size, policy.concurrency, ask)
        if scorer is not None:
            queues[Score] = opened(scorer.batch_size, 1, lambda _, batch: scorer.score_many(batch))
        if judge is not None:
            queues[Compare] = opened(judge.batch_size, 1, lambda _, batch: judge.compare_many(batch))
        if environment is not None:
            queues[Act] = opened(
                environment.batch_size, environment.concurrency, lambda _, batch: environment.act_many(batch)
            )
        if grader is not None:
            # With threads, grades run beside the requests. Without, batches of the model keep one order.
            at_once = _GRADERS if threads or (policy is not None and policy.concurrency > 1) else 1
            for kind in (Grade, Extract):
                queues[kind] = opened(1, at_once, lambda _, batch: _timed_grades(grader, batch))
        return queues

    def _still_waits(self, part: QuestionPart) -> bool:
        end = part.flow.deadline
        return end is None or self.clock() < end

    def _waits_until(self, running: RunningFlow[Any]) -> float:
        """Until when a flow waits: a little past its deadline for what an interrupted policy is about to return."""
        assert running.deadline is not None
        assert running.round is not None
        unfinished = running.round.partial and any(pending.launched for _, pending, _ in running.sent)
        interruptible = isinstance(self.answerers.policy, Interruptible)
        return running.deadline + (INTERRUPT_SECONDS if unfinished and interruptible else 0.0)

    def _complete(self, queue: QuestionQueue, batch: list[PendingQuestion], future: Future[list[Any]]) -> None:
        error = future.exception()
        if error is None and len(future.result()) != len(batch):
            error = SteprewardError(f"expected {len(batch)} answers to as many questions, got {len(future.result())}")
        if error is None:
            self._distribute(queue, batch, future.result())
        elif self._on_failure is None or not isinstance(error, Exception):
            raise error
        elif len(batch) > 1:
            # Which of them is at fault is not known: each is sent again alone, so that the others lose nothing.
            queue.retry_one_by_one(batch)
        else:
            queue.settle(batch)
            for part in batch[0].receivers:
                self._fail(part, error)

    def _fail(self, part: QuestionPart, error: Exception) -> None:
        """Ends the flow of a question that failed, unless the flow can use part of the answers."""
        running, current = part.flow, part.flow.round
        assert current is not None
        assert self._on_failure is not None
        if isinstance(part.question, Propose) and current.partial:
            current.error = current.error or error
            for bill in (running.bill, self.bill):
                bill.failed += part.question.n
            self._received(running)
        elif not running.dropped:
            self.drop(running)
            self._on_failure(running, error)

    def _step(self, running: RunningFlow[Any]) -> None:
        """Moves a flow to its next questions, or to its end."""
        try:
            questions = self._resume(running)
            while limit := running.limit_for(questions, self.clock, self.prices):
                questions = self._throw_exhausted(running, limit, ())
            running.round = Round(questions)
            for part in running.plain_parts():
                self._route(part)
            self._send_samples(running)
        except StopIteration as stop:
            self._timed.discard(running)
            running.result, running.ended = stop.value, True
        except Exception as error:
            # The boundary between flows: with `on_failure`, an error of one flow ends no other.
            if self._on_failure is None:
                raise
            self.drop(running)
            cause = running.round.error if running.round and isinstance(error, Unanswered) else None
            self._on_failure(running, cause or error)

    def _resume(self, running: RunningFlow[Any]) -> Sequence[Question]:
        """Sends a flow the answers of its round, or throws what ended the round early; its next questions."""
        current = running.round
        if current is None:
            return next(running.flow)
        if current.limit:
            return self._throw_exhausted(running, current.limit, current.so_far())
        if current.error is not None:
            return running.flow.throw(Unanswered(f"samples could not be had: {current.error}", current.so_far()))
        return running.flow.send(current.answers)

    def _throw_exhausted(self, running: RunningFlow[Any], limit: str, answers: Sequence[Any]) -> Sequence[Question]:
        running.stopped = limit
        message = f"the flow's budget {running.budget} does not hold this"
        return running.flow.throw(BudgetExhausted(message, answers))

    def _withdraw(self, running: RunningFlow[Any]) -> None:
        for queue, pending, part in running.sent:
            queue.withdraw(pending, part)
        running.sent.clear()
        if running.round is not None:
            running.round.pending = 0

    def _send_samples(self, running: RunningFlow[Any]) -> None:
        """Sends as many of the unsent samples as the budget allows now; a flow whose round is done becomes ready."""
        current, policy = running.round, self.answerers.policy
        assert current is not None
        # A policy that runs one batch after another gets a question whole: it fills its own rows best.
        size = policy.batch_size if policy is not None and policy.concurrency > 1 else None
        while current.unsent:
            current.limit = current.limit or (running.limit_reached(self.clock, self.prices) if current.partial else "")
            if current.limit or current.error is not None:
                current.unsent.clear()
                break
            for turn, part in enumerate(running.sample_parts(self.prices, self._token_limit, size)):
                self._route(part, turn)
            if current.pending:
                return
        if not current.pending:
            self.ready.append(running)

    def _route(self, part: QuestionPart, turn: int = 0) -> None:
        """Answers a question from the log, or puts it into its queue."""
        question, running = part.question, part.flow
        assert running.round is not None
        role, answerer = self.answerers.of(question)
        name = digest(question, answerer.name if answerer is not None else "")
        known: Any = self.log.get(name, _ABSENT) if self.log is not None else _ABSENT
        # None may be an answer, as of a solution that states none: it is told from an answer that is not there.
        if known is not _ABSENT:
            known = Graded(known) if isinstance(question, Grade | Extract) else known
            running.receive(part, known)
            for bill in (running.bill, self.bill):
                charge_cached(bill, question, known)
        elif type(question) in self._queues:
            queue = self._queues[type(question)]
            running.sent.append((queue, queue.push(name, question, part, turn=turn), part))
            running.round.pending += 1
        else:
            raise SteprewardError(f"a flow yields a {type(question).__name__} but there is no {role}: pass {role}=")

    def _distribute(self, queue: QuestionQueue, batch: list[PendingQuestion], answers: Sequence[Any]) -> None:
        queue.settle(batch)
        pairs = list(zip(batch, answers, strict=True))
        if self.log is not None:
            # Fast grades and interrupted samples are computed again after a restart instead of logged.
            paid = [
                (pending.name, answer.answer if isinstance(answer, Graded) else answer)
                for pending, answer in pairs
                if self._is_kept(pending, answer)
            ]
            if paid:
                self.log.put(paid)
        for pending, answer in pairs:
            # The first flow with this question pays. A grade costs nothing and is counted in the bill of each.
            graded = isinstance(answer, Graded)
            payers = [part.flow.bill for part in pending.receivers[: None if graded else 1]]
            for bill in (*payers, *[self.bill] * (len(payers) if graded else 1)):
                charge(bill, pending.question, answer)
            for part in pending.receivers:
                if _interrupted(pending, answer) and self._still_waits(part):
                    # It joined when the policy had already stopped: its question is new.
                    assert part.flow.round is not None
                    part.flow.round.pending -= 1
                    self._route(part)
                else:
                    part.flow.receive(part, answer)
                    self._received(part.flow)

    def _is_kept(self, pending: PendingQuestion, answer: Any) -> bool:
        """Whether an answer goes into the log."""
        if not isinstance(answer, Graded):
            return not _interrupted(pending, answer)
        assert isinstance(pending.question, Grade | Extract)
        # An environment grades what it has executed: a run that goes on does not execute it again.
        return self.answerers.environment is not None or keeps_grade(pending.question, answer)

    def _received(self, running: RunningFlow[Any]) -> None:
        assert running.round is not None
        running.round.pending -= 1
        if running.round.pending == 0:
            self._send_samples(running)


def _timed_grades(grader: Grader, questions: Sequence[Grade | Extract]) -> list[Graded]:
    made = []
    for question in questions:
        start = time.monotonic()
        read = grader.answer if isinstance(question, Extract) else grader.grade
        answer = read(question.problem, question.steps)
        made.append(Graded(answer, time.monotonic() - start))
    return made


def _interrupted(pending: PendingQuestion, answer: Any) -> bool:
    return isinstance(pending.question, Propose) and any(c.interrupted for c in answer)
