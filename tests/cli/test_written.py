"""Verifiers that write, by name or by --like, wherever a command takes a reward model."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.cli.running import invoke, refused


class Says(BaseHTTPRequestHandler):
    """A server whose model calls every step with "17" right and every other wrong."""

    asked: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append({**body, "path": self.path})
        chat = "messages" in body
        text = body["messages"][0]["content"] if chat else body["prompt"]
        steps = text.partition("[Solution]")[2].split("Step ")[1:] if chat else [text.partition("Now Step: ")[2]]
        said = " ".join("\\boxed{correct}" if "17" in step else "\\boxed{incorrect}" for step in steps)
        question = "Is the step correct (Yes/No)?"
        verdict = " Yes" if "17" in steps[0] else " No"
        word = verdict if text.endswith(question) else f"Look. {question}{verdict}"
        delta = {"delta": {"content": said}} if chat else {"text": word}
        data = json.dumps({"choices": [{**delta, "finish_reason": "stop"}], "usage": {"completion_tokens": 3}}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Keeps the tests' output clean."""


@pytest.fixture
def server(inside: Path) -> Iterator[str]:
    rows = [{"question": "12 + 5?", "steps": ["12 + 5 = 17.", "So 18."]}]
    (inside / "written.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Says.asked.clear()
    made = ThreadingHTTPServer(("127.0.0.1", 0), Says)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{made.server_address[1]}/v1#verifier"
    made.shutdown()
    made.server_close()


def test_a_verifier_in_a_server_is_asked_in_a_chat(server: str) -> None:
    line = f"score --data written.jsonl --model {server} --like launch/ThinkPRM-7B --answers 3"
    assert json.loads(invoke(line))["scores"] == [1.0, 0.0]
    assert len(Says.asked) == 3
    assert {body["path"] for body in Says.asked} == {"/v1/chat/completions"}


def test_one_that_is_asked_in_bare_text_is_asked_so(server: str) -> None:
    line = f"score --data written.jsonl --model {server} --like kevinpro/R-PRM-7B-DPO"
    assert json.loads(invoke(line))["scores"] == [1.0, 0.0]
    assert {body["path"] for body in Says.asked} == {"/v1/completions"}
    assert Says.asked[0]["prompt"].endswith("Reply:"), "no template stands around it"


def test_a_benchmark_measures_it(server: str, inside: Path) -> None:
    row = {"id": "g-0", "generator": "m", "problem": "12 + 5?", "steps": ["12 + 5 = 17.", "So 18."]}
    rows = [{**row, "final_answer_correct": False, "label": 1}, {**row, "id": "g-1", "steps": ["17"], "label": -1}]
    (inside / "judged.json").write_text(json.dumps([{"final_answer_correct": True, **one} for one in rows]))
    flags = f"--scorer {server} --like launch/ThinkPRM-7B --threshold 0.5 --json"
    made = json.loads(invoke(f"evaluate --benchmark process-bench --data judged.json {flags}"))
    assert made["scorers"][server]["metrics"]["f1"]["value"] == 1.0


def test_a_local_model_without_verdicts_has_no_scores(server: str) -> None:
    line = "score --data written.jsonl --model builtin:arithmetic --like launch/ThinkPRM-7B"
    assert json.loads(invoke(line))["scores"] == [None, None]


def test_no_record_of_an_encoder_reads_what_is_written(
    server: str, inside: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (inside / "own.json").write_text('{"separator": "x"}')
    line = f"score --data written.jsonl --model {server} --like launch/ThinkPRM-7B --record own.json"
    assert "separator" in refused(line, capsys, monkeypatch)
