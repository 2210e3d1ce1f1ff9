"""The interfaces of vLLM's and SGLang's reward servers: tokens or texts in, outputs of the head out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request, Response

from stepreward.core.errors import InputError
from stepreward.score.remote.token_outputs import TokenOutputs
from stepreward.serve.requests.http_errors import ANSWERS
from stepreward.serve.requests.request_schemas import ClassifyRequest, PoolingRequest, RerankRequest, ScoreRequest
from stepreward.serve.scoring.head_output_answers import Desk
from stepreward.serve.scoring.token_requests import Ids
from stepreward.serve.service import Service

PACKED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The outputs, as JSON or as bytes alone",
        "content": {"application/json": {}, "application/octet-stream": {}},
    }
}


def token_routes(service: Service, outputs: TokenOutputs) -> APIRouter:
    """POST /pooling, /classify, /score, /rerank and their names under /v1."""
    router, desk = APIRouter(), Desk(service, outputs)

    @router.post("/pooling", responses={**ANSWERS, **PACKED}, summary="vLLM: outputs at every token or step end")
    @router.post("/v1/pooling", responses={**ANSWERS, **PACKED}, include_in_schema=False)
    async def pooling(body: PoolingRequest, request: Request) -> Response:
        desk.reader.admit(body)
        return await desk.answered(request, body.model, lambda check: desk.pooled(body, check))

    @router.post("/classify", responses=ANSWERS, summary="vLLM and SGLang: outputs at the last token")
    @router.post("/v1/classify", responses=ANSWERS, include_in_schema=False)
    async def classify(body: ClassifyRequest, request: Request) -> Response:
        native = body.text is not None
        given = body.model_copy(update={"input": body.text}) if native else body
        desk.reader.admit(given)
        return await desk.answered(request, body.model, lambda check: desk.classified(given, check, native=native))

    @router.post("/score", responses=ANSWERS, summary="vLLM: a score for each pair; SGLang: scores for each item")
    @router.post("/v1/score", responses=ANSWERS, include_in_schema=False)
    async def score(body: ScoreRequest, request: Request) -> Response:
        if body.query is not None:
            whole = joined(body)
            desk.reader.require_short(max(len(one) if isinstance(one, str) else 0 for one in whole))
            columns = desk.columns(body)
            return await desk.answered(request, body.model, lambda check: desk.labelled(body, whole, columns, check))
        pairs = pairs_of(body)
        desk.reader.require_short(max(len(a) + len(b) for a, b in pairs))
        return await desk.answered(request, body.model, lambda check: desk.scored(body, pairs, check))

    @router.post("/rerank", responses=ANSWERS, summary="vLLM: documents by their scores behind a query")
    @router.post("/v1/rerank", responses=ANSWERS, include_in_schema=False)
    @router.post("/v2/rerank", responses=ANSWERS, include_in_schema=False)
    async def rerank(body: RerankRequest, request: Request) -> Response:
        documents = [body.documents] if isinstance(body.documents, str) else body.documents
        desk.reader.require_short(len(body.query) + max(map(len, documents)))
        return await desk.answered(request, body.model, lambda check: desk.reranked(body, documents, check))

    return router


def joined(body: ScoreRequest) -> list[str | Ids]:
    """The prompts of SGLang's query and items, each one text or one token sequence.

    Raises:
        InputError: there are no items, further texts, or texts beside tokens.
    """
    query, items = body.query, [body.items] if isinstance(body.items, str) else body.items
    others = (body.text_1, body.text_2, body.queries, body.documents, body.data_1, body.data_2)
    if items is None or query is None or any(other is not None for other in others):
        raise InputError("expected items beside query, and no other texts")
    if any(isinstance(item, str) is not isinstance(query, str) for item in items):
        raise InputError("query and items must be texts, or token ids, both")
    return [item + query if body.item_first else query + item for item in items]  # type: ignore[operator]


def pairs_of(body: ScoreRequest) -> list[tuple[str, str]]:
    """The pairs of texts in a request, under any of vLLM's names.

    Raises:
        InputError: it names none, or in two ways, or the two sides do not fit.
    """
    ways: Sequence[tuple[Any, Any]] = (
        (body.text_1, body.text_2),
        (body.data_1, body.data_2),
        (body.queries, body.items if body.documents is None else body.documents),
    )
    named = [(first, second) for first, second in ways if first is not None or second is not None]
    twice = body.documents is not None and body.items is not None
    if len(named) != 1 or None in named[0] or twice:
        raise InputError("expected text_1 and text_2, queries and documents, data_1 and data_2, or query and items")
    first, second = ([texts] if isinstance(texts, str) else texts for texts in named[0])
    if not all(isinstance(text, str) for text in second):
        raise InputError("expected texts: token ids are read with query and items alone")
    if len(first) == 1:
        first = first * len(second)
    if len(first) != len(second):
        raise InputError(f"expected as many texts on both sides, or one on the first, got {len(first)}, {len(second)}")
    return list(zip(first, second, strict=True))
