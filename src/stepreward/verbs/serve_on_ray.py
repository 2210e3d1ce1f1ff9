"""The server of the verb serve as an application of Ray Serve: replicas of it on a cluster, behind one address."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stepreward.core.catalog import search as searches
from stepreward.core.errors import InputError, UnknownNameError
from stepreward.core.optional import optional
from stepreward.pipeline.compose import default_search
from stepreward.serve.http_app import build
from stepreward.serve.launch import require_search
from stepreward.serve.requests.guard import Guard
from stepreward.serve.requests.reachable import known_keys
from stepreward.serve.server_limits import Limits
from stepreward.serve.service import Served
from stepreward.verbs.names import grader, load, policy

_PARTS = ("model", "like", "policy", "grader", "method")
_RESERVED = {"replicas": 1, "cpus": 1.0, "gpus": 0.0}
"""Replicas, and the cores and accelerators that each reserves."""


def application(given: Mapping[str, Any]) -> Any:
    """An application for `serve run stepreward.verbs.serve_on_ray:application model=NAME replicas=4`.

    Args:
        given: `model` and the row that it is `like`; `policy`, `grader` and `method`, as for the verb serve;
            `replicas`, and `cpus` and `gpus` of each. Values may be texts. API keys are those of the environment's
            STEPREWARD_SERVE_KEYS; without any, requests need none, as Serve alone knows who can reach it.

    Raises:
        InputError: there is neither a model nor a policy, or a number is none.
        ModelError: Ray is not installed.
        UnknownNameError: there is no such setting.
    """
    for name in given:
        if name not in (known := (*_PARTS, *_RESERVED)):
            raise UnknownNameError("setting of the application", name, known)
    parts = {name: str(given[name]) for name in _PARTS if name in given}
    if not parts.keys() & {"model", "policy"}:
        raise InputError("there is nothing to serve", remedy="pass model=, policy= or both")
    try:
        replicas, cpus, gpus = (type(least)(given.get(name, least)) for name, least in _RESERVED.items())
    except ValueError as error:
        raise InputError(f"replicas, cpus and gpus are numbers: {error}") from error
    serve, keys, limits = optional("ray.serve"), known_keys(), Limits()

    # Serve calls a function in each replica; models are loaded there, and nowhere else.
    def door() -> Guard:
        return _door(parts, keys)

    deployed = serve.deployment(
        name="stepreward", num_replicas=replicas, ray_actor_options={"num_cpus": cpus, "num_gpus": gpus},
        max_ongoing_requests=limits.running + limits.waiting,
    )  # fmt: skip
    return deployed(serve.ingress(door)(type("Replica", (), {}))).bind()


def _door(parts: Mapping[str, str], keys: list[str]) -> Guard:
    """The server, with the models loaded by which it answers."""
    scorer = load(parts["model"], like=parts.get("like", "")) if "model" in parts else None
    served = Served(
        policy=policy(parts["policy"]) if "policy" in parts else None, scorer=scorer,
        grader=grader(parts.get("grader", "mathematics")), keys=keys,
        method=parts.get("method", "") or default_search(scorer is not None),
    )  # fmt: skip
    require_search(served, searches[served.method].asks)
    return build(served)
