"""Requests to servers over HTTP: faults that may pass are retried, others are reported with a remedy.

Every request of the package to a model's server goes through `ServerClient`; the hub's own library fetches models.
"""

from __future__ import annotations

import logging
import random
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from threading import BoundedSemaphore
from typing import Any, TypeVar
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import httpx

from stepreward.core.errors import InputError, SteprewardError
from stepreward.core.http.addresses import without_secrets
from stepreward.core.http.event_streams import EventStream
from stepreward.core.http.faults import REFUSED_BODY, PassingError, RefusedError, UnwantedError, check_status, passing
from stepreward.core.http.interruptible import CHECK_INTERVAL, Check, checking, with_checks
from stepreward.core.http.open_requests import OpenRequest, OpenRequests

T = TypeVar("T")
LONGEST_WAIT = 60.0
"""Most seconds between two tries, whatever a server demands."""
LONGEST_PAUSE = 10.0
"""Most seconds between two tries where the server demands nothing."""
CONNECT = 15.0
"""Most seconds that a connection may take, and a server may leave a request unread."""
_certificates = cache(httpx.create_ssl_context)
"""The certificates to trust, read once: that is nearly all the time it takes to build a client."""
_HIDDEN = "***"
_SHORTEST_SECRET = 4
"""Letters below which a secret is not searched in texts: it would match everywhere."""


def _without_parameters(record: logging.LogRecord) -> bool:
    record.msg, record.args = without_secrets(record.getMessage()), ()
    return True


# httpx logs the address of each request with its parameters, which may be secret.
logging.getLogger("httpx").addFilter(_without_parameters)


@dataclass(frozen=True)
class Server:
    """Where a server is, and how often and how long to try."""

    url: str
    """Such as http://localhost:8000; a path behind it is kept, such as the /v1 of OpenAI's interface. A user and
    password in it, and what follows a `?`, go with each request but are taken out of `url`: they are shown nowhere."""
    model: str
    """Name of the model on the server."""
    api_key: str = field(default="", repr=False)
    concurrency: int = 16
    """Most open requests."""
    timeout: float = 120.0
    """Seconds without a byte, or without an event of a stream, after which a request has failed."""
    longest: float = 900.0
    """Seconds after which an unfinished answer has failed, and no further try begins."""
    retries: int = 4
    """Further tries after a fault that may pass."""
    backoff: float = 0.5
    """Seconds before the first further try, at most; each one may wait twice as long, up to 10."""
    patience: float = 90.0
    """Seconds of pauses, at least, before an absent server that answered before is given up."""
    login: tuple[str, str] | None = field(default=None, repr=False)
    """User and password, taken from `url`."""
    query: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """Parameters of each request, taken from `url`."""

    def __post_init__(self) -> None:
        if self.concurrency < 1 or self.retries < 0 or min(self.timeout, self.longest) <= 0 or self.backoff < 0:
            raise ValueError("concurrency and timeouts must be positive, retries and backoff not negative")
        try:
            parts = urlsplit(self.url)
            there = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            there = False
        if not there:
            # The text is not shown: it may hold a password.
            raise InputError(
                "expected the address of a server, such as http://localhost:8000/v1",
                remedy="write special characters of a user or password as %XX",
            )
        login, _, host = parts.netloc.rpartition("@")
        object.__setattr__(self, "url", f"{parts.scheme}://{host}{parts.path}")
        if login:
            user, _, password = login.partition(":")
            object.__setattr__(self, "login", (unquote(user), unquote(password)))
        if parts.query:
            object.__setattr__(self, "query", tuple(parse_qsl(parts.query, keep_blank_values=True)))

    def at(self, path: str) -> str:
        """The address of one of its interfaces."""
        return f"{self.url.rstrip('/')}/{path.lstrip('/')}"

    def client(self) -> httpx.Client:
        """A client that threads may share; `ServerClient` adds retries to it."""
        key = {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        limits = httpx.Limits(max_connections=self.concurrency, max_keepalive_connections=self.concurrency)
        brief = min(self.timeout, CONNECT)
        timeout = httpx.Timeout(self.timeout, connect=brief, write=brief)
        client = httpx.Client(
            timeout=timeout, headers=key, limits=limits, auth=self.login, params=self.query, verify=_certificates()
        )
        return with_checks(client)

    def hidden(self, text: str) -> str:
        """A text for people: one line, without this server's secrets and without control characters."""
        secrets = [self.api_key, *(self.login or ()), *(value for _, value in self.query)]
        for secret in sorted(secrets, key=len, reverse=True):
            if len(secret) >= _SHORTEST_SECRET:
                text = text.replace(secret, _HIDDEN).replace(quote(secret, safe=""), _HIDDEN)
        return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(text.split()))


