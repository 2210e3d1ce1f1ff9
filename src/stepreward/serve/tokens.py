"""The interfaces of vLLM's and SGLang's reward servers: tokens or texts in, outputs of the head out."""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response
from numpy.typing import NDArray

from stepreward.core.errors import InputError, ModelError, UnknownNameError
from stepreward.score.token_outputs import TokenOutputs
from stepreward.serve.errors import ANSWERS, ApiError
from stepreward.serve.reading import Ids, Reader
from stepreward.serve.service import Service, tell
from stepreward.serve.shapes import ClassifyRequest, PoolingRequest, ScoreRequest
from stepreward.serve.turns import Check

Rows = NDArray[np.float64]
Work = Callable[[Check], tuple[Response, list[Ids]]]
"""Makes an answer out of token sequences."""


def token_routes(service: Service, outputs: TokenOutputs) -> APIRouter:
    """POST /pooling, /classify, /score and their names under /v1."""
    router, desk = APIRouter(), _Desk(service, outputs)

    @router.post("/pooling", responses=ANSWERS, summary="vLLM: outputs at every token or step end")
    @router.post("/v1/pooling", responses=ANSWERS, include_in_schema=False)
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

    @router.post("/score", responses=ANSWERS, summary="vLLM and SGLang: one score for each pair of texts")
    @router.post("/v1/score", responses=ANSWERS, include_in_schema=False)
    async def score(body: ScoreRequest, request: Request) -> Response:
        pairs = _pairs(body)
        for a, b in pairs:
            desk.reader.require_short(len(a) + len(b))
        return await desk.answered(request, body.model, lambda check: desk.scored(body, pairs, check))

    return router


class _Desk:
    """What the routes share: it makes their answers, in threads.

    Args:
        service: limits, admission and the model's turns.
        outputs: of the model.
    """

    def __init__(self, service: Service, outputs: TokenOutputs) -> None:
        assert service.scorer is not None
        self.service, self.outputs, self.turns = service, outputs, service.scorer.turns
        self.reader = Reader(outputs, self.turns)

    async def answered(self, request: Request, model: str | None, work: Work) -> Response:
        """The answer to a request for a model."""
        name = self.service.served.scorer_name
        if model not in (None, name):
            raise ApiError(404, str(UnknownNameError("model", model or "", [name])), code="model_not_found")
        answer, inputs = await self.service.in_thread(request, work)
        tokens = sum(map(len, inputs))
        self.service.metrics.tokens.labels("scored").inc(tokens)
        tell(request, inputs=len(inputs), prompt_tokens=tokens)
        return answer

    def pooled(self, body: PoolingRequest, check: Check) -> tuple[Response, list[Ids]]:
        """Outputs at step ends, or at every token."""
        inputs, tag = self.reader.sequences(body, check), self.outputs.tag
        data = []
        for i, (ids, own) in enumerate(zip(inputs, self.rows(inputs, check), strict=True)):
            shown = own[np.asarray(ids) == tag] if tag is not None else own
            shown = self.outputs.activated(shown) if body.activated else shown
            packed = shown.tolist() if body.encoding_format == "float" else _base64(shown)
            data.append({"index": i, "object": "pooling", "data": packed})
        return self.framed("pool", body.model, data, inputs), inputs

    def classified(self, body: ClassifyRequest, check: Check, *, native: bool) -> tuple[Response, list[Ids]]:
        """Outputs at the last token, in vLLM's form or in SGLang's own."""
        inputs = self.reader.sequences(body, check)
        last = [rows[-1:] for rows in self.rows(inputs, check)]
        shown = [(self.outputs.activated(row) if body.activated else row)[0] for row in last]
        if native:
            bare = [
                {"embedding": row.tolist(), "meta_info": {"id": secrets.token_hex(8), "prompt_tokens": len(ids)}}
                for row, ids in zip(shown, inputs, strict=True)
            ]
            return _json(bare), inputs
        data = [
            {"index": i, "label": f"LABEL_{int(row.argmax())}", "probs": row.tolist(), "num_classes": len(row)}
            for i, row in enumerate(shown)
        ]
        return self.framed("classify", body.model, data, inputs), inputs

    def scored(self, body: ScoreRequest, pairs: Sequence[tuple[str, str]], check: Check) -> tuple[Response, list[Ids]]:
        """A score for each pair of texts."""
        firsts = self.reader.ids([a for a, _ in pairs], check)
        seconds = self.reader.ids([b for _, b in pairs], check, special=False)
        inputs = self.reader.fitted([a + b for a, b in zip(firsts, seconds, strict=True)])
        last, out = np.concatenate([own[-1:] for own in self.rows(inputs, check)]), self.outputs
        scores = (out.activated(last)[:, 0] if out.n_labels == 1 else out.scores(last)).tolist()
        data = [{"index": i, "object": "score", "score": value} for i, value in enumerate(scores)]
        # SGLang's clients read a bare list under another name.
        more = {"scores": scores} if body.items is not None else {}
        return self.framed("score", body.model, data, inputs, more), inputs

    def rows(self, inputs: Sequence[Ids], check: Check) -> list[Rows]:
        """Outputs at every token of every sequence; others have their turn at the model between two batches.

        Raises:
            ModelError: one is no number.
        """
        made = self.outputs.rows(inputs, turn=lambda: self.turns.turn(check))
        if not all(np.isfinite(rows).all() for rows in made):
            raise ModelError("its outputs are not finite")
        return made

    def framed(
        self,
        kind: str,
        model: str | None,
        data: Sequence[Mapping[str, Any]],
        inputs: Sequence[Ids],
        more: Mapping[str, Any] | None = None,
    ) -> Response:
        """A whole answer in vLLM's form."""
        tokens = sum(map(len, inputs))
        frame = {
            "id": f"{kind}-{secrets.token_hex(12)}",
            "object": "list",
            "created": int(time.time()),
            "model": model or self.service.served.scorer_name,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0},
            **(more or {}),
        }
        return _json(data, frame)


def _json(items: Sequence[Any], frame: Mapping[str, Any] | None = None) -> Response:
    """A list, or a frame with it as `data`; written item by item, so that no other thread waits for all of it."""
    listed = b"[" + b",".join(json.dumps(item, separators=(",", ":")).encode() for item in items) + b"]"
    if frame is not None:
        listed = json.dumps(frame, separators=(",", ":")).encode()[:-1] + b',"data":' + listed + b"}"
    return Response(listed, media_type="application/json")


def _base64(rows: Rows) -> str:
    """float32, little-endian, row after row."""
    return base64.b64encode(rows.astype("<f4").tobytes()).decode()


def _pairs(body: ScoreRequest) -> list[tuple[str, str]]:
    """The pairs of texts that a request names in one of its ways."""
    if body.label_token_ids:
        raise ApiError(400, "this model's labels are its own: leave label_token_ids out", param="label_token_ids")
    ways = ((body.text_1, body.text_2), (body.queries, body.documents), (body.query, body.items))
    named = [(first, second) for first, second in ways if first is not None or second is not None]
    if len(named) != 1 or None in named[0]:
        raise InputError("expected text_1 and text_2, or queries and documents, or query and items")
    first, second = ([texts] if isinstance(texts, str) else list(texts or []) for texts in named[0])
    if len(first) == 1:
        first = first * len(second)
    if len(first) != len(second):
        raise InputError(f"expected as many texts on both sides, or one on the first, got {len(first)}, {len(second)}")
    pairs = list(zip(first, second, strict=True))
    return [(b, a) for a, b in pairs] if body.item_first else pairs
