"""What the doctor finds out about servers, each of them lacking something else."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from typer.testing import CliRunner

from stepreward.cli.app import app


@dataclass
class Able:
    """What a server can do."""

    lists: bool = True
    answers: bool = True
    counts: bool = True
    repeats: bool = True
    goes_on: bool = True
    tells: bool = True
    asked: int = 0


class Handler(BaseHTTPRequestHandler):
    able: Able
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        if self.able.lists:
            self._plain(200, {"data": [{"id": "counter"}]})
        else:
            self._plain(404, {"error": {"message": "not found"}})

    def do_POST(self) -> None:
        able, body = self.able, json.loads(self.rfile.read(int(self.headers["content-length"])))
        able.asked += 1
        started = "messages" in body and body["messages"][-1]["role"] == "assistant"
        if not able.answers:
            self._plain(401, {"error": {"message": "no such key"}})
        elif started and not able.goes_on:
            self._plain(400, {"error": {"message": "the last message must be the user's"}})
        elif body.get("logprobs") and not able.tells:
            self._plain(400, {"error": {"message": "logprobs are not supported"}})
        else:
            drawn = "random" in json.dumps(body)
            text = f"{body['seed'] if able.repeats else able.asked}\n" if drawn else "8\n" if started else "1\n"
            self._stream(text, told=bool(body.get("logprobs")))

    def _stream(self, text: str, *, told: bool) -> None:
        choice: dict[str, Any] = {"index": 0, "delta": {"content": text}, "finish_reason": "stop"}
        if told:
            choice["logprobs"] = {"content": [{"token": text, "logprob": -0.5, "top_logprobs": []}]}
        chunks: list[dict[str, Any]] = [{"choices": [choice]}]
        if self.able.counts:
            chunks.append({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2}})
        lines = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks)
        self._raw(200, "text/event-stream", f"{lines}data: [DONE]\n\n".encode())

    def _plain(self, status: int, body: dict[str, Any]) -> None:
        self._raw(status, "application/json", json.dumps(body).encode())

    def _raw(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def able() -> Able:
    return Able()


@pytest.fixture
def address(able: Able) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Told", (Handler,), {"able": able}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1#counter"
    server.shutdown()
    server.server_close()


def looked_at(*flags: str) -> tuple[int, dict[str, dict[str, Any]]]:
    done = CliRunner().invoke(app, ["doctor", *flags, "--json"])
    return done.exit_code, {row["what"]: row for row in json.loads(done.stdout)}


def test_a_server_that_can_everything(address: str) -> None:
    code, found = looked_at("--policy", address)
    assert code == 0
    assert set(found) == {"models", "answers", "counts tokens", "seeds", "goes on", "length", "logprobs"}
    assert all(row["good"] for row in found.values()), found
    assert found["answers"]["says"].startswith("2 tokens in ")


@pytest.mark.parametrize(
    ("lacks", "what", "says"),
    [
        ("lists", "models", "lists nothing"),
        ("counts", "counts tokens", "counted by pieces"),
        ("repeats", "seeds", "runs do not repeat"),
        ("goes_on", "goes on", "?prefill=plain"),
        ("tells", "logprobs", "self-prm"),
    ],
)
def test_what_a_server_lacks_is_said_and_harms_nothing_else(
    able: Able, address: str, lacks: str, what: str, says: str
) -> None:
    setattr(able, lacks, False)
    code, found = looked_at("--policy", address)
    assert code == 0
    assert [name for name, row in found.items() if not row["good"]] == [what]
    assert says in found[what]["says"]


@pytest.mark.parametrize("repeats", [True, False])
def test_several_servers_are_asked_one_by_one_and_whether_they_answer_alike(
    able: Able, address: str, repeats: bool
) -> None:
    other = ThreadingHTTPServer(
        ("127.0.0.1", 0), type("Told", (Handler,), {"able": Able(repeats=repeats, counts=False)})
    )
    threading.Thread(target=other.serve_forever, daemon=True).start()
    second = f"http://127.0.0.1:{other.server_port}/v1"
    code, found = looked_at("--policy", f"{address},{second}#counter")
    other.shutdown()
    other.server_close()
    assert code == 0
    assert len(found) == 7 + 7 + 1
    wrong = [what for what, row in found.items() if not row["good"]]
    assert wrong == [f"counts tokens, {second}", *([] if repeats else [f"seeds, {second}", "alike"])]


def test_a_model_that_is_not_served_is_named_with_those_that_are(address: str) -> None:
    _, found = looked_at("--policy", address.replace("#counter", "#other"))
    assert found["models"]["says"] == "other is not among those served: counter"


def test_a_server_that_refuses_every_question_is_an_error(able: Able, address: str) -> None:
    able.answers = False
    code, found = looked_at("--policy", address)
    assert code == 1
    assert not found["answers"]["good"]
    assert "no such key" in found["answers"]["says"]
    assert "seeds" not in found


@pytest.mark.parametrize("flag", ["--policy", "--model"])
def test_what_is_no_address_is_refused(flag: str) -> None:
    done = CliRunner().invoke(app, ["doctor", flag, "nowhere"])
    assert done.exit_code != 0
    assert "nowhere is no address of a server" in str(done.exception)


def test_a_reward_model_in_a_server_that_refuses_is_an_error(able: Able, address: str) -> None:
    able.answers = False
    code, found = looked_at("--model", address)
    assert code == 1
    assert not found["scores"]["good"]
