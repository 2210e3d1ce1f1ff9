"""The search gateway: OpenAI's chat completions, answered by a search."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from stepreward.core.errors import UnknownNameError
from stepreward.core.keys import Key
from stepreward.core.runtime.driver import Finished
from stepreward.core.runtime.flows import EFFORT, TEMPLATE_KWARGS, honoured_settings, room_of
from stepreward.core.runtime.wrapped_flows import limited
from stepreward.core.types import Problem
from stepreward.score.monitor.run_monitor import MonitorVerdict
from stepreward.search.candidates import Found
from stepreward.serve import on_demand
from stepreward.serve.gateway.available_searches import possible
from stepreward.serve.gateway.chat_problems import problem_of, require_taken, shown
from stepreward.serve.gateway.planning import Plan, plan
from stepreward.serve.gateway.stop_words import ending_before, readable
from stepreward.serve.requests.http_errors import ANSWERS, ApiError, as_answer, raised_at, too_long
from stepreward.serve.requests.request_schemas import ChatRequest
from stepreward.serve.service import Service, left, tell, unless_left
from stepreward.serve.watching.judged_chats import HEADER, refusal, stopped, verdict_of

STREAMED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The answer, or with `stream` its chunks",
        "content": {
            "application/json": {"schema": {"type": "object"}},
            "text/event-stream": {"schema": {"type": "string"}},
        },
    }
}
ROLE = {"role": "assistant", "content": ""}
"""The delta of a choice's first chunk."""
ALIVE = 5.0
"""Seconds between two comments that keep a stream open while its search runs."""


def chat_routes(service: Service) -> APIRouter:
    """POST /v1/chat/completions."""
    router = APIRouter()

    @router.post(
        "/v1/chat/completions", responses={**ANSWERS, **STREAMED}, summary="Search for an answer, guided by step scores"
    )
    async def complete(body: ChatRequest, request: Request) -> Response:
        served = service.served
        made = plan(body, served.name, served.method, served.settings, service.limits.samples)
        job = Job(service, body, made)
        tell(request, search=made.method.name, stream=bool(body.stream))
        async with AsyncExitStack() as stack:
            await unless_left(request, stack.enter_async_context(service.admission.place(job.deadline)))
            job.verdict = await unless_left(request, verdict_of(service, body.messages, job.deadline))
            if job.verdict is not None:
                tell(request, verdict=job.verdict.action)
                if job.verdict.action == "stop" and served.on_stop != "tell":
                    return _ended(job)
            if body.stream:
                return _AnswerStream(_events(request, job), stack.pop_all(), job.headers)
            finished = await unless_left(request, job.run())
        answer = job.answer(finished)
        tell(request, **answer["usage"], stopped=finished.stopped)
        return JSONResponse(answer, headers=job.headers)

    return router


