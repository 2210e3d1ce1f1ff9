"""`stepreward serve`: a scoring server and a search gateway."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from stepreward.cli import on_demand
from stepreward.cli.flags.policies import HelperFlags, PolicyFlags
from stepreward.cli.flags.scorers import EnsembleFlags, RecipeFlags
from stepreward.core.catalog import search as searches
from stepreward.core.errors import InputError
from stepreward.core.settings_text import read_settings
from stepreward.core.vocabulary import Count, Flag
from stepreward.pipeline.compose import default_search
from stepreward.serve.requests.reachable import KEYS, known_keys, require_keys
from stepreward.serve.server_limits import Limits, OnStop
from stepreward.tasks.graders import graders


@dataclass(frozen=True)
class ServedPolicyFlags(PolicyFlags):
    """The policy that answers, if there is one."""

    policy: str = ""
    """Policy: builtin:arithmetic, a model folder, a hub name, vllm:NAME, or URL#MODEL of a server."""


@dataclass(frozen=True)
class ServeFlags:
    """Where the server listens, to whom, and how it searches."""

    host: str = "127.0.0.1"
    """Where to listen; not on this machine alone, keys are a must."""
    port: Annotated[int, Flag(low=0, high=65535)] = 8300
    """Port; 0 takes a free one."""
    method: Annotated[str, Flag(choices=searches)] = ""
    """Search of requests that name none; else beam, without --model majority: {choices}."""
    settings: Annotated[tuple[str, ...], Flag("--set")] = ()
    """Setting of that search as name=value; may be repeated."""
    name: str = "policy"
    """Name under which clients ask for the searched policy."""
    scorer_name: str = "scorer"
    """Name under which clients ask for the reward model."""
    grader: Annotated[str, Flag(choices=graders)] = "mathematics"
    """Who reads answers, for votes: {choices}."""
    monitor: Path | None = None
    """Folder of a monitor (`monitor fit`), for /v1/monitor and the conversations that are answered."""
    on_stop: OnStop = "tell"
    """Of a conversation that the monitor would stop: tell so in a header, answer that it was stopped, or refuse it."""
    keys: Annotated[Path | None, Flag(choices=[KEYS])] = None
    """File of API keys, one a line; {choices} holds more, parted by commas."""
    concurrency: Count = 64
    """Most requests under way at once to the policy's server."""


def serve(
    models: EnsembleFlags,
    recipe: RecipeFlags,
    policy: ServedPolicyFlags,
    helpers: HelperFlags,
    flags: ServeFlags,
    limits: Limits,
) -> None:
    """Serve step scores and guided answers over HTTP, for the clients of OpenAI, vLLM and SGLang.

    With --model: /v1/steps, /pooling, /classify, /score. With --policy: /v1/chat/completions and /v1/models, each
    answer found by a search that the reward model guides. With --monitor: /v1/monitor. Always: /health, /metrics,
    /openapi.json.

    Example: stepreward serve --model runs/demo/model --policy builtin:arithmetic --grader arithmetic
    """
    if policy.settings and not policy.policy:
        what = f"{next(iter(policy.settings))} is of the policy, and there is none"
        raise InputError(what, remedy="pass --policy, or drop it")
    if not models.model and not policy.policy and flags.monitor is None:
        raise InputError("there is nothing to serve", remedy="pass --model, --policy, --monitor or several")
    recipe.require(bool(models.model))
    method = flags.method or default_search(bool(models.model))
    (own,) = read_settings(flags.settings, searches[method])
    known = _keys(flags.keys)
    require_keys(flags.host, known, remedy=f"pass --keys, or set {KEYS}")
    # A server that lacks a package says so before models are loaded.
    served = on_demand.serve
    scorer = models.scorer(recipe)
    served(
        scorer,
        policy=policy.load(helpers.expert, concurrency=flags.concurrency, patience=0.0) if policy.policy else None,
        judge=helpers.load_judge(scorer, concurrency=flags.concurrency),
        grader=flags.grader,
        monitor=flags.monitor,
        on_stop=flags.on_stop,
        method=method,
        host=flags.host,
        port=flags.port,
        settings=own,
        name=flags.name,
        scorer_name=flags.scorer_name,
        keys=known,
        limits=replace(limits, connections=4 * (limits.running + limits.waiting) + 64),
    )


def _keys(path: Path | None) -> list[str]:
    """The API keys of a file and of the environment."""
    try:
        return known_keys(() if path is None else path.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read API keys: {error}", source=path, remedy="write one a line") from error
