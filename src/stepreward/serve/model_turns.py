"""A fair lock for a model that several threads use, and a check whether a client still waits."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from stepreward.serve.requests.http_errors import ApiError

Check = Callable[[], None]
"""Raises once some work is not wanted any more; the working thread calls it between the parts of the work."""
_LOOK = 0.1
"""Seconds between two checks of a waiting thread."""


class Turns:
    """A lock in order of arrival, so that short work runs between two parts of long work."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._queue: deque[object] = deque()

    @contextmanager
    def turn(self, check: Check = lambda: None) -> Iterator[None]:
        """Holds the lock.

        Args:
            check: called while the thread waits, and once it has the lock; an error from it releases the lock.
        """
        mine = object()
        with self._changed:
            self._queue.append(mine)
        try:
            with self._changed:
                # A wait with a timeout: a client may leave, which notifies no waiting thread.
                while self._queue[0] is not mine:
                    check()
                    self._changed.wait(_LOOK)
            check()
            yield
        finally:
            with self._changed:
                self._queue.remove(mine)
                self._changed.notify_all()


class Watch:
    """Whether a client still waits for some work.

    Args:
        deadline: when it stops waiting, on the monotonic clock.
    """

    def __init__(self, deadline: float) -> None:
        self._deadline, self._left = deadline, threading.Event()

    def leave(self) -> None:
        """Notes that the client has left."""
        self._left.set()

    def check(self) -> None:
        """Raises if the work is not wanted any more.

        Raises:
            ApiError: the client has left, or its time is over.
        """
        if self._left.is_set():
            raise ApiError(499, "the client left", code="left")
        if time.monotonic() > self._deadline:
            raise ApiError(504, "the request took longer than this server allows: send less at a time", code="timeout")
