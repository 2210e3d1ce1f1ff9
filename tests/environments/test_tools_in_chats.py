"""A chat server calls the tools of an environment: what it is sent and what is made of it, over HTTP."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import stepreward
from stepreward.cli.app import app
from stepreward.core.catalog import generate
from stepreward.core.keys import Key
from stepreward.core.types import Problem
from stepreward.environments.tools.shop import nodes_of


class Clerk(BaseHTTPRequestHandler):
    """Answers a chat about the shop: asks for the first price, then answers with it."""

    sent: list[dict[str, Any]] = []  # noqa: RUF012

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.sent.append(body)
        last = body["messages"][-1]
        if last["role"] == "tool":
            deltas = [{"content": "So I say.\nAnswer: "}, {"content": last["content"]}]
            reason = "stop"
        else:
            item = last["content"].split("buys ")[1].split()[1].strip(".,")
            call = {"index": 0, "id": "call_a", "function": {"name": "price", "arguments": ""}}
            rest = {"index": 0, "function": {"arguments": json.dumps({"item": item.removesuffix("s")})}}
            deltas = [{"content": "I ask for it.\n"}, {"tool_calls": [call]}, {"tool_calls": [rest]}]
            reason = "tool_calls"
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for delta in deltas:
            self._event({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
        self._event({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
        self.wfile.write(b"data: [DONE]\n\n")

    def _event(self, event: dict[str, Any]) -> None:
        self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())

    def log_message(self, *_: object) -> None:
        """Silent."""


@pytest.fixture
def clerk() -> Iterator[str]:
    Clerk.sent.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Clerk)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1#clerk"
    server.shutdown()
    server.server_close()


def easy(n: int) -> list[Problem]:
    """Problems of one item, bought once or more."""
    made = generate["shop"].take({"key": Key.seed(0)}, fewest=1, most=1)
    return [*islice(made, n)]


def test_calls_go_out_and_results_come_back(clerk: str) -> None:
    agent = stepreward.policy(clerk, environment="tools")
    (problem,) = easy(1)
    (row,) = stepreward.label(problem, policy=agent, method="math-shepherd", samples=1, n=2)
    assert [step.role for step in row.steps] == ["assistant", "tool", "assistant"]
    asked, result, answer = row.steps
    first = nodes_of(problem)[0]
    assert asked.meta["tool_calls"][0]["arguments"] == {"item": first.item}
    assert asked.meta["content"] == "I ask for it.\n"
    assert (result.text, result.meta["tool_call_id"]) == (str(first.value), "call_a")
    assert answer.text == f"So I say.\nAnswer: {first.value}", "a turn is one step, whatever its lines"
    opening, second = Clerk.sent[0], next(one for one in Clerk.sent if len(one["messages"]) == 3)
    assert [tool["function"]["name"] for tool in opening["tools"]] == ["calculate", "price"]
    assert [message["role"] for message in second["messages"]] == ["user", "assistant", "tool"]
    assert second["messages"][1]["tool_calls"][0]["id"] == second["messages"][2]["tool_call_id"] == "call_a"


def test_search_on_the_command_line_counts_actions(clerk: str, tmp_path: Path) -> None:
    written = ["generate", "shop", "--n", "3", "--out", str(tmp_path / "shop.jsonl"), "--set", "most=1"]
    made = CliRunner().invoke(app, written)
    assert made.exit_code == 0, made.output
    command = [
        "search", "--problems", str(tmp_path / "shop.jsonl"), "--policy", clerk, "--environment", "tools?turns=3",
        "--method", "majority", "--samples", "2", "--out", str(tmp_path / "found.jsonl"), "--json",
    ]  # fmt: skip
    made = CliRunner().invoke(app, command)
    assert made.exit_code == 0, made.output
    told = json.loads(made.stdout)
    assert told["problems"] == 3
    assert told["accuracy"]["value"] == 0.0, "more than one calculation is needed"
    # Both samples ask for the same price, which is one action; so are their answers.
    assert told["bill"]["actions"] == 6
    command[command.index("--out") + 1] = str(tmp_path / "cut.jsonl")
    made = CliRunner().invoke(app, [*command, "--max-actions", "1"])
    told = json.loads(made.stdout)
    assert told["bill"]["actions"] == 3
