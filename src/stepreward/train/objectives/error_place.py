"""Objectives on where the first wrong step is. Places are 1..S, or S + 1 where all steps are right."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stepreward.core.catalog import loss
from stepreward.core.optional import Deferred
from stepreward.train.objectives.loss import Loss, mean, only, supervised

if TYPE_CHECKING:
    import torch
else:
    torch = Deferred("torch")


def _log_sigmoid(z: torch.Tensor) -> torch.Tensor:
    return -torch.nn.functional.softplus(-z)


def first_error_log_likelihood(right: torch.Tensor, wrong: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """(B, S + 1) log-probability of each place of the first error, minus infinity where no step is real.

        log p(j) = sum_{t < j} log p(t right) + [j <= S] log p(j wrong)

    Args:
        right: (B, S) log-probability that a step is right.
        wrong: (B, S) log-probability that it is wrong.
        real: True at steps that can be the first error.
    """
    so_far = torch.nn.functional.pad(only(real, right).cumsum(1), (1, 0))
    here = only(real, so_far[:, :-1] + only(real, wrong), -torch.inf)
    return torch.cat([here, so_far[:, -1:]], 1)


@loss.method("first-error", note="the likelihood of arXiv:2605.10158's model, with labels")
def first_error_likelihood(logits: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor) -> Loss:
    """Fits the place of the first wrong step.

        mean_b -log p(j_b),    p(j) = prod_{t < j} sigmoid(z_t) (1 - sigmoid(z_j))^[j <= S]

    That is the cross-entropy summed over the steps up to the first wrong one; what follows it teaches nothing.

    Args:
        logits: z, any real number.
        labels: at or below 1/2 is wrong, NaN where not known: such steps are left out.
        mask: True at real steps.

    Returns:
        The mean over trajectories with a known step, in nats.
    """
    real = supervised(labels, mask)
    wrong = real & (labels <= 0.5)
    # Steps behind the first wrong one: those with a wrong step strictly before them.
    before = (wrong.cumsum(1) - wrong.long()) == 0
    z = only(real & before, logits)
    terms = torch.nn.functional.softplus(torch.where(wrong, z, -z))
    return mean(terms, real & before, "trajectory-sum")


@loss.method("uprm", paper="arXiv:2605.10158", note="of a single trajectory, where the expectation is exact")
def unsupervised_first_error(
    logits: torch.Tensor, judged: torch.Tensor, mask: torch.Tensor, *, gamma: float = 1.0
) -> Loss:
    """Fits the distribution of the first error to what an untrained model says of each step, without labels.

        mean_b -( E_{j ~ p}[ s(j) ] + gamma H(p) ),    s(j) = sum_{t < j} log q_t + [j <= S] log(1 - q_j)

    Smallest where p is in proportion to exp(s / gamma); with gamma = 1 that is sigmoid(z) = q.

    Args:
        logits: z, whose p is that of `first-error`.
        judged: q in (0, 1), the model's probability of the label "right" among the two; NaN where it was not asked.
        mask: True at real steps.
        gamma: > 0; small values pull p to a single place.

    Returns:
        The mean over trajectories with a judged step, in nats.

    Raises:
        ValueError: gamma is not positive, or a probability is not in (0, 1).
    """
    if gamma <= 0:
        raise ValueError(f"gamma must be positive, got {gamma}")
    real = supervised(judged, mask)
    q = only(real, judged.to(logits.dtype), 0.5)
    if ((q <= 0) | (q >= 1)).any():
        raise ValueError("probabilities of the untrained model must be in (0, 1)")
    z = only(real, logits)
    log_p = first_error_log_likelihood(_log_sigmoid(z), _log_sigmoid(-z), real)
    target = first_error_log_likelihood(q.log(), (-q).log1p(), real)
    possible = torch.nn.functional.pad(real, (0, 1), value=True)
    # Places that cannot be are minus infinity in both, whose difference would be NaN.
    log_p, target = only(possible, log_p), only(possible, target)
    terms = only(possible, log_p.exp() * (gamma * log_p - target))
    return mean(terms.sum(1), real.any(1))
