"""What a language-model head says of the tokens of steps, a few distributions over the vocabulary at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from stepreward.core.errors import ModelError
from stepreward.score.encode.packing import PackedBatch, begins, step_tokens

_CELLS = 1 << 26
"""Most log-probabilities in memory at once, tokens times vocabulary: those of a batch would take gigabytes."""
_FLOOR = -32.0
"""Least log-probability; smaller ones are clipped to it."""
_RESCALED = ("final_logit_softcapping", "logit_scale", "logits_scaling")
"""Fields of configurations whose models change their logits behind the language-model head."""


def refuse_rescaled(config: Any) -> None:
    """Checks that the logits of a model are hidden states times its language-model head.

    Raises:
        ModelError: they are not.
    """
    changed = [name for name in _RESCALED if getattr(config, name, None) not in (None, 1, 1.0)]
    if changed:
        what = f"a {config.model_type} model changes its logits by {changed[0]}"
        raise ModelError(f"{what}, which log-probabilities do not follow here: take another model")


def rows_at_once(unembedding: torch.Tensor) -> int:
    """Distributions over the vocabulary that are in memory at once."""
    return max(1, _CELLS // len(unembedding))


def of_tokens(
    function: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor],
    hidden: torch.Tensor,
    unembedding: torch.Tensor,
    ids: torch.Tensor,
) -> torch.Tensor:
    """(N, ...) a function of hidden states (N, hidden), the head (V, hidden) and token ids (N,), a part at a time."""
    rows = rows_at_once(unembedding)
    parts = zip(torch.split(hidden, rows), torch.split(ids, rows), strict=True)
    # Each part is computed again in the backward pass: kept, the distributions of all would fill the memory.
    made: list[torch.Tensor] = [
        checkpoint(function, some, unembedding, wanted, use_reentrant=False) for some, wanted in parts
    ]
    return torch.cat(made)


def logprobs(hidden: torch.Tensor, unembedding: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """(N,) log-probability of each token after hidden states (N, hidden)."""
    return -nn.functional.cross_entropy((hidden @ unembedding.T).float(), ids, reduction="none")


def likelihoods(hidden: torch.Tensor, unembedding: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """(N, 2) how far each token's logit is below that of the likeliest one, at most 0, and its log-probability."""
    logits = (hidden @ unembedding.T).float()
    chosen = logits.gather(1, ids[:, None])[:, 0]
    return torch.stack([chosen - logits.amax(1), chosen - logits.logsumexp(1)], -1)


def policy_outputs(
    value: Callable[[torch.Tensor], torch.Tensor], hidden: torch.Tensor, batch: PackedBatch, unembedding: torch.Tensor
) -> torch.Tensor:
    """(Q, 4) outputs of a readout of a `policy`, of each read's step.

        V(end), V(begin), sum_t log p(y_t) - max_y log p(y), sum_t log p(y_t)    over all tokens of the step

    A step begins at the token before its first one: the end of the step above, of an observation, or of the prompt.

    Args:
        value: (..., 1) V of hidden states (..., hidden).
        hidden: (R, T, hidden) last hidden states.
        batch: what was encoded.
        unembedding: (V, hidden) rows of the language-model head.
    """
    said = step_tokens(batch.to("cpu")).to(hidden.device)
    values = [value(hidden[batch.read_row, at]) for at in (batch.read_column, begins(batch))]
    sums = values[0].new_zeros((len(batch.read_row), 2))
    if len(said.row):
        ids = batch.input_ids[said.row, said.column]
        terms = of_tokens(likelihoods, hidden[said.row, said.before], unembedding, ids)
        sums = sums.index_add(0, said.read, terms.to(sums))
    return torch.cat([*values, sums], -1)


def least_logprob(
    hidden: torch.Tensor, input_ids: torch.Tensor, first: torch.Tensor, embeddings: torch.Tensor
) -> torch.Tensor:
    """(R, T) least log-probability among the tokens of each step up to each token, its first token left out.

    The first token's predecessor may lie anywhere in a packed row; all others follow theirs.

    Args:
        hidden: (R, T, hidden) last hidden states.
        input_ids: (R, T).
        first: (R, T) column of the first token of each token's step.
        embeddings: (V, hidden) output embeddings.
    """
    column = torch.arange(input_ids.shape[1], device=input_ids.device)
    rows, columns = (column > first).nonzero(as_tuple=True)
    logits = (hidden[rows, columns - 1] @ embeddings.T).float()
    chosen = logits.log_softmax(-1).gather(1, input_ids[rows, columns][:, None])[:, 0].clamp(min=_FLOOR)
    # float64, as the offsets below grow with the steps of a row and would round small log-probabilities away.
    logprob = torch.zeros(input_ids.shape, dtype=torch.float64, device=hidden.device)
    logprob = logprob.index_put((rows, columns), chosen.double())
    # Every step is shifted below all values of the one before it, so that the running minimum starts anew with it.
    depth = 2 * _FLOOR * (column == first).cumsum(dim=1)
    return (torch.cummin(logprob + depth, dim=1).values - depth).float()
