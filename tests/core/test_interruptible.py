"""Interruptible reads of HTTP, with the installed release of httpx and one that keeps its connections elsewhere."""

from __future__ import annotations

import socket
import threading
import time
import warnings

import httpx
import pytest

from stepreward.core.errors import ServerWarning
from stepreward.core.http.interruptible import checking, with_checks


class Left(Exception):  # noqa: N818 - what a check raises is its own
    """Raised by a check."""


def test_a_request_to_a_silent_server_is_left_at_a_check() -> None:
    gone = threading.Event()

    def check() -> None:
        if gone.is_set():
            raise Left

    threading.Timer(0.3, gone.set).start()
    start = time.monotonic()
    # It accepts connections, as a server that hangs does, and says nothing.
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        warnings.catch_warnings(action="error"),
        with_checks(httpx.Client(timeout=60, trust_env=False)) as client,
        checking(check),
        pytest.raises(Left),
    ):
        client.get(f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert time.monotonic() - start < 30


def test_a_release_of_httpx_with_its_pools_elsewhere_works_without_checks() -> None:
    class Hidden(httpx.HTTPTransport):
        """Answers, and has no `_pool`."""

        def __init__(self) -> None:
            pass

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            return httpx.Response(200, text="here")

        def close(self) -> None:
            pass

    with pytest.warns(ServerWarning, match="pip install 'httpx<"):
        client = with_checks(httpx.Client(transport=Hidden(), trust_env=False))
    with checking(lambda: None):
        assert client.get("http://127.0.0.1:9").text == "here"
    client.close()
