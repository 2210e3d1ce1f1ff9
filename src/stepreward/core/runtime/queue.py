"""The queue of open questions for one answerer, each question once, and the batches on their way to the answerer."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from stepreward.core.runtime.flows import Propose, Question, Wanted


@dataclass(slots=True, eq=False)
class PendingQuestion:
    """A question without an answer yet; equal questions of several flows are one."""

    name: str
    """Digest of the question and its answerer."""
    question: Question
    receivers: list[Any] = field(default_factory=list)
    """Who gets the answer; empty once all of them have withdrawn."""
    alone: bool = False
    """Whether it is sent in a batch of its own: its batch failed, and a retry one by one shows the cause."""
    launched: bool = False
    withdrawn: bool = False
    """Whether its last receiver withdrew before it was launched."""

    @property
    def rows(self) -> int:
        """What it counts in a batch."""
        return self.question.n if isinstance(self.question, Propose) else 1


class QuestionQueue:
    """The open questions for one answerer.

    Where several batches may run at once, flows take turns by start-time fair queueing: the k-th question of a round
    gets place p + k, where p is the place of the question launched last. So a flow with a thousand samples does not
    delay the first sample of another. A local model takes questions in order of arrival: those of one flow share
    prefixes.

    Args:
        size: rows of a full batch.
        concurrency: most batches that run at once.
        answer: answers a batch.
        still_waits: whether a receiver still has time to wait; called from any thread.
        completed: called with each batch that was answered in another thread, from that thread.
        threads: answer in other threads even where only one batch may run at a time.
    """

    def __init__(
        self,
        size: int,
        concurrency: int,
        answer: Callable[[Wanted, Sequence[Any]], list[Any]],
        still_waits: Callable[[Any], bool],
        completed: Callable[[Future[list[Any]]], None],
        *,
        threads: bool,
    ) -> None:
        self.size, self.concurrency, self._answer = size, concurrency, answer
        self._still_waits, self._completed = still_waits, completed
        self.waiting = 0
        """Questions in the queue."""
        self.rows = 0
        """Rows in the queue."""
        self.running: dict[Future[list[Any]], list[PendingQuestion]] = {}
        self._queue: list[tuple[int, int, PendingQuestion]] = []
        """A heap of (place, number of arrival, question). Withdrawn questions stay until they reach the top."""
        self._place, self._numbers = 0, count()
        self.last_progress = time.monotonic()
        """When a batch last came back, or was started while none was running."""
        self._open: dict[str, PendingQuestion] = {}
        self._pool = ThreadPoolExecutor(concurrency) if threads or concurrency > 1 else None

    @property
    def hungry(self) -> bool:
        """Whether more open questions would make fuller batches."""
        return self.rows < self.size * self.concurrency or self.waiting + len(self.running) < self.concurrency

    @property
    def stuck(self) -> float:
        """Seconds without progress while as many batches run as may; 0 where another could start."""
        return time.monotonic() - self.last_progress if len(self.running) >= self.concurrency else 0.0

    def push(self, name: str, question: Question, receiver: Any, *, turn: int = 0) -> PendingQuestion:
        """Opens the question number `turn` of a round, or joins an equal one that is open."""
        if name not in self._open:
            self._open[name] = PendingQuestion(name, question)
            self._enqueue(self._open[name], turn)
        self._open[name].receivers.append(receiver)
        return self._open[name]

    def withdraw(self, pending: PendingQuestion, receiver: Any) -> None:
        """Removes a receiver. A question without receivers is not launched, and no new receiver joins it."""
        pending.receivers = [one for one in pending.receivers if one is not receiver]
        if pending.receivers:
            return
        if self._open.get(pending.name) is pending:
            del self._open[pending.name]
        if not pending.launched:
            pending.withdrawn = True
            self.waiting -= 1
            self.rows -= pending.rows

    def launch(self, *, partial: bool) -> list[tuple[list[PendingQuestion], Future[list[Any]]]]:
        """Starts the batches that may start; returns those that were answered at once, in this thread.

        Args:
            partial: also start batches that are not full.
        """
        if self._pool is None:
            if not self.waiting or not (partial or self.rows >= self.size):
                return []
            batch = self._take_batch()
            answered: Future[list[Any]] = Future()
            try:
                answered.set_result(self._answer(self._wanted(batch), [pending.question for pending in batch]))
            except Exception as error:
                answered.set_exception(error)
            return [(batch, answered)]
        while self.waiting and len(self.running) < self.concurrency and (partial or self.rows >= self.size):
            batch = self._take_batch()
            # An idle queue makes no progress and is not stuck: its time begins with its first batch.
            self.last_progress = self.last_progress if self.running else time.monotonic()
            future = self._pool.submit(self._answer, self._wanted(batch), [pending.question for pending in batch])
            self.running[future] = batch
            future.add_done_callback(self._completed)
        return []

    def settle(self, batch: list[PendingQuestion]) -> None:
        """Closes the questions of a batch that was answered."""
        for pending in batch:
            if self._open.get(pending.name) is pending:
                del self._open[pending.name]

    def retry_one_by_one(self, batch: list[PendingQuestion]) -> None:
        """Queues each question of a failed batch again, to be sent alone."""
        for pending in batch:
            if pending.receivers:
                pending.alone, pending.launched = True, False
                self._enqueue(pending)

    def close(self) -> None:
        """Starts no further batch."""
        if self._pool is not None:
            # Does not wait: a thread may be in a request to a server that is silent.
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _wanted(self, batch: list[PendingQuestion]) -> Wanted:
        return lambda position: any(map(self._still_waits, batch[position].receivers))

    def _enqueue(self, pending: PendingQuestion, turn: int = 0) -> None:
        # Samples of one question take turns with other questions, where they are requests of their own.
        place = self._place + (turn if self.concurrency > 1 else 0)
        heapq.heappush(self._queue, (place, next(self._numbers), pending))
        self.waiting += 1
        self.rows += pending.rows

    def _next(self) -> PendingQuestion | None:
        """The question at the top of the heap, after withdrawn ones are removed."""
        while self._queue and self._queue[0][2].withdrawn:
            heapq.heappop(self._queue)
        return self._queue[0][2] if self._queue else None

    def _take_batch(self) -> list[PendingQuestion]:
        """Takes as many questions as fit into one batch, at least one."""
        batch: list[PendingQuestion] = []
        rows = 0
        while (pending := self._next()) is not None and not (batch and (batch[0].alone or pending.alone)):
            if batch and rows + pending.rows > self.size:
                break
            self._place = heapq.heappop(self._queue)[0]
            pending.launched = True
            rows += pending.rows
            batch.append(pending)
        self.rows -= rows
        self.waiting -= len(batch)
        return batch
