"""Objectives on pairs that several annotators compared, who may want different things.

Axes: B trajectories, K outputs at the end of each, P pairs. `users` are (P, K) numbers of each pair's annotator, which
are learned with the model, or made of other pairs of theirs by a part of it that is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from stepreward.core.catalog import loss
from stepreward.core.optional import Deferred
from stepreward.train.objectives.loss import Loss, mean, only
from stepreward.train.objectives.preferences import PairLink, mixture, preference
from stepreward.train.objectives.reading import OutputReading, Settings

if TYPE_CHECKING:
    import torch
else:
    torch = Deferred("torch")


def _sides(ends: torch.Tensor, pairs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(P, K) outputs of the better and of the worse one, 0 where one of them is NaN, and which (P,) pairs have both."""
    better, worse = ends[pairs[:, 0]], ends[pairs[:, 1]]
    known = ~(better.isnan() | worse.isnan()).any(-1)
    return only(known[:, None], better), only(known[:, None], worse), known


_BEFORE_TRAINING = OutputReading(rewards=True, formula="mean(outputs)")
"""Until the end of training, when the numbers of the annotators are known, their mean is not."""


@loss.method(
    "reward-features", paper="arXiv:2503.17338", note="without public code; annotators of the data alone",
    reading=_BEFORE_TRAINING,
)  # fmt: skip
def reward_features(
    ends: torch.Tensor, users: torch.Tensor, pairs: torch.Tensor, annotator: torch.Tensor, *, prior: float = 0.0
) -> Loss:
    """Ranks pairs by a reward that is linear in shared features, with weights of each annotator's own.

        mean_p -log sigmoid( <f_better - f_worse, w_p> ) + prior |w_p|^2

    Args:
        ends: (B, K) f, the outputs at each trajectory's last step.
        users: (P, K) w of the annotator of each pair.
        pairs: (P, 2) rows of the better and of the worse one.
        annotator: (P,) number of the annotator, -1 where unknown: such pairs are left out.
        prior: weight >= 0 of the squared norm, for annotators with few pairs.

    Raises:
        ValueError: the prior is negative.
    """
    if prior < 0:
        raise ValueError(f"prior must not be negative, got {prior}")
    better, worse, known = _sides(ends, pairs)
    terms = preference(((better - worse) * users).sum(-1)) + prior * users.square().sum(-1)
    return mean(terms, known & (annotator >= 0))


def gaussian_kl(mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    """(...) divergence in nats of normal distributions (..., D) from the standard one.

    -1/2 sum_d ( 1 + v_d - m_d^2 - e^(v_d) )
    """
    return -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(-1)


@loss.method(
    "vpl", paper="arXiv:2408.10075",
    note="a reward linear in features with weights made of z, in place of a network of both; z is not rescaled in "
    "training, the weight of the divergence stays as it is, and each pair has a divergence by its own context",
    reading=_BEFORE_TRAINING,
)  # fmt: skip
def variational_users(
    ends: torch.Tensor,
    users: torch.Tensor,
    latents: torch.Tensor,
    pairs: torch.Tensor,
    annotator: torch.Tensor,
    *,
    kl: float = 0.01,
) -> Loss:
    """Ranks pairs by a reward whose weights are inferred from other pairs of the same annotator.

        mean_p -log sigmoid( <f_better - f_worse, w(z_p)> ) + kl KL( q(z_p | other pairs) || N(0, 1) )

    With kl = 0 and one w for all it is Bradley-Terry.

    Args:
        ends: (B, K) f, the outputs at each trajectory's last step.
        users: (P, K) w(z), of a draw of z in training and of its mean in evaluation.
        latents: (P, 2 K) mean and log-variance of z, taken for -1 or 1 beyond these.
        pairs: (P, 2) rows of the better and of the worse one.
        annotator: (P,) number of the annotator, -1 where unknown: such pairs are left out.
        kl: weight >= 0 of the divergence.

    Raises:
        ValueError: the weight is negative.
    """
    if kl < 0:
        raise ValueError(f"kl must not be negative, got {kl}")
    better, worse, known = _sides(ends, pairs)
    divergence = gaussian_kl(*latents.clamp(-1, 1).chunk(2, -1))
    return mean(preference(((better - worse) * users).sum(-1)) + kl * divergence, known & (annotator >= 0))


@loss.method(
    "ideal-point", paper="arXiv:2406.08469",
    note="PAL's first model with a free point for each annotator in place of a mixture of prototypes; the end alone",
    reading=_BEFORE_TRAINING,
)  # fmt: skip
def ideal_point(
    ends: torch.Tensor, users: torch.Tensor, pairs: torch.Tensor, annotator: torch.Tensor, *, link: PairLink = "hinge"
) -> Loss:
    """Ranks pairs by their distances to each annotator's ideal point.

        mean_p loss( |x_worse - u_p| - |x_better - u_p| )

    Args:
        ends: (B, K) x, the outputs at each trajectory's last step.
        users: (P, K) u of the annotator of each pair.
        pairs: (P, 2) rows of the better and of the worse one.
        annotator: (P,) number of the annotator, -1 where unknown: such pairs are left out.
        link: what the difference of distances is compared by.
    """
    better, worse, known = _sides(ends, pairs)
    near, far = (torch.linalg.vector_norm(side - users, dim=-1) for side in (better, worse))
    return mean(preference(far - near, link=link), known & (annotator >= 0))


def _judge_names(settings: Settings, outputs: int) -> tuple[str, ...]:
    return tuple(f"{what}{k}" for what in ("kind", "gate") for k in range(outputs // 2))


def _judged(settings: Settings, names: Sequence[str]) -> str:
    """The mean of the judges' rewards by their gates."""
    kinds = range(len(names) // 2)
    shares, gated = (" + ".join(f"exp(gate{k}){more.format(k)}" for k in kinds) for more in ("", " * kind{}"))
    return f"({gated}) / ({shares})"


@loss.method(
    "mixture", paper="arXiv:2505.24846", equation="Eq. 1-5",
    note="its first stage; the gate is the mean of what the ends of both solutions say, not of the prompt alone",
    reading=OutputReading(rewards=True, names=_judge_names, formula=_judged),
)  # fmt: skip
def mixture_of_judges(ends: torch.Tensor, pairs: torch.Tensor, *, spread: float = 0.5) -> Loss:
    """Ranks pairs by several rewards, of which a gate says how likely each was meant; annotators are not known.

        mean_p -log sum_k f_pk sigmoid(r_k better - r_k worse) + spread sum_k f_pk log f_pk

    Args:
        ends: (B, 2 K) r, the K rewards at each trajectory's last step, then K logits of the gate.
        pairs: (P, 2) rows of the better and of the worse one.
        spread: weight >= 0 that pulls the gate to equal shares.

    Raises:
        ValueError: the number of outputs is odd, or spread negative.
    """
    if ends.shape[-1] % 2 or spread < 0:
        raise ValueError(f"it needs an even number of outputs and spread >= 0: got {ends.shape[-1]}, {spread}")
    better, worse, known = _sides(ends, pairs)
    kinds = ends.shape[-1] // 2
    log_gate = ((better + worse) / 2)[:, kinds:].log_softmax(-1)
    terms = mixture((better - worse)[:, :kinds], log_gate) + spread * (log_gate.exp() * log_gate).sum(-1)
    return mean(terms, known)
