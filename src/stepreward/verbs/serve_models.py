"""The verb serve."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stepreward.core.catalog import search as searches
from stepreward.core.runtime.flows import Grader, Policy, Scorer
from stepreward.pipeline.compose import default_search
from stepreward.score.monitor.run_monitor import Monitor
from stepreward.serve.launch import launch
from stepreward.serve.requests.reachable import require_keys
from stepreward.serve.service import Served
from stepreward.verbs.names import grader as grader_of
from stepreward.verbs.names import policy as policy_of
from stepreward.verbs.names import scorer_of


def serve(
    scorer: str | Path | Scorer | None = None,
    *,
    policy: str | Path | Policy | None = None,
    grader: str | Grader = "mathematics",
    method: str = "",
    monitor: str | Path | Monitor | None = None,
    host: str = "127.0.0.1",
    port: int = 8300,
    **options: Any,
) -> None:
    """Serves step scores, and with a policy guided answers, over HTTP until Ctrl-C or SIGTERM.

    Args:
        scorer: a name that `stepreward.load` takes, or a scorer.
        policy: who writes, a name or an object.
        grader: who reads answers.
        method: search of requests that name none.
        monitor: a fitted one or its folder: `/v1/monitor`, and verdicts on the conversations that are answered.
        host, port: where to listen; port 0 takes a free one.
        options: fields of `stepreward.serve.service.Served`: `judge`, `settings`, `keys`, `limits`, `on_stop`, ...

    Raises:
        InputError: the search cannot be run here, or other machines can reach `host` and there are no `keys`.
        ModelError: a model cannot be loaded.
    """
    require_keys(host, options.get("keys", ()), remedy="pass keys=[...], which clients send as bearer tokens")
    name = method or default_search(scorer is not None)
    served = Served(
        policy=None if policy is None else policy_of(policy), scorer=None if scorer is None else scorer_of(scorer),
        grader=grader_of(grader), method=name,
        monitor=Monitor.load(monitor) if isinstance(monitor, str | Path) else monitor, **options,
    )  # fmt: skip
    launch(served, searches[name].asks, host, port)
