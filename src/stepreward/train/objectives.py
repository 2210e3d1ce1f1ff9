"""Training objectives as functions of step logits and labels.

Axes: B trajectories, S steps. `labels` are in [0, 1]; entries outside `mask`, and NaN labels, are not supervised: they
add nothing to the loss and their logits get a gradient of exactly 0. A batch without supervised steps has a loss of 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from stepreward.core.catalog import loss
from stepreward.core.optional import Deferred

if TYPE_CHECKING:
    import torch
else:
    # The catalog lists the objectives also without torch, so that this module must not import it.
    torch = Deferred("torch")

Per = Literal["step", "trajectory"]
"""The unit of equal weight in a mean: every supervised step of the batch, or every trajectory with such steps."""


def _supervised(labels: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return mask & ~labels.isnan()


def _masked_mean(terms: torch.Tensor, real: torch.Tensor, per: Per) -> torch.Tensor:
    """Mean of (B, S) terms over the entries that are real; the others are 0 and so is their gradient."""
    if per not in ("step", "trajectory"):
        raise ValueError(f"per must be 'step' or 'trajectory', got {per!r}")
    kept = torch.where(real, terms, 0.0)
    if per == "step":
        return kept.sum() / real.sum().clamp(min=1)
    rows = kept.sum(dim=1) / real.sum(dim=1).clamp(min=1)
    return rows.sum() / real.any(dim=1).sum().clamp(min=1)


@loss.method("bce", paper="arXiv:2312.08935", equation="Eq. 2", note="soft labels as in arXiv:2509.16548")
def binary_cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor, *, positive_weight: float = 1.0, per: Per = "step"
) -> torch.Tensor:
    """Fits probabilities to hard or soft labels.

        mean_s -[ w y_s log sigmoid(z_s) + (1 - y_s) log(1 - sigmoid(z_s)) ]

    Smallest at sigmoid(z) = w y / (w y + 1 - y), so w = 1 keeps probabilities calibrated.

    Args:
        logits: z, any real number.
        labels: y in [0, 1], NaN where not supervised.
        mask: True at real steps.
        positive_weight: w > 0, above 1 where wrong steps outnumber right ones.
        per: the mean is over supervised steps of the batch, or over trajectories' own means.

    Returns:
        The mean, in nats.

    Raises:
        ValueError: `positive_weight` is not positive.
    """
    if positive_weight <= 0:
        raise ValueError(f"positive_weight must be positive, got {positive_weight}")
    real = _supervised(labels, mask)
    # Unsupervised entries become 0 before the loss: NaN times a gradient of 0 would be NaN.
    z, y = torch.where(real, logits, 0.0), torch.where(real, labels.to(logits.dtype), 0.0)
    # -log sigmoid(z) = softplus(-z), which does not overflow.
    softplus = torch.nn.functional.softplus
    return _masked_mean(positive_weight * y * softplus(-z) + (1 - y) * softplus(z), real, per)


@loss.method("mse", paper="arXiv:2406.06592", equation="section 3.4, pointwise soft label", note="on the probability")
def squared_error(logits: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor, *, per: Per = "step") -> torch.Tensor:
    """Fits probabilities to values by their squared distance.

        mean_s (sigmoid(z_s) - y_s)^2

    Args:
        logits: z, any real number; the gradient vanishes as |z| grows.
        labels: y in [0, 1], NaN where not supervised.
        mask: True at real steps.
        per: the mean is over supervised steps of the batch, or over trajectories' own means.

    Returns:
        The mean, in [0, 1].
    """
    real = _supervised(labels, mask)
    z, y = torch.where(real, logits, 0.0), torch.where(real, labels.to(logits.dtype), 0.0)
    return _masked_mean((z.sigmoid() - y) ** 2, real, per)


@loss.method(
    "pqm",
    paper="arXiv:2410.11287",
    equation="Eq. 10",
    note="in the log domain; labels above 1/2 are right; trajectories without supervised steps are left out",
)
def rank_steps(logits: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor, *, zeta: float = 4.0) -> torch.Tensor:
    """Ranks steps: later right steps above earlier ones, every wrong step below them all by a margin.

        mean_{t in C} -log( e^{z_t} / ( sum_{q in C, q <= t} e^{z_q} + sum_{w in W} e^{z_w + zeta} ) )

    C are the right steps and W the wrong ones of a trajectory; a trajectory with a wrong step has a virtual right step
    with z = 0 before its first, so that one without right steps still teaches. The mean over trajectories follows.

    Args:
        logits: z, read as Q values.
        labels: above 1/2 is right.
        mask: True at real steps.
        zeta: margin, any real number; the paper uses 4.

    Returns:
        The mean over trajectories that have supervised steps, in nats.
    """
    real = _supervised(labels, mask)
    right, wrong = real & (labels > 0.5), real & (labels <= 0.5)
    right = torch.cat([wrong.any(dim=1, keepdim=True), right], dim=1)
    z = torch.cat([torch.zeros_like(logits[:, :1]), torch.where(real, logits, 0.0)], dim=1)
    # A finite floor instead of -inf: log-sum-exp over an empty set has a gradient of NaN.
    floor = torch.finfo(logits.dtype).min / 4
    so_far = torch.logcumsumexp(torch.where(right, z, floor), dim=1)
    errors = torch.logsumexp(torch.where(wrong, z[:, 1:] + zeta, floor), dim=1, keepdim=True)
    return _masked_mean(torch.logaddexp(so_far, errors.expand_as(so_far)) - z, right, "trajectory")
