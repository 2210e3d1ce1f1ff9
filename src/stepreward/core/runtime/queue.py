"""Lanes: the open questions for one answerer, each once, and the batches on their way to it."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from stepreward.core.runtime.flows import Compare, Extract, Grade, Propose, Score, Wanted

Asked = Propose | Score | Compare | Grade | Extract
"""Questions that are answered in batches."""
Ask = Callable[[Wanted, Sequence[Any]], list[Any]]


@dataclass(slots=True, eq=False)
class Open:
    """A question that is not answered yet."""

    name: str
    question: Asked
    askers: list[Any] = field(default_factory=list)
    """Who waits for it; empty where nobody does any more."""
    alone: bool = False
    """True after it failed among others: whose fault it was shows when each is asked by itself."""
    launched: bool = False
    withdrawn: bool = False
    """True once nobody waits for it any more and it was not launched."""

    @property
    def rows(self) -> int:
        """What it counts in a batch."""
        return self.question.n if isinstance(self.question, Propose) else 1


Batch = list[Open]


class Lane:
    """The questions for one answerer.

    Where several batches run at once, flows take turns, as in start-time fair queueing: the k-th question of a round
    stands k places behind the last one that was launched when it came, so that a flow with a thousand samples does not
    hold up another's first. A local model takes questions as they come: those of one flow share prefixes.

    Args:
        size: rows of a full batch.
        concurrency: most batches under way at once.
        ask: answers a batch.
        waits: whether an asker still has time to wait; called from any thread.
        landed: told of each batch that was answered in another thread, from that thread.
        threads: answer in other threads even where one batch at a time is all there may be.
    """

    def __init__(
        self,
        size: int,
        concurrency: int,
        ask: Ask,
        waits: Callable[[Any], bool],
        landed: Callable[[Future[list[Any]]], None],
        *,
        threads: bool,
    ) -> None:
        self.size, self.concurrency, self.ask, self._waits, self._landed = size, concurrency, ask, waits, landed
        self.waiting = 0
        """Questions in the queue."""
        self.rows = 0
        """Rows in the queue."""
        self.flying: dict[Future[list[Any]], Batch] = {}
        self._queue: list[tuple[int, int, Open]] = []
        """A heap of what waits, by place and then as it came; withdrawn questions go when they come up."""
        self._place, self._numbers = 0, count()
        self.moved = time.monotonic()
        """When a batch last came back, or was started where none was under way."""
        self._open: dict[str, Open] = {}
        self._pool = ThreadPoolExecutor(concurrency) if threads or concurrency > 1 else None

    @property
    def hungry(self) -> bool:
        """True while more open questions would make fuller batches."""
        return self.rows < self.size * self.concurrency or self.waiting + len(self.flying) < self.concurrency

    @property
    def stuck(self) -> float:
        """Seconds for which all that may be under way is, and none of it has come back; 0 where there is room."""
        return time.monotonic() - self.moved if len(self.flying) >= self.concurrency else 0.0

    def push(self, name: str, question: Asked, asker: Any, *, turn: int = 0) -> Open:
        """Opens a question, the one of number `turn` of its round, or joins an equal one that is open."""
        if name not in self._open:
            self._open[name] = Open(name, question)
            self._enqueue(self._open[name], turn)
        self._open[name].askers.append(asker)
        return self._open[name]

    def withdraw(self, entry: Open, asker: Any) -> None:
        """Takes an asker back; a question without one is not asked any more, and no new asker joins it."""
        entry.askers = [one for one in entry.askers if one is not asker]
        if entry.askers:
            return
        if self._open.get(entry.name) is entry:
            del self._open[entry.name]
        if not entry.launched:
            entry.withdrawn = True
            self.waiting -= 1
            self.rows -= entry.rows

    def launch(self, *, partial: bool) -> list[tuple[Batch, Future[list[Any]]]]:
        """Starts what may start; returns what was answered at once (an answerer without threads).

        Args:
            partial: also a batch that is not full.
        """
        if self._pool is None:
            if not self.waiting or not (partial or self.rows >= self.size):
                return []
            batch = self._take()
            return [(batch, self._at_once(batch))]
        while self.waiting and len(self.flying) < self.concurrency and (partial or self.rows >= self.size):
            batch = self._take()
            self.moved = self.moved if self.flying else time.monotonic()
            future = self._pool.submit(self.ask, self._wanted(batch), [entry.question for entry in batch])
            self.flying[future] = batch
            future.add_done_callback(self._landed)
        return []

    def settle(self, batch: Batch) -> None:
        """Closes the questions of a batch that was answered."""
        for entry in batch:
            if self._open.get(entry.name) is entry:
                del self._open[entry.name]

    def again(self, batch: Batch) -> None:
        """Asks each question of a batch that failed by itself."""
        for entry in batch:
            if entry.askers:
                entry.alone, entry.launched = True, False
                self._enqueue(entry)

    def close(self) -> None:
        """Starts nothing more."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _at_once(self, batch: Batch) -> Future[list[Any]]:
        answered: Future[list[Any]] = Future()
        try:
            answered.set_result(self.ask(self._wanted(batch), [entry.question for entry in batch]))
        except Exception as error:
            answered.set_exception(error)
        return answered

    def _wanted(self, batch: Batch) -> Wanted:
        return lambda position: any(map(self._waits, batch[position].askers))

    def _enqueue(self, entry: Open, turn: int = 0) -> None:
        place = self._place + (turn if self.concurrency > 1 else 0)
        heapq.heappush(self._queue, (place, next(self._numbers), entry))
        self.waiting += 1
        self.rows += entry.rows

    def _first(self) -> Open | None:
        """What comes up next."""
        while self._queue and self._queue[0][2].withdrawn:
            heapq.heappop(self._queue)
        return self._queue[0][2] if self._queue else None

    def _take(self) -> Batch:
        """Questions for one batch: as many as fit, at least one."""
        batch: Batch = []
        rows = 0
        while (entry := self._first()) is not None and not (batch and (batch[0].alone or entry.alone)):
            if batch and rows + entry.rows > self.size:
                break
            self._place = heapq.heappop(self._queue)[0]
            entry.launched = True
            rows += entry.rows
            batch.append(entry)
        self.rows -= rows
        self.waiting -= len(batch)
        return batch
