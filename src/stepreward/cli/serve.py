"""`stepreward serve`: a scoring server and a search gateway."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Annotated

import typer

from stepreward.cli.parts import (
    CacheFlag,
    CombineFlag,
    DoubtFlag,
    ExpertFlag,
    JudgeFlag,
    ModelsFlag,
    judge_at,
    policies_at,
    scorers_at,
)
from stepreward.cli.policy_flags import (
    BodyFlag,
    EffortFlag,
    MinPFlag,
    TemplateKwargsFlag,
    TopKFlag,
    policy_settings,
)
from stepreward.cli.recipes import AnswersFlag, CalibratorFlag, DeviceFlag, DtypeFlag, LikeFlag, RecordFlag, recipe_of
from stepreward.cli.settings import choices
from stepreward.core.catalog import search as searches
from stepreward.core.errors import InputError
from stepreward.core.optional import optional
from stepreward.core.settings_text import read_settings
from stepreward.serve.server_limits import Limits
from stepreward.tasks.graders import grader_by_name, graders

KEYS = "STEPREWARD_SERVE_KEYS"
"""The environment's variable that holds API keys, parted by commas."""


def serve(
    model: ModelsFlag = None,
    combine: CombineFlag = "mean",
    doubt: DoubtFlag = 1.0,
    policy: Annotated[
        str | None,
        typer.Option(help="Who writes: builtin:arithmetic, a model folder, a hub name, or URL#MODEL of a server."),
    ] = None,
    top_k: TopKFlag = None,
    min_p: MinPFlag = None,
    reasoning_effort: EffortFlag = None,
    chat_template_kwargs: TemplateKwargsFlag = None,
    body: BodyFlag = None,
    expert: ExpertFlag = "",
    judge: JudgeFlag = "",
    host: Annotated[
        str, typer.Option(help="Where to listen; not on this machine alone, keys are a must.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8300,
    method: Annotated[
        str,
        typer.Option(
            help=f"Search of requests that name none; else beam, without --model majority: {choices(searches)}."
        ),
    ] = "",
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Setting of that search as name=value; may be repeated.")
    ] = None,
    name: Annotated[str, typer.Option(help="Name under which clients ask for the searched policy.")] = "policy",
    scorer_name: Annotated[str, typer.Option(help="Name under which clients ask for the reward model.")] = "scorer",
    grader: Annotated[str, typer.Option(help=f"Who reads answers, for votes: {', '.join(graders)}.")] = "mathematics",
    keys: Annotated[
        Path | None, typer.Option(help=f"File of API keys, one a line; {KEYS} holds more, parted by commas.")
    ] = None,
    like: LikeFlag = "",
    record: RecordFlag = None,
    calibrator: CalibratorFlag = None,
    answers: AnswersFlag = 1,
    device: DeviceFlag = "cpu",
    dtype: DtypeFlag = "",
    cache_memory: CacheFlag = "auto",
    running: Annotated[int, typer.Option(min=1, help="Requests worked on at once.")] = Limits.running,
    concurrency: Annotated[
        int, typer.Option(min=1, help="Most requests under way at once to the policy's server.")
    ] = 64,
    waiting: Annotated[int, typer.Option(min=0, help="Requests that may wait; more get status 429.")] = Limits.waiting,
    max_seconds: Annotated[float, typer.Option(min=0.1, help="Most seconds for a request.")] = Limits.seconds,
    max_tokens: Annotated[
        int, typer.Option(min=1, help="Most tokens generated for a request.")
    ] = Limits.generated_tokens,
    max_samples: Annotated[int, typer.Option(min=1, help="Most continuations asked for a request.")] = Limits.samples,
    max_body: Annotated[int, typer.Option(min=1, help="Most bytes of a request.")] = Limits.body_bytes,
) -> None:
    """Serve step scores and guided answers over HTTP, for the clients of OpenAI, vLLM and SGLang.

    With --model: /v1/steps, /pooling, /classify, /score. With --policy: /v1/chat/completions and /v1/models, each
    answer found by a search that the reward model guides. Always: /health, /metrics, /openapi.json.

    Example: stepreward serve --model runs/demo/model --policy builtin:arithmetic --grader arithmetic
    """
    told = policy_settings(top_k, min_p, reasoning_effort, chat_template_kwargs, body)
    if policy is None and told:
        raise InputError(f"{next(iter(told))} is of the policy, and there is none", remedy="pass --policy, or drop it")
    if not model and policy is None:
        raise InputError("there is nothing to serve", remedy="pass --model, --policy or both")
    recipe = recipe_of(like, record, calibrator, answers, dtype, needed=bool(model))
    method = method or ("beam" if model else "majority")
    (own,) = read_settings(settings or [], searches[method])
    known = _keys(keys)
    if not _is_loopback(host) and not known:
        raise InputError(
            f"{host} can be reached by others and there is no API key", remedy=f"pass --keys, or set {KEYS}"
        )
    limits = Limits(
        running=running, waiting=waiting, seconds=max_seconds, generated_tokens=max_tokens, samples=max_samples,
        body_bytes=max_body, connections=4 * (running + waiting) + 64,
    )  # fmt: skip
    # A server that cannot start says so before models are loaded.
    launch = optional("stepreward.serve.launch")
    scorer = scorers_at(model or [], device, recipe, combine, doubt, cache=cache_memory)
    served = optional("stepreward.serve.service").Served(
        policy=None if policy is None else policies_at(policy, expert, told, concurrency=concurrency, patience=0.0),
        scorer=scorer,
        judge=judge_at(judge, scorer, concurrency=concurrency),
        grader=grader_by_name(grader),
        name=name,
        scorer_name=scorer_name,
        method=method,
        settings=own,
        keys=known,
        limits=limits,
    )
    launch.launch(served, searches[method].asks, host, port)


def _keys(path: Path | None) -> list[str]:
    """The API keys of a file and of the environment."""
    told = os.environ.get(KEYS, "").split(",")
    if path is not None:
        try:
            told += path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot read API keys: {error}", source=path, remedy="write one a line") from error
    return [key.strip() for key in told if key.strip()]


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
