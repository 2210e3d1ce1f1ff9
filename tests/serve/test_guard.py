"""What every request passes: keys, sizes, slow bodies, broken JSON, and whatever the OpenAPI document allows."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from stepreward.score.discriminative import DiscriminativeScorer
from stepreward.score.monitor.monitor_fit import fitted
from stepreward.serve.http_app import build
from stepreward.serve.server_limits import Limits
from stepreward.serve.service import Served
from tests.effort import THOROUGH
from tests.score.agent_runs import made_runs
from tests.score.models import model
from tests.serve.running import Digits, LastDigit, SaysAll, serving

LIMITS = Limits(body_bytes=20_000, body_seconds=1.5)
CHAT = {"model": "d", "messages": [{"role": "user", "content": "three digits"}]}


@pytest.fixture(scope="module")
def guarded() -> Iterator[str]:
    served = Served(Digits(), LastDigit(), grader=SaysAll(), name="d", keys=("first-key", "second-key"), limits=LIMITS)
    with serving(served) as url:
        yield url


def test_a_key_is_a_must_but_for_health(guarded: str) -> None:
    assert httpx.get(f"{guarded}/health").status_code == 200
    for path in ("/v1/models", "/metrics", "/openapi.json", "/nothing"):
        refused = httpx.get(f"{guarded}{path}")
        assert refused.status_code == 401
        assert refused.json()["error"]["code"] == "invalid_api_key"
        assert refused.headers["www-authenticate"] == "Bearer"
    for bad in ("Bearer wrong", "Bearer", "first-key", "Basic first-key", "Bearer first-key2"):
        assert httpx.get(f"{guarded}/v1/models", headers={"Authorization": bad}).status_code == 401
    for key in ("first-key", "second-key"):
        assert httpx.get(f"{guarded}/v1/models", headers={"Authorization": f"Bearer {key}"}).status_code == 200


def test_a_large_body_is_refused_whether_it_says_its_size_or_not(guarded: str) -> None:
    headers = {"Authorization": "Bearer first-key", "Content-Type": "application/json"}
    large = json.dumps({**CHAT, "user": "x" * 30_000}).encode()
    told = httpx.post(f"{guarded}/v1/chat/completions", content=large, headers=headers)
    assert told.status_code == 413
    assert "20,000 bytes" in told.json()["error"]["message"]
    parts = (large[i : i + 1000] for i in range(0, len(large), 1000))
    untold = httpx.post(f"{guarded}/v1/chat/completions", content=parts, headers=headers)
    assert untold.status_code == 413


def test_a_body_that_drips_is_given_up(guarded: str) -> None:
    host, port = guarded.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as raw:
        raw.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer first-key\r\n"
            b"Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
        )
        assert raw.recv(100).startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b"[" * 5000, b'{"model": "d", "messages": "\\ud800"}',
     b'{"model": "\\ud800", "messages": [{"role": "user", "content": "x"}]}',
     b'{"model": "d", "messages": [{"role": "user", "content": "\\ud800"}]}',
     b'{"model": "d", "messages": [{"role": "user", "content": "x"}], "seed": 1' + b"0" * 4000 + b"}",
     b'{"model": "d", "messages": [{"role": "user", "content": "x"}], "temperature": NaN}',
     b'{"model": "d", "messages": [{"role": "user", "content": "x"}], "temperature": 1e999}'],
    ids=lambda body: repr(body[:40]),
)  # fmt: skip
def test_bodies_of_other_shapes_are_errors_of_the_client(guarded: str, body: bytes) -> None:
    headers = {"Authorization": "Bearer first-key", "Content-Type": "application/json"}
    answer = httpx.post(f"{guarded}/v1/chat/completions", content=body, headers=headers)
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.json()["error"]["message"]


def test_unknown_routes_and_methods_are_answered_in_the_same_form(guarded: str) -> None:
    headers = {"Authorization": "Bearer first-key"}
    assert httpx.get(f"{guarded}/v2/chat", headers=headers).json()["error"]["type"] == "invalid_request_error"
    wrong = httpx.get(f"{guarded}/v1/chat/completions", headers=headers)
    assert wrong.status_code == 405
    assert wrong.headers["allow"] == "POST"


def test_health_is_told_by_its_head_alone(guarded: str) -> None:
    answer = httpx.head(f"{guarded}/health")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == httpx.get(f"{guarded}/health").headers["content-length"]


def test_a_request_keeps_the_id_that_its_client_gave_it(guarded: str) -> None:
    assert httpx.get(f"{guarded}/health", headers={"X-Request-Id": "my-id.7"}).headers["x-request-id"] == "my-id.7"
    forged = httpx.get(f"{guarded}/health", headers={"X-Request-Id": 'x" , "y'}).headers["x-request-id"]
    assert '"' not in forged
    assert len(forged) == 32


def test_an_error_that_nobody_foresaw_is_told_without_its_text() -> None:
    class Broken(LastDigit):
        def score_many(self, questions: object) -> list[object]:  # type: ignore[override]
            raise RuntimeError("secret text")

    with serving(Served(Digits(), Broken(), grader=SaysAll(), name="d")) as url:
        answer = httpx.post(f"{url}/v1/chat/completions", json=CHAT)
        assert answer.status_code == 500
        assert "secret" not in answer.text
        assert answer.json()["error"]["type"] == "server_error"
        assert httpx.post(f"{url}/v1/chat/completions", json={**CHAT, "model": "d:majority"}).status_code == 200


def test_there_must_be_something_to_serve() -> None:
    with pytest.raises(ValueError, match="nothing to serve"):
        build(Served())
    with pytest.raises(ValueError, match="limits must be positive"):
        Limits(running=0)


HOOKS = """
import schemathesis

