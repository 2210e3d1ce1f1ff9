"""Requests that are under way to a server, and when each was last heard of."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

STUCK = 30.0
"""Seconds without an event after which a request counts as stuck."""


@dataclass(eq=False)
class Flight:
    """One request."""

    heard: float
    """When its last event came, or it began."""

    @property
    def quiet(self) -> float:
        """Seconds since then."""
        return time.monotonic() - self.heard


class UnderWay:
    """Counts requests; may be read from any thread."""

    def __init__(self) -> None:
        self._flights: set[Flight] = set()

    @contextmanager
    def one(self) -> Iterator[Flight]:
        """A request, from its beginning to its end."""
        flight = Flight(time.monotonic())
        self._flights.add(flight)
        try:
            yield flight
        finally:
            self._flights.discard(flight)

    @property
    def count(self) -> int:
        """Requests under way."""
        return len(self._flights)

    @property
    def stuck(self) -> int:
        """Those that were not heard of for `STUCK` seconds."""
        return sum(flight.quiet > STUCK for flight in self._flights.copy())
