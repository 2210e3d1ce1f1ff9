"""Requests to servers over HTTP: faults that may pass are retried, others are reported with a remedy.

Every request of the package to a model's server goes through `ServerClient`; the hub's own library fetches models.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import httpx

from stepreward.core.errors import SteprewardError
from stepreward.core.http.addresses import without_secrets
from stepreward.core.http.event_streams import EventStream
from stepreward.core.http.faults import REFUSED_BODY, PassingError, RefusedError, UnwantedError, check_status, passing
from stepreward.core.http.interruptible import CHECK_INTERVAL, Check, checking
from stepreward.core.http.open_requests import OpenRequest, OpenRequests
from stepreward.core.http.routing import Route, Servers
from stepreward.core.http.server import Server

T = TypeVar("T")
LONGEST_WAIT = 60.0
"""Most seconds between two tries, whatever a server demands."""
LONGEST_PAUSE = 10.0
"""Most seconds between two tries where the server demands nothing."""


def _without_parameters(record: logging.LogRecord) -> bool:
    record.msg, record.args = without_secrets(record.getMessage()), ()
    return True


# httpx logs the address of each request with its parameters, which may be secret.
logging.getLogger("httpx").addFilter(_without_parameters)


class ServerClient:
    """Sends requests to a server: sends them again after faults that may pass, and ends those that take too long.

    Where there are several servers of the model, a request that one of them fails goes to another at once; pauses are
    made when none is left. Pauses between tries grow, are random so that clients do not return together, and give way
    to the server's `Retry-After`. Threads may share a client.

    Args:
        server: where it is, with `others`, and how often and how long to try.
        error: the class of what is raised.
        refused: the class where the server refuses a body and may accept another; `error` where None.
        sleep: waits.
        draw: a number in [0, 1) for each pause.
    """

    def __init__(
        self,
        server: Server,
        error: type[SteprewardError],
        *,
        refused: type[SteprewardError] | None = None,
        sleep: Callable[[float], None] = time.sleep,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.server, self.error, self._sleep, self._draw = server, error, sleep, draw
        self._refused = refused or error
        self.servers, self._streams = Servers(server.each), OpenRequests()
        self._has_answered = False
        """Whether a server has answered once."""

    @property
    def open_streams(self) -> int:
        """Streams that are open now."""
        return self._streams.count

    @property
    def stuck_streams(self) -> int:
        """Open streams without an event for 30 seconds: silent, or with comments alone."""
        return self._streams.stuck

    def json(self, path: str, body: Mapping[str, Any], *, start: str = "") -> Any:
        """The JSON that a server answers a body with.

        Args:
            path: of the interface, such as `pooling`.
            body: JSON.
            start: what the request shares with others whose cache it should find; they go to the same server.

        Raises:
            SteprewardError: of the class given, where the server fails after all tries, refuses, or sends no JSON.
        """

        def attempt(route: Route) -> tuple[httpx.Response, str]:
            with self.servers.one(route) as chosen, checking(self._time_limit()):
                url = chosen.server.at(path)
                try:
                    answer = chosen.client.post(url, json=body)
                except httpx.TransportError as error:
                    raise passing(error) from error
                check_status(answer, url)
                self._has_answered = True
                return answer, url

        answer, url = self.retried(attempt, path, start=start)
        try:
            return answer.json()
        except ValueError as error:
            raise self.error(self.server.hidden(f"{url} answered with no JSON: {answer.text[:200]}")) from error

    @contextmanager
    def stream(
        self, route: Route, path: str, body: Mapping[str, Any], wanted: Callable[[], bool] | None = None
    ) -> Iterator[EventStream]:
        """One try at a request whose answer is read as it comes; leaving the context closes the connection.

        Waits for a place among the open requests first.

        Args:
            route: by which a server is chosen.
            path: of the interface.
            body: JSON.
            wanted: whether the answer is still wanted.

        Raises:
            PassingError: a fault that may pass, also from reading the stream.
            UnwantedError: the answer is not wanted any more.
            RefusedError: the server refuses the body.
        """
        with self.servers.one(route, wanted) as chosen, self._streams.one() as request:
            check, url = self._stream_check(request, wanted), chosen.server.at(path)
            with checking(check), ExitStack() as stack:
                try:
                    response = stack.enter_context(chosen.client.stream("POST", url, json=body))
                    if response.status_code != 200:
                        response.read()
                except httpx.TransportError as error:
                    raise passing(error) from error
                check_status(response, url)
                self._has_answered = True
                yield EventStream(response, request, check, url)

    def retried(
        self, attempt: Callable[[Route], T], path: str, wanted: Callable[[], bool] | None = None, *, start: str = ""
    ) -> T:
        """What `attempt` returns the first time that it meets no passing fault.

        Args:
            attempt: one try at the server that a route leads to; a fault that may pass is a `PassingError`.
            path: of the interface, for the error's text.
            wanted: whether the answer is still wanted.
            start: as for `json`.

        Raises:
            SteprewardError: of the class given, after the last try.
            UnwantedError: the answer is not wanted any more.
        """
        began, waited, tried, route = time.monotonic(), 0.0, 0, Route(start)
        while True:
            if wanted is not None and not wanted():
                raise UnwantedError
            try:
                return attempt(route)
            except PassingError as error:
                fault = error
            except RefusedError as error:
                raised = self._refused if error.status in REFUSED_BODY else self.error
                raise raised(self.server.hidden(str(error))) from error
            except (self.error, self._refused) as error:
                raise type(error)(self.server.hidden(str(error))) from error
            if self.servers.another(route):
                continue
            # A server that answered before and is absent now loads its model again, which takes longer than retries.
            restarting = fault.absent and self._has_answered and waited < self.server.patience
            tried += 1
            if not (restarting or tried <= self.server.retries) or time.monotonic() - began > self.server.longest:
                raise self.error(self.server.hidden(self._given_up(route, path, tried, fault)))
            route.failed.clear()
            waited += self._wait_to_retry(tried, fault.wait, wanted)

    def _given_up(self, route: Route, path: str, tried: int, fault: PassingError) -> str:
        """Which server failed last, and how."""
        url = (self.server if route.last is None else route.last.server).at(path)
        if not self.server.others:
            return f"{url} failed {tried} times, last with {fault}; is the server up and its model loaded?"
        return (
            f"none of {len(self.server.each)} servers answers, in {tried} rounds of tries; last {url} failed with "
            f"{fault}; are they up and their models loaded?"
        )

    def _time_limit(self) -> Check:
        """Ends a request, begun now, that takes too long."""
        end = time.monotonic() + self.server.longest

        def check() -> None:
            if time.monotonic() > end:
                raise PassingError(f"the answer took longer than {self.server.longest:g} seconds")

        return check

    def _stream_check(self, request: OpenRequest, wanted: Callable[[], bool] | None) -> Check:
        """Ends a stream that is not wanted, that takes too long, or that sends bytes without events."""
        limit = self._time_limit()

        def check() -> None:
            if wanted is not None and not wanted():
                raise UnwantedError
            limit()
            if request.silent > self.server.timeout:
                raise PassingError(f"no event in {self.server.timeout:g} seconds, only comments or half a line")

        return check

    def _wait_to_retry(self, tried: int, wait: float | None, wanted: Callable[[], bool] | None) -> float:
        """Waits before another try; returns the seconds."""
        longest = min(self.server.backoff * 2.0 ** min(tried - 1, 30), LONGEST_PAUSE)
        pause = self._draw() * longest if wait is None else wait + self._draw() * self.server.backoff
        pause = left = min(pause, LONGEST_WAIT)
        # A pause may be a minute: check in between whether the answer is still wanted.
        while wanted is not None and left > CHECK_INTERVAL and wanted():
            self._sleep(CHECK_INTERVAL)
            left -= CHECK_INTERVAL
        if wanted is None or wanted():
            self._sleep(left)
        return pause
