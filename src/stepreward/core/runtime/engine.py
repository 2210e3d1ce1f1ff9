"""The engine under the drivers: moves flows forward, routes their questions, and hands out the answers.

It belongs to one thread. Answers that other threads make, and calls from other threads, come in through `events`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from stepreward.core.errors import BudgetExhausted, SteprewardError, Unanswered
from stepreward.core.runtime.answer_log import AnswerLog, digest
from stepreward.core.runtime.flows import (
    Bill,
    Compare,
    Extract,
    Grade,
    Grader,
    Interruptible,
    Judge,
    Limited,
    Policy,
    Prices,
    Propose,
    Question,
    Score,
    Scorer,
)
from stepreward.core.runtime.grades import Graded, asking, kept
from stepreward.core.runtime.queue import Ask, Asked, Batch, Lane, Open
from stepreward.core.runtime.rounds import Part, Round, wave
from stepreward.core.runtime.running import Asker, Running, charge, charge_cached

_ABSENT = object()
_GRADERS = 4
"""Grades under way at once, where there are threads: one that takes long holds up no other."""
GRACE = 1.0
"""Seconds after its end that a flow waits for what an interruptible policy has written of its samples."""


@dataclass(frozen=True)
class Answerers:
    """Who answers questions: `Propose`, `Score`, `Compare`, and `Grade` with `Extract`."""

    policy: Policy | None = None
    scorer: Scorer | None = None
    judge: Judge | None = None
    grader: Grader | None = None

    def of(self, question: Asked) -> tuple[str, Policy | Scorer | Judge | Grader | None]:
        """The role that answers a question, and who has it."""
        if isinstance(question, Propose):
            return "policy", self.policy
        if isinstance(question, Grade | Extract):
            return "grader", self.grader
        return ("scorer", self.scorer) if isinstance(question, Score) else ("judge", self.judge)


class Engine:
    """Moves flows forward.

    Args:
        answerers: who answers.
        log: where paid answers are kept and looked up.
        prices: of tokens, for budgets in money.
        clock: seconds, for budgets in time; called from the threads of answerers too.
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
        self._most = answerers.policy.max_tokens if isinstance(answerers.policy, Limited) else None
        """Tokens of a continuation where its question sets no limit; None where the policy does not say."""
        self.bill = bill or Bill()
        self.ready: deque[Running[Any]] = deque()
        self.events: SimpleQueue[Future[list[Any]] | Callable[[], None]] = SimpleQueue()
        self._lanes = self._opened(threads)
        self._timed: set[Running[Any]] = set()
        """Flows that have a limit in seconds."""

    def stuck(self, kind: type[Any]) -> float:
        """Seconds for which one kind of questions has got no answer with all its lanes taken; from any thread."""
        return self._lanes[kind].stuck if kind in self._lanes else 0.0

    @property
    def hungry(self) -> bool:
        """True while more flows would make fuller batches."""
        return all(lane.hungry for kind, lane in self._lanes.items() if kind not in (Grade, Extract))

    def start(self, running: Running[Any]) -> None:
        """Takes a flow in."""
        if running.budget.seconds is not None:
            self._timed.add(running)
        self.ready.append(running)

    def advance(self, running: Running[Any]) -> bool:
        """Sends a flow its answers and routes its next questions; True if it ended, with `result` set."""
        if not running.ended:
            running.open.clear()
            self._move(running, lambda: self._answered(running))
        return running.ended

    def drop(self, running: Running[Any]) -> None:
        """Forgets a flow: what only it waits for is not asked any more."""
        self._withdraw(running)
        self._timed.discard(running)
        running.flow.close()
        running.ended = running.dropped = True

    def answer_some(self) -> bool:
        """Answers a batch at least: full ones first, partial ones when all else waits. False if nothing is open."""
        answered = [(lane, pair) for lane in self._lanes.values() for pair in lane.launch(partial=False)]
        flying = any(lane.flying for lane in self._lanes.values())
        if not answered and not flying:
            fullest = max(self._lanes.values(), key=lambda lane: lane.rows / lane.size, default=None)
            if fullest is None or not fullest.waiting:
                return False
            answered = [(fullest, pair) for pair in fullest.launch(partial=True)]
        for lane, (batch, answers) in answered:
            self._land(lane, batch, answers)
        if not answered:
            self.hear()
        return True

    def launch(self) -> None:
        """Starts whatever may start, also batches that are not full."""
        for lane in self._lanes.values():
            lane.launch(partial=True)

    def hear(self) -> None:
        """Waits for an event, unless a flow can go on; handles all that have come; tells flows whose time is over."""
        ends = [self._patience(running) for running in self._timed if running.proposing]
        ends += [self.clock()] if self.ready else []
        try:
            self.handle(self.events.get(timeout=max(0.0, min(ends) - self.clock()) if ends else None))
            for _ in range(self.events.qsize()):
                self.handle(self.events.get_nowait())
        except Empty:
            pass
        now = self.clock()
        for running in [running for running in self._timed if running.proposing and self._patience(running) <= now]:
            self._end_round(running, "seconds")

    def handle(self, event: Future[list[Any]] | Callable[[], None]) -> None:
        """Hands out a batch of answers that came, or does what another thread asked for."""
        if not isinstance(event, Future):
            event()
            return
        for lane in self._lanes.values():
            if event in lane.flying:
                lane.moved = time.monotonic()
                self._land(lane, lane.flying.pop(event), event)

    def close(self) -> None:
        """Starts nothing more."""
        for lane in self._lanes.values():
            lane.close()

    def _opened(self, threads: bool) -> dict[type, Lane]:
        policy, scorer, judge = self.answerers.policy, self.answerers.scorer, self.answerers.judge
        lanes: dict[type, Lane] = {}

        def opened(size: int, concurrency: int, ask: Ask) -> Lane:
            return Lane(size, concurrency, ask, self._waits, self.events.put, threads=threads)

        if policy is not None:
            ask = policy.propose_while if isinstance(policy, Interruptible) else _plainly(policy.propose)
            lanes[Propose] = opened(policy.batch_size, policy.concurrency, ask)
        if scorer is not None:
            lanes[Score] = opened(scorer.batch_size, 1, _plainly(scorer.score_many))
        if judge is not None:
            lanes[Compare] = opened(judge.batch_size, 1, _plainly(judge.compare_many))
        if self.answerers.grader is not None:
            # Grades go beside what threads ask; a model in this thread gets its batches in the same order every time.
            apart = threads or (policy is not None and policy.concurrency > 1)
            for kind in (Grade, Extract):
                lanes[kind] = opened(1, _GRADERS if apart else 1, _plainly(asking(self.answerers.grader)))
        return lanes

    def _waits(self, asker: Asker) -> bool:
        """Whether who asked has time to wait for an answer."""
        end = asker[0].end
        return end is None or self.clock() < end

    def _patience(self, running: Running[Any]) -> float:
        """Until when a flow waits: past its end only for what an interrupted policy is about to hand over."""
        assert running.end is not None
        assert running.round is not None
        written = running.round.partial and any(entry.launched for _, entry, _ in running.open)
        return running.end + (GRACE if written and isinstance(self.answerers.policy, Interruptible) else 0.0)

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
            for running, part in batch[0].askers:
                self._fail(running, part, error)

    def _fail(self, running: Running[Any], part: Part, error: Exception) -> None:
        """Ends a flow for which a question could not be answered, unless part of the answers is of use to it."""
        assert running.round is not None
        assert self.failed is not None
        if isinstance(part.question, Propose) and running.round.partial:
            running.round.fault = running.round.fault or error
            for bill in (running.bill, self.bill):
                bill.failed += part.question.n
            self._received(running)
        elif not running.dropped:
            self.drop(running)
            self.failed(running, error)

    def _move(self, running: Running[Any], on: Callable[[], Sequence[Question]]) -> None:
        """Moves a flow on to its next questions, or to its end."""
        try:
            questions = on()
            while limit := self._limit_reached(running, questions):
                questions = self._refuse(running, limit, ())
            running.round = Round(questions)
            for part in running.round.plain():
                self._route(running, part)
            self._ask_more(running)
        except StopIteration as stop:
            self._timed.discard(running)
            running.result, running.ended = stop.value, True
        except Exception as error:
            # With somebody to tell, one flow's fault is no other's: this is the boundary.
            if self.failed is None:
                raise
            self.drop(running)
            self.failed(running, (isinstance(error, Unanswered) and running.round and running.round.fault) or error)

    def _answered(self, running: Running[Any]) -> Sequence[Question]:
        """Sends a flow the answers of its round, or throws what ended it early; its next questions."""
        asked = running.round
        if asked is None:
            return next(running.flow)
        if asked.refused:
            return self._refuse(running, asked.refused, asked.so_far())
        if asked.fault is not None:
            return running.flow.throw(Unanswered(f"samples could not be had: {asked.fault}", asked.so_far()))
        return running.flow.send(asked.answers)

    def _refuse(self, running: Running[Any], limit: str, answers: Sequence[Any]) -> Sequence[Question]:
        running.stopped = limit
        message = f"the flow's budget {running.budget} does not hold this"
        return running.flow.throw(BudgetExhausted(message, answers))

    def _end_round(self, running: Running[Any], limit: str) -> None:
        """Lets a flow go on with the answers there are; what it still waits for is not wanted any more."""
        assert running.round is not None
        self._withdraw(running)
        running.round.refused = limit
        running.round.waiting.clear()
        self.ready.append(running)

    def _withdraw(self, running: Running[Any]) -> None:
        for lane, entry, asker in running.open:
            lane.withdraw(entry, asker)
        running.open.clear()
        if running.round is not None:
            running.round.under_way = 0

    def _limit_reached(self, running: Running[Any], questions: Sequence[Question]) -> str:
        """The limit of its budget for which a flow's next questions are refused; "" if they are not."""
        proposed = [question for question in questions if isinstance(question, Propose) and question.n]
        if not proposed:
            return ""
        most = running.budget.rollouts
        whole = sum(question.n for question in proposed if not all(q.partial for q in proposed))
        if most is not None and running.rollouts + whole > most:
            return "rollouts"
        return running.over(self.clock(), self.prices)

    def _ask_more(self, running: Running[Any]) -> None:
        """Asks for as many of the samples that wait as the budget holds now; hands on a round that is done."""
        asked = running.round
        assert asked is not None
        while asked.waiting:
            limit = running.over(self.clock(), self.prices) if asked.partial else ""
            asked.refused = asked.refused or limit
            if asked.refused or asked.fault is not None:
                asked.waiting.clear()
                break
            for turn, part in enumerate(self._next_parts(running, asked)):
                self._route(running, part, turn)
            if asked.under_way:
                return
        if not asked.under_way:
            self.ready.append(running)

    def _next_parts(self, running: Running[Any], asked: Round) -> list[Part]:
        rows, cap, policy = asked.rows, None, self.answerers.policy
        if asked.partial:
            most = running.budget.rollouts
            rows = rows if most is None else min(rows, most - running.rollouts)
            left = running.tokens_left(self.prices, expert=any(q.expert for q, _ in asked.samples()))
            if left is not None:
                limits = [self._longest(q) or left for q, n in asked.samples() for _ in range(n)]
                rows, cap = wave(limits[:rows], left, running.longest)
        # What answers one batch after the other takes a question whole: it knows best how to fill its rows.
        size = policy.batch_size if policy is not None and policy.concurrency > 1 else rows
        return asked.take(rows, cap, self._longest, size)

    def _longest(self, question: Propose) -> int | None:
        """Most tokens of a continuation; None where nobody says."""
        return self._most if question.max_tokens is None else question.max_tokens

    def _route(self, running: Running[Any], part: Part, turn: int = 0) -> None:
        question, asked = part.question, running.round
        assert asked is not None
        role, answerer = self.answerers.of(question)
        name = digest(question, answerer.name if answerer is not None else "")
        known: Any = self.log.get(name, _ABSENT) if self.log is not None else _ABSENT
        if known is not _ABSENT:
            known = Graded(known) if isinstance(question, Grade | Extract) else known
            running.receive(part, known)
            for bill in (running.bill, self.bill):
                charge_cached(bill, question, known)
        elif type(question) in self._lanes:
            lane, asker = self._lanes[type(question)], (running, part)
            running.open.append((lane, lane.push(name, question, asker, turn=turn), asker))
            asked.under_way += 1
        else:
            raise SteprewardError(f"a flow asked {type(question).__name__} but there is no {role}: pass {role}=")

    def _distribute(self, lane: Lane, batch: Batch, answers: Sequence[Any]) -> None:
        lane.settle(batch)
        pairs = list(zip(batch, answers, strict=True))
        if self.log is not None:
            paid = [(entry.name, _paid(answer)) for entry, answer in pairs if _is_kept(entry, answer)]
            if paid:
                self.log.put(paid)
        for entry, answer in pairs:
            # A grade costs nothing: each flow that asked counts it.
            payers = [running.bill for running, _ in entry.askers[: None if isinstance(answer, Graded) else 1]]
            for bill in (*payers, *[self.bill] * (len(payers) if isinstance(answer, Graded) else 1)):
                charge(bill, entry.question, answer)
            for asker in entry.askers:
                self._hand(asker, answer, again=_interrupted(entry, answer) and self._waits(asker))

    def _hand(self, asker: Asker, answer: Any, *, again: bool) -> None:
        """Gives an asker its answer; one that joined when the policy had left off already asks again."""
        running, part = asker
        if again:
            assert running.round is not None
            running.round.under_way -= 1
            self._route(running, part)
        else:
            running.receive(part, answer)
            self._received(running)

    def _received(self, running: Running[Any]) -> None:
        assert running.round is not None
        running.round.under_way -= 1
        if running.round.under_way == 0:
            self._ask_more(running)


def _plainly(ask: Callable[[Sequence[Any]], list[Any]]) -> Ask:
    return lambda _, questions: ask(questions)


def _is_kept(entry: Open, answer: Any) -> bool:
    """Whether an answer goes into the log: it is whole, and it cost something."""
    if isinstance(answer, Graded):
        assert isinstance(entry.question, Grade | Extract)
        return kept(entry.question, answer)
    return not _interrupted(entry, answer)


def _paid(answer: Any) -> Any:
    return answer.answer if isinstance(answer, Graded) else answer


def _interrupted(entry: Open, answer: Any) -> bool:
    return isinstance(entry.question, Propose) and any(c.interrupted for c in answer)
