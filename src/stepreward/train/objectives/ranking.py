"""Objectives that compare the steps of a trajectory with each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stepreward.core.catalog import loss
from stepreward.core.optional import Deferred
from stepreward.train.objectives.loss import Loss, mean, only, supervised

if TYPE_CHECKING:
    import torch
else:
    torch = Deferred("torch")


@loss.method(
    "pqm",
    paper="arXiv:2410.11287",
    equation="Eq. 10",
    note="in the log domain; labels above 1/2 are right; trajectories without supervised steps are left out",
)
def rank_steps(logits: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor, *, zeta: float = 4.0) -> Loss:
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
    real = supervised(labels, mask)
    right, wrong = real & (labels > 0.5), real & (labels <= 0.5)
    right = torch.cat([wrong.any(dim=1, keepdim=True), right], dim=1)
    z = torch.cat([torch.zeros_like(logits[:, :1]), only(real, logits)], dim=1)
    # A finite floor instead of -inf: log-sum-exp over an empty set has a gradient of NaN.
    floor = torch.finfo(logits.dtype).min / 4
    so_far = torch.logcumsumexp(only(right, z, floor), dim=1)
    errors = torch.logsumexp(only(wrong, z[:, 1:] + zeta, floor), dim=1, keepdim=True)
    return mean(torch.logaddexp(so_far, errors.expand_as(so_far)) - z, right, "trajectory")
