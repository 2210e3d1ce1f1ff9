"""The sampling loop: many continuations in one batch, each with its own random numbers, none waiting for another."""

from __future__ import annotations

import inspect
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stepreward.core.errors import ModelError
from stepreward.core.keys import uniforms
from stepreward.core.optional import cache_argument
from stepreward.core.runtime.flows import Wanted, always
from stepreward.policies.kv_cache import PrefillCache, RowCache, aligned
from stepreward.policies.token_pieces import Pieces
from stepreward.policies.token_sampling import Distribution, self_certainty

_PREFILL_EVEN = 512
"""Tokens from which a prefill is efficient, so that it may end instead of padding shorter rows."""
_ROOM = 64
"""Columns allocated for the new tokens of a row at first; the cache grows when they are full."""
_REFILL = 8
"""New rows are admitted once a share of 1 / `_REFILL` of all rows is free: prefills in small pieces are slow."""
_COMPACT = 16
"""Finished rows are removed once they are this many, or a share of 1 / `_COMPACT`: removal copies the cache."""
_GLANCE = 0.02
"""Seconds between two checks whether samples are still wanted."""


@dataclass(frozen=True, slots=True)
class Request:
    """One continuation to sample."""

    ids: tuple[int, ...]
    """Prompt and prefix; at least one token."""
    bits: int
    """Key bits of the sample."""
    limit: int
    """Tokens at most, at least 1."""
    one_step: bool
    """Stop after one step."""
    question: int = 0
    """Position of the question that it belongs to."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """The tokens of one continuation, the end token left out."""

    tokens: NDArray[np.int64]
    logprobs: NDArray[np.float64]
    certainties: NDArray[np.float64]
    """Self-certainty of the distribution that each token was drawn from."""
    ends: NDArray[np.bool_]
    """True at tokens that end a step."""
    finished: bool
    """The model wrote its end token."""
    interrupted: bool = False
    """Stopped, because it was not wanted any more."""


class _Rows:
    """State of the running rows, one array entry a row; finished rows stay as `alive = False` until compaction.

    `since` counts the tokens of the current step and `lead` those of white space at its start. `void` is True while the
    step may be white space alone, and `recent` holds the last `window` tokens.
    """

    def __init__(self, window: int) -> None:
        self.bits = np.empty(0, np.uint64)
        numbers, flags = np.empty(0, np.int64), np.empty(0, np.bool_)
        self.request = self.token = self.position = self.count = self.limit = self.since = self.lead = numbers
        self.one_step = self.alive = self.void = flags
        self.recent = np.empty((0, window), dtype=np.int64)

    def __len__(self) -> int:
        return len(self.alive)

    def append(self, indices: Sequence[int], requests: Sequence[Request]) -> None:
        n, chosen = len(indices), [requests[i] for i in indices]
        new = {
            "request": np.asarray(indices, dtype=np.int64),
            "bits": np.array([r.bits for r in chosen], dtype=np.uint64),
            "token": np.array([r.ids[-1] for r in chosen], dtype=np.int64),
            "position": np.array([len(r.ids) - 1 for r in chosen], dtype=np.int64),
            "limit": np.array([r.limit for r in chosen], dtype=np.int64),
            "one_step": np.array([r.one_step for r in chosen], dtype=np.bool_),
            **dict.fromkeys(("count", "since", "lead"), np.zeros(n, np.int64)),
            **dict.fromkeys(("alive", "void"), np.ones(n, np.bool_)),
            "recent": np.zeros((n, self.recent.shape[1]), dtype=np.int64),
        }
        for name, values in new.items():
            setattr(self, name, np.concatenate([getattr(self, name), values]))

    def compact(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Removes finished rows by moving the last running ones into their places; returns (holes, movers)."""
        n = int(self.alive.sum())
        holes = np.flatnonzero(~self.alive[:n])
        movers = n + np.flatnonzero(self.alive[n:])
        for name, values in vars(self).items():
            values[holes] = values[movers]
            setattr(self, name, values[:n])
        return holes, movers


