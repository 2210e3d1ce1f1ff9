"""The scoring server's own interface: scores for steps, and a handle to continue from."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import numpy as np
from fastapi import APIRouter, Request

from stepreward.core.catalog import aggregate as aggregates
from stepreward.core.errors import InputError, SteprewardError, UnknownNameError
from stepreward.core.runtime.flows import Flow, Score
from stepreward.core.types import Problem, Step
from stepreward.score.capabilities import ScoreUse, use_of
from stepreward.search.candidates import total_of
from stepreward.serve.gateway.chat_problems import problem_of
from stepreward.serve.requests.http_errors import ANSWERS, ApiError, as_answer
from stepreward.serve.requests.request_schemas import Message, StepsBatch, StepsRequest
from stepreward.serve.scoring.handles import Prefixes, ScoredPrefix
from stepreward.serve.service import Service, tell, unless_left

LONGEST = 4000
"""Most steps of a solution."""


def step_routes(service: Service) -> APIRouter:
    """POST /v1/steps and /v1/steps/batch."""
    router, prefixes = APIRouter(), Prefixes()
    default = (use_of(service.served.scorer) or ScoreUse()).aggregate

    async def score(body: StepsRequest, deadline: float) -> dict[str, Any]:
        """Scores one request's steps."""
        if body.model not in (None, service.served.scorer_name):
            known = [service.served.scorer_name]
            raise ApiError(404, str(UnknownNameError("model", body.model or "", known)), code="model_not_found")
        before = _before(body, prefixes)
        new = tuple(
            Step(one) if isinstance(one, str) else Step(one.text, one.kind, one.role, one.agent) for one in body.steps
        )
        if (blank := next((i for i, step in enumerate(new) if not step.text.strip()), None)) is not None:
            raise InputError(f"step {blank} has no text", remedy="drop empty steps")
        steps = before.steps + new
        if len(steps) > LONGEST:
            raise InputError(f"a solution has {len(steps):,} steps, more than {LONGEST:,}")
        aggregate = aggregates[body.aggregate or default].name
        finished = await service.run(_scored(before.problem, steps), deadline)
        own = finished.result[len(before.steps) :].tolist()
        scores = (*before.scores, *own)
        total = float(total_of([scores], aggregate)[0]) if not all(map(np.isnan, scores)) else None
        return {
            "object": "steps",
            "model": service.served.scorer_name,
            "scores": [None if np.isnan(s) else s for s in own],
            "total": total,
            "aggregate": aggregate,
            "prefix": prefixes.put(before, new, own),
            "usage": {
                "prompt_tokens": finished.bill.scored_tokens_unshared,
                "encoded_tokens": finished.bill.scored_tokens,
            },
        }

    @router.post("/v1/steps", responses=ANSWERS, summary="Score steps, or those that follow a scored prefix")
    async def one(body: StepsRequest, request: Request) -> dict[str, Any]:
        deadline = service.deadline()
        async with service.admission.place(deadline):
            made = await unless_left(request, score(body, deadline))
        tell(request, steps=len(made["scores"]), **made["usage"])
        return made

    @router.post("/v1/steps/batch", responses=ANSWERS, summary="Several requests at once, each answered by itself")
    async def many(body: StepsBatch, request: Request) -> dict[str, Any]:
        deadline = service.deadline()

        async def safely(item: StepsRequest) -> dict[str, Any]:
            try:
                return await score(item, deadline)
            except (ApiError, SteprewardError) as error:
                return as_answer(error).body

        async with service.admission.place(deadline):
            work = asyncio.gather(*(safely(item) for item in body.items))
            made = await unless_left(request, work)
        tell(request, items=len(made))
        return {"object": "list", "data": made}

    return router


def _scored(problem: Problem, steps: tuple[Step, ...]) -> Flow[Any]:
    (scores,) = yield [Score(problem, steps)]
    return scores


def _before(body: StepsRequest, prefixes: Prefixes) -> ScoredPrefix:
    """The prefix before a request's steps."""
    if (body.problem is None) == (body.prefix is None):
        raise InputError("expected one of problem and prefix", remedy="send the problem first, then its handle")
    if body.prefix is not None:
        if body.reference is not None:
            raise InputError("a prefix has its reference already", remedy="send the reference with the problem")
        return prefixes.get(body.prefix)
    problem = [Message(role="user", content=body.problem)] if isinstance(body.problem, str) else body.problem or []
    made = problem_of(problem)
    if not made.text.strip():
        raise InputError("the problem has no text")
    prompt = body.problem if isinstance(body.problem, str) else made.prompt
    return ScoredPrefix(replace(made, prompt=prompt, reference=body.reference))
