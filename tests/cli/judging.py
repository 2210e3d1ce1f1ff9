"""A server in OpenAI's shape whose model judges equations, and is wrong about every third answer."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_EQUATION = re.compile(r"^Step (\d+): (\d+) \+ (\d+) = (\d+)", re.MULTILINE)

_LINES = {
    "\nStep 1: GOOD\n": ("BAD", "GOOD"),
    "Step 1: mathematics=yes": tuple(f"mathematics={one}, consistency=yes, optimality=yes" for one in ("no", "yes")),
}
"""Lines of a false and of a true sum, by what the prompt asks for."""


def verdict(body: dict[str, Any]) -> str:
    """What is said of the steps of a prompt: the first sum that is false; by the seed no verdict or another step."""
    asked = body["messages"][0]["content"]
    if body["model"] == "planter":
        return "Sure. <step>1 + 1 = 7</step>"
    sums = {int(n): int(a) + int(b) == int(c) for n, a, b, c in _EQUATION.findall(asked)}
    found = next((n for n, right in sums.items() if not right), -1)
    for example, words in _LINES.items():
        if example in asked:
            return "\n".join(f"Step {n}: {words[right]}" for n, right in sums.items())
    said = {"mute": "I cannot say.", "first": "\\boxed{1}"}.get(body["model"], f"So it is \\boxed{{{found}}}.")
    return "Never mind." if body["model"] == "moody" and body["seed"] % 3 == 0 else said


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        choice = {"index": 0, "message": {"role": "assistant", "content": verdict(body)}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 20, "completion_tokens": 5}
        said = json.dumps({"choices": [choice], "usage": usage}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)


@contextmanager
def judging() -> Iterator[str]:
    """The address of the server, while it runs."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
