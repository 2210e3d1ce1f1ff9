"""A server in OpenAI's shape whose answers a function writes: an agent with tool calls, for the command line."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = str | dict[str, Any]
"""What a turn says, or the call that it makes: `name` and `arguments`."""
Agent = Callable[[list[dict[str, Any]], int], Answer]
"""From the messages and the seed of a request to the next turn."""


@contextmanager
def serving(agent: Agent) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The server's address up to `#MODEL`, and the bodies of its requests."""
    bodies: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._send(b'{"data": [{"id": "scripted"}]}', "application/json")

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            bodies.append(body)
            said = agent(body["messages"], body["seed"])
            delta: dict[str, Any] = {"content": said} if isinstance(said, str) else {
                "tool_calls": [
                    {
                        "index": 0, "id": f"call-{len(body['messages'])}", "type": "function",
                        "function": {"name": said["name"], "arguments": json.dumps(said["arguments"])},
                    }
                ]
            }  # fmt: skip
            reason = "stop" if isinstance(said, str) else "tool_calls"
            usage = {"prompt_tokens": 5, "completion_tokens": 3}
            events = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}]
            events += [
                {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]},
                {"choices": [], "usage": usage},
            ]
            lines = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
            self._send(f"{lines}data: [DONE]\n\n".encode(), "text/event-stream")

        def _send(self, payload: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1#scripted", bodies
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
