"""Asking servers over HTTP: patient with faults that may pass, plain about those that will not."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import httpx

from stepreward.core.errors import InputError, SteprewardError
from stepreward.core.http.addresses import without_secrets
from stepreward.core.http.interruptible import GLANCE, Look, looking, watch

T = TypeVar("T")
AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
"""Answers after which the same request may succeed."""
AWAY = frozenset({502, 503, 504})
"""Those of them that a server gives, or a proxy before it, while it starts."""
UNFIT = frozenset({400, 413, 422})
"""Answers that refuse this body, where another one may succeed."""
LONGEST_WAIT = 60.0
"""Most seconds waited between two tries, whatever a server asks for."""
LONGEST_PAUSE = 10.0
"""Most seconds waited between two tries where the server asks for nothing."""
CONNECT = 15.0
"""Most seconds that a connection may take, and a server may leave a request unread."""
_HIDDEN = "***"
_SHORTEST_SECRET = 4
"""Letters below which a secret is not looked for in texts: it would be found everywhere."""


def _bare(record: logging.LogRecord) -> bool:
    record.msg, record.args = without_secrets(record.getMessage()), ()
    return True


# It logs the address of each request, parameters included.
logging.getLogger("httpx").addFilter(_bare)


@dataclass(frozen=True)
class Server:
    """Where a server is and how patiently it is asked."""

    url: str
    """Such as http://localhost:8000; a path behind it is kept, such as the /v1 of OpenAI's interface. A user and
    password in it, and what follows a `?`, go with each request but are taken out of `url`: they are shown nowhere."""
    model: str
    """Name under which the server serves the model."""
    api_key: str = field(default="", repr=False)
    concurrency: int = 16
    """Most requests under way at once."""
    timeout: float = 120.0
    """Seconds without a byte, or without an event of a stream, after which a request has failed."""
    longest: float = 900.0
    """Seconds after which an answer that is still coming has failed, and after which no further try begins."""
    retries: int = 4
    """Further tries after a fault that may pass."""
    backoff: float = 0.5
    """Seconds before the first further try, at most; each one may wait twice as long, up to 10."""
    patience: float = 90.0
    """Seconds of pauses, at least, before a server that answered before and is away now is given up."""
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
        """A client that may be shared by threads."""
        key = {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        limits = httpx.Limits(max_connections=self.concurrency, max_keepalive_connections=self.concurrency)
        brief = min(self.timeout, CONNECT)
        timeout = httpx.Timeout(self.timeout, connect=brief, write=brief)
        return watch(httpx.Client(timeout=timeout, headers=key, limits=limits, auth=self.login, params=self.query))

    def hidden(self, text: str) -> str:
        """A text for people: one line, without what is secret here and without what a terminal would obey."""
        secrets = [self.api_key, *(self.login or ()), *(value for _, value in self.query)]
        for secret in sorted(secrets, key=len, reverse=True):
            if len(secret) >= _SHORTEST_SECRET:
                text = text.replace(secret, _HIDDEN).replace(quote(secret, safe=""), _HIDDEN)
        return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(text.split()))


class PassingError(Exception):
    """A fault that may pass: the same request may succeed.

    Args:
        fault: what went wrong.
        wanted: seconds that the server asks to wait.
        away: whether it is one of a server that is not there for a while.
    """

    def __init__(self, fault: str, wanted: float | None = None, *, away: bool = False) -> None:
        super().__init__(fault)
        self.wanted, self.away = wanted, away


class UnwantedError(Exception):
    """Nobody waits for the answer any more."""


class Patience:
    """Tries requests again: pauses grow, are drawn at random so that clients do not return together, and give way to
    what the server asks for in `Retry-After`.

    Args:
        server: how often and how long.
        error: what to raise.
        refused: what to raise where the server refuses a body that another one may fare better than; `error` where
            None.
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
        self.tried_again = 0
        """Further tries so far."""
        self._met = False
        """Whether the server has answered once: only then it is worth waiting for its return."""

    def json(self, client: httpx.Client, url: str, body: Mapping[str, Any]) -> Any:
        """The JSON that a server answers a body with.

        Raises:
            SteprewardError: of the class given, where the server fails after all tries, refuses, or sends no JSON.
        """

        def ask() -> httpx.Response:
            with looking(self.limit()):
                return self.accept(client.post(url, json=body), url)

        answer = self.tries(ask, url)
        try:
            return answer.json()
        except ValueError as error:
            raise self.error(self.server.hidden(f"{url} answered with no JSON: {answer.text[:200]}")) from error

    def limit(self) -> Look:
        """A look that ends a request, begun now, that takes too long."""
        end = time.monotonic() + self.server.longest

        def look() -> None:
            if time.monotonic() > end:
                raise PassingError(f"the answer took longer than {self.server.longest:g} seconds")

        return look

    def tries(self, ask: Callable[[], T], url: str, wanted: Callable[[], bool] | None = None) -> T:
        """What `ask` returns the first time that it meets no passing fault.

        Args:
            ask: one try; a fault that may pass is a `PassingError` or one of httpx's transport.
            url: where, for the error's text.
            wanted: whether anybody still waits for the answer.

        Raises:
            SteprewardError: of the class given, after the last try.
            UnwantedError: the answer is not wanted any more.
        """
        began, waited, tried = time.monotonic(), 0.0, 0
        while True:
            if wanted is not None and not wanted():
                raise UnwantedError
            asked: float | None = None
            try:
                return ask()
            except PassingError as error:
                fault, asked, away = str(error), error.wanted, error.away
            except httpx.TransportError as error:
                fault = f"{type(error).__name__}: {error}"
                away = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
            except (self.error, self._refused) as error:
                raise type(error)(self.server.hidden(str(error))) from error
            rides = away and self._met and waited < self.server.patience
            tried += 1
            if not (rides or tried <= self.server.retries) or time.monotonic() - began > self.server.longest:
                what = f"{url} failed {tried} times, last with {fault}; is the server up and its model loaded?"
                raise self.error(self.server.hidden(what))
            waited += self._pause(tried, asked, wanted)

    def accept(self, answer: httpx.Response, url: str) -> httpx.Response:
        """The answer, if the server did what it was asked.

        Raises:
            PassingError: the same request may succeed later.
            SteprewardError: of the class given, where the server refuses.
        """
        if answer.status_code in AGAIN:
            what = f"status {answer.status_code}: {_head(answer)}"
            raise PassingError(what, retry_after(answer.headers), away=answer.status_code in AWAY)
        if answer.status_code != 200:
            raised = self._refused if answer.status_code in UNFIT else self.error
            raise raised(f"{url} refused with status {answer.status_code}: {_head(answer)}{_hint(answer)}")
        self._met = True
        return answer

    def _pause(self, tried: int, asked: float | None, wanted: Callable[[], bool] | None) -> float:
        """Waits before another try; the seconds."""
        self.tried_again += 1
        longest = min(self.server.backoff * 2.0 ** min(tried - 1, 30), LONGEST_PAUSE)
        pause = self._draw() * longest if asked is None else asked + self._draw() * self.server.backoff
        pause = left = min(pause, LONGEST_WAIT)
        # Where somebody may leave, the pause is cut into pieces, for it may be a minute.
        while wanted is not None and left > GLANCE and wanted():
            self._sleep(GLANCE)
            left -= GLANCE
        if wanted is None or wanted():
            self._sleep(left)
        return pause


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds that a server asks to wait, in either form of the header; None where it does not say."""
    told = headers.get("retry-after")
    if told is None:
        return None
    try:
        return max(0.0, float(told))
    except ValueError:
        pass
    try:
        until = parsedate_to_datetime(told)
    except (TypeError, ValueError):
        return None
    return max(0.0, (until - (now or datetime.now(UTC))).total_seconds())


@contextmanager
def streamed(client: httpx.Client, url: str, body: Mapping[str, Any]) -> Iterator[httpx.Response]:
    """A response whose body is read as it comes; leaving the context closes the connection: the server may stop."""
    with client.stream("POST", url, json=body) as response:
        if response.status_code != 200:
            response.read()
        yield response


def _head(answer: httpx.Response) -> str:
    return " ".join(answer.text.split())[:200]


def _hint(answer: httpx.Response) -> str:
    hints = {
        401: "; pass the API key",
        403: "; pass an API key with access",
        404: "; check the address, with its /v1, and the model's name",
    }
    return hints.get(answer.status_code, "")
