"""Where a model is served: one address, or those of several servers of the same model."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import httpx

from stepreward.core.errors import InputError
from stepreward.core.http.addresses import SEVERAL
from stepreward.core.http.interruptible import with_checks

CONNECT = 15.0
"""Most seconds that a connection may take, and a server may leave a request unread."""
_certificates = cache(httpx.create_ssl_context)
"""The certificates to trust, read once: that is nearly all the time it takes to build a client."""
_HIDDEN = "***"
_SHORTEST_SECRET = 4
"""Letters below which a secret is not searched in texts: it would match everywhere."""


@dataclass(frozen=True)
class Server:
    """Where a server is, and how often and how long to try."""

    url: str
    """Such as http://localhost:8000; a path behind it is kept, such as the /v1 of OpenAI's interface. A user and
    password in it, and what follows a `?`, go with each request but are taken out of `url`: they are shown nowhere.
    Several addresses with commas between are `others` of the same model."""
    model: str
    """Name of the model on the server."""
    api_key: str = field(default="", repr=False)
    concurrency: int = 16
    """Most open requests to each server."""
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
    place: str = ""
    """What stands for the address in names of caches, so that paid answers are found where addresses change; the first
    address where empty. Equal places and models promise equal answers."""
    others: tuple[Server, ...] = ()
    """Further servers of the same model, taken from `url`: each answers as this one does."""

    def __post_init__(self) -> None:
        if self.concurrency < 1 or self.retries < 0 or min(self.timeout, self.longest) <= 0 or self.backoff < 0:
            raise ValueError("concurrency and timeouts must be positive, retries and backoff not negative")
        first, *more = SEVERAL.split(self.url)
        if more:
            object.__setattr__(self, "url", first)
            object.__setattr__(self, "others", tuple(replace(self, url=one, others=()) for one in more))
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
        if len({one.url for one in self.each}) < len(self.each):
            raise InputError(f"{self.url} and others: an address is given twice", remedy="name each server once")

    @property
    def each(self) -> tuple[Server, ...]:
        """All servers of the model, this one first."""
        return (self, *self.others)

    @property
    def places(self) -> int:
        """Most open requests to all of them."""
        return sum(one.concurrency for one in self.each)

    @property
    def known_as(self) -> str:
        """The model and where it is, for names of caches."""
        return f"{self.model} at {self.place or self.url}"

    def at(self, path: str) -> str:
        """The address of one of its interfaces; `/v1` that ends the server's and begins the path's is there once."""
        base, path = self.url.rstrip("/"), path.lstrip("/")
        return f"{base.removesuffix('/v1') if path.startswith('v1/') else base}/{path}"

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
        """A text for people: one line, without the servers' secrets and without control characters."""
        every = ((one.api_key, *(one.login or ()), *(value for _, value in one.query)) for one in self.each)
        secrets = [secret for some in every for secret in some]
        for secret in sorted(secrets, key=len, reverse=True):
            if len(secret) >= _SHORTEST_SECRET:
                text = text.replace(secret, _HIDDEN).replace(quote(secret, safe=""), _HIDDEN)
        return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(text.split()))