class Decoder:
    """Samples continuations from a causal language model.

    Each distinct prefix is encoded once, whatever the number of its samples. Running rows or waiting requests take the
    places of finished rows, so the model runs on full, dense batches. The t-th token of sample r uses
    `uniforms(bits_r, t)` alone.

    Args:
        model: a transformers causal language model in evaluation mode.
        distribution: how tokens are drawn.
        pieces: of the vocabulary, which tell where steps end.
        eos: ids that end a solution.
        rows: most continuations that run at once.
    """

    def __init__(
        self, model: Any, distribution: Distribution, pieces: Pieces, eos: NDArray[np.int64], rows: int
    ) -> None:
        self._model = model
        self._distribution = distribution
        self._pieces = pieces
        self._eos = np.zeros(len(pieces.certain), dtype=np.bool_)
        self._eos[eos] = True
        self._max_rows = rows
        # On a CPU the states of a chunk should stay in its caches.
        self._prefill_tokens = 4096 if model.device.type == "cpu" else 16384
        self._cache = RowCache()
        self._hidden = float(torch.finfo(model.dtype).min)
        self._cache_argument = cache_argument(model)
        keeps = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._last_only: dict[str, int] = {"logits_to_keep": 1} if keeps else {}

    @torch.inference_mode()
    def run(
        self, requests: Sequence[Request], distribution: Distribution | None = None, *, wanted: Wanted = always
    ) -> list[Sampled]:
        """Samples every request; answers are in the order of the requests.

        Args:
            requests: to sample.
            distribution: of these tokens; None is that of the decoder.
            wanted: whether the question at this position still wants its samples; called every `_GLANCE` seconds.

        Raises:
            ModelError: the model's logits are not finite.
        """
        # Neighbours in this order share a prefix or at least have about its length, so prefills are even.
        waiting = sorted(range(len(requests)), key=lambda i: (len(requests[i].ids), requests[i].ids), reverse=True)
        rows = _Rows(self._pieces.window)
        log = _SampledTokens(len(requests))
        open_questions, looked = list({request.question for request in requests}), time.monotonic()
        while waiting or len(rows):
            if time.monotonic() - looked >= _GLANCE:
                looked = time.monotonic()
                left = [question for question in open_questions if not wanted(question)]
                waiting = self._interrupt(left, requests, waiting, rows, log) if left else waiting
                if not waiting and not rows.alive.any():
                    break
            free = self._max_rows - len(rows)
            if waiting and (not len(rows) or free * _REFILL >= self._max_rows):
                taken = [waiting.pop() for _ in range(min(free, len(waiting)))]
                self._prefill(len(rows), [requests[i] for i in taken])
                rows.append(taken, requests)
            self._advance(rows, log, distribution or self._distribution)
            # Finished rows stay in the batch until they are worth a copy of the cache.
            dead = len(rows) - int(rows.alive.sum())
            if dead and (dead == len(rows) or dead >= max(_COMPACT, len(rows) // _COMPACT)):
                columns = int(rows.position.max()) + 1
                holes, movers = (torch.from_numpy(moved).to(self._model.device) for moved in rows.compact())
                if len(holes):
                    self._cache.move(holes, movers, columns)
        return log.sampled()

    @staticmethod
    def _interrupt(
        questions: Sequence[int], requests: Sequence[Request], waiting: Sequence[int], rows: _Rows, log: _SampledTokens
    ) -> list[int]:
        """Stops the samples of these questions; returns the requests that still wait."""
        of = np.array([request.question for request in requests])
        left = np.isin(of, questions)
        log.interrupted[[i for i in waiting if left[i]]] = True
        log.interrupted[rows.request[rows.alive & left[rows.request]]] = True
        rows.alive &= ~left[rows.request]
        return [i for i in waiting if not left[i]]

    def _prefill(self, first: int, requests: Sequence[Request]) -> None:
        """Encodes all but the last token of each distinct prefix, and copies the states to each row.

        The last token is the first input of the sampling loop, whose logits give the first new token.
        """
        room = max(len(r.ids) + min(r.limit, _ROOM) for r in requests)
        for prefixes, source in _prefill_chunks([r.ids for r in requests], self._prefill_tokens):
            states = self._encode(prefixes)
            self._cache.admit(first, states, torch.tensor(source, device=self._model.device), room)
            first += len(source)

    def _encode(self, prefixes: Sequence[tuple[int, ...]]) -> PrefillCache:
        # Padding lies on the right, where a causal model cannot see it; its states are overwritten or masked later.
        ids = np.zeros((len(prefixes), max(aligned(len(p) - 1) for p in prefixes) or aligned(1)), dtype=np.int64)
        for i, prefix in enumerate(prefixes):
            ids[i, : len(prefix) - 1] = prefix[:-1]
        cache = PrefillCache()
        positions = torch.arange(ids.shape[1], device=self._model.device)[None]
        self._forward(torch.from_numpy(ids).to(self._model.device), positions, None, cache)
        return cache

    def _forward(self, ids: Tensor, positions: Tensor, mask: Tensor | None, cache: Any) -> Tensor:
        out = self._model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions.expand(ids.shape[0], -1),
            use_cache=True,
            **{self._cache_argument: cache},
            **self._last_only,
        )
        last: Tensor = out.logits[:, -1]
        return last

    def _advance(self, rows: _Rows, log: _SampledTokens, drawn: Distribution) -> None:
        """One token for every row."""
        tokens, logprobs, certainties = self._sample(rows, drawn)
        if not np.isfinite(logprobs[rows.alive]).all():
            raise ModelError("the model's logits are not finite: its weights are damaged, or its dtype overflows")
        ended = self._eos[tokens]
        stepped = self._step_ends(rows, tokens, log) & ~ended
        log.add(rows, tokens, (logprobs, certainties), stepped, ended)
        rows.count += 1
        rows.alive &= ~(ended | (stepped & rows.one_step) | (rows.count >= rows.limit))
        rows.position += rows.alive
        rows.token = tokens

    def _sample(
        self, rows: _Rows, drawn: Distribution
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        device, n = self._model.device, len(rows)
        # Rows are padded to a multiple of `ALIGN`: the extra rows write into cells that no row uses yet.
        width = aligned(n)
        seen = aligned(int(rows.position.max()) + 1)
        self._cache.reserve(width, seen, n)
        packed = np.zeros((2, width), dtype=np.int64)
        packed[0, :n], packed[1, :n] = rows.token, rows.position
        u = np.full(width, 0.5)
        u[:n] = uniforms(rows.bits, rows.count)
        ids, positions = torch.from_numpy(packed).to(device)
        self._cache.place(positions, seen)
        visible = torch.arange(seen, device=device) <= positions[:, None]
        mask = torch.zeros(visible.shape, dtype=self._model.dtype, device=device).masked_fill_(~visible, self._hidden)
        logits = self._forward(ids[:, None], positions[:, None], mask[:, None, None], self._cache)
        tokens, logprobs = drawn.draw(logits[:n], torch.from_numpy(u[:n]).to(device))
        certainties = self_certainty(logits[:n], tokens, logprobs)
        # One transfer from the device for each token: float64 holds every id exactly.
        made = torch.stack((tokens.double(), logprobs.double(), certainties.double())).cpu().numpy()
        return made[0].astype(np.int64), made[1], made[2]

    def _step_ends(self, rows: _Rows, tokens: NDArray[np.int64], log: _SampledTokens) -> NDArray[np.bool_]:
        window = rows.recent.shape[1]
        rows.recent[:, :-1] = rows.recent[:, 1:]
        rows.recent[:, -1] = tokens
        rows.since += 1
        rows.lead += self._pieces.blank[tokens] & (rows.lead == rows.since - 1)
        void, certain = rows.void, self._pieces.certain[tokens]
        rows.void = void & self._pieces.void[tokens]
        stepped = certain & ~void
        # Only rows whose last token leaves the end of the step open are decoded, one by one.
        for i in np.flatnonzero((self._pieces.possible[tokens] | (certain & void)) & rows.alive):
            since = int(rows.since[i])
            if void[i]:
                whole = [*log.latest(int(rows.request[i]), since - 1), int(tokens[i])]
                stepped[i] = self._pieces.ends(whole, whole=True)
            else:
                own = since - int(rows.lead[i])
                seen = rows.recent[i, window - min(own, window) :].tolist()
                stepped[i] = self._pieces.ends(seen, whole=own <= window)
        # White space of several tokens, none of which is white space alone, is known once the text begins.
        for i in np.flatnonzero(void & ~rows.void & (rows.lead < rows.since - 1) & rows.alive & ~stepped):
            rows.lead[i] = self._pieces.leading(log.latest(int(rows.request[i]), int(rows.since[i]) - 1))
        rows.since[stepped] = rows.lead[stepped] = 0
        rows.void |= stepped
        return stepped


def _prefill_chunks(
    prefixes: Sequence[tuple[int, ...]], most: int
) -> Iterator[tuple[list[tuple[int, ...]], list[int]]]:
    """Cuts prefixes that come by length into (distinct ones, index of each among them) of at most `most` tokens.

    A chunk that is large enough to be efficient also ends where its rows would need more padding.
    """
    distinct: dict[tuple[int, ...], int] = {}
    source: list[int] = []
    widest = 0
    for prefix in prefixes:
        width = aligned(len(prefix) - 1)
        cells = len(distinct) * width
        if (
            distinct
            and prefix not in distinct
            and (cells + width > most or (width > widest and cells >= _PREFILL_EVEN))
        ):
            yield list(distinct), source
            distinct, source = {}, []
        source.append(distinct.setdefault(prefix, len(distinct)))
        widest = width
    yield list(distinct), source


class _SampledTokens:
    """Sampled tokens in the order of sampling; sorted by request at the end, so that compaction copies none of them."""

    def __init__(self, n: int) -> None:
        self._requests: list[NDArray[np.int64]] = []
        self._tokens: list[NDArray[np.int64]] = []
        self._measured: list[NDArray[np.float64]] = []
        self._stepped: list[NDArray[np.bool_]] = []
        self._finished = np.zeros(n, dtype=np.bool_)
        self.interrupted = np.zeros(n, dtype=np.bool_)

    def add(
        self,
        rows: _Rows,
        tokens: NDArray[np.int64],
        measured: Sequence[NDArray[np.float64]],
        stepped: NDArray[np.bool_],
        ended: NDArray[np.bool_],
    ) -> None:
        """Records one token of each running row; an end token is only recorded as the end."""
        self._finished[rows.request[rows.alive & ended]] = True
        kept = rows.alive & ~ended
        self._requests.append(rows.request[kept])
        self._tokens.append(tokens[kept])
        self._measured.append(np.stack(measured)[:, kept])
        self._stepped.append(stepped[kept])

    def latest(self, request: int, n: int) -> list[int]:
        """The latest `n` tokens of a running request, to which each of the last `n` calls added one."""
        own = zip(self._requests[len(self._requests) - n :], self._tokens[len(self._tokens) - n :], strict=True)
        return [int(tokens[requests == request][0]) for requests, tokens in own]

    def sampled(self) -> list[Sampled]:
        """The continuations by request."""
        n = len(self._finished)
        if n == 0:
            return []
        if not self._requests:
            no = np.zeros(0)
            empty = Sampled(no.astype(np.int64), no, no, no.astype(np.bool_), finished=False)
            return [replace(empty, interrupted=bool(left)) for left in self.interrupted]
        requests = np.concatenate(self._requests)
        order = np.argsort(requests, kind="stable")
        bounds = np.searchsorted(requests[order], np.arange(n + 1))
        tokens = np.concatenate(self._tokens)[order]
        logprobs, certainties = np.concatenate(self._measured, axis=1)[:, order]
        stepped = np.concatenate(self._stepped)[order]
        return [
            Sampled(
                tokens[a:b],
                logprobs[a:b],
                certainties[a:b],
                stepped[a:b],
                bool(self._finished[i]),
                bool(self.interrupted[i]),
            )
            for i, (a, b) in enumerate(itertools.pairwise(bounds))
        ]
