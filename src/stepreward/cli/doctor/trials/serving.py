"""A trial of the server, by a client over HTTP."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import uvicorn

from stepreward.cli.doctor.trials.known import RIGHT, SUM, WRONG, WrongError, expect
from stepreward.score.tools.equations import ToolScorer
from stepreward.serve.http_app import build
from stepreward.serve.requests.connections import doors
from stepreward.serve.service import Served

SECONDS = 20.0
"""Most for the start, for the answer and for the end."""


def serves() -> str:
    """A right and a wrong step are scored over HTTP."""
    with _serving(Served(scorer=ToolScorer())) as address:
        body = {"problem": SUM.text, "steps": [RIGHT.text, WRONG.text]}
        answer = httpx.post(f"{address}/v1/steps", json=body, timeout=SECONDS, trust_env=False)
    expect((answer.status_code, answer.json().get("scores")), (200, [1.0, 0.0]))
    return "two steps were scored over HTTP"


@contextmanager
def _serving(served: Served) -> Iterator[str]:
    config = uvicorn.Config(
        build(served), port=0, log_level="critical", access_log=False, ws="none", http=doors(served.limits),
    )  # fmt: skip
    server, faults = uvicorn.Server(config), list[BaseException]()

    def run() -> None:
        try:
            server.run()
        except BaseException as fault:  # raised again by the caller
            faults.append(fault)

    thread = threading.Thread(target=run, name="doctor-server", daemon=True)
    thread.start()
    try:
        end = time.monotonic() + SECONDS
        while not server.started and thread.is_alive() and time.monotonic() < end:
            time.sleep(0.02)
        if not server.started:
            raise WrongError("the server does not start") from next(iter(faults), None)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(SECONDS)
