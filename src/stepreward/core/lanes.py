"""Lanes: the open questions for one answerer, each once, and the batches on their way to it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from stepreward.core.flows import Compare, Propose, Score

Asked = Propose | Score | Compare
"""Questions that are answered in batches."""
Wanted = Callable[[], bool]
"""Whether anybody still waits for an answer; may be called from any thread."""
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

    @property
    def rows(self) -> int:
        """What it counts in a batch."""
        return self.question.n if isinstance(self.question, Propose) else 1


Batch = list[Open]


class Lane:
    """The questions for one answerer.

    Args:
        size: rows of a full batch.
        concurrency: most batches under way at once.
        ask: answers a batch.
        landed: told of each batch that was answered in another thread, from that thread.
        threads: answer in other threads even where one batch at a time is all there may be.
    """

    def __init__(
        self, size: int, concurrency: int, ask: Ask, landed: Callable[[Future[list[Any]]], None], *, threads: bool
    ) -> None:
        self.size, self.concurrency, self.ask, self._landed = size, concurrency, ask, landed
        self.queue: deque[Open] = deque()
        self.rows = 0
        """Rows in the queue."""
        self.flying: dict[Future[list[Any]], Batch] = {}
        self._open: dict[str, Open] = {}
        self._pool = ThreadPoolExecutor(concurrency) if threads or concurrency > 1 else None

    @property
    def hungry(self) -> bool:
        """True while more open questions would make fuller batches."""
        waiting = len(self.queue) + len(self.flying)
        return self.rows < self.size * self.concurrency or waiting < self.concurrency

    def push(self, name: str, question: Asked, asker: Any) -> Open:
        """Opens a question, or joins an equal one that is open."""
        if name not in self._open:
            self._open[name] = Open(name, question)
            self._enqueue(self._open[name])
        self._open[name].askers.append(asker)
        return self._open[name]

    def withdraw(self, entry: Open, asker: Any) -> None:
        """Takes an asker back; a question without one is not asked any more, and no new asker joins it."""
        entry.askers = [one for one in entry.askers if one != asker]
        if entry.askers:
            return
        if self._open.get(entry.name) is entry:
            del self._open[entry.name]
        if not entry.launched:
            self.queue.remove(entry)
            self.rows -= entry.rows

    def launch(self, *, partial: bool) -> list[tuple[Batch, list[Any]]]:
        """Starts what may start; returns what was answered at once (an answerer without threads).

        Args:
            partial: also a batch that is not full.
        """
        if self._pool is None:
            if not self.queue or not (partial or self.rows >= self.size):
                return []
            batch = self._take()
            return [(batch, self.ask(_always, [entry.question for entry in batch]))]
        while self.queue and len(self.flying) < self.concurrency and (partial or self.rows >= self.size):
            batch = self._take()
            future = self._pool.submit(self.ask, _any_asker(batch), [entry.question for entry in batch])
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

    def _enqueue(self, entry: Open) -> None:
        self.queue.append(entry)
        self.rows += entry.rows

    def _take(self) -> Batch:
        """Questions for one batch: as many as fit, at least one."""
        batch: Batch = []
        rows = 0
        while self.queue and not (batch and (batch[0].alone or self.queue[0].alone)):
            if batch and rows + self.queue[0].rows > self.size:
                break
            entry = self.queue.popleft()
            entry.launched = True
            rows += entry.rows
            batch.append(entry)
        self.rows -= rows
        return batch


def _always() -> bool:
    return True


def _any_asker(batch: Batch) -> Wanted:
    return lambda: any(entry.askers for entry in batch)
