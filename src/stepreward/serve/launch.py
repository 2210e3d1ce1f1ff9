"""Starts the server on an address, and prints where it listens."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Collection

import uvicorn

from stepreward.core.errors import InputError
from stepreward.score.capabilities import ScoreUse, use_of
from stepreward.serve.gateway.available_searches import parts_of
from stepreward.serve.http_app import build
from stepreward.serve.requests.connections import Ends, doors
from stepreward.serve.service import Served


def launch(served: Served, needed: Collection[str], host: str, port: int) -> None:
    """Serves until Ctrl-C or SIGTERM, which ends the process with status 0 once the running requests have ended.

    Args:
        served: policy, scorer and settings.
        needed: needs of the default search, in words of `core.vocabulary.ASKS`.
        host, port: where to listen; port 0 takes a free one.

    Raises:
        InputError: the server cannot run the default search.
    """
    require_search(served, needed)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for quiet in ("httpx", "httpcore"):
        logging.getLogger(quiet).setLevel(logging.WARNING)
    config = uvicorn.Config(
        build(served), host=host, port=port, log_level="warning", access_log=False, server_header=False, ws="none",
        http=doors(served.limits), timeout_graceful_shutdown=30,
    )  # fmt: skip
    if threading.current_thread() is threading.main_thread():
        # Uvicorn raises the signal again after it has closed everything; the process should then exit with status 0.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    Announced(config).run()


def require_search(served: Served, needed: Collection[str]) -> None:
    """Refuses a default search that the server cannot run, a model that no search can ask, a judge without a policy.

    And a monitor that reads the scores of a model in a gateway without one.
    """
    if served.policy is not None and served.monitor is not None and served.monitor.column and served.scorer is None:
        raise InputError(f"the monitor reads the scores {served.monitor.column!r}", remedy="pass --model too")
    if served.policy is None:
        if served.judge is not None:
            raise InputError("a judge compares solutions of a policy, and there is none", remedy="pass --policy too")
        return
    if (use_of(served.scorer) or ScoreUse()).reference:
        what = "the model's prompt asks for a reference answer, which no conversation has"
        raise InputError(what, remedy="leave --policy out, and send the reference to /v1/steps")
    lacking = set(needed) - parts_of(served)
    if lacking:
        raise InputError(
            f"--method {served.method} needs {', '.join(sorted(lacking))}, which this server does not have",
            remedy="pass --model or --judge, or another --method",
        )


class Announced(Ends):
    """A server that prints its address once it listens."""

    async def startup(self, sockets: object = None) -> None:
        await super().startup(sockets=sockets)  # type: ignore[arg-type]
        for server in self.servers:
            for socket in server.sockets:
                host, port = socket.getsockname()[:2]
                print(f"stepreward serves at http://{host}:{port}", flush=True)
