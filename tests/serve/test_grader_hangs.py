"""A served search whose grader's worker hangs: the server says how it is, and SIGTERM ends it."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from stepreward.tasks.arithmetic import generate
from tests.forked import begun
from tests.serve.running import first_line

pytestmark = pytest.mark.timeout(180)
SERVER = '''
import os, re, sys
import uvicorn
from stepreward.tasks import graders
from stepreward.cli.app import main
from stepreward.core.sandbox.bounded import Bounded

def hang(path):
    """In the worker: tells its process and never answers."""
    open(path, "w").write(str(os.getpid()))
    re.match(r"(a|a)*$", "a" * 60 + "b")

class Hangs:
    name = "hangs"
    def __init__(self):
        self.bounded = Bounded("hanging:hang", seconds=90)
    def grade(self, problem, steps):
        return float("nan")
    def answer(self, problem, steps):
        return self.bounded(os.environ["TOLD"]) if os.environ["HANG"] in problem.text else "x"

class Brief(uvicorn.Config):
    """Running requests get two seconds to end, not thirty."""
    def __init__(self, *args, **settings):
        super().__init__(*args, **{**settings, "timeout_graceful_shutdown": 2})

if __name__ == "__main__":
    uvicorn.Config = Brief
    graders.graders = {**graders.graders, "hangs": Hangs}
    flags = "serve --port 0 --policy builtin:arithmetic --method majority --set n=4 --name d --grader hangs"
    sys.argv = ["stepreward", *flags.split()]
    main()
'''

PROBLEM = next(iter(generate("held_out", 1)))


class Serving(NamedTuple):
    """A server in a process of its own."""

    process: ForkServerProcess
    url: str
    told: Path


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Serving]:
    (tmp_path / "hanging.py").write_text(SERVER)
    worker = tmp_path / "worker"
    source = str(Path(__file__).parents[2] / "src")
    environment = {"PYTHONPATH": f"{source}:{tmp_path}", "TOLD": str(worker), "HANG": PROBLEM.text}
    process = begun(tmp_path / "hanging.py", tmp_path, tmp_path / "log", environment=environment)
    line = first_line(process, tmp_path / "log")
    yield Serving(process, line[line.index("http") :].split()[0], worker)
    process.kill()
    process.join()


def test_sigterm_ends_a_server_whose_grader_hangs(server: Serving) -> None:
    body = {"model": "d", "messages": [{"role": "user", "content": PROBLEM.text}]}
    request = httpx.Request("POST", f"{server.url}/v1/chat/completions", json=body)
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    with socket.create_connection((request.url.host, request.url.port or 80)) as client:
        client.sendall(f"POST {request.url.path} HTTP/1.1\r\n{head}\r\n".encode() + request.content)
        end = time.monotonic() + 60
        while not (server.told.exists() and server.told.read_text()):
            assert time.monotonic() < end, "the grader did not start"
            time.sleep(0.02)
    assert httpx.get(f"{server.url}/health", timeout=30).status_code == 200
    assert server.process.pid is not None
    os.kill(server.process.pid, signal.SIGTERM)
    server.process.join(60)
    assert server.process.exitcode is not None
