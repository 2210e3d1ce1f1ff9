"""Objectives of a head that has an entry for each next token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stepreward.core.catalog import loss
from stepreward.core.optional import Deferred
from stepreward.train.objectives.loss import Loss, Per, mean
from stepreward.train.objectives.pointwise import pointwise
from stepreward.train.objectives.reading import OutputReading

if TYPE_CHECKING:
    import torch
else:
    torch = Deferred("torch")


@loss.method(
    "saffron", paper="arXiv:2506.06444", equation="Eq. 2-7", asks=("teacher",),
    note="a mean over tokens; the bias begins as the language model's, and other weights than adapters may be trained",
    reading=OutputReading(rewards=True),
)  # fmt: skip
def next_token_error(token_values: torch.Tensor, token_targets: torch.Tensor, *, per: Per = "step") -> Loss:
    """Fits the entry of the token that comes next to what a scalar model says behind it.

        mean_j ( M(s_<j)[s_j] - R(s_<=j) )^2

    Of the V entries at a position one is supervised. With a vocabulary of one token it is `mse` without a link.

    Args:
        token_values: (B, L) M(s_<j)[s_j] for each token of a trajectory's steps; -inf or anything else where no target
            is known.
        token_targets: (B, L) R, the teacher's logit or number, NaN where there is none.
        per: the unit of the mean: `step` is a token here.
    """
    real = ~token_targets.isnan()
    return mean(pointwise(token_values, token_targets, real, fit="mse", link="none"), real, per)
