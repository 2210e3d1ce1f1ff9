"""The gateway before a backend over HTTP: many clients at once, a backend that fails and comes back, steady memory."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import httpx
import openai
import pytest

from stepreward.core.http.server import Server
from stepreward.policies.http import HttpPolicy
from stepreward.serve.server_limits import Limits
from stepreward.serve.service import Served
from tests.serve.backend import LINES, TOO_LONG, Backend, backing
from tests.serve.running import LastDigit, SaysAll, serving, until

Pair = tuple[Backend, str]


def served(url: str, **settings: Any) -> Served:
    timeout = settings.pop("timeout", 1.0)
    server = Server(url, "m", concurrency=64, retries=2, backoff=0.01, timeout=timeout, patience=0.0)
    limits = Limits(**{"running": 64, "waiting": 64, **settings})
    return Served(HttpPolicy(server), LastDigit(), grader=SaysAll(), name="m", limits=limits)


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with backing() as (backend, behind), serving(served(behind)) as url:
        yield backend, url


def ask(mark: str, method: str = "best-of-n?n=2") -> dict[str, Any]:
    return {"model": f"m:{method}", "messages": [{"role": "user", "content": f"say {mark}"}]}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("method", ["best-of-n?n=2", "beam?beams=2&width=2"])
def test_64_clients_at_once_lose_and_cross_no_answer(pair: Pair, method: str) -> None:
    _, url = pair

    async def client(http: httpx.AsyncClient, i: int) -> None:
        for n in range(2):
            mark = f"{i:04d}{n:04d}"
            answer = await http.post("/v1/chat/completions", json=ask(mark, method))
            assert answer.status_code == 200, answer.text
            lines = answer.json()["choices"][0]["message"]["content"].splitlines()
            assert len(lines) == LINES
            assert all(line.startswith(mark) for line in lines), "another client's answer"

    async def run() -> None:
        limits = httpx.Limits(max_connections=64, keepalive_expiry=1.0)
        async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as http:
            await asyncio.gather(*(client(http, i) for i in range(64)))

    asyncio.run(run())
    assert httpx.get(f"{url}/health").json() == {"status": "ok", "running": 0, "waiting": 0}


@pytest.mark.parametrize("fault", ["hang up", "silence", "500", "503", "half", "garbage"])
def test_a_fault_that_passes_is_not_seen_by_the_client(pair: Pair, fault: str) -> None:
    backend, url = pair
    backend.faults = [fault]
    answer = httpx.post(f"{url}/v1/chat/completions", json=ask("abcdefgh"), timeout=30)
    assert answer.status_code == 200
    assert "abcdefgh" in answer.json()["choices"][0]["message"]["content"]


@pytest.mark.sampled(3)
@pytest.mark.parametrize("fault", ["hang up", "500", "half", "garbage"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_fault_that_stays_is_one_clear_error_and_the_next_request_is_served(
    pair: Pair, fault: str, stream: bool
) -> None:
    backend, url = pair
    with openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as client:
        backend.faults = [fault] * 6
        with pytest.raises(openai.APIError, match="failed 3 times"):
            list(client.chat.completions.create(**ask("abcdefgh"), stream=stream))
        backend.faults = []
        assert client.chat.completions.create(**ask("ijklmnop")).choices[0].message.content
    assert httpx.get(f"{url}/health").json()["running"] == 0


@pytest.mark.parametrize("says", TOO_LONG)
def test_a_prompt_that_the_backend_cannot_hold_is_the_clients_to_shorten(pair: Pair, says: str) -> None:
    backend, url = pair
    backend.faults = [says] * 2
    answer = httpx.post(f"{url}/v1/chat/completions", json=ask("abcdefgh"), timeout=30)
    backend.faults = []
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", "messages")
    assert says[:40] in error["message"]


def test_other_clients_do_not_feel_the_fault_of_one(pair: Pair) -> None:
    backend, url = pair
    found: list[int] = []

    def client(i: int) -> None:
        answer = httpx.post(f"{url}/v1/chat/completions", json=ask(f"{i:08d}"), timeout=60)
        found.append(answer.status_code)
        assert answer.status_code == 502 or f"{i:08d}" in answer.text

    backend.faults = ["half", "500", "garbage"] * 6
    threads = [threading.Thread(target=client, args=(i,)) for i in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    backend.faults = []
    assert len(found) == 24
    assert found.count(200) >= 12


def test_a_backend_that_is_killed_and_restarted_is_found_again() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with serving(served(f"http://127.0.0.1:{port}/v1")) as url:

        def status() -> int:
            return httpx.post(f"{url}/v1/chat/completions", json=ask("abcdefgh"), timeout=30).status_code

        with backing(port):
            assert status() == 200
        assert status() == 502
        with backing(port):
            assert status() == 200


def test_a_silent_backend_does_not_hold_a_client_past_its_deadline() -> None:
    with backing() as (backend, behind), serving(served(behind, timeout=60.0)) as url:
        backend.faults = ["silence"] * 2
        answer = httpx.post(
            f"{url}/v1/chat/completions", json={**ask("abcdefgh"), "stepreward": {"deadline": 0.5}}, timeout=30
        )
        assert answer.status_code == 504
        assert httpx.post(f"{url}/v1/chat/completions", json=ask("abcdefgh"), timeout=30).status_code == 200


def test_a_client_that_leaves_closes_the_connections_behind_it(pair: Pair) -> None:
    backend, url = pair
    backend.faults = ["silence"] * 2
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{url}/v1/chat/completions", json=ask("abcdefgh"), timeout=0.3)
    until(lambda: httpx.get(f"{url}/health").json()["running"] == 0)
    until(lambda: _metric(url, "stepreward_flows_active") == 0)


def test_nothing_is_kept_of_requests_that_are_over(pair: Pair) -> None:
    _, url = pair

    async def run(count: int) -> None:
        limits = httpx.Limits(max_connections=32, keepalive_expiry=1.0)
        async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as http:
            await asyncio.gather(*(http.post("/v1/chat/completions", json=ask(f"{i:08d}")) for i in range(count)))

    import gc
    import tracemalloc

    asyncio.run(run(32))
    gc.collect()
    tracemalloc.start()
    try:
        asyncio.run(run(32))
        gc.collect()
        held = [tracemalloc.get_traced_memory()[0]]
        for _ in range(3):
            asyncio.run(run(32))
            gc.collect()
            held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    # Tables that double and what is still being put away come and go; what is kept grows in every round.
    grown = min(after - before for before, after in pairwise(held))
    assert grown < 32 * 1024, f"{grown} bytes were kept of 32 requests"


def _metric(url: str, name: str) -> float:
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    return next(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name + " "))
