"""Verdicts on conversations: a request holds the run so far, so that nothing has to be kept between two of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np

from stepreward.core.runtime.flows import Flow, Score
from stepreward.core.segment.tool_calls import step_of_message
from stepreward.core.types import Floats, Problem, Step
from stepreward.score.monitor.run_monitor import MonitorVerdict
from stepreward.serve.gateway.chat_problems import problem_of
from stepreward.serve.requests.http_errors import ApiError
from stepreward.serve.requests.request_schemas import Message
from stepreward.serve.service import Service

HEADER = "X-Stepreward-Monitor"
"""Of every answer to a conversation that was watched: what the monitor says of it."""


def steps_of(messages: Sequence[Message]) -> list[Step]:
    """Messages as steps: the assistant's are actions, all others observations."""
    return [step_of_message(message.model_dump(exclude_none=True)) for message in messages]


def split(messages: Sequence[Message]) -> tuple[Problem, list[Step]]:
    """A conversation as its problem, which is all before the assistant first speaks, and its steps."""
    steps = steps_of(messages)
    first = next((place for place, step in enumerate(steps) if step.kind == "action"), len(steps))
    return problem_of(messages[:first]), steps[first:]


async def scores_of(service: Service, problem: Problem, steps: Sequence[Step], deadline: float) -> list[float] | None:
    """A score for each action, where the monitor reads scores and the server has a model; else None."""
    if service.served.monitor is None or not service.served.monitor.column or service.served.scorer is None:
        return None

    def scored() -> Flow[Floats]:
        (scores,) = yield [Score(problem, tuple(steps))]
        return np.asarray(scores, np.float64)

    finished = await service.run(scored(), deadline)
    return [float(s) for s, step in zip(finished.result, steps, strict=True) if step.kind == "action"]


async def verdict_of(service: Service, messages: Sequence[Message], deadline: float) -> MonitorVerdict | None:
    """What the monitor says of a conversation so far; None without a monitor, or where nothing was done yet."""
    if service.served.monitor is None:
        return None
    problem, steps = split(messages)
    if not steps:
        return None
    scores = await scores_of(service, problem, steps, deadline)
    watcher = service.served.monitor.watch(problem)
    # Texts may be long: reading them in the loop would let other requests wait.
    made = await asyncio.to_thread(watcher.after_turn, *steps, score=scores)
    service.metrics.verdicts.labels(made.action).inc()
    return made


def stopped(verdict: MonitorVerdict, alpha: float) -> str:
    """The sentence that ends a conversation."""
    return (
        f"The monitor stopped this run after turn {verdict.turn}: "
        f"at most {alpha:.1%} of the runs that succeed ever look like it (p = {verdict.p_value:.3g})."
    )


def refusal(verdict: MonitorVerdict, alpha: float) -> ApiError:
    """The answer to a conversation that is not gone on with; clients do not try 403 again."""
    return ApiError(403, stopped(verdict, alpha), param="messages", code="stopped_by_monitor")
