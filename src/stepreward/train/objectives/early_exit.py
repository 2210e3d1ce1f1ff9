"""Objectives of a head that may leave the backbone before its last layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from stepreward.core.catalog import loss
from stepreward.core.optional import Deferred
from stepreward.core.vocabulary import Flag
from stepreward.train.objectives.loss import Loss, Per, mean, only, supervised
from stepreward.train.objectives.pointwise import Fit, pointwise
from stepreward.train.objectives.reading import OutputReading, Settings

if TYPE_CHECKING:
    import torch
else:
    torch = Deferred("torch")


def log_exits(leave: torch.Tensor) -> torch.Tensor:
    """(..., E) log-probabilities of leaving at each exit, out of logits of leaving where one has come to (..., E).

    p_k = sigmoid(x_k) prod_{j<k} (1 - sigmoid(x_j)),    and the last exit takes what is left
    """
    stay = torch.nn.functional.logsigmoid(-leave).cumsum(-1)
    before = torch.cat([torch.zeros_like(stay[..., :1]), stay[..., :-1]], -1)
    here = torch.nn.functional.logsigmoid(leave[..., :-1])
    return before + torch.cat([here, torch.zeros_like(leave[..., -1:])], -1)


def geometric(exits: int, rate: float) -> list[float]:
    """The geometric distribution over exits, of which the last one takes what is left."""
    first = [rate * (1 - rate) ** k for k in range(exits - 1)]
    return [*first, 1 - sum(first)]


def _names(settings: Settings, outputs: int) -> tuple[str, ...]:
    return exit_names(settings["exits"])


def _at_exit(settings: Settings, names: Sequence[str]) -> str:
    return exit_formula(settings["exits"], settings["quantile"])


@loss.method(
    "palbert", paper="arXiv:2204.03276", equation="its released code",
    note="a few exits in equal steps, where its prior of 0.1 was of twelve layers; the last exit takes what is left, "
    "where the code spreads 0.05 over exits behind a cumulative probability of 0.95",
    reading=OutputReading(names=_names, score=lambda settings: int(settings["exits"]) - 1, formula=_at_exit),
)  # fmt: skip
def expected_over_exits(
    outputs: torch.Tensor,
    labels: torch.Tensor,
    mask: torch.Tensor,
    *,
    exits: Annotated[int, Flag(low=1)] = 4,
    rate: float = 0.25,
    kl: float = 0.5,
    quantile: float = 0.5,
    fit: Fit = "bce",
    per: Per = "step",
) -> Loss:
    """Fits the probability at each exit, weighed by how likely the model leaves there.

        mean_s sum_k p_sk loss(z_sk, y_s) + kl sum_k g_k (log g_k - log p_sk)

    With one exit, or where the model surely leaves at the last one and kl = 0, it is the plain loss at the last layer.

    Args:
        outputs: (B, S, 2 E) z, logits at all exits, then x, logits of leaving there.
        labels: (B, S) y in [0, 1], NaN where not supervised.
        mask: True at real steps.
        exits: E, after equal shares of the backbone's layers.
        rate: of the geometric prior g, in (0, 1): what share leaves at each exit.
        kl: weight >= 0 of the divergence of the model's p from the prior g, as the code has it: the prior's mean.
        quantile: in (0, 1): the score is read at the first exit by which the model has left with a greater probability.
        fit: how a probability is compared with its label.
        per: the unit of the mean.

    Raises:
        ValueError: a number is outside its range, or there are not two outputs an exit.
    """
    if outputs.shape[-1] != 2 * exits or not 0 < rate < 1 or not 0 < quantile < 1 or kl < 0:
        raise ValueError(
            f"{exits} exits need {2 * exits} outputs, got {outputs.shape[-1]}; rate and quantile are in (0, 1), kl >= 0"
        )
    real = supervised(labels, mask)
    z, x = only(real[..., None], outputs).chunk(2, -1)
    log_p = log_exits(x)
    each = pointwise(z, labels[..., None], real[..., None].expand_as(z), fit=fit, link="sigmoid")
    prior = outputs.new_tensor(geometric(exits, rate))
    divergence = (prior * (prior.log() - log_p)).sum(-1)
    return mean((log_p.exp() * each).sum(-1) + kl * divergence, real, per)


def exit_names(exits: int) -> tuple[str, ...]:
    """Names of the outputs: the probability at each exit, and that of leaving there."""
    return tuple(f"{what}{k}" for what in ("at", "leave") for k in range(1, exits + 1))


def exit_formula(exits: int, quantile: float) -> str:
    """The probability at the first exit by which the model has left with a greater probability than `quantile`.

    `depth` is defined as the share of the backbone's layers up to there.
    """
    parts, left = [], ["0"]
    for k in range(1, exits):
        parts.append(f"stay{k} = {f'stay{k - 1} * ' if k > 1 else ''}(1 - leave{k})")
        parts.append(f"left{k} = above(1 - stay{k}, {quantile:.9g})")
        left.append(f"left{k}")
    left.append("1")
    parts.append(f"depth = ({exits}{''.join(f' - {name}' for name in left[1:-1])}) / {exits}")
    score = " + ".join(f"({left[k]} - {left[k - 1]}) * at{k}" for k in range(1, exits + 1))
    return "; ".join([*parts, score])
