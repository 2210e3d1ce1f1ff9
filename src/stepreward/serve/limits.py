"""How much the server takes on, and what it says when that is too much."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from stepreward.serve.errors import ApiError


@dataclass(frozen=True)
class Limits:
    """The most that is taken on."""

    running: int = 64
    """Requests worked on at once."""
    waiting: int = 128
    """Requests that wait for a place; one more is turned away."""
    body_bytes: int = 4 << 20
    """Of a request."""
    body_seconds: float = 30.0
    """For a request's body to come, all of it; also for a client to take what it is sent."""
    head_seconds: float = 10.0
    """For a request's line and headers to come, all of them; a connection that asks nothing is closed then."""
    connections: int = 832
    """Open at once; of more, idle ones are closed, or the new one is told to come back."""
    seconds: float = 300.0
    """Of work on a request, its wait included; a client may ask for less."""
    stuck_seconds: float = 60.0
    """Without an answer of the policy or the scorer, all of whose places are taken, after which /health says so."""
    generated_tokens: int = 1_000_000
    """Generated for a request."""
    samples: int = 4096
    """Continuations asked for a request."""

    def __post_init__(self) -> None:
        if self.waiting < 0 or min(value for name, value in vars(self).items() if name != "waiting") <= 0:
            raise ValueError("limits must be positive; waiting may be 0")


class Admission:
    """Lets requests in: so many at once, so many more in order of arrival, none beyond.

    Args:
        limits: how many.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._places = asyncio.Semaphore(limits.running)
        self.running = self.waiting = 0
        """Requests that have a place, and that wait for one."""
        self._typical = 1.0

    @asynccontextmanager
    async def place(self, deadline: float) -> AsyncIterator[None]:
        """A place to work in, waited for until `deadline` on the monotonic clock.

        Raises:
            ApiError: 429 where too many wait, 503 where the wait took too long.
        """
        if self._places.locked() and self.waiting >= self._limits.waiting:
            raise ApiError(
                429, f"{self.running} requests run and {self.waiting} wait", code="full", retry_after=self._wait()
            )
        await self._entered(deadline)
        began = time.monotonic()
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1
            self._places.release()
            self._typical += 0.1 * (time.monotonic() - began - self._typical)

    async def _entered(self, deadline: float) -> None:
        self.waiting += 1
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                await self._places.acquire()
        except TimeoutError as error:
            raise ApiError(503, "no place came free in time", code="full", retry_after=self._wait()) from error
        finally:
            self.waiting -= 1

    def _wait(self) -> float:
        """Seconds after which a place may be free, from what requests took of late."""
        return min(60.0, self._typical * (self.waiting + 1) / self._limits.running)
