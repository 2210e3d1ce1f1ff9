"""Clients that do not read their answers: their places and connections are given back."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import httpx
import pytest

from stepreward.core.runtime.flows import Continuation, Propose, Wanted
from stepreward.core.types import Step
from stepreward.serve.server_limits import Limits
from stepreward.serve.service import Served
from tests.serve.running import Digits, SaysAll, serving, until

LARGE = 16 << 20
"""Characters of an answer, more than a socket holds."""


class Wordy(Digits):
    """Writes far too much where the prompt says so."""

    def propose_while(self, wanted: Wanted, questions: list[Propose]) -> list[list[Continuation]]:  # type: ignore[override]
        if "much" not in questions[0].problem.text:
            return super().propose_while(wanted, questions)
        return [[Continuation((Step("x" * LARGE + "\n"),), True, 3)] * q.n for q in questions]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    limits = Limits(running=1, waiting=4, body_seconds=1.0, connections=3)
    with serving(Served(Wordy(), grader=SaysAll(), name="digits", method="majority", limits=limits)) as url:
        yield url


def asks(url: str, stream: bool) -> socket.socket:
    """A client that has asked and reads nothing."""
    host, port = url.removeprefix("http://").split(":")
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.connect((host, int(port)))
    told = {"model": "digits:majority?n=1", "messages": [{"role": "user", "content": "much"}], "stream": stream}
    body = json.dumps(told).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    head += "Content-Type: application/json"
    made.sendall(head.encode() + b"\r\n\r\n" + body)
    return made


def taken(client: socket.socket) -> int:
    """Bytes that are still to be had."""
    size = 0
    try:
        while part := client.recv(1 << 20):
            size += len(part)
    except ConnectionError:
        pass
    return size


@pytest.mark.sampled(2)
@pytest.mark.parametrize("stream", [True, False])
def test_clients_that_do_not_read_hold_no_place_and_no_connection(server: str, stream: bool) -> None:
    held = [asks(server, stream) for _ in range(3)]
    ask = {"model": "digits:majority?n=1", "messages": [{"role": "user", "content": "three digits"}]}

    def answered() -> bool:
        try:
            return httpx.post(f"{server}/v1/chat/completions", json=ask, timeout=30).status_code == 200
        except httpx.TransportError:
            return False

    until(answered, 60.0)
    sizes = []
    for one in held:
        one.settimeout(20)
        sizes.append(taken(one))
        one.close()
    assert min(sizes) < LARGE, "cut off in the middle of the answer, where its time was over before it was read"
