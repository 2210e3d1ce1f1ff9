"""Which of several servers of one model gets a request: one that is up, has room, and knows how the request begins."""

from __future__ import annotations

import hashlib
import math
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Condition

import httpx

from stepreward.core.http.faults import PassingError, UnwantedError
from stepreward.core.http.interruptible import CHECK_INTERVAL
from stepreward.core.http.server import Server

SLACK = 1.25
"""Share of the mean load up to which requests with the same start stay together."""
FAULTS = 3
"""Faults in a row after which a server that can be reached counts as down; one that cannot is down at once."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""Seconds before a server that is down is looked at again; each look that fails doubles them."""
LOOK_TIMEOUT = 5.0
"""Seconds that a look may take."""


@dataclass(eq=False)
class Replica:
    """One of the servers, and how it does."""

    server: Server
    client: httpx.Client
    open: int = 0
    """Requests under way."""
    faults: int = 0
    """Faults since it last answered."""
    looked_at: float = math.inf
    """When it is looked at again, on the monotonic clock; infinite while it is up."""
    pause: float = FIRST_PAUSE

    @property
    def up(self) -> bool:
        """Whether requests are sent to it."""
        return self.looked_at == math.inf

    def answers(self) -> bool:
        """Whether it answers anything but a fault of its own; the list of models is what every server has."""
        for _ in range(2):
            try:
                return self.client.get(self.server.at("v1/models"), timeout=LOOK_TIMEOUT).status_code < 500
            except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
                # The server may have closed a connection that was kept; the second look has a new one.
                continue
            except httpx.TransportError:
                return False
        return False


@dataclass
class Route:
    """The way of one request to a server."""

    start: str = ""
    """What it shares with others whose cache it should find."""
    failed: set[Replica] = field(default_factory=set)
    """Servers that have failed it since its last pause."""
    last: Replica | None = None
    """The last of them."""


class Servers:
    """Chooses a server for each request; threads may share it.

    Servers are ranked anew for each start, by a digest of both (rendezvous hashing): requests of one start have the
    same first server, and when it is down the same second one, while the starts of the others stay where they were. The
    first in rank that is up gets the request, unless it has more than `SLACK` times the mean of open requests:
    consistent hashing with bounded loads, arXiv:1608.01350.

    Args:
        servers: of one model.
        clock: seconds.
    """

    def __init__(self, servers: Sequence[Server], *, clock: Callable[[], float] = time.monotonic) -> None:
        self.replicas = [Replica(server, server.client()) for server in servers]
        for replica in self.replicas:
            # Connections are closed when this is collected: there is no `close` that callers must remember.
            weakref.finalize(self, replica.client.close)
        self._clock, self._changed = clock, Condition()

    @contextmanager
    def one(self, route: Route, wanted: Callable[[], bool] | None = None) -> Iterator[Replica]:
        """A server for one try, from its choice to the end of the try; waits until one has room.

        Raises:
            UnwantedError: nothing waits for the answer any more.
        """
        self._look_again()
        with self._changed:
            # Waits in slices: a search that has ended must not wait for its turn at the server.
            while (chosen := self._choice(route)) is None:
                self._changed.wait(CHECK_INTERVAL)
                if wanted is not None and not wanted():
                    raise UnwantedError
            chosen.open += 1
        try:
            yield chosen
        except PassingError as fault:
            route.failed.add(chosen)
            route.last = chosen
            self._note_fault(chosen, fault)
            raise
        else:
            chosen.faults, chosen.pause = 0, FIRST_PAUSE
        finally:
            with self._changed:
                chosen.open -= 1
                self._changed.notify()

    def another(self, route: Route) -> bool:
        """Whether a server is up that has not failed the request since its last pause."""
        return any(replica.up and replica not in route.failed for replica in self.replicas)

    def _choice(self, route: Route) -> Replica | None:
        """The server for a request; None while all that may have it are full."""
        up = [replica for replica in self.replicas if replica.up] or self.replicas
        among = [replica for replica in up if replica not in route.failed] or up
        bound = math.ceil(SLACK * (sum(replica.open for replica in among) + 1) / len(among))
        ranked = sorted(among, key=lambda replica: _rank(route.start, replica.server), reverse=True)
        return next((one for one in ranked if one.open < min(bound, one.server.concurrency)), None)

    def _note_fault(self, replica: Replica, fault: PassingError) -> None:
        """Counts a fault, and takes a server out that is down; one alone, or one that is only busy, stays."""
        replica.faults += not fault.busy
        if len(self.replicas) > 1 and (fault.absent or replica.faults >= FAULTS):
            replica.faults, replica.looked_at = 0, self._clock() + replica.pause

    def _look_again(self) -> None:
        """Takes servers back that answer again; one thread at a time looks at each."""
        for replica in self.replicas:
            with self._changed:
                due = replica.looked_at <= self._clock()
                if due:
                    replica.pause = min(2 * replica.pause, LONGEST_PAUSE)
                    replica.looked_at = self._clock() + replica.pause
            if due and replica.answers():
                replica.looked_at = math.inf


def _rank(start: str, server: Server) -> bytes:
    return hashlib.blake2b(f"{server.url}\0{start}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
