"""Objectives that know a trajectory's outcome alone, and spread it over its steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from stepreward.core.catalog import loss
from stepreward.core.optional import Deferred
from stepreward.train.objectives.loss import Loss, mean, only
from stepreward.train.objectives.pointwise import Fit, Link, pointwise
from stepreward.train.objectives.reading import OutputReading

if TYPE_CHECKING:
    import torch
else:
    torch = Deferred("torch")


@loss.method(
    "return-decomposition",
    note="the squared error that arXiv:2505.20732, 2205.15367 and 2111.13485 share",
    reading=OutputReading(rewards=True, summed=True),
)
def decompose_return(
    logits: torch.Tensor,
    outcome: torch.Tensor,
    mask: torch.Tensor,
    *,
    by: Literal["sum", "mean"] = "sum",
    subset: int = 0,
) -> Loss:
    """Fits the sum of a trajectory's step rewards to its outcome.

        mean_b ( sum_s c_s - R )^2,    or    mean_b ( (1/S) sum_s c_s - R / S )^2

    The second form weighs a trajectory of S steps 1 / S^2 as much. If it sees only K < S random steps (RRD), its
    expectation over them is larger by the variance of their mean, (1 - K/S) v / K with v the variance of c among the S
    steps; that is added here in place of drawing steps. RRD's unbiased form subtracts it: `subset=0`.

    Args:
        logits: c, the reward of each step, any real number.
        outcome: (B,) R, NaN where not known.
        mask: True at real steps.
        by: which of the two forms.
        subset: K, the steps seen of a trajectory, 0 for all; with `by="mean"` alone.

    Raises:
        ValueError: a setting is outside its range.
    """
    if by not in ("sum", "mean") or subset < 0 or (subset and by == "sum"):
        raise ValueError(f"by is 'sum' or 'mean', a subset needs 'mean': got {by!r} with subset={subset}")
    known = mask.any(1) & ~outcome.isnan()
    c, n = only(mask, logits), mask.sum(1).clamp(min=1)
    wanted = only(known, outcome.to(logits.dtype))
    if by == "sum":
        return mean((c.sum(1) - wanted) ** 2, known)
    average = c.sum(1) / n
    terms = (average - wanted / n) ** 2
    if subset:
        spread = only(mask, c - average[:, None]).square().sum(1) / (n - 1).clamp(min=1)
        terms = terms + (1 - subset / n).clamp(min=0) * spread / subset
    return mean(terms, known)


loss.preset("spa", of="return-decomposition", paper="arXiv:2505.20732", note="read with a head of its own")
loss.preset("mil", of="return-decomposition", paper="arXiv:2205.15367", note="its instance LSTM, of a causal model")
loss.preset("rd", of="return-decomposition", paper="arXiv:2111.13485", note="all steps of each trajectory", by="mean")
loss.preset(
    "rrd", of="return-decomposition", paper="arXiv:2111.13485", note="the expectation over its random steps",
    by="mean", subset=10,
)  # fmt: skip


@loss.method(
    "outcome", paper="arXiv:2412.01981", note="the cross-entropy of log-ratios; of a head it trains an outcome model"
)
def outcome_fit(
    totals: torch.Tensor,
    outcome: torch.Tensor,
    *,
    fit: Fit = "bce",
    link: Link = "sigmoid",
) -> Loss:
    """Fits one number of each trajectory to its outcome.

        mean_b -[ o_b log sigmoid(r_b) + (1 - o_b) log(1 - sigmoid(r_b)) ]

    Args:
        totals: (B,) r: beta times the log-ratio of a whole solution (an implicit process reward model), or the output
            at its last step.
        outcome: (B,) o in [0, 1], NaN where not known.
        fit: how r is compared with its outcome.
        link: how the prediction comes from r.
    """
    known = ~(outcome.isnan() | totals.isnan())
    return mean(pointwise(totals, outcome, known, fit=fit, link=link), known)


@loss.method(
    "outcome-of-steps", paper="arXiv:2505.20241",
    note="the outer loss of DreamPRM's code, a mean of logits; its text has their sum, by='sum'",
)  # fmt: skip
def outcome_of_steps(
    logits: torch.Tensor,
    outcome: torch.Tensor,
    mask: torch.Tensor,
    *,
    by: Literal["mean", "sum"] = "mean",
    fit: Fit = "mse",
) -> Loss:
    """Fits what the logits of a trajectory's steps say together to its outcome.

        mean_b (sigmoid(A_b) - o_b)^2,    A = (1/S) sum_s z_s, or sum_s z_s

    Args:
        logits: z, any real number.
        outcome: (B,) o in [0, 1], NaN where not known.
        mask: True at real steps.
        by: whether A is the mean or the sum.
        fit: how the probability is compared with the outcome.

    Raises:
        ValueError: `by` is neither.
    """
    if by not in ("mean", "sum"):
        raise ValueError(f"by is 'mean' or 'sum', got {by!r}")
    known = mask.any(1) & ~outcome.isnan()
    total = only(mask, logits).sum(1)
    total = total / mask.sum(1).clamp(min=1) if by == "mean" else total
    return mean(pointwise(total, outcome, known, fit=fit, link="sigmoid"), known)


@loss.method(
    "kto",
    paper="arXiv:2412.01981",
    note="the paired variant of its released trainer, with detached levels",
    reading=OutputReading(rewards=True),
)
def kto(totals: torch.Tensor, outcome: torch.Tensor) -> Loss:
    """Raises right solutions above the mean reward of wrong ones, and lowers wrong ones below that of right ones.

        mean over right of 1 - sigmoid(r - k_wrong)  and over wrong of 1 - sigmoid(k_right - r),    k = max(0, mean r)

    Args:
        totals: (B,) r, beta times the log-ratio of a whole solution.
        outcome: (B,) above 1/2 is right, NaN where not known. k is taken from this part of a batch and is detached.
    """
    known = ~(outcome.isnan() | totals.isnan())
    right, wrong = known & (outcome > 0.5), known & (outcome <= 0.5)
    r = only(known, totals)
    level = [only(one, r).sum().detach() / one.sum().clamp(min=1) for one in (wrong, right)]
    of_wrong, of_right = (one.clamp(min=0) for one in level)
    return mean(torch.where(right, 1 - (r - of_wrong).sigmoid(), 1 - (of_right - r).sigmoid()), known)
