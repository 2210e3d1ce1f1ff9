"""From logits and uniform numbers to tokens: inverse CDF over the tempered and truncated distribution."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from stepreward.core.errors import InputError


@dataclass(frozen=True, slots=True)
class Distribution:
    """How tokens are drawn from logits.

        q(v) ~ exp(z_v / temperature)  over v in the top k, in the smallest set of mass >= top_p, and with
                                       exp(z_v / temperature) >= min_p max_w exp(z_w / temperature)
        token = min {v : q(0) + ... + q(v) > u}

    The set is cut by k first, then by mass, then by min_p, as in transformers. Sums run in float64.
    """

    temperature: float = 1.0
    """>= 0; 0 takes the most likely token."""
    top_k: int = 0
    """Keep the k most likely tokens (ties at the k-th kept); 0 keeps all."""
    top_p: float = 1.0
    """Keep the smallest set of most likely tokens whose mass reaches this, in (0, 1]."""
    min_p: float = field(default=0.0, repr=False)
    """Keep tokens of at least this share of the likeliest one's probability, in [0, 1]; 0 keeps all."""

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise InputError(f"expected a temperature >= 0, got {self.temperature}", remedy="0 is greedy")
        if self.top_k < 0:
            raise InputError(f"expected top_k >= 0, got {self.top_k}", remedy="0 keeps every token")
        if not 0 < self.top_p <= 1:
            raise InputError(f"expected top_p in (0, 1], got {self.top_p}", remedy="1 keeps every token")
        if not 0 <= self.min_p <= 1:
            raise InputError(f"expected min_p in [0, 1], got {self.min_p}", remedy="0 keeps every token")

    def draw(self, logits: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Draws one token a row.

        Args:
            logits: (N, V).
            u: (N,) uniform numbers in (0, 1), float64.

        Returns:
            tokens: (N,) ids.
            logprobs: (N,) log-probabilities of the tokens under softmax(logits): temperature 1, nothing cut away.
        """
        logits = logits.float()
        shifted = logits - logits.amax(-1, keepdim=True)
        if self.temperature == 0:
            tokens = logits.argmax(-1)
        else:
            cumulative = self._weights(shifted / self.temperature).cumsum(-1, dtype=torch.float64)
            total = cumulative[:, -1:]
            # Below the total even if u rounds to 1: a token of weight 0 is never drawn.
            target = torch.minimum(u[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
            tokens = torch.searchsorted(cumulative, target, right=True)[:, 0]
        chosen = shifted.gather(-1, tokens.clamp(max=logits.shape[-1] - 1)[:, None])[:, 0]
        return tokens, chosen - shifted.logsumexp(-1)

    def _weights(self, scaled: Tensor) -> Tensor:
        """Unnormalised probabilities, 0 where cut away, (N, V)."""
        weights = scaled.exp()
        if 0 < self.top_k < scaled.shape[-1]:
            least = weights.topk(self.top_k, dim=-1).values[:, -1:]
            weights = weights.masked_fill(weights < least, 0.0)
        if self.top_p < 1:
            ordered, order = weights.sort(stable=True, dim=-1, descending=True)
            mass = ordered.double()
            before = mass.cumsum(-1) - mass
            cut = before >= self.top_p * mass.sum(-1, keepdim=True)
            weights = weights.masked_fill(torch.zeros_like(cut).scatter_(-1, order, cut), 0.0)
        if self.min_p > 0:
            # The likeliest weighs exp(0) = 1.
            weights = weights.masked_fill(weights < self.min_p, 0.0)
        return weights


def self_certainty(logits: Tensor, tokens: Tensor, logprobs: Tensor) -> Tensor:
    """(N,) KL(uniform || p) in nats of p = softmax(logits), logits (N, V): as `core.measure.selection.self_certainty`.

    Args:
        logits: (N, V).
        tokens, logprobs: (N,) of `Distribution.draw`: they give the normaliser without another sum over all V.
    """
    at = tokens.clamp(max=logits.shape[-1] - 1)[:, None]
    normaliser = logits.gather(-1, at)[:, 0].float() - logprobs
    return normaliser - logits.mean(-1, dtype=torch.float32) - math.log(logits.shape[-1])
