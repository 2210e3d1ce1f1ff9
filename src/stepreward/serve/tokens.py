"""The interfaces of vLLM's and SGLang's reward servers: tokens or texts in, outputs of the head out."""

from __future__ import annotations

import asyncio
import base64
import secrets
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from numpy.typing import NDArray

from stepreward.core.errors import InputError, UnknownNameError
from stepreward.score.token_outputs import TokenOutputs
from stepreward.serve.errors import ANSWERS, ApiError
from stepreward.serve.service import Service, tell
from stepreward.serve.shapes import ClassifyRequest, PoolingRequest, ScoreRequest, TokenInput

Rows = NDArray[np.float64]


def token_routes(service: Service, outputs: TokenOutputs) -> APIRouter:
    """POST /pooling, /classify, /score and their names under /v1."""
    router, desk = APIRouter(), _Desk(service, outputs)

    @router.post("/pooling", responses=ANSWERS, summary="vLLM: outputs at every token or step end")
    @router.post("/v1/pooling", responses=ANSWERS, include_in_schema=False)
    async def pooling(body: PoolingRequest, request: Request) -> dict[str, Any]:
        inputs = desk.inputs(body)
        rows = await desk.rows(request, body.model, inputs)
        data = []
        for i, (ids, own) in enumerate(zip(inputs, rows, strict=True)):
            shown = own[np.asarray(ids) == outputs.tag] if outputs.tag is not None else own
            shown = outputs.activated(shown) if body.activated else shown
            packed = shown.tolist() if body.encoding_format == "float" else _base64(shown)
            data.append({"index": i, "object": "pooling", "data": packed})
        return desk.frame("pool", body.model, data, inputs)

    @router.post("/classify", responses=ANSWERS, summary="vLLM and SGLang: outputs at the last token")
    @router.post("/v1/classify", responses=ANSWERS, include_in_schema=False)
    async def classify(body: ClassifyRequest, request: Request) -> Any:
        native = body.text is not None
        given = body.model_copy(update={"input": body.text}) if native else body
        inputs = desk.inputs(given)
        last = [rows[-1:] for rows in await desk.rows(request, body.model, inputs)]
        shown = [outputs.activated(row) if body.activated else row for row in last]
        if native:
            return [
                {"embedding": row[0].tolist(), "meta_info": {"id": secrets.token_hex(8), "prompt_tokens": len(ids)}}
                for row, ids in zip(shown, inputs, strict=True)
            ]
        data = [
            {
                "index": i,
                "label": f"LABEL_{int(row[0].argmax())}",
                "probs": row[0].tolist(),
                "num_classes": row.shape[1],
            }
            for i, row in enumerate(shown)
        ]
        return desk.frame("classify", body.model, data, inputs)

    @router.post("/score", responses=ANSWERS, summary="vLLM and SGLang: one score for each pair of texts")
    @router.post("/v1/score", responses=ANSWERS, include_in_schema=False)
    async def score(body: ScoreRequest, request: Request) -> dict[str, Any]:
        inputs = [desk.fitted(outputs.ids(a) + outputs.ids(b, special=False)) for a, b in _pairs(body)]
        rows = await desk.rows(request, body.model, inputs)
        last = np.concatenate([own[-1:] for own in rows])
        scores = (outputs.activated(last)[:, 0] if outputs.n_labels == 1 else outputs.scores(last)).tolist()
        data = [{"index": i, "object": "score", "score": value} for i, value in enumerate(scores)]
        made = desk.frame("score", body.model, data, inputs)
        # SGLang's clients read a bare list under another name.
        return made | ({"scores": scores} if body.items is not None else {})

    return router


class _Desk:
    """What the routes share.

    Args:
        service: limits, admission and the model's lock.
        outputs: of the model.
    """

    def __init__(self, service: Service, outputs: TokenOutputs) -> None:
        self.service, self.outputs = service, outputs

    def inputs(self, body: TokenInput) -> list[list[int]]:
        """The token sequences of a request."""
        if (body.input is None) == (body.messages is None):
            raise InputError("expected one of input and messages")
        if body.messages is not None:
            made = [self.outputs.chat_ids([{"role": m.role, "content": m.text} for m in body.messages])]
        else:
            given = body.input if isinstance(body.input, list) and not _is_ids(body.input) else [body.input]
            made = [
                self.outputs.ids(one, special=body.add_special_tokens) if isinstance(one, str) else list(one or [])  # type: ignore[arg-type]
                for one in given
            ]
        keep = body.truncate_prompt_tokens
        if keep is not None:
            made = [ids[-(self.outputs.most if keep < 0 else keep) :] if keep else [] for ids in made]
        return [self.fitted(ids) for ids in made]

    def fitted(self, ids: list[int]) -> list[int]:
        """A sequence, if the model holds it."""
        if len(ids) > self.outputs.most:
            raise InputError(
                f"an input has {len(ids):,} tokens, more than {self.outputs.most:,}",
                remedy="shorten it, or send truncate_prompt_tokens=-1",
            )
        return ids

    async def rows(self, request: Request, model: str | None, inputs: Sequence[Sequence[int]]) -> list[Rows]:
        """Outputs at every token of every sequence, computed one request at a time."""
        name, scorer = self.service.served.scorer_name, self.service.scorer
        if model not in (None, name):
            raise ApiError(404, str(UnknownNameError("model", model or "", [name])), code="model_not_found")
        assert scorer is not None

        def work() -> list[Rows]:
            with scorer.lock:
                return self.outputs.rows(inputs)

        async with self.service.admission.place(self.service.deadline()):
            made = await asyncio.to_thread(work)
        tokens = sum(map(len, inputs))
        self.service.metrics.tokens.labels("scored").inc(tokens)
        tell(request, inputs=len(inputs), prompt_tokens=tokens)
        return made

    def frame(
        self, kind: str, model: str | None, data: list[dict[str, Any]], inputs: Sequence[Sequence[int]]
    ) -> dict[str, Any]:
        """A whole answer in vLLM's form."""
        tokens = sum(map(len, inputs))
        return {
            "id": f"{kind}-{secrets.token_hex(12)}",
            "object": "list",
            "created": int(time.time()),
            "model": model or self.service.served.scorer_name,
            "data": data,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0},
        }


def _is_ids(given: Sequence[Any]) -> bool:
    return all(isinstance(one, int) for one in given)


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