WAYS = {
    "/steps": ("problem", ["prefix", "aggregate"]),
    "/pooling": ("input", ["messages", "truncate_prompt_tokens", "task"]),
    "/classify": ("input", ["messages", "truncate_prompt_tokens", "task"]),
    "/rerank": ("query", ["truncate_prompt_tokens", "use_activation"]),
    "/score": ("text_1", ["queries", "documents", "data_1", "data_2", "query", "items",
               "truncate_prompt_tokens", "use_activation", "label_token_ids"]),
}

@schemathesis.hook
def map_body(context, body):
    # A model that is served and one way to name a problem, so that the work behind the shapes is reached.
    if isinstance(body, dict):
        if isinstance(body.get("model"), str):
            body["model"] = "d" if "chat" in context.operation.path else "scorer"
        if "chat" in context.operation.path and len(str(body)) % 3:
            # Tools, and messages about them, are for policies that call some; this one does not.
            body.pop("tools", None)
            body["messages"] = [{"role": "user", "content": str(body.get("messages"))[:99]}]
        for path, (one, others) in WAYS.items():
            if path in context.operation.path and len(str(body)) % 2:
                body[one] = str(body.get(one) or "some text")
                if path == "/score":
                    body["text_2"] = str(body.get("text_2") or "more text")
                for other in others:
                    body.pop(other, None)
        if "monitor" in context.operation.path and len(str(body)) % 2:
            body["steps"] = ["some text"]
            for other in ("session", "messages", "scores"):
                body.pop(other, None)
    return body
"""


def test_whatever_the_openapi_document_allows_gives_no_server_error(tmp_path: Path) -> None:
    (tmp_path / "hooks.py").write_text(HOOKS)
    limits = Limits(seconds=5, samples=200)
    watching = fitted(made_runs(20))
    served = Served(
        Digits(), DiscriminativeScorer(model()), grader=SaysAll(), name="d", limits=limits, monitor=watching
    )
    with serving(served) as url:
        command = [
            str(Path(sys.executable).with_name("schemathesis")), "run", f"{url}/openapi.json", "--url", url,
            "--checks", "not_a_server_error,content_type_conformance", "--max-examples", str(40 if THOROUGH else 5),
            "--seed", "1", "--phases", "fuzzing", "--generation-database", "none", "--workers", "1",
            "--suppress-health-check", "too_slow",
        ]  # fmt: skip
        settings = {**os.environ, "SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(tmp_path)}
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=280, cwd=tmp_path, env=settings, check=False
        )
        counted = httpx.get(f"{url}/metrics").text
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    model_paths = ("/v1/steps", "/v1/steps/batch", "/pooling", "/classify", "/score", "/rerank")
    for path in ("/v1/chat/completions", *model_paths, "/v1/monitor"):
        assert f'route="{path}",status="200"' in counted, f"no request reached the work behind {path}"
