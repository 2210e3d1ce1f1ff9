"""Objectives by which a small model learns the scores of a large one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stepreward.core.catalog import loss
from stepreward.core.optional import Deferred
from stepreward.train.objectives.loss import Loss, Per, mean, only, supervised
from stepreward.train.objectives.pointwise import pointwise

if TYPE_CHECKING:
    import torch
else:
    torch = Deferred("torch")


@loss.method("distillation", paper="arXiv:1503.02531", equation="section 2", note="two classes: a step is right or not")
def distillation(
    logits: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor, *, temperature: float = 2.0, per: Per = "step"
) -> Loss:
    """Fits the softened probability of a student to that of a teacher.

        T^2 mean_s -[ q_s log sigmoid(z_s / T) + (1 - q_s) log(1 - sigmoid(z_s / T)) ],   q_s = sigmoid(logit(y_s) / T)

    At T = 1 it is `bce` on the teacher's scores. As T grows its gradient tends to (z_s - logit(y_s)) / 4, a squared
    error of logits, so that differences among scores near 0 or 1 count too. The factor keeps gradients of one size.
    A hard label, 0 or 1, stays hard at every temperature.

    Args:
        logits: z, any real number.
        labels: y in [0, 1], the teacher's scores, NaN where there is none.
        mask: True at real steps.
        temperature: T, positive.
        per: the unit of the mean.

    Returns:
        The mean, in nats times T^2.

    Raises:
        ValueError: `temperature` is not positive.
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    real = supervised(labels, mask)
    y = only(real, labels.to(logits.dtype), 0.5)
    softened = y if temperature == 1 else torch.sigmoid(torch.logit(y) / temperature)
    terms = pointwise(logits / temperature, softened, real, fit="bce", link="sigmoid")
    return mean(temperature**2 * terms, real, per)
