"""Answers of the token interfaces, made in threads: outputs of a model's head, in the forms of vLLM and SGLang."""

from __future__ import annotations

import json
import secrets
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from fastapi import Request, Response
from numpy.typing import NDArray

from stepreward.core.errors import ModelError, UnknownNameError
from stepreward.score.encode.readout import softmax
from stepreward.score.model.public_checkpoints import label_ids
from stepreward.score.remote.token_outputs import TokenOutputs
from stepreward.serve.model_turns import Check
from stepreward.serve.requests.http_errors import ApiError
from stepreward.serve.requests.request_schemas import (
    ClassifyRequest,
    PairRequest,
    PoolingRequest,
    RerankRequest,
    ScoreRequest,
)
from stepreward.serve.scoring.token_requests import Ids, Reader
from stepreward.serve.service import Service, tell

Rows = NDArray[np.float64]
Pairs = Sequence[tuple[str, str]]
Answer = tuple[Response, list[Ids]]
"""What is said, and the token sequences that were read for it."""
_SHORT = {"bfloat16": torch.bfloat16, "fp8_e4m3": torch.float8_e4m3fn, "fp8_e5m2": torch.float8_e5m2}


class Desk:
    """What the routes share: it makes their answers, in threads.

    Args:
        service: limits, admission and the model's turns.
        outputs: of the model.
    """

    def __init__(self, service: Service, outputs: TokenOutputs) -> None:
        assert service.scorer is not None
        self.service, self.outputs, self.turns = service, outputs, service.scorer.turns
        self.reader = Reader(outputs, self.turns)

    async def answered(self, request: Request, model: str | None, work: Callable[[Check], Answer]) -> Response:
        """The answer to a request for a model."""
        name = self.service.served.scorer_name
        if model not in (None, name):
            raise ApiError(404, str(UnknownNameError("model", model or "", [name])), code="model_not_found")
        answer, inputs = await self.service.in_thread(request, work)
        tokens = sum(map(len, inputs))
        self.service.metrics.tokens.labels("scored").inc(tokens)
        tell(request, inputs=len(inputs), prompt_tokens=tokens)
        return answer

    def pooled(self, body: PoolingRequest, check: Check) -> Answer:
        """Outputs at step ends, or at every token."""
        inputs, tag = self.reader.sequences(body, check), self.outputs.tag
        shown = []
        for ids, rows in zip(inputs, self.rows(inputs, check), strict=True):
            own = rows[np.asarray(ids) == tag] if tag is not None else rows
            shown.append(self.outputs.activated(own) if body.activated else own)
        if body.encoding_format in ("bytes", "bytes_only"):
            return self._bytes(body, shown, inputs), inputs
        plain = body.encoding_format == "float"
        data = [
            {
                "index": i,
                "object": "pooling",
                "data": rows.tolist() if plain else b64encode(_packed(body, rows)).decode(),
            }
            for i, rows in enumerate(shown)
        ]
        return _json(data, self._frame("pooling", body.model, inputs)), inputs

    def classified(self, body: ClassifyRequest, check: Check, *, native: bool) -> Answer:
        """Outputs at the last token, in vLLM's form or in SGLang's own."""
        inputs = self.reader.sequences(body, check)
        last = self.last(inputs, check)
        shown = self.outputs.activated(last) if body.activated else last
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
        return _json(data, self._frame("classify", body.model, inputs)), inputs

    def scored(self, body: ScoreRequest, pairs: Pairs, check: Check) -> Answer:
        """vLLM's: a score for each pair of texts."""
        scores, inputs = self._of_pairs(body, pairs, check)
        data = [{"index": i, "object": "score", "score": value} for i, value in enumerate(scores)]
        return _json(data, self._frame("score", body.model, inputs)), inputs

    def reranked(self, body: RerankRequest, documents: Sequence[str], check: Check) -> Answer:
        """vLLM's: documents from the best to the worst."""
        scores, inputs = self._of_pairs(body, [(body.query, document) for document in documents], check)
        order = sorted(range(len(scores)), key=lambda i: -scores[i])[: body.top_n or None]
        results = [
            {"index": i, "document": {"text": documents[i], "multi_modal": None}, "relevance_score": scores[i]}
            for i in order
        ]
        frame = self._frame("score", body.model, inputs)
        usage = {name: frame["usage"][name] for name in ("prompt_tokens", "total_tokens")}
        return _json(results, {"id": frame["id"], "model": frame["model"], "usage": usage}, name="results"), inputs

    def columns(self, body: ScoreRequest) -> list[int]:
        """Which outputs SGLang's `label_token_ids` ask for; all where there are none.

        Raises:
            ApiError: the model cannot tell how likely those tokens are.
        """
        requested, record = body.label_token_ids, self.outputs.model.record
        if requested is None:
            return [*range(self.outputs.n_labels)]
        own = label_ids(record, self.outputs.model.tokenizer) if record.readout.label_tokens else []
        if not set(requested) <= set(own):
            known = f"reads the tokens {own} alone" if own else "has labels of its own, which are no tokens"
            raise ApiError(400, f"this model {known}: leave label_token_ids out", param="label_token_ids")
        if not body.apply_softmax:
            reason = "how likely its label tokens are among all tokens, only among themselves"
            raise ApiError(400, f"this model does not tell {reason}: send apply_softmax=true", param="apply_softmax")
        return [own.index(token) for token in requested]

    def labelled(self, body: ScoreRequest, whole: Sequence[str | Ids], columns: Sequence[int], check: Check) -> Answer:
        """SGLang's: the outputs at the end of each item, as they are or as probabilities."""
        cut = iter(self.reader.ids([one for one in whole if isinstance(one, str)], check))
        made = [next(cut) if isinstance(one, str) else one for one in whole]
        inputs = self.reader.fitted(made, body.truncate_prompt_tokens, body.truncation_side)
        shown = self.last(inputs, check)[:, columns]
        if body.apply_softmax:
            shown = softmax(shown)
        frame = self._frame("score", body.model, inputs)
        fields = {"model": frame["model"], "usage": frame["usage"], "object": "scoring"}
        return _json(shown.tolist(), fields, name="scores"), inputs

    def rows(self, inputs: Sequence[Ids], check: Check) -> list[Rows]:
        """Outputs at every token of every sequence; others have their turn at the model between two batches.

        Raises:
            ModelError: one is no number.
        """
        made = self.outputs.rows(inputs, turn=lambda: self.turns.turn(check))
        if not all(np.isfinite(rows).all() for rows in made):
            raise ModelError("its outputs are not finite")
        return made

    def last(self, inputs: Sequence[Ids], check: Check) -> Rows:
        """(B, n_labels) outputs at the last token of each sequence."""
        return np.concatenate([rows[-1:] for rows in self.rows(inputs, check)])

    def _of_pairs(self, body: PairRequest, pairs: Pairs, check: Check) -> tuple[list[float], list[Ids]]:
        """A score for each pair of texts, and its tokens."""
        firsts = self.reader.ids([a for a, _ in pairs], check)
        seconds = self.reader.ids([b for _, b in pairs], check, special=False)
        first, second = body.max_tokens_per_query or None, body.max_tokens_per_doc or None
        whole = [a[:first] + b[:second] for a, b in zip(firsts, seconds, strict=True)]
        inputs = self.reader.fitted(whole, body.truncate_prompt_tokens, body.truncation_side)
        out, last = self.outputs, self.last(inputs, check)
        if body.use_activation is False:
            if out.n_labels > 1:
                raise ApiError(400, "only a model of one label has a score without activation", param="use_activation")
            return last[:, 0].tolist(), inputs
        return (out.activated(last)[:, 0] if out.n_labels == 1 else out.scores(last)).tolist(), inputs

    def _frame(self, kind: str, model: str | None, inputs: Sequence[Ids]) -> dict[str, Any]:
        """The fields around an answer's data in vLLM's form."""
        tokens = sum(map(len, inputs))
        return {
            "id": f"{kind}-{secrets.token_hex(12)}",
            "object": "list",
            "created": int(time.time()),
            "model": model or self.service.served.scorer_name,
            "usage": {
                "prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0,
                "prompt_tokens_details": None, "completion_tokens_details": None,
            },
        }  # fmt: skip

    def _bytes(self, body: PoolingRequest, shown: Sequence[Rows], inputs: Sequence[Ids]) -> Response:
        """Outputs as bytes, one input's behind the other's; a header says where each begins and ends."""
        packed = [_packed(body, rows) for rows in shown]
        ends = np.cumsum([len(one) for one in packed]).tolist()
        data = [
            {
                "index": i, "embed_dtype": body.embed_dtype, "endianness": body.endianness,
                "start": end - len(one), "end": end, "shape": list(rows.shape),
            }
            for i, (one, end, rows) in enumerate(zip(packed, ends, shown, strict=True))
        ]  # fmt: skip
        frame = self._frame("pooling", body.model, inputs) | {"data": data}
        del frame["object"]
        headers = {} if body.encoding_format == "bytes_only" else {"metadata": json.dumps(frame)}
        return Response(b"".join(packed), media_type="application/octet-stream", headers=headers)


def _json(items: Sequence[Any], frame: Mapping[str, Any] | None = None, *, name: str = "data") -> Response:
    """A list, or a frame with it under a name; written item by item, so that no other thread waits for all of it."""
    listed = b"[" + b",".join(json.dumps(item, separators=(",", ":")).encode() for item in items) + b"]"
    if frame is not None:
        listed = json.dumps(frame, separators=(",", ":")).encode()[:-1] + f',"{name}":'.encode() + listed + b"}"
    return Response(listed, media_type="application/json")


def _packed(body: PoolingRequest, rows: Rows) -> bytes:
    """Numbers row after row."""
    order = {"little": "<", "big": ">", "native": "<" if sys.byteorder == "little" else ">"}[body.endianness]
    if body.embed_dtype in ("float32", "float16"):
        return rows.astype(f"{order}f{4 if body.embed_dtype == 'float32' else 2}").tobytes()
    # NumPy has no bfloat16 and no fp8: torch rounds, and the bits travel as integers of that width.
    short = torch.from_numpy(np.ascontiguousarray(rows, np.float32)).to(_SHORT[body.embed_dtype])
    width = short.element_size()
    return short.view({1: torch.uint8, 2: torch.int16}[width]).numpy().astype(f"{order}u{width}").tobytes()
