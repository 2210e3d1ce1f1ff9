"""The server's application: routes, handlers of errors, and the guard around them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException

from stepreward.core.errors import ModelError, SteprewardError
from stepreward.score.capabilities import local_model_of
from stepreward.serve import on_demand
from stepreward.serve.gateway.chat import chat_routes, model_routes
from stepreward.serve.requests.guard import Guard
from stepreward.serve.requests.http_errors import ANSWERS, ApiError, answer_error
from stepreward.serve.scoring.step_routes import step_routes
from stepreward.serve.service import Served, Service
from stepreward.serve.watching.monitor_routes import monitor_routes

_PASS = {False: 16_384, True: 2048}
"""Most tokens of a forward pass for token requests, by whether it is on a CPU: other threads wait for one pass."""

_HEARTBEAT = 2.0
"""Seconds within which the thread that runs searches must answer the health check."""


def build(served: Served) -> Guard:
    """An ASGI application: the search gateway where there is a policy, the scoring server where there is a scorer.

    Raises:
        ValueError: there is neither, nor a monitor.
    """
    if served.policy is None and served.scorer is None and served.monitor is None:
        raise ValueError("pass a policy, a scorer, a monitor, or several: there is nothing to serve")
    service = Service(served)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with service.driver:
            yield

    app = FastAPI(
        title="stepreward",
        version=version("stepreward"),
        summary="Process rewards over HTTP: step scores, and answers found by search.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    # A handler of `Exception` alone would answer outside of all middleware, and raise the error again.
    for error in (RequestValidationError, HTTPException, ApiError, SteprewardError, Exception):
        app.add_exception_handler(error, answer_error)
    outputs = _outputs(served)
    app.include_router(model_routes(service, outputs))
    if served.policy is not None:
        app.include_router(chat_routes(service))
    if served.scorer is not None:
        app.include_router(step_routes(service))
        if outputs is not None:
            app.include_router(on_demand.token_routes(service, outputs))
    if served.monitor is not None:
        app.include_router(monitor_routes(service, served.monitor))
    _add_monitoring(app, service)
    _add_reasons(app, served, outputs)
    return Guard(app, keys=served.keys, limits=served.limits, metrics=service.metrics)


def _add_reasons(app: FastAPI, served: Served, outputs: on_demand.TokenOutputs | None) -> None:
    """Answers for paths of similar servers that this one does not have: why, and what to do."""
    reasons = {"/v1/completions": "a search answers conversations alone: send messages to /v1/chat/completions"}
    if served.policy is None:
        reasons["/v1/chat/completions"] = "this server has no policy to search with: start it with --policy"
    if served.scorer is None:
        reasons |= dict.fromkeys(
            ("/v1/steps", "/v1/steps/batch"), "this server has no reward model: start it with --model"
        )
    if served.monitor is None:
        reasons["/v1/monitor"] = "this server has no monitor: start it with --monitor"
    if outputs is None:
        way = "start it with --model" if served.scorer is None else "send steps to /v1/steps"
        why = "no reward model" if served.scorer is None else "no reward model that reads plain tokens"
        for path in ("/pooling", "/classify", "/score", "/rerank"):
            reasons |= dict.fromkeys((path, f"/v1{path}"), f"this server has {why}: {way}")

    async def absent(request: Request) -> None:
        raise ApiError(404, reasons[request.url.path], code="not_served")

    for path in reasons:
        app.add_api_route(path, absent, methods=["POST"], include_in_schema=False)


def _add_monitoring(app: FastAPI, service: Service) -> None:
    """GET /health and /metrics."""

    @app.head("/health", include_in_schema=False)
    @app.get("/health", responses=ANSWERS, summary="Whether requests are answered")
    async def health() -> Response:
        counts = {"running": service.admission.running, "waiting": service.admission.waiting}
        fault = await _health_fault(service)
        return JSONResponse({"status": fault or "ok", **counts}, 503 if fault else 200)

    @app.head("/ping", include_in_schema=False)
    @app.get("/ping", include_in_schema=False)
    @app.post("/ping", include_in_schema=False)
    async def ping() -> Response:
        return await health()

    @app.get("/version", responses=ANSWERS, summary="Of this package")
    async def show_version() -> dict[str, str]:
        return {"version": version("stepreward")}

    @app.get("/metrics", responses=ANSWERS, response_class=PlainTextResponse, summary="Counters for Prometheus")
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")


async def _health_fault(service: Service) -> str:
    """Why requests cannot be answered now; "" where they can."""
    if not service.driver.alive:
        return "the thread that runs searches has ended: restart the server"
    # A search that computes for long, or a lock that is never released, blocks that thread and so every search.
    try:
        await asyncio.wait_for(asyncio.wrap_future(service.driver.heartbeat()), _HEARTBEAT)
    except TimeoutError:
        return f"the thread that runs searches has not answered for {_HEARTBEAT:g} seconds"
    for role, seconds in service.driver.stuck.items():
        if seconds > service.limits.stuck_seconds:
            return f"the {role} has not answered for {seconds:.0f} seconds, with as many open requests as it may have"
    return ""


def _outputs(served: Served) -> on_demand.TokenOutputs | None:
    """Head outputs at tokens, where the scorer is a model in this process that reads plain tokens; else None."""
    found = local_model_of(served.scorer)
    if found is None:
        return None
    model, device = found
    try:
        return on_demand.TokenOutputs(model, device=device, batch_tokens=_PASS[device == "cpu"])
    except ModelError:
        return None
