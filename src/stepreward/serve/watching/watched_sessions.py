"""Runs that are being watched, within a limit of memory."""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict

from stepreward.core.types import Step
from stepreward.score.monitor.run_monitor import RunWatcher
from stepreward.serve.requests.http_errors import ApiError


class WatchedSession:
    """One run, which requests may go on with one after the other.

    Args:
        watcher: of the run.
    """

    def __init__(self, watcher: RunWatcher) -> None:
        self.watcher, self.turn = watcher, asyncio.Lock()
        self.steps: tuple[Step, ...] = ()
        """So far, where a model has to read them."""
        self.size = 0
        """Bytes that were counted of it."""


class Sessions:
    """Watched runs by their handles; those that went on longest ago are removed first.

    Args:
        most: bytes.
    """

    def __init__(self, most: int = 256 << 20) -> None:
        self.most, self.size = most, 0
        self._kept: OrderedDict[str, WatchedSession] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, handle: str) -> WatchedSession:
        """The run of a handle.

        Raises:
            ApiError: 404, it is not, or no longer, known.
        """
        if handle not in self._kept:
            what = "this run is not kept: send all of its turns, without a session"
            raise ApiError(404, what, param="session", code="gone")
        self._kept.move_to_end(handle)
        return self._kept[handle]

    def put(self, session: WatchedSession) -> str:
        """The handle of a new run; it cannot be guessed."""
        handle = f"run-{secrets.token_urlsafe(18)}"
        self._kept[handle] = session
        self.count(handle)
        return handle

    def count(self, handle: str) -> None:
        """Counts the bytes of a run anew, and makes room."""
        if handle not in self._kept:
            return
        session = self._kept[handle]
        size = session.watcher.size + sum(len(step.text) for step in session.steps)
        self.size += size - session.size
        session.size = size
        # The latest stays, however large: its client would otherwise get a handle that is gone already.
        while self.size > self.most and len(self._kept) > 1:
            self.size -= self._kept.popitem(last=False)[1].size
