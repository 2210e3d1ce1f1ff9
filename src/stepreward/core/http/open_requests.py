"""Requests that wait for a server's answer, and when each last received an event."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

STUCK = 30.0
"""Seconds without an event after which a request counts as stuck."""


@dataclass(eq=False)
class OpenRequest:
    """One request."""

    last_event: float
    """When its last event came, or it began, on the monotonic clock."""

    @property
    def silent(self) -> float:
        """Seconds since then."""
        return time.monotonic() - self.last_event


class OpenRequests:
    """Counts requests; can be read from any thread."""

    def __init__(self) -> None:
        self._requests: set[OpenRequest] = set()

    @contextmanager
    def one(self) -> Iterator[OpenRequest]:
        """A request, from its start to its end."""
        request = OpenRequest(time.monotonic())
        self._requests.add(request)
        try:
            yield request
        finally:
            self._requests.discard(request)

    @property
    def count(self) -> int:
        """Open requests."""
        return len(self._requests)

    @property
    def stuck(self) -> int:
        """Requests without an event for `STUCK` seconds."""
        return sum(request.silent > STUCK for request in self._requests.copy())