class Job:
    """A running request.

    Args:
        service: of the server.
        body: the request.
        made: the search to run.
    """

    def __init__(self, service: Service, body: ChatRequest, made: Plan) -> None:
        self.service, self.body, self.plan = service, body, made
        self.deadline = service.deadline(body.stepreward.deadline)
        self.id, self.created = f"chatcmpl-{secrets.token_hex(12)}", int(time.time())
        self.verdict: MonitorVerdict | None = None
        """The monitor's, of the conversation before this answer."""

    @property
    def headers(self) -> dict[str, str]:
        """What the answer says beside its body."""
        return {} if self.verdict is None else {HEADER: self.verdict.action}

    async def run(self) -> Finished[Found]:
        """Searches.

        Raises:
            ApiError: nothing was found.
            SteprewardError: the search failed.
        """
        body = self.body
        template = {name: getattr(body, name) for name in (TEMPLATE_KWARGS, EFFORT)}
        problem = problem_of(body.messages, body.tools or (), body.tool_choice, **template)
        sampling = require_taken(body, problem, honoured_settings(self.service.served.policy))
        key = Key.seed(secrets.randbits(63) if body.seed is None else body.seed).fold("chat")
        flow = self.plan.method.take({"problem": problem, "key": key}, **self.plan.settings)
        stop = [body.stop] if isinstance(body.stop, str) else body.stop
        flow = ending_before(readable(flow), stop) if stop else readable(flow)
        limit = body.max_completion_tokens or body.max_tokens
        flow = limited(flow, max_tokens=limit, temperature=body.temperature, top_p=body.top_p, **sampling)
        finished: Finished[Found] = await self.service.run(flow, self.deadline, body.stepreward.generated_tokens)
        if finished.result.chosen < 0:
            raise await self._empty(problem, finished.stopped)
        return finished

    async def _empty(self, problem: Problem, stopped: str) -> ApiError:
        """Why nothing was found."""
        if stopped == "seconds":
            return ApiError(504, "no answer came in time", code=stopped)
        if stopped:
            return ApiError(
                400,
                f"no answer fits in the limit of {stopped}: raise the limit, or send a smaller request",
                code=stopped,
            )
        if await asyncio.to_thread(room_of, self.service.served.policy, problem) < 1:
            return too_long("the prompt is longer than the policy's context: shorten it")
        if self.body.stop:
            return ApiError(400, "the model wrote nothing before a text of stop", param="stop", code="empty")
        return ApiError(502, "the model wrote nothing", code="empty")

    def answer(self, finished: Finished[Found]) -> dict[str, Any]:
        """The whole answer."""
        choices = [
            {"index": i, "message": one.message(), "finish_reason": one.reason, "stop_reason": None, "logprobs": None}
            | ({"stepreward": one.details} if self.body.stepreward.scores else {})
            for i, one in enumerate(shown(finished.result, self.body.n or 1))
        ]
        return self._frame("chat.completion", choices) | {
            "usage": usage(finished), "stepreward": self._summary(finished)
        }  # fmt: skip

    def chunks(self, finished: Finished[Found]) -> list[dict[str, Any]]:
        """The chunks of a streamed answer after the first, one for each step."""
        made = []
        for i, one in enumerate(shown(finished.result, self.body.n or 1)):
            made += [self._frame("chat.completion.chunk", [self._choice(i, ROLE)])] if i else []
            for n, piece in enumerate(one.pieces):
                choice = self._choice(i, {"content": piece})
                if self.body.stepreward.scores and one.details["steps"]:
                    choice["stepreward"] = {"score": one.details["steps"][n]["score"]}
                made.append(self._frame("chat.completion.chunk", [choice]))
            if one.calls:
                calls = [{"index": n, **call} for n, call in enumerate(one.calls)]
                made.append(self._frame("chat.completion.chunk", [self._choice(i, {"tool_calls": calls})]))
            made.append(self._frame("chat.completion.chunk", [self._choice(i, {}, one.reason)]))
        made[-1]["stepreward"] = self._summary(finished)
        if self.body.stream_options is not None and self.body.stream_options.include_usage:
            made.append(self._frame("chat.completion.chunk", []) | {"usage": usage(finished)})
        return made

    def ending(self, said: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """An answer that says so much and ends, whole and in chunks, for which no model was asked."""
        assert self.verdict is not None
        more = {"stepreward": {"stopped": "monitor", "monitor": self.verdict.to_json()}}
        message = {"role": "assistant", "content": said}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "stop_reason": None, "logprobs": None}
        whole = self._frame("chat.completion", [choice]) | {"usage": usage_of(0, 0)} | more
        deltas = [self._choice(0, {"content": said}), self._choice(0, {}, "stop")]
        chunks = [self.opening(), *(self._frame("chat.completion.chunk", [delta]) for delta in deltas)]
        chunks[-1] |= more
        return whole, chunks

    def opening(self) -> dict[str, Any]:
        """The first chunk of a stream, which states the role."""
        return self._frame("chat.completion.chunk", [self._choice(0, ROLE)])

    def _frame(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.body.model, "choices": choices}

    @staticmethod
    def _choice(index: int, delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        return {"index": index, "delta": delta, "finish_reason": reason, "logprobs": None}

    def _summary(self, finished: Finished[Found]) -> dict[str, Any]:
        shared = max(0, finished.given_tokens - finished.bill.generated_tokens)
        return {
            "method": self.plan.method.name,
            "settings": {**self.plan.method.settings, **self.plan.settings},
            "candidates": len(finished.result.answers),
            "stopped": finished.stopped or None,
            "seconds": round(finished.seconds, 4),
            "cached": shared > 0,
            "shared_tokens": shared,
            "bill": asdict(finished.bill),
            **({} if self.verdict is None else {"monitor": self.verdict.to_json()}),
        }


def usage(finished: Finished[Found]) -> dict[str, int | None]:
    """Tokens generated and read for an answer, those of rejected candidates included."""
    return usage_of(finished.bill.prompt_tokens, finished.bill.generated_tokens)


def usage_of(read: int, written: int) -> dict[str, int | None]:
    """Tokens in OpenAI's form."""
    counted = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
    return {**counted, "prompt_tokens_details": None, "completion_tokens_details": None}


def model_routes(service: Service, outputs: on_demand.TokenOutputs | None = None) -> APIRouter:
    """GET /v1/models: the policy with every search that the server can run, and the reward model."""
    router = APIRouter()
    served = service.served
    can = possible(served)
    known = [served.name] if served.method in [method.name for method in can] else []
    known += [f"{served.name}:{method.name}" for method in can]
    known += [served.scorer_name] if served.scorer is not None else []

    def card(name: str) -> dict[str, Any]:
        most = outputs.most if outputs is not None and name == served.scorer_name else None
        own = {"id": name, "object": "model", "created": 0, "owned_by": "stepreward"}
        return {**own, "root": name, "parent": None, "max_model_len": most, "permission": []}

    @router.get("/v1/models", responses=ANSWERS, summary="Models that can be requested")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [card(name) for name in known]}

    @router.get("/v1/models/{model:path}", responses=ANSWERS, summary="One of them")
    async def model(model: str) -> dict[str, Any]:
        if model not in known:
            raise ApiError(404, str(UnknownNameError("model", model, known)), param="model", code="model_not_found")
        return card(model)

    return router


