"""Admission: how many requests run at once, how many wait, and the answer to those beyond."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from stepreward.serve.requests.http_errors import ApiError
from stepreward.serve.server_limits import Limits


class Admission:
    """Admits requests: `running` at once, `waiting` more in order of arrival, none beyond.

    Args:
        limits: of the server.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._places = asyncio.Semaphore(limits.running)
        self.running = self.waiting = 0
        """Requests that have a place, and that wait for one."""
        self._typical = 1.0
        """Moving average of the seconds of a request."""

    @asynccontextmanager
    async def place(self, deadline: float) -> AsyncIterator[None]:
        """A place to work in, waited for until `deadline` on the monotonic clock.

        Raises:
            ApiError: 429 where too many wait, 503 where the wait took too long.
        """
        # Refused at once, with a time to come back: a longer queue would end in timeouts.
        if self._places.locked() and self.waiting >= self._limits.waiting:
            raise ApiError(
                429, f"{self.running} requests run and {self.waiting} wait", code="full", retry_after=self._wait()
            )
        self.waiting += 1
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                await self._places.acquire()
        except TimeoutError as error:
            raise ApiError(503, "no place became free in time", code="full", retry_after=self._wait()) from error
        finally:
            self.waiting -= 1
        began = time.monotonic()
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1
            self._places.release()
            self._typical += 0.1 * (time.monotonic() - began - self._typical)

    def _wait(self) -> float:
        """Seconds after which a place may be free, from the average of recent requests."""
        return min(60.0, self._typical * (self.waiting + 1) / self._limits.running)
