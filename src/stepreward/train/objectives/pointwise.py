"""Objectives that compare each output of a model with a target of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from stepreward.core.catalog import loss
from stepreward.core.optional import Deferred
from stepreward.core.vocabulary import Flag
from stepreward.train.objectives.loss import Loss, Per, at_end, mean, only, supervised
from stepreward.train.objectives.reading import OutputReading, Settings

if TYPE_CHECKING:
    import torch
else:
    torch = Deferred("torch")

Fit = Literal["bce", "mse"]
"""Cross-entropy to a target in [0, 1], or the squared distance to it."""
Link = Literal["sigmoid", "none"]
"""What makes a prediction of an output: its sigmoid, or the bare output, whose targets may be any numbers."""


def pointwise(
    outputs: torch.Tensor,
    targets: torch.Tensor,
    real: torch.Tensor,
    *,
    fit: Fit,
    link: Link,
    positive_weight: float = 1.0,
) -> torch.Tensor:
    """Terms that fit outputs to targets, 0 where they are not real.

    Args:
        outputs: any shape.
        targets: of a shape that broadcasts to it.
        real: of the outputs' shape.
        fit: how a prediction is compared with its target.
        link: how it comes from the output.
        positive_weight: of the part of `bce` that pulls upwards.

    Raises:
        ValueError: no such fit or link, or cross-entropy of a bare output.
    """
    if fit not in ("bce", "mse") or link not in ("sigmoid", "none"):
        raise ValueError(f"fit is 'bce' or 'mse' and link 'sigmoid' or 'none', got {fit!r} and {link!r}")
    z, y = only(real, outputs), only(real, targets.to(outputs.dtype).expand_as(outputs))
    if fit == "mse":
        return only(real, ((z.sigmoid() if link == "sigmoid" else z) - y) ** 2)
    if link == "none":
        raise ValueError("fit='bce' needs probabilities: take link='sigmoid'")
    softplus = torch.nn.functional.softplus
    return only(real, positive_weight * y * softplus(-z) + (1 - y) * softplus(z))


@loss.method("bce", paper="arXiv:2312.08935", equation="Eq. 2", note="soft labels as in arXiv:2509.16548")
def binary_cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor, *, positive_weight: float = 1.0, per: Per = "step"
) -> Loss:
    """Fits probabilities to hard or soft labels.

        mean_s -[ w y_s log sigmoid(z_s) + (1 - y_s) log(1 - sigmoid(z_s)) ]

    Smallest at sigmoid(z) = w y / (w y + 1 - y), so w = 1 keeps probabilities calibrated.

    Args:
        logits: z, any real number.
        labels: y in [0, 1], NaN where not supervised.
        mask: True at real steps.
        positive_weight: w > 0, above 1 where wrong steps outnumber right ones.
        per: the unit of the mean.

    Returns:
        The mean, in nats.

    Raises:
        ValueError: `positive_weight` is not positive.
    """
    if positive_weight <= 0:
        raise ValueError(f"positive_weight must be positive, got {positive_weight}")
    real = supervised(labels, mask)
    terms = pointwise(logits, labels, real, fit="bce", link="sigmoid", positive_weight=positive_weight)
    return mean(terms, real, per)


@loss.method("mse", paper="arXiv:2406.06592", equation="section 3.4, pointwise soft label", note="on the probability")
def squared_error(
    logits: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor, *, link: Link = "sigmoid", per: Per = "step"
) -> Loss:
    """Fits predictions to values by their squared distance.

        mean_s (sigmoid(z_s) - y_s)^2

    Args:
        logits: z, any real number; behind a sigmoid the gradient vanishes as |z| grows.
        labels: y in [0, 1], or any numbers without a link; NaN where not supervised.
        mask: True at real steps.
        link: how the prediction comes from z; without one it is z itself.
        per: the unit of the mean.

    Returns:
        The mean, in [0, 1] behind a sigmoid.
    """
    real = supervised(labels, mask)
    return mean(pointwise(logits, labels, real, fit="mse", link=link), real, per)


loss.preset("agent-rm", of="mse", paper="arXiv:2502.18407", note="the explicit reward model: bare values", link="none")


loss.preset(
    "dream-prm", of="mse", paper="arXiv:2505.20241", asks=("meta",),
    note="its inner loss, on steps of all trajectories together; domains are weighed by the solutions in meta",
)  # fmt: skip


def _quantile_names(settings: Settings, outputs: int) -> tuple[str, ...]:
    return tuple("q" + f"{100 * q:g}".replace(".", "_") for q in settings["quantiles"])


def _median(settings: Settings) -> int:
    quantiles: Sequence[float] = settings["quantiles"]
    return min(range(len(quantiles)), key=lambda k: abs(quantiles[k] - 0.5))


@loss.method(
    "quantile", paper="arXiv:2506.09338", note="the released trainer's pinball loss behind a sigmoid",
    reading=OutputReading(alike=True, names=_quantile_names, score=_median),
)  # fmt: skip
def pinball(
    outputs: torch.Tensor,
    labels: torch.Tensor,
    mask: torch.Tensor,
    *,
    quantiles: Sequence[float] = (0.1, 0.5, 0.9),
    per: Per = "step",
) -> Loss:
    """Fits each output to a quantile of the values that a step may have.

        mean_{s, k} max( (q_k - 1) u, q_k u ),    u = y_s - sigmoid(z_sk)

    Args:
        outputs: (B, S, K) z, one output a quantile.
        labels: (B, S) y in [0, 1], such as the success rate of a few rollouts, NaN where not supervised.
        mask: True at real steps.
        quantiles: q, each in (0, 1). Nothing keeps the outputs in this order: sort them when they are read.
        per: the unit of the mean.

    Returns:
        The mean, in [0, 1].

    Raises:
        ValueError: a quantile is outside (0, 1), or there are not as many outputs as quantiles.
    """
    if not all(0 < q < 1 for q in quantiles) or outputs.shape[-1] != len(quantiles):
        raise ValueError(f"quantiles must be in (0, 1), one for each of {outputs.shape[-1]} outputs, got {quantiles}")
    real = supervised(labels, mask)[..., None].expand_as(outputs)
    q = outputs.new_tensor(quantiles)
    u = only(real, labels.to(outputs.dtype)[..., None].expand_as(outputs)) - only(real, outputs).sigmoid()
    return mean(torch.maximum((q - 1) * u, q * u), real, per)


@loss.method(
    "columns", note="independent columns: arXiv:2510.01167 publishes no joint loss of its dimensions",
    reading=OutputReading(alike=True),
)  # fmt: skip
def columns(
    outputs: torch.Tensor,
    targets: torch.Tensor,
    mask: torch.Tensor,
    *,
    fit: Fit = "bce",
    link: Link = "sigmoid",
    weights: Sequence[float] = (),
    per: Per = "step",
) -> Loss:
    """Fits each output of a step to a column of the data: several dimensions of what is right.

        sum_k w_k mean_s loss(z_sk, y_sk)

    Each column has a mean of its own, so that one with fewer labels does not count less.

    Args:
        outputs: (B, S, K) z.
        targets: (B, S, K) y, NaN where not supervised.
        mask: True at real steps.
        fit: how a prediction is compared with its target.
        link: how it comes from the output.
        weights: w, one a column; all 1 where empty.
        per: the unit of each mean.

    Raises:
        ValueError: there are not as many outputs, targets and weights.
    """
    w = weights or (1.0,) * outputs.shape[-1]
    if not outputs.shape[-1] == targets.shape[-1] == len(w):
        raise ValueError(
            f"{outputs.shape[-1]} outputs, {targets.shape[-1]} columns of targets, {len(w)} weights differ"
        )
    real = supervised(targets, mask)
    terms = pointwise(outputs, targets, real, fit=fit, link=link)
    parts = [w[k] * mean(terms[..., k], real[..., k], per) for k in range(len(w))]
    return sum(parts[1:], parts[0])


loss.preset(
    "path-finder", of="columns", paper="arXiv:2505.19706",
    note="its errors of mathematics and of consistency, and correctness, as three columns of one pass; the released "
    "training is next-token cross-entropy over the whole vocabulary, and reads correctness behind the first two labels",
    # The published scorer has no second pass, and so no correctness, for a step with an error of one of the two kinds.
    reading=OutputReading(alike=True, columns=3, formula="above({0}, 0.5) * above({1}, 0.5) * {2}"),
)  # fmt: skip
loss.preset(
    "birm", of="columns", paper="arXiv:2503.04618",
    note="its two squared errors of correctness so far and of success; its language-model term is left out",
    fit="mse", link="none", per="trajectory-sum", reading=OutputReading(alike=True, columns=2, formula="{1} + {0}"),
)  # fmt: skip


def _unit_names(settings: Settings, outputs: int) -> tuple[str, ...]:
    return ("step", "trajectory") if outputs == 2 else ()


@loss.method(
    "step-and-trajectory", note="the loss that arXiv:2506.18896 and arXiv:2508.15202 have in common",
    reading=OutputReading(alike=True, names=_unit_names),
)  # fmt: skip
def step_and_trajectory(
    outputs: torch.Tensor,
    labels: torch.Tensor,
    outcome: torch.Tensor,
    mask: torch.Tensor,
    *,
    fit: Fit = "bce",
    link: Link = "sigmoid",
    step: float = 1.0,
    trajectory: float = 1.0,
    pooled: bool = False,
) -> Loss:
    """Fits steps to their labels, and the trajectory, read at its last step, to its outcome.

        a mean_b (1/S) sum_s loss(z_s, y_s) + c mean_b loss(z'_S, o)

    Args:
        outputs: (B, S, K) z; with K = 2 the second one is z', with K = 1 the same output serves both.
        labels: (B, S) y, NaN where not supervised.
        outcome: (B,) o, NaN where not known.
        mask: True at real steps.
        fit: how a prediction is compared with its target.
        link: how it comes from the output.
        step: a.
        trajectory: c.
        pooled: one mean over all steps and ends of the batch instead, so that an end weighs as much as a step.

    Raises:
        ValueError: there are more than 2 outputs.
    """
    if outputs.shape[-1] not in (1, 2):
        raise ValueError(f"one output serves steps and ends, or one for each: got {outputs.shape[-1]}")
    real = supervised(labels, mask)
    ends, some = at_end(outputs[..., -1], mask)
    known = some & ~outcome.isnan()
    steps = step * pointwise(outputs[..., 0], labels, real, fit=fit, link=link)
    whole = trajectory * pointwise(ends, outcome, known, fit=fit, link=link)
    if pooled:
        return mean(torch.cat([steps, whole[:, None]], 1), torch.cat([real, known[:, None]], 1))
    return mean(steps, real, "trajectory") + mean(whole, known)


loss.preset("reasonflux", of="step-and-trajectory", paper="arXiv:2506.18896", fit="mse")
loss.preset(
    "fin-prm", of="step-and-trajectory", paper="arXiv:2508.15202",
    note="the softmax of two logits is the sigmoid of their difference; the end is read at the last step", pooled=True,
)  # fmt: skip


@loss.method(
    "ensemble", note="heads of one backbone, each trained on problems of its own, as a bootstrap draws them",
    reading=OutputReading(alike=True, formula="mean(outputs)"),
)  # fmt: skip
def ensemble(
    outputs: torch.Tensor,
    labels: torch.Tensor,
    draws: torch.Tensor,
    mask: torch.Tensor,
    *,
    members: Annotated[int, Flag(low=1)] = 5,
    share: float = 0.7,
    fit: Fit = "bce",
    link: Link = "sigmoid",
    per: Per = "step",
) -> Loss:
    """Fits several outputs to the same labels, each on a share of the problems: they differ where few have taught them.

        mean over members k and steps s of problems with u_k < share of loss(z_sk, y_s)

    With one member and a share of 1 it is the plain loss.

    Args:
        outputs: (B, S, K) z, one output a member.
        labels: (B, S) y, NaN where not supervised.
        draws: (B, K) u, a number in [0, 1) for each problem and member.
        mask: True at real steps.
        members: K.
        share: of the problems that each member learns from, in (0, 1].
        fit: how a prediction is compared with its target.
        link: how it comes from the output.
        per: the unit of the mean.

    Raises:
        ValueError: the share is outside (0, 1], or there are not as many outputs as members.
    """
    if not 0 < share <= 1 or outputs.shape[-1] != members:
        raise ValueError(f"share must be in (0, 1], got {share}; {outputs.shape[-1]} outputs, {members} members")
    real = supervised(labels, mask)[..., None] & (draws < share)[:, None, :]
    terms = pointwise(outputs, labels[..., None], real, fit=fit, link=link)
    return mean(terms, real, per)
