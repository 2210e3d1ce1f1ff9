"""Token requests beside other clients: turns at the model, deadlines, clients that leave, and the event loop."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from stepreward.score.load import load
from stepreward.serve.model_turns import Turns, Watch
from stepreward.serve.requests.http_errors import ApiError
from stepreward.serve.server_limits import Limits
from stepreward.serve.service import Served
from tests.score.tiny_checkpoints import build
from tests.serve.running import serving, until

MANY = ["word " * 400 + "<extra_0>"] * 60
"""So long that each is a forward pass of its own."""
STEPS = {"problem": "What is 1 + 1?", "steps": ["1 + 1 = 2."]}


class Slow:
    """A model whose passes over token sequences take their time, and are counted."""

    def __init__(self, folder: Path) -> None:
        build(folder, "qwen", "score-mlp")
        self.scorer = load(folder, like="Qwen/Qwen2.5-Math-PRM-7B")
        model: Any = self.scorer.model  # type: ignore[union-attr]
        self._pass, self._plain = model.forward_padded, model.encoder.plain
        self.passes, self.gate, self.cut = 0, threading.Event(), 0
        self.gate.set()
        model.forward_padded, model.encoder.plain = self.forward_padded, self.plain

    def forward_padded(self, *given: Any) -> Any:
        self.passes += 1
        time.sleep(0.02)
        return self._pass(*given)

    def plain(self, text: str, *, special: bool = False) -> list[int]:
        self.cut += 1
        assert self.gate.wait(20)
        return list(self._plain(text, special=special))


@pytest.fixture
def slow(tmp_path: Path) -> Slow:
    return Slow(tmp_path)


@pytest.fixture
def asked(slow: Slow) -> Iterator[str]:
    """A server with a request of many passes under way."""
    with serving(Served(scorer=slow.scorer, scorer_name="prm")) as url:
        yield url


def in_background(url: str, path: str, **body: Any) -> tuple[threading.Thread, list[httpx.Response]]:
    found: list[httpx.Response] = []
    thread = threading.Thread(target=lambda: found.append(httpx.post(f"{url}{path}", json=body, timeout=60)))
    thread.start()
    return thread, found


def test_a_long_request_lets_other_clients_in_between_its_passes(slow: Slow, asked: str) -> None:
    thread, found = in_background(asked, "/pooling", input=MANY)
    until(lambda: slow.passes >= 2)
    assert httpx.post(f"{asked}/v1/steps", json=STEPS, timeout=30).status_code == 200
    between = slow.passes
    thread.join()
    assert found[0].status_code == 200
    assert slow.passes == len(MANY)
    assert between < len(MANY) / 2, "it waited for all of the other request"


def test_a_client_that_leaves_stops_the_passes(slow: Slow, asked: str) -> None:
    client = http.client.HTTPConnection(httpx.URL(asked).netloc.decode(), timeout=60)
    client.request("POST", "/pooling", json.dumps({"input": MANY}), {"content-type": "application/json"})
    until(lambda: slow.passes >= 1)
    client.close()
    until(lambda: httpx.get(f"{asked}/health").json()["running"] == 0)
    after = slow.passes
    assert 0 < after < len(MANY)
    assert httpx.post(f"{asked}/v1/steps", json=STEPS, timeout=30).status_code == 200
    assert slow.passes == after


@pytest.mark.parametrize("path", ["/pooling", "/classify"])
def test_a_request_that_takes_too_long_is_given_up(slow: Slow, path: str) -> None:
    with serving(Served(scorer=slow.scorer, scorer_name="prm", limits=Limits(seconds=0.4))) as url:
        late = httpx.post(f"{url}{path}", json={"input": MANY}, timeout=30)
        assert late.status_code == 504
        assert late.json()["error"]["code"] == "timeout"
        assert slow.passes < len(MANY)
        assert httpx.post(f"{url}{path}", json={"input": "short<extra_0>"}, timeout=30).status_code == 200


def test_the_server_answers_while_a_text_is_cut_into_tokens(slow: Slow, asked: str) -> None:
    slow.gate.clear()
    thread, found = in_background(asked, "/pooling", input=MANY[0])
    until(lambda: slow.cut == 1)
    assert httpx.get(f"{asked}/health", timeout=15).json()["running"] == 1
    slow.gate.set()
    thread.join()
    assert found[0].status_code == 200


def test_texts_beyond_any_number_of_tokens_are_refused_before_they_are_cut(slow: Slow, asked: str) -> None:
    long = "word " * 50_000
    for path, body in (
        ("/pooling", {"input": ["short", long]}),
        ("/pooling", {"messages": [{"role": "user", "content": long}]}),
        ("/score", {"text_1": "a", "text_2": long}),
    ):
        answer = httpx.post(f"{asked}{path}", json=body, timeout=30)
        assert answer.status_code == 400
        assert "250,00" in answer.json()["error"]["message"]
    assert slow.cut == 0
    # Its end is kept where that is asked for, and no more than that is cut up.
    kept = httpx.post(f"{asked}/classify", json={"input": long, "truncate_prompt_tokens": 7}, timeout=30).json()
    assert kept["usage"]["prompt_tokens"] == 7
    same = httpx.post(f"{asked}/classify", json={"input": "word " * 40, "truncate_prompt_tokens": 7}, timeout=30).json()
    assert kept["data"] == same["data"]


def test_turns_come_in_the_order_of_arrival() -> None:
    turns, order, arrived = Turns(), [], threading.Semaphore(0)

    def take(i: int) -> None:
        arrived.release()
        with turns.turn():
            order.append(i)

    with turns.turn():
        threads = []
        for i in range(8):
            threads.append(threading.Thread(target=take, args=(i,)))
            threads[-1].start()
            arrived.acquire()
            until(lambda wanted=i + 2: len(turns._queue) == wanted)  # type: ignore[misc]
    for thread in threads:
        thread.join()
    assert order == list(range(8))


def test_who_gives_up_waiting_holds_nobody_up() -> None:
    turns, watch = Turns(), Watch(time.monotonic() + 60)
    gone: list[int] = []

    def wait() -> None:
        with pytest.raises(ApiError, match="left") as told, turns.turn(watch.check):
            raise AssertionError
        gone.append(told.value.status)

    with turns.turn():
        thread = threading.Thread(target=wait)
        thread.start()
        until(lambda: len(turns._queue) == 2)
        watch.leave()
        thread.join(10)
    assert gone == [499]
    with turns.turn():
        pass
    late = Watch(time.monotonic() - 1)
    with pytest.raises(ApiError, match="longer than this server allows"):
        late.check()
