"""Connections that ask nothing, slowly, too much or too often; a server that is stuck says so, and ends when told."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from stepreward.core.runtime.flows import Continuation, Flow, Propose, Wanted
from stepreward.serve.gateway import chat
from stepreward.serve.server_limits import Limits
from stepreward.serve.service import Served
from tests.forked import begun
from tests.serve.running import Digits, LastDigit, SaysAll, first_line, serving, until

CHAT = {"model": "d:best-of-n?n=1", "messages": [{"role": "user", "content": "three digits"}]}
GET = b"GET /health HTTP/1.1\r\nHost: x\r\n"
Address = tuple[str, int]


@pytest.fixture(scope="module")
def guarded() -> Iterator[Address]:
    limits = Limits(running=4, waiting=4, connections=12, head_seconds=1.0, body_seconds=1.0)
    with serving(Served(Digits(), LastDigit(), grader=SaysAll(), name="d", limits=limits)) as url:
        host, port = url.removeprefix("http://").split(":")
        yield host, int(port)


def read(raw: socket.socket) -> bytes:
    """All that comes until the connection is closed."""
    parts = []
    try:
        while part := raw.recv(65536):
            parts.append(part)
    except ConnectionError:
        pass
    return b"".join(parts)


def is_closed(raw: socket.socket) -> bool:
    """Whether a connection is closed; what came is read."""
    time.sleep(0.1)
    raw.settimeout(0.1)
    try:
        return raw.recv(65536) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def is_error(said: bytes, status: int) -> bool:
    head, _, body = said.partition(b"\r\n\r\n")
    return head.startswith(b"HTTP/1.1 %d" % status) and bool(json.loads(body)["error"]["message"])


def test_a_connection_that_asks_nothing_is_closed(guarded: Address) -> None:
    with socket.create_connection(guarded, timeout=10) as raw:
        assert read(raw) == b""


@pytest.mark.parametrize("opening", [b"GET /hea", GET + b"X: ", b"\r\n"])
def test_a_head_has_its_time_in_all_however_it_trickles(guarded: Address, opening: bytes) -> None:
    with socket.create_connection(guarded, timeout=10) as raw:
        raw.sendall(opening)
        stop = threading.Event()
        trickle = b"\r\n" if opening == b"\r\n" else b"a"

        def drip() -> None:
            while not stop.wait(0.2):
                try:
                    raw.sendall(trickle)
                except OSError:
                    return

        dripping = threading.Thread(target=drip)
        dripping.start()
        said = read(raw)
        stop.set()
        dripping.join()
        assert said == b"" or is_error(said, 408)


def test_a_body_has_its_time_in_all_however_it_trickles(guarded: Address) -> None:
    with socket.create_connection(guarded, timeout=10) as raw:
        raw.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
        try:
            for _ in range(40):  # a byte each 0.2 s would take 200 s
                raw.sendall(b" ")
                time.sleep(0.2)
        except ConnectionError:
            return
        assert raw.recv(100).startswith(b"HTTP/1.1 408")


def test_a_body_that_was_refused_holds_no_connection(guarded: Address) -> None:
    with socket.create_connection(guarded, timeout=10) as raw:
        raw.sendall(b"POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n ")
        until(lambda: raw.send(b" ") and is_closed(raw), 20)


def test_a_large_head_ends_early(guarded: Address) -> None:
    with socket.create_connection(guarded, timeout=10) as raw:
        sent = 0
        try:
            raw.sendall(GET)
            for _ in range(3000):
                raw.sendall(b"x" * 100_000 if sent else b"X: ")
                sent += 100_000
        except ConnectionError:
            pass
        assert sent < 50_000_000


def test_idle_connections_make_room_for_those_that_ask(guarded: Address) -> None:
    idle = [socket.create_connection(guarded, timeout=10) for _ in range(12)]
    for raw in idle[:6]:
        raw.sendall(GET)  # half a head is no request
    time.sleep(1.1)
    for _ in range(3):
        assert httpx.get("http://{}:{}/health".format(*guarded), timeout=5).status_code == 200
    for raw in idle:
        raw.close()


def test_of_a_burst_as_many_are_served_as_may_be_and_all_others_are_told_when_to_come_back(guarded: Address) -> None:
    burst = [socket.create_connection(guarded, timeout=20) for _ in range(60)]
    for raw in burst:
        raw.sendall(GET + b"Connection: close\r\n\r\n")
    answers = [read(raw) for raw in burst]
    for raw in burst:
        raw.close()
    served = [said for said in answers if said.startswith(b"HTTP/1.1 200")]
    others = [said for said in answers if not said.startswith(b"HTTP/1.1 200")]
    assert len(served) >= 12
    assert all(is_error(said, 503) and b"retry-after: 1" in said.lower() for said in others)


def test_what_is_no_http_is_told_in_the_form_of_all_errors(guarded: Address) -> None:
    with socket.create_connection(guarded, timeout=10) as raw:
        raw.sendall(b"nonsense\r\n\r\n")
        assert is_error(read(raw), 400)


class Deaf(Digits):
    """Answers nothing, whoever waits."""

    concurrency = 1

    def propose_while(self, wanted: Wanted, questions: Sequence[Propose]) -> list[list[Continuation]]:
        self.gate.wait(60)
        return super().propose_while(wanted, questions)


def test_health_says_that_the_thread_of_the_searches_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()

    def hanging(flow: Flow[Any]) -> Flow[Any]:
        gate.wait(60)
        return (yield from flow)

    monkeypatch.setattr(chat, "readable", hanging)
    with serving(Served(Digits(), LastDigit(), grader=SaysAll(), name="d")) as url:
        asking = threading.Thread(target=lambda: httpx.post(f"{url}/v1/chat/completions", timeout=60, json=CHAT))
        asking.start()
        until(lambda: httpx.get(f"{url}/health", timeout=10).status_code == 503)
        assert "not answered for" in httpx.get(f"{url}/health", timeout=10).json()["status"]
        gate.set()
        asking.join()
        until(lambda: httpx.get(f"{url}/health", timeout=10).status_code == 200)


def test_health_says_that_a_backend_with_all_its_places_taken_is_silent() -> None:
    policy = Deaf()
    limits = Limits(seconds=0.5, stuck_seconds=0.3)
    with serving(Served(policy, LastDigit(), grader=SaysAll(), name="d", limits=limits)) as url:
        assert httpx.get(f"{url}/health").json()["status"] == "ok"
        httpx.post(f"{url}/v1/chat/completions", timeout=30, json={**CHAT, "model": "d:best-of-n?n=2"})
        until(lambda: httpx.get(f"{url}/health").status_code == 503)
        assert "the policy has not answered for" in httpx.get(f"{url}/health").json()["status"]
        policy.gate.set()
        until(lambda: httpx.get(f"{url}/health").json()["status"] == "ok")


def test_a_server_with_a_thread_that_hangs_ends_when_it_is_told_to(tmp_path: Path) -> None:
    code = """
