"""A chat server in OpenAI's shape whose model is a seeker that calls tools."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from stepreward.core.keys import Key
from stepreward.core.segment.tool_calls import as_message, calls_of, step_of_message
from stepreward.core.types import Problem
from stepreward.environments.retrieval.seeker import seeker


@contextmanager
def seeking(problems: Sequence[Problem], **chances: float) -> Iterator[str]:
    """The address of the server, while it runs."""
    turns, known = seeker(tools=True, **chances), {one.text: one for one in problems}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            """Quiet."""

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            first, *others = body["messages"]
            assert [one["function"]["name"] for one in body["tools"]] == ["search", "read", "answer"]
            # What is shown before the first action joins the prompt.
            prompt = next(text for text in known if first["content"].startswith(text))
            prefix = tuple(map(step_of_message, others))
            choices = turns(known[prompt], prefix)
            rng = Key.seed(body["seed"]).rng()
            step = choices[int(rng.choice(len(choices), p=[chance for _, chance, _ in choices]))][0]
            calls = as_message(calls_of(step), sum(one.role == "tool" for one in prefix))
            message = {"role": "assistant", "content": "", "tool_calls": calls}
            choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
            usage = {"prompt_tokens": 20, "completion_tokens": 5}
            said = json.dumps({"choices": [choice], "usage": usage}).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
