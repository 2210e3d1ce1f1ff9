"""Checks of every request (API key, size, time), and its id, its counters and its line in the log."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from stepreward.serve.counters import Metrics
from stepreward.serve.requests.http_errors import ApiError, raised_at
from stepreward.serve.server_limits import Limits

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = frozenset({"/health"})
"""Paths that need no key."""
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
log = logging.getLogger("stepreward.serve")


class Guard:
    """Wraps an ASGI application.

    Args:
        app: the application.
        keys: API keys, one of which each request must carry; without keys all requests are accepted.
        limits: sizes and times.
        metrics: where requests are counted.
    """

    def __init__(self, app: App, *, keys: Sequence[str], limits: Limits, metrics: Metrics) -> None:
        self.app, self.limits, self.metrics = app, limits, metrics
        self._keys = [key.encode() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request; lifespan and other scopes pass untouched."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        await _Visit(self, scope, receive, send).answer()

    def admits(self, headers: Sequence[tuple[bytes, bytes]]) -> bool:
        """Whether a request carries a valid key; all keys are compared, so that the time reveals none of them."""
        if not self._keys:
            return True
        given = next((value for name, value in headers if name == b"authorization"), b"")
        token = given[7:] if given[:7].lower() == b"bearer " else b""
        return sum(hmac.compare_digest(token, key) for key in self._keys) > 0


class _Visit:
    """One request."""

    def __init__(self, guard: Guard, scope: Scope, receive: Receive, send: Send) -> None:
        self.guard, self.scope, self._receive, self._send = guard, scope, receive, send
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"").decode("latin-1")
        self.id = given if _ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = self.id
        self.began, self.status, self.read, self.whole = time.monotonic(), 0, 0, False
        self.left = self.over = False
        self._patience = self.began + guard.limits.body_seconds

    async def answer(self) -> None:
        fault = ""
        try:
            await self._pass()
        except ClientDisconnect:
            self.left = True
        except Exception as error:  # The outermost boundary: a fault ends its own request only.
            fault = f"{type(error).__name__} at {raised_at(error)}"
            if not self.status:
                await self._refuse(ApiError(500, f"an unexpected error; see the server's log under {self.id}"))
        finally:
            self._count(fault)

    async def _pass(self) -> None:
        guard, scope = self.guard, self.scope
        if scope["path"] not in OPEN and not guard.admits(scope["headers"]):
            await self._refuse(ApiError(401, "no such API key: send Authorization: Bearer KEY", code="invalid_api_key"))
            return
        # A body without this header, as one in chunks, is counted as it arrives.
        announced = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if announced.isdigit() and int(announced[:20]) > guard.limits.body_bytes:
            await self._refuse(ApiError(413, self._too_large(), code="too_large"))
            return
        await guard.app(scope, self.receive, self.send)

    async def receive(self) -> Message:
        # Once the body is here, the next message says that the client has left: it may come at any time.
        if self.whole:
            message = await self._receive()
            self.left = self.left or (message["type"] == "http.disconnect" and not self.over)
            return message
        try:
            async with asyncio.timeout(max(0.0, self._patience - time.monotonic())):
                message = await self._receive()
        except TimeoutError:
            raise HTTPException(408, "the request's body took too long") from None
        if message["type"] == "http.request":
            self.read += len(message.get("body", b""))
            self.whole = not message.get("more_body", False)
            if self.read > self.guard.limits.body_bytes:
                raise HTTPException(413, self._too_large())
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", []), (b"x-request-id", self.id.encode())]
        elif message["type"] == "http.response.body":
            self.over = not message.get("more_body", False)
        # A client that does not read fills the socket's buffer, and sending then waits for it.
        try:
            async with asyncio.timeout(self.guard.limits.body_seconds):
                await self._send(message)
        except TimeoutError:
            self.left = True
            raise ClientDisconnect from None

    async def _refuse(self, error: ApiError) -> None:
        await error.response()(self.scope, self.receive, self.send)

    def _too_large(self) -> str:
        return f"the body is larger than {self.guard.limits.body_bytes:,} bytes: send less at a time"

    def _count(self, fault: str) -> None:
        route = getattr(self.scope.get("route"), "path", "unmatched")
        seconds = time.monotonic() - self.began
        status = "left" if self.left else str(self.status)
        self.guard.metrics.requests.labels(route, status).inc()
        self.guard.metrics.seconds.labels(route).observe(seconds)
        if self.left:
            self.guard.metrics.left.inc()
        line = {"id": self.id, "method": self.scope["method"], "route": route, "status": status}
        line |= {"seconds": round(seconds, 4), "bytes": self.read, **self.scope["state"].get("log_facts", {})}
        log.log(logging.ERROR if fault else logging.INFO, json.dumps(line | ({"fault": fault} if fault else {})))