async def _events(request: Request, job: Job) -> AsyncIterator[bytes]:
    """Server-sent events: comments while the search runs, then the answer."""
    task, gone = asyncio.ensure_future(job.run()), asyncio.ensure_future(left(request))
    try:
        yield _event(job.opening())
        while not (await asyncio.wait({task, gone}, timeout=ALIVE, return_when=asyncio.FIRST_COMPLETED))[0]:
            yield b": searching\n\n"
        if not task.done():
            return
        try:
            finished = task.result()
        except Exception as error:
            # Status 200 has been sent, so that any fault can only be reported inside the stream.
            yield _event(as_answer(error).body)
            tell(request, failed=f"{type(error).__name__} at {raised_at(error)}")
        else:
            for chunk in job.chunks(finished):
                yield _event(chunk)
            tell(request, **usage(finished), stopped=finished.stopped)
        yield b"data: [DONE]\n\n"
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


def _ended(job: Job) -> Response:
    """The answer to a conversation that the monitor stops.

    Raises:
        ApiError: the server refuses such conversations.
    """
    served = job.service.served
    assert job.verdict is not None
    assert served.monitor is not None
    if served.on_stop == "refuse":
        raise refusal(job.verdict, served.monitor.alpha)
    whole, chunks = job.ending(stopped(job.verdict, served.monitor.alpha))
    if not job.body.stream:
        return JSONResponse(whole, headers=job.headers)
    text = b"".join(map(_event, chunks)) + b"data: [DONE]\n\n"
    return Response(text, media_type="text/event-stream", headers=job.headers)


def _event(body: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"


class _AnswerStream(StreamingResponse):
    """A stream that frees its place at its end, whether it was read or not."""

    def __init__(self, content: AsyncIterator[bytes], place: AsyncExitStack, headers: Mapping[str, str]) -> None:
        super().__init__(content, media_type="text/event-stream", headers={"Cache-Control": "no-cache", **headers})
        self._place = place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._place:
            await super().__call__(scope, receive, send)
