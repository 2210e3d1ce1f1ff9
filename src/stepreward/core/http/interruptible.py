"""HTTP reads that can be interrupted: a thread that waits for bytes checks several times a second whether to go on."""

from __future__ import annotations

import ssl
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import httpcore
import httpx

from stepreward.core.errors import ServerWarning

Check = Callable[[], None]
"""Raises if the request must end now."""
CHECK_INTERVAL = 0.25
"""Seconds between two checks."""
_UNWATCHED = (
    f"requests to servers cannot be interrupted while they wait: httpx {httpx.__version__} keeps its connections "
    "elsewhere than the releases tested; pip install 'httpx<0.29'"
)
_check: ContextVar[Check | None] = ContextVar("check", default=None)


@contextmanager
def checking(check: Check) -> Iterator[None]:
    """Calls `check` before and between the reads of this thread's requests; what it raises ends the request."""
    token = _check.set(check)
    try:
        yield
    finally:
        _check.reset(token)


def with_checks(client: httpx.Client) -> httpx.Client:
    """The client, with reads that check.

    A read timeout closes the connection, so that short timeouts cannot serve as checks: the connection's own stream
    must read in slices. httpx has no argument for the network that its pools connect by. With a release of httpx that
    keeps its pools elsewhere, the client works without checks and warns once: a request then ends at its time limits.
    """
    # A transport of our own in place of these would lose the proxies that the environment names.
    try:
        for transport in (client._transport, *client._mounts.values()):
            if isinstance(transport, httpx.HTTPTransport):
                transport._pool._network_backend = _Network(transport._pool._network_backend)
    except AttributeError:
        warnings.warn(_UNWATCHED, ServerWarning, stacklevel=2)
    return client


class _Network(httpcore.NetworkBackend):
    """A network back end whose streams check."""

    def __init__(self, network: httpcore.NetworkBackend) -> None:
        self._network = network

    def connect_tcp(self, *where: Any, **how: Any) -> httpcore.NetworkStream:
        return _InterruptibleStream(self._network.connect_tcp(*where, **how))

    def connect_unix_socket(self, *where: Any, **how: Any) -> httpcore.NetworkStream:
        return _InterruptibleStream(self._network.connect_unix_socket(*where, **how))

    def sleep(self, seconds: float) -> None:
        self._network.sleep(seconds)


class _InterruptibleStream(httpcore.NetworkStream):
    """Reads in slices of `CHECK_INTERVAL` seconds where a check is set."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        check = _check.get()
        if check is None:
            return self._stream.read(max_bytes, timeout)
        end = float("inf") if timeout is None else time.monotonic() + timeout
        while True:
            check()
            left = end - time.monotonic()
            try:
                return self._stream.read(max_bytes, max(min(CHECK_INTERVAL, left), 1e-3))
            except httpcore.ReadTimeout:
                if left <= CHECK_INTERVAL:
                    raise

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, timeout)

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _InterruptibleStream(self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
