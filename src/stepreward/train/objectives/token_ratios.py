"""Objectives of log-ratios to a frozen reference: those of tokens, and known methods that are others on log-ratios.

Of a log-ratio model the reward of a step is beta times the log-ratio of its tokens, and a trajectory's total their sum.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stepreward.core.catalog import loss
from stepreward.core.optional import Deferred
from stepreward.train.objectives.loss import Loss, mean, only
from stepreward.train.objectives.preferences import preference

if TYPE_CHECKING:
    import torch
else:
    torch = Deferred("torch")

_REFERENCE = ("reference",)

loss.preset("implicit-prm", of="outcome", paper="arXiv:2412.01981", note="its cross-entropy form", asks=_REFERENCE)
loss.preset("implicit-kto", of="kto", paper="arXiv:2412.01981", note="its KTO form", asks=_REFERENCE)
loss.preset("implicit-nca", of="nca", paper="arXiv:2412.01981", note="its NCA form", asks=_REFERENCE)
loss.preset(
    "agent-rm-implicit", of="return-decomposition", paper="arXiv:2502.18407", asks=_REFERENCE,
    note="the squared error of summed log-ratios to a progress reward, as outcome",
)  # fmt: skip
loss.preset("dpo", of="bradley-terry", paper="arXiv:2305.18290", note="Eq. 7", asks=_REFERENCE)
loss.preset(
    "istar", of="bradley-terry", paper="arXiv:2509.19199", asks=_REFERENCE,
    note="its trajectory DPO: what others wrote, such as tool output, is in no log-ratio; its beta is 0.05",
)  # fmt: skip
loss.preset(
    "brain", of="listwise", paper="arXiv:2402.02479", asks=_REFERENCE,
    note="samples of the reference; take beta 1, and as log_weight log p(good)",
)  # fmt: skip
loss.preset(
    "step-dpo", of="siblings", paper="arXiv:2406.18629", note="every pair of siblings with different labels",
    asks=_REFERENCE,
)  # fmt: skip


def _of_pairs(values: torch.Tensor, pairs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(P,) numbers of the better and of the worse one."""
    return values[pairs[:, 0]], values[pairs[:, 1]]


@loss.method(
    "t-reg", paper="arXiv:2412.02685", asks=_REFERENCE,
    note="up to a constant, as log-ratios take the place of log-probabilities: the gradient is the same",
)  # fmt: skip
def token_regularised(
    token_rewards: torch.Tensor, guide: torch.Tensor, pairs: torch.Tensor, *, alpha: float = 0.25
) -> Loss:
    """Ranks pairs by log-ratios, and raises tokens that a better prompt makes likelier.

        mean_p -log sigmoid(d) + alpha w (L(better) + L(worse)),    L(y) = - sum_t (sigmoid(g_t) - 1/2) r_t

    with r_t = beta l_t, d = sum_t r_t of the better minus that of the worse one, and w = sigmoid(-d), detached.

    Args:
        token_rewards: (B, L) r.
        guide: (B, L) g = log p(token | better prompt) - log p(token | worse prompt), NaN at padding.
        pairs: (P, 2) rows of the better and of the worse one.
        alpha: weight >= 0; 0 is DPO.

    Raises:
        ValueError: alpha is negative.
    """
    if alpha < 0:
        raise ValueError(f"alpha must not be negative, got {alpha}")
    real = ~guide.isnan()
    r, g = only(real, token_rewards), only(real, guide.to(token_rewards.dtype))
    (better, worse), (first, second) = (
        _of_pairs(values.sum(1), pairs) for values in (r, (0.5 - only(real, g).sigmoid()) * r)
    )
    known = real.any(1)[pairs].all(1)
    d = only(known, better - worse)
    return mean(preference(d) + alpha * torch.sigmoid(-d).detach() * (first + second), known)


@loss.method("tgdpo", paper="arXiv:2506.14574", note="its sigmoid form", asks=_REFERENCE)
def token_guided(token_rewards: torch.Tensor, guide: torch.Tensor, pairs: torch.Tensor, *, alpha: float = 0.05) -> Loss:
    """Ranks pairs by log-ratios whose tokens weigh more where another model already prefers, or rejects, them.

        mean_p -log sigmoid( sum_t (1 + alpha g_t) r_t of the better - sum_t (1 - alpha g_t) r_t of the worse one )

    Args:
        token_rewards: (B, L) r = beta l.
        guide: (B, L) g = log pi_guide - log pi_ref of each token, such as of a model trained by DPO; NaN at padding.
        pairs: (P, 2) rows of the better and of the worse one.
        alpha: alpha times beta of the paper, there 0.5 and 0.1; 0 is DPO. Weights may be negative.
    """
    real = ~guide.isnan()
    r, g = only(real, token_rewards), only(real, guide.to(token_rewards.dtype))
    better, _ = _of_pairs(((1 + alpha * g) * r).sum(1), pairs)
    _, worse = _of_pairs(((1 - alpha * g) * r).sum(1), pairs)
    known = real.any(1)[pairs].all(1)
    return mean(preference(only(known, better - worse)), known)
