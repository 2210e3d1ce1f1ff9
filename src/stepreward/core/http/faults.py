"""Faults of requests: which may pass, which will not, and how long a server asks to wait."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
"""Statuses after which the same request may succeed."""
ABSENT = frozenset({502, 503, 504})
"""Those that a server, or a proxy before it, sends while the server starts."""
REFUSED_BODY = frozenset({400, 413, 422})
"""Statuses that refuse this body, where another one may succeed."""

HINTS = {
    401: "; pass the API key",
    403: "; pass an API key with access",
    404: "; check the address, with its /v1, and the model's name",
}


class PassingError(Exception):
    """A fault that may pass: the same request may succeed.

    Args:
        fault: what went wrong.
        wait: seconds that the server asks to wait.
        absent: whether the server cannot be reached for now.
        busy: whether it only has too much to do.
    """

    def __init__(self, fault: str, wait: float | None = None, *, absent: bool = False, busy: bool = False) -> None:
        super().__init__(fault)
        self.wait, self.absent, self.busy = wait, absent, busy


class RefusedError(Exception):
    """The server refuses the request, and would refuse it again.

    Args:
        reason: for people.
        status: of the response.
        body: text of the response.
    """

    def __init__(self, reason: str, status: int, body: str) -> None:
        super().__init__(reason)
        self.status, self.body = status, body


class UnwantedError(Exception):
    """Nothing waits for the answer any more."""


def passing(error: httpx.TransportError) -> PassingError:
    """A fault of a connection as one that may pass."""
    absent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
    return PassingError(f"{type(error).__name__}: {error}", absent=absent)


def check_status(answer: httpx.Response, url: str) -> None:
    """Passes a response with status 200.

    Raises:
        PassingError: the same request may succeed later.
        RefusedError: it will not.
    """
    status, head = answer.status_code, " ".join(answer.text.split())[:200] if answer.status_code != 200 else ""
    if status in RETRIED:
        raise PassingError(
            f"status {status}: {head}", retry_after(answer.headers), absent=status in ABSENT, busy=status == 429
        )
    if status != 200:
        raise RefusedError(f"{url} refused with status {status}: {head}{HINTS.get(status, '')}", status, answer.text)


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds that a server asks to wait, in either form of the header; None where it does not say."""
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        until = parsedate_to_datetime(value)
    except (TypeError, ValueError):
        return None
    return max(0.0, (until - (now or datetime.now(UTC))).total_seconds())
