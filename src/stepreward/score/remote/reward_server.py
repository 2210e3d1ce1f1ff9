"""Reward models that run in a server: tokens are built here, and its outputs are read as the record says."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stepreward.core.errors import InputError, ModelError
from stepreward.core.http.client import ServerClient
from stepreward.core.http.server import Server
from stepreward.core.runtime.flows import Score, Scored
from stepreward.core.types import Step
from stepreward.score.encode.per_prefix import PrefixPasses
from stepreward.score.encode.per_step import StepEncoder
from stepreward.score.encode.readout import Readout
from stepreward.score.encode.record import PerPrefix
from stepreward.score.encode.whole_text import Pass
from stepreward.score.model.public_checkpoints import label_ids
from stepreward.score.remote.head_outputs import Answer, HeadReader, OpenPass
from stepreward.score.remote.label_tokens_server import NextTokens
from stepreward.score.short_call import ShortCall

Endpoint = Literal["pooling", "classify", "score", "completions"]


class ServedScorer(ShortCall):
    """Scores steps with a reward model in a server; a `core.runtime.flows.Scorer`.

    Three of the endpoints are vLLM's, for reward models; `completions` is OpenAI's, which most servers have, for
    language models that answer with a label token. Tokens are built here, by the record, and sent as ids, so that the
    server's own tokenisation cannot change them: `pooling` sends whole trajectories and takes the outputs at the read
    positions, whether the server returns every token or its step tags alone; `classify` sends each prefix up to its
    read position. `score` takes texts only, the prompt and the text so far, and the server joins them: right for models
    that were trained with its template. `completions` requests the next token after each read position and compares the
    labels' log-probabilities.

    A step's first score is kept and returned again, without a request, wherever the same tokens come before it.

    Args:
        server: where it is.
        encoder: the record, and the tokenizer of the served model.
        endpoint: which of the server's interfaces.
        probabilities: whether the server applies softmax or sigmoid, as each request then says. None requests raw
            outputs and, for two or more labels, checks whether every row is a distribution all the same; for one label
            it must be given, as older servers ignore the request. `completions` needs none.
        top: most likely tokens requested by `completions`.
        batch_size: trajectories that make a full batch.
        name: identity for caches and provenance; the server's model by default.
        sleep: waits between tries.

    Raises:
        ModelError: the record cannot be read out of such an endpoint.
    """

    def __init__(
        self,
        server: Server,
        encoder: StepEncoder,
        *,
        endpoint: Endpoint = "pooling",
        probabilities: bool | None = None,
        top: int = 20,
        batch_size: int = 256,
        name: str = "",
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.server, self.encoder, self.record, self.endpoint = server, encoder, encoder.record, endpoint
        self.probabilities, self.batch_size = probabilities, batch_size
        self._client = ServerClient(server, ModelError, refused=InputError, sleep=sleep)
        self.name = name or f"{server.known_as} by {endpoint}"
        self.use = self.record.use
        """How its scores are used, by the record."""
        self._reader = HeadReader(encoder)
        _require_readable(self.record.readout, endpoint, probabilities)
        self._next = None
        if endpoint == "completions":
            self._next = NextTokens(server, encoder.tokenizer, top=top, sleep=sleep)
            self._labels = label_ids(self.record, encoder.tokenizer)

    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        """Scores of each question's steps, NaN at observations; requests run at the same time.

        Raises:
            InputError: the server refuses a question, such as one past its context; another may have a score.
            ModelError: the server fails after its retries, or answers with other shapes.
        """
        with ThreadPoolExecutor(self.server.places) as pool:
            return self._reader.score_many(questions, lambda sent: list(pool.map(self._answer, sent)))

    def _answer(self, sent: OpenPass) -> Answer:
        """Head outputs at the reads of a sequence, whether they are probabilities, and the tokens encoded for them."""
        question, one = sent
        if self._next is None:
            return self._outputs(question, one), self.probabilities, len(one.ids)
        prefixes = [one.ids[: at + 1].tolist() for at in one.reads.values()]
        logs, tokens = self._next.ask(prefixes, self._labels, question.problem.text)
        return logs, False, tokens

    def _outputs(self, question: Score, one: Pass) -> NDArray[np.float64]:
        """(Q, n_labels) outputs at the reads of a sequence, in their order."""
        places = list(one.reads.values())
        body: dict[str, Any] = {"model": self.server.model}
        # vLLM renamed the field: both names are sent, and a server ignores the one that it does not know.
        body |= dict.fromkeys(("use_activation", "activation"), bool(self.probabilities))
        if self.endpoint == "pooling":
            ids = one.ids[: max(places) + 1]
            (answer,) = self._request(question, body | {"input": ids.tolist(), "encoding_format": "float"}, 1)
            return self._read_rows(_as_table(answer.get("data")), places, ids)
        if self.endpoint == "classify":
            prefixes = [one.ids[: at + 1].tolist() for at in places]
            data = self._request(question, body | {"input": prefixes}, len(places))
            return self._checked(np.concatenate([_as_table([row.get("probs")]) for row in data]), len(places))
        sent = {
            "text_1": self.encoder.text.head(question.problem),
            "text_2": [self._so_far(question.steps, i) for i in one.reads],
        }
        data = self._request(question, body | sent, len(places))
        return self._checked(_as_table([[row.get("score")] for row in data]), len(places))

    def _so_far(self, steps: Sequence[Step], i: int) -> str:
        """The text of the steps up to the i-th (from 0), as the record writes it there."""
        encoding = self.record.encoding
        if isinstance(encoding, PerPrefix):
            return PrefixPasses(self.encoder, encoding).prefix_text(steps, i)
        texts = [self.encoder.text.body(step, n) + encoding.separator for n, step in enumerate(steps[: i + 1], 1)]
        return encoding.between.join(texts)

    def _read_rows(
        self, rows: NDArray[np.float64], places: Sequence[int], ids: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """The rows of the reads, from a server that returns every token or its step tags alone."""
        tags = np.flatnonzero(ids == ids[places[0]])
        if len(rows) == len(ids):
            rows = rows[list(places)]
        elif len(rows) == len(tags) and set(places) <= set(tags.tolist()):
            # A step may hold the tag itself: the server returns a row there too, which is not a read.
            rows = rows[np.searchsorted(tags, places)]
        else:
            raise ModelError(
                f"{self.server.url} returned {len(rows)} rows for {len(ids)} tokens with {len(places)} steps: expected "
                "one a token or one a step tag; its step tag is another. Start it with pooling type ALL, or ask a "
                "classifier of whole texts by endpoint=classify"
            )
        return self._checked(rows, len(places))

    def _checked(self, rows: NDArray[np.float64], count: int) -> NDArray[np.float64]:
        n_labels = self.record.readout.n_labels
        if rows.shape != (count, n_labels):
            raise ModelError(
                f"{self.server.url} returned numbers of shape {rows.shape}, expected {(count, n_labels)}: "
                f"its model has another head than the record's n_labels={n_labels}"
            )
        if not np.isfinite(rows).all():
            raise ModelError(f"{self.server.url} returned numbers that are not finite")
        return rows

    def _request(self, question: Score, body: Mapping[str, Any], count: int) -> list[Mapping[str, Any]]:
        """The rows of the server's answer in the order of its inputs."""
        answer = self._client.json(self.endpoint, body, start=question.problem.text)
        data = answer.get("data") if isinstance(answer, Mapping) else None
        if not isinstance(data, list) or not all(isinstance(row, Mapping) for row in data):
            what = f"the server's answer has no list 'data' of objects: {str(answer)[:200]}"
            raise ModelError(self.server.hidden(what))
        rows = sorted(data, key=lambda row: int(row.get("index", 0)))
        if len(rows) != count or [int(row.get("index", i)) for i, row in enumerate(rows)] != list(range(count)):
            raise ModelError(f"the server answered {len(rows)} inputs of {count}")
        return rows


def _require_readable(readout: Readout, endpoint: Endpoint, probabilities: bool | None) -> None:
    if endpoint == "completions":
        if not readout.compares or not readout.label_tokens:
            raise ModelError(
                "a completions server gives probabilities of tokens: the record must compare label_tokens by a "
                "softmax; use pooling"
            )
        return
    if endpoint == "score" and readout.n_labels != 1:
        raise ModelError(f"/score returns one number, the record has n_labels={readout.n_labels}: use pooling")
    if probabilities is None and readout.n_labels == 1 and readout.kind != "value":
        raise ModelError(
            "with one label no answer shows whether the server applied a sigmoid: "
            "pass probabilities=True if it did, False if it did not"
        )


def _as_table(rows: Any) -> NDArray[np.float64]:
    """(T, L) numbers; one number a token is one label."""
    try:
        made = np.asarray(rows, np.float64)
    except (TypeError, ValueError) as error:
        raise ModelError(f"the server's numbers are no table: {str(rows)[:200]}") from error
    return made[:, None] if made.ndim == 1 else made
