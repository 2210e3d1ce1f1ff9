"""Asking servers over HTTP: patient with faults that may pass, plain about those that will not."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import httpx

from stepreward.core.errors import SteprewardError

T = TypeVar("T")
AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
"""Answers after which the same request may succeed."""
GLANCE = 0.25
"""Seconds of a pause between two looks at whether anybody still waits."""
LONGEST_WAIT = 60.0
"""Most seconds waited between two tries, whatever a server asks for."""


@dataclass(frozen=True)
class Server:
    """Where a server is and how patiently it is asked."""

    url: str
    """Such as http://localhost:8000; a path behind it is kept, such as the /v1 of OpenAI's interface."""
    model: str
    """Name under which the server serves the model."""
    api_key: str = field(default="", repr=False)
    concurrency: int = 16
    """Most requests under way at once."""
    timeout: float = 120.0
    """Seconds without a byte after which a request has failed."""
    longest: float = 900.0
    """Seconds after which an answer that is still coming has failed."""
    retries: int = 4
    """Further tries after a fault that may pass."""
    backoff: float = 0.5
    """Seconds before the first further try, at most; each one may wait twice as long."""

    def __post_init__(self) -> None:
        if self.concurrency < 1 or self.retries < 0 or min(self.timeout, self.longest) <= 0 or self.backoff < 0:
            raise ValueError("concurrency and timeouts must be positive, retries and backoff not negative")

    def at(self, path: str) -> str:
        """The address of one of its interfaces."""
        return f"{self.url.rstrip('/')}/{path.lstrip('/')}"

    def client(self) -> httpx.Client:
        """A client that may be shared by threads."""
        key = {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        limits = httpx.Limits(max_connections=self.concurrency, max_keepalive_connections=self.concurrency)
        return httpx.Client(timeout=self.timeout, headers=key, limits=limits)


class PassingError(Exception):
    """A fault that may pass: the same request may succeed.

    Args:
        fault: what went wrong.
        wanted: seconds that the server asks to wait.
    """

    def __init__(self, fault: str, wanted: float | None = None) -> None:
        super().__init__(fault)
        self.wanted = wanted


class UnwantedError(Exception):
    """Nobody waits for the answer any more."""


class Patience:
    """Tries requests again: pauses grow, are drawn at random so that clients do not return together, and give way to
    what the server asks for in `Retry-After`.

    Args:
        server: how often and how long.
        error: what to raise.
        sleep: waits.
        draw: a number in [0, 1) for each pause.
    """

    def __init__(
        self,
        server: Server,
        error: type[SteprewardError],
        *,
        sleep: Callable[[float], None] = time.sleep,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.server, self.error, self._sleep, self._draw = server, error, sleep, draw
        self.tried_again = 0
        """Further tries so far."""

    def json(self, client: httpx.Client, url: str, body: Mapping[str, Any]) -> Any:
        """The JSON that a server answers a body with.

        Raises:
            SteprewardError: of the class given, where the server fails after all tries, refuses, or sends no JSON.
        """
        answer = self.tries(lambda: self.accept(client.post(url, json=body), url), url)
        try:
            return answer.json()
        except ValueError as error:
            raise self.error(f"{url} answered with no JSON: {answer.text[:200]}") from error

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
        for tried in range(self.server.retries + 1):
            if wanted is not None and not wanted():
                raise UnwantedError
            asked: float | None = None
            try:
                return ask()
            except PassingError as error:
                fault, asked = str(error), error.wanted
            except httpx.TransportError as error:
                fault = f"{type(error).__name__}: {error}"
            self._again(tried, fault, url, asked, wanted)
        raise AssertionError("the last try raises")

    def accept(self, answer: httpx.Response, url: str) -> httpx.Response:
        """The answer, if the server did what it was asked.

        Raises:
            PassingError: the same request may succeed later.
            SteprewardError: of the class given, where the server refuses.
        """
        if answer.status_code in AGAIN:
            raise PassingError(f"status {answer.status_code}: {_head(answer)}", retry_after(answer.headers))
        if answer.status_code != 200:
            raise self.error(f"{url} refused with status {answer.status_code}: {_head(answer)}{_hint(answer)}")
        return answer

    def _again(self, tried: int, fault: str, url: str, asked: float | None, wanted: Callable[[], bool] | None) -> None:
        if tried >= self.server.retries:
            raise self.error(
                f"{url} failed {tried + 1} times, last with {fault}; is the server up and its model loaded?"
            )
        self.tried_again += 1
        longest = self.server.backoff * 2**tried
        pause = self._draw() * longest if asked is None else asked + self._draw() * self.server.backoff
        left = min(pause, LONGEST_WAIT)
        # Where somebody may leave, the pause is cut into pieces, for it may be a minute.
        while wanted is not None and left > GLANCE and wanted():
            self._sleep(GLANCE)
            left -= GLANCE
        if wanted is None or wanted():
            self._sleep(left)


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