import threading, uvicorn
from stepreward.serve.http_app import build
from stepreward.serve.requests.connections import Ends, doors
from stepreward.serve.server_limits import Limits
from stepreward.serve.service import Served
from tests.serve.running import Digits, SaysAll

class Hangs(SaysAll):
    def answer(self, problem, steps):
        print("hangs", flush=True)
        threading.Event().wait()

class Told(Ends):
    SLACK = 0.5
    async def startup(self, sockets=None):
        await super().startup(sockets=sockets)
        print(self.servers[0].sockets[0].getsockname()[1], flush=True)

app = build(Served(Digits(), None, grader=Hangs(), name="d", method="majority"))
Told(uvicorn.Config(app, port=0, ws="none", http=doors(Limits()), timeout_graceful_shutdown=1)).run()
"""
    (tmp_path / "code.py").write_text(code)
    process = begun(tmp_path / "code.py", tmp_path, tmp_path / "log")
    port = first_line(process, tmp_path / "log")
    assert process.pid is not None
    with socket.create_connection(("127.0.0.1", int(port)), timeout=10) as raw:
        body = json.dumps({**CHAT, "model": "d"}).encode()
        raw.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
        raw.sendall(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        until(lambda: "hangs" in (tmp_path / "log" / "out").read_text())
        os.kill(process.pid, signal.SIGTERM)
        process.join(20)
        ended = process.exitcode
        process.kill()
        assert ended is not None
