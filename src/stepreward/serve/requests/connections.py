"""Limits on connections: how many, how long a request's headers may be, and how long they may take to arrive."""

from __future__ import annotations

import asyncio
import faulthandler
import os
from functools import partial
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from stepreward.serve.requests.guard import Receive, Scope, Send
from stepreward.serve.requests.http_errors import ApiError
from stepreward.serve.server_limits import Limits

HEAD_BYTES = 64 << 10
"""Most bytes of a request's line and headers."""
IDLE = 1.0
"""Seconds without a request after which a connection may be closed to make room for another."""
LINGER = 2.0
"""Seconds in which the rest of a refused body is read: a client may read the answer only after it has sent all."""
_FULL = ApiError(503, "the server has no free connection: try again", code="full", retry_after=1)
SPARE = 8
"""Up to this many times the limit, further connections are answered with status 503; beyond that they are closed."""


def doors(limits: Limits) -> type[asyncio.Protocol]:
    """The protocol that uvicorn runs for each connection, as its argument `http`.

    Args:
        limits: of connections, and of the time that a head may take.
    """
    return cast(type[asyncio.Protocol], partial(Door, limits))


async def full(scope: Scope, receive: Receive, send: Send) -> None:
    """The application of a connection beyond the limit: 503 with `Retry-After`."""
    response = _FULL.response()
    response.headers["Connection"] = "close"
    await response(scope, receive, send)


class Door(HttpToolsProtocol):
    """uvicorn's protocol with limits on the time and size of a request's line and headers (its head).

    A head has `head_seconds` in all, however slowly it arrives, and `HEAD_BYTES`. Beyond the limit of connections the
    one that is idle longest is closed; where none is idle, the new one is answered with status 503 at its first
    request.

    Args:
        limits: of connections and seconds.
        given: uvicorn's own arguments.
    """

    def __init__(self, limits: Limits, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._limits, self._served = limits, self.app
        self._timer: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._awaits_head, self._turned_away, self._read = True, False, 0
        self._idle_since = self.loop.time()

    @property
    def idle(self) -> bool:
        """Whether no request is running."""
        return self._awaits_head and (self.cycle is None or self.cycle.response_complete)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._arm()
        if len(self.connections) <= self._limits.connections or self._made_room():
            return
        # It is answered at its first request: a client that reads no answer could not know that it may try again.
        self._turned_away = True
        if len(self.connections) > SPARE * self._limits.connections:
            self._refuse(_FULL)

    def pause_writing(self) -> None:
        """The client does not read its answer: after `body_seconds` its connection is closed."""
        super().pause_writing()
        self._unread = self._unread or self.loop.call_later(self._limits.body_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has read."""
        self._stop_write_timer()
        super().resume_writing()

    def _stop_write_timer(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._stop_write_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._awaits_head:
            self._read += len(data)
            # One timer for the whole head: a byte now and then must not hold a connection open.
            if self._timer is None:
                self._arm()
        if self.transport.is_closing():
            return
        super().data_received(data)
        if self._awaits_head and self._read > HEAD_BYTES and not self.transport.is_closing():
            self._refuse(ApiError(431, f"the headers are larger than {HEAD_BYTES:,} bytes", code="too_large"))

    def on_headers_complete(self) -> None:
        self._disarm()
        self._awaits_head, self._read = False, 0
        # httptools calls this before uvicorn starts the request's task, which runs whatever `app` is then.
        crowded = self._turned_away or len(self.tasks) >= self._limits.connections
        self.app = cast(Any, full) if crowded else self._served
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._awaits_head = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self._idle_since = self.loop.time()
        super().on_response_complete()
        # The answer came before the end of the body, as to one that is too large. To close at once would reset the
        # connection, and a client that still sends would lose the answer.
        if not self._awaits_head and not self.transport.is_closing():
            self.loop.call_later(LINGER, self.transport.close)

    def send_400_response(self, msg: str) -> None:
        """Answers a request that is no HTTP, in the form of all errors."""
        self._refuse(ApiError(400, msg))

    def _made_room(self) -> bool:
        """Closes the connection that is idle longest; False where none is."""
        # A connection that has just become idle is spared: its client may be about to send the next request.
        now = self.loop.time()
        others = [one for one in self.connections if isinstance(one, Door) and one is not self]
        waiting = [one for one in others if one.idle and now - one._idle_since >= IDLE]
        if not waiting:
            return False
        min(waiting, key=lambda one: one._idle_since).transport.abort()
        return True

    def _arm(self) -> None:
        self._timer = self.loop.call_later(self._limits.head_seconds, self._late)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._timer = None
        if not self.idle:  # An answer is being sent: the time of the next head begins after it.
            self._arm()
        elif self._read:
            self._refuse(ApiError(408, "the request's head took too long", code="timeout"))
        else:
            self.transport.close()

    def _refuse(self, error: ApiError) -> None:
        """Answers without an application, and closes the connection."""
        self._disarm()
        response = error.response()
        response.headers["Connection"] = "close"
        headers = b"".join(b"%s: %s\r\n" % pair for pair in response.raw_headers)
        self.transport.write(b"HTTP/1.1 %d \r\n%s\r\n%s" % (error.status, headers, bytes(response.body)))
        self.transport.close()


class Ends(uvicorn.Server):
    """A server that ends at a signal, even if one of its threads hangs.

    Args:
        config: with `timeout_graceful_shutdown`.
    """

    SLACK = 5.0
    """Seconds, beyond the time for running requests, for everything else to end."""

    def handle_exit(self, sig: int, frame: Any) -> None:
        # A second signal ends the server by uvicorn's own rule.
        if not self.should_exit:
            # faulthandler's timer runs in C: neither a thread that hangs nor the interpreter's lock can block it.
            seconds = float(self.config.timeout_graceful_shutdown or 0) + self.SLACK
            with open(os.devnull, "w") as nowhere:
                faulthandler.dump_traceback_later(seconds, exit=True, file=os.dup(nowhere.fileno()))
        super().handle_exit(sig, frame)
