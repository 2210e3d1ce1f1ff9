"""The monitor's own interface: a verdict after each turn of a run elsewhere."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request

from stepreward.core.errors import InputError
from stepreward.core.types import Problem, Step
from stepreward.score.monitor.run_monitor import Monitor, MonitorVerdict
from stepreward.serve.gateway.chat_problems import problem_of
from stepreward.serve.requests.http_errors import ANSWERS
from stepreward.serve.requests.request_schemas import Message, MonitorRequest
from stepreward.serve.service import Service, tell, unless_left
from stepreward.serve.watching.judged_chats import scores_of, split, steps_of
from stepreward.serve.watching.watched_sessions import Sessions, WatchedSession


def monitor_routes(service: Service, monitor: Monitor) -> APIRouter:
    """GET and POST /v1/monitor."""
    router, sessions = APIRouter(), Sessions()
    service.metrics.watch("runs_watched", "Runs that the monitor remembers", lambda: len(sessions))

    @router.get("/v1/monitor", responses=ANSWERS, summary="What watches, and at which rates of false alarms")
    async def about() -> dict[str, Any]:
        settings = {name: getattr(monitor, name) for name in ("alpha", "warn", "guarantee", "column")}
        return {"object": "monitor", **settings, "can_stop": monitor.can_stop, "about": dict(monitor.about)}

    @router.post("/v1/monitor", responses=ANSWERS, summary="Whether a run should go on after one more turn")
    async def judge(body: MonitorRequest, request: Request) -> dict[str, Any]:
        deadline = service.deadline()
        async with service.admission.place(deadline):
            verdict, handle = await unless_left(request, _judged(service, monitor, sessions, body, deadline))
        tell(request, turn=verdict.turn, verdict=verdict.action)
        rates = {"alpha": monitor.alpha, "warn": monitor.warn}
        return {"object": "verdict", "session": handle, **verdict.to_json(), **rates}

    return router


async def _judged(
    service: Service, monitor: Monitor, sessions: Sessions, body: MonitorRequest, deadline: float
) -> tuple[MonitorVerdict, str]:
    """The verdict after a request's turns, and the handle to go on from."""
    problem, steps = _said(body)
    if not any(step.kind == "action" for step in steps):
        raise InputError("a turn needs an action", remedy="send the agent's step, and what was answered behind it")
    if body.session is None:
        session = WatchedSession(monitor.watch(problem))
    elif body.problem is not None:
        raise InputError("a session has its problem already", remedy="leave the problem out")
    else:
        session = sessions.get(body.session)
    # Two requests of one run: the second waits until the turns of the first are known.
    async with session.turn:
        known = session.steps
        scores: list[float] | None = body.scores
        if scores is not None and len(scores) != sum(step.kind == "action" for step in steps):
            raise InputError("expected a score for each action", remedy="send as many scores as actions")
        if scores is None:
            every = await scores_of(service, session.watcher.problem, [*known, *steps], deadline)
            before = sum(step.kind == "action" for step in known)
            scores = None if every is None else every[before:]
        verdict = await asyncio.to_thread(session.watcher.after_turn, *steps, score=scores)
        service.metrics.verdicts.labels(verdict.action).inc()
        if monitor.column and service.served.scorer is not None:
            session.steps = (*known, *steps)
    if body.session is None:
        return verdict, sessions.put(session)
    sessions.count(body.session)
    return verdict, body.session


def _said(body: MonitorRequest) -> tuple[Problem, list[Step]]:
    """The problem and the steps of a request."""
    if (body.steps is None) == (body.messages is None):
        raise InputError("expected one of steps and messages", remedy="send the turn as one of them")
    given = body.problem
    problem = problem_of([Message(role="user", content=given)] if isinstance(given, str) else given or [])
    if body.messages is None:
        steps = [Step(one) if isinstance(one, str) else Step(one.text, one.kind, one.role, one.agent)
                 for one in body.steps or ()]  # fmt: skip
        return problem, steps
    if body.session is not None or given is not None:
        return problem, steps_of(body.messages)
    return split(body.messages)