class ServerClient:
    """Sends requests to a server: sends them again after faults that may pass, and ends those that take too long.

    Pauses between tries grow, are random so that clients do not return together, and give way to the server's
    `Retry-After`. Threads may share a client.

    Args:
        server: where it is, and how often and how long to try.
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
        self._client = server.client()
        # Connections are closed when the client is collected, as it has no `close` that callers must remember.
        weakref.finalize(self, self._client.close)
        self._places, self._streams = BoundedSemaphore(server.concurrency), OpenRequests()
        self._has_answered = False
        """Whether the server has answered once."""

    @property
    def open_streams(self) -> int:
        """Streams that are open now."""
        return self._streams.count

    @property
    def stuck_streams(self) -> int:
        """Open streams without an event for 30 seconds: silent, or with comments alone."""
        return self._streams.stuck

    def json(self, url: str, body: Mapping[str, Any]) -> Any:
        """The JSON that a server answers a body with.

        Raises:
            SteprewardError: of the class given, where the server fails after all tries, refuses, or sends no JSON.
        """

        def attempt() -> httpx.Response:
            with checking(self._time_limit()):
                try:
                    answer = self._client.post(url, json=body)
                except httpx.TransportError as error:
                    raise passing(error) from error
                check_status(answer, url)
                self._has_answered = True
                return answer

        answer = self.retried(attempt, url)
        try:
            return answer.json()
        except ValueError as error:
            raise self.error(self.server.hidden(f"{url} answered with no JSON: {answer.text[:200]}")) from error

    @contextmanager
    def stream(
        self, url: str, body: Mapping[str, Any], wanted: Callable[[], bool] | None = None
    ) -> Iterator[EventStream]:
        """One try at a request whose answer is read as it comes; leaving the context closes the connection.

        Waits for a place among the `concurrency` streams first.

        Args:
            url: where.
            body: JSON.
            wanted: whether the answer is still wanted.

        Raises:
            PassingError: a fault that may pass, also from reading the stream.
            UnwantedError: the answer is not wanted any more.
            RefusedError: the server refuses the body.
        """
        # Waits in slices: a search that has ended must not wait for its turn at the server.
        while not self._places.acquire(timeout=CHECK_INTERVAL):
            if wanted is not None and not wanted():
                raise UnwantedError
        try:
            with self._streams.one() as request:
                check = self._stream_check(request, wanted)
                with checking(check), ExitStack() as stack:
                    try:
                        response = stack.enter_context(self._client.stream("POST", url, json=body))
                        if response.status_code != 200:
                            response.read()
                    except httpx.TransportError as error:
                        raise passing(error) from error
                    check_status(response, url)
                    self._has_answered = True
                    yield EventStream(response, request, check)
        finally:
            self._places.release()

    def retried(self, attempt: Callable[[], T], url: str, wanted: Callable[[], bool] | None = None) -> T:
        """What `attempt` returns the first time that it meets no passing fault.

        Args:
            attempt: one try; a fault that may pass is a `PassingError`.
            url: where, for the error's text.
            wanted: whether the answer is still wanted.

        Raises:
            SteprewardError: of the class given, after the last try.
            UnwantedError: the answer is not wanted any more.
        """
        began, waited, tried = time.monotonic(), 0.0, 0
        while True:
            if wanted is not None and not wanted():
                raise UnwantedError
            try:
                return attempt()
            except PassingError as error:
                fault = error
            except RefusedError as error:
                raised = self._refused if error.status in REFUSED_BODY else self.error
                raise raised(self.server.hidden(str(error))) from error
            except (self.error, self._refused) as error:
                raise type(error)(self.server.hidden(str(error))) from error
            # A server that answered before and is absent now loads its model again, which takes longer than retries.
            restarting = fault.absent and self._has_answered and waited < self.server.patience
            tried += 1
            if not (restarting or tried <= self.server.retries) or time.monotonic() - began > self.server.longest:
                what = f"{url} failed {tried} times, last with {fault}; is the server up and its model loaded?"
                raise self.error(self.server.hidden(what))
            waited += self._wait_to_retry(tried, fault.wait, wanted)

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
