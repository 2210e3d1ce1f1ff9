"""Objectives that also read features: what the last layer of the head reads at each step. H is their number."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stepreward.core.catalog import loss
from stepreward.core.optional import Deferred
from stepreward.train.objectives.loss import Loss, Per, at_end, mean, only
from stepreward.train.objectives.pointwise import squared_error
from stepreward.train.objectives.preferences import bradley_terry
from stepreward.train.objectives.reading import OutputReading
from stepreward.train.objectives.temporal import rewards_of, td_targets

if TYPE_CHECKING:
    import torch
else:
    torch = Deferred("torch")

_TINY = 1e-9
"""Least length of a vector that is divided by."""


def bellman_rank(
    now: torch.Tensor,
    after: torch.Tensor,
    late: torch.Tensor,
    reward: torch.Tensor,
    slope: torch.Tensor,
    *,
    gamma: float,
) -> torch.Tensor:
    """(...) by how much features of consecutive states are more alike than any linear value allows.

        relu( cos(f, h) - U ),    U = ( |f|^2 + g^2 |f'|^2 - r^2 / |w|^2 ) / (2 g |f| |h|)

    As r = w . (f - g f') is at most |w| |f - g f'|, it is 0 for features with an exact value and h = f'. Neither
    U nor f' nor h has a gradient.

    Args:
        now: (..., H) f.
        after: (..., H) f' of the next state.
        late: (..., H) h, the same of a lagging copy.
        reward: (...) r between them.
        slope: (...) |w|, the length of the weights of the linear value.
        gamma: g > 0.
    """
    after, late = after.detach(), late.detach()
    here, there, then = (torch.linalg.vector_norm(one, dim=-1).clamp(min=_TINY) for one in (now, after, late))
    gap = (here.square() + gamma**2 * there.square() - (reward / slope.clamp(min=_TINY)).square()).detach()
    cosine = (now * late).sum(-1) / (here * then)
    bound = gap / (2 * gamma * here * then).detach()
    return torch.nn.functional.relu(cosine - bound)


@loss.method(
    "beer", paper="arXiv:2404.12754", equation="its released code",
    note="the next step is the one that was taken; its copy takes over 0.005 of the weights at a step: polyak",
    reading=OutputReading(rewards=True),
)  # fmt: skip
def bellman_rank_td(
    logits: torch.Tensor,
    lagging_logits: torch.Tensor,
    features: torch.Tensor,
    lagging_features: torch.Tensor,
    slopes: torch.Tensor,
    rewards: torch.Tensor,
    outcome: torch.Tensor,
    mask: torch.Tensor,
    *,
    penalty: float = 1e-3,
    gamma: float = 0.99,
    steps: int = 1,
    lam: float = 1.0,
    per: Per = "step",
) -> Loss:
    """Fits bare values by temporal differences, and keeps features of neighbouring steps as different as values are.

        TD + penalty mean_s relu( cos(f_s, f_s+1) - U_s )

    TD as of `td` with fit='mse' and link='none' and values of the lagging copy in its targets, U as of `bellman_rank`.

    Args:
        logits: z, bare values.
        lagging_logits: (B, S) those of the lagging copy.
        features: (B, S, H) f; of a head with several layers those before its last one.
        lagging_features: (B, S, H) those of the lagging copy.
        slopes: (B, S) length of the weights that make values of features.
        rewards: (B, S) reward of each step, NaN where not known: such steps are not penalised. Where none of a
            trajectory's is known and its outcome is, the others are 0.
        outcome: (B,) the last step's reward, NaN where not known.
        mask: True at real steps, which stand at the beginning of their rows.
        penalty: >= 0; 0 is `td`, if the copy is the model itself.
        gamma: discount in (0, 1].
        steps, lam, per: as of `td`.

    Raises:
        ValueError: a setting is outside its range.
    """
    if penalty < 0 or not 0 < gamma <= 1:
        raise ValueError(f"penalty must not be negative and gamma in (0, 1], got {penalty} and {gamma}")
    earned = rewards_of(rewards.to(logits.dtype), outcome, mask)
    targets = td_targets(only(mask, lagging_logits), earned, mask, gamma=gamma, steps=steps, lam=lam)
    plain = squared_error(logits, targets, mask, link="none", per=per)
    real = mask[:, :-1] & mask[:, 1:] & ~rewards[:, :-1].isnan()
    followed = (features[:, :-1], features[:, 1:], lagging_features[:, 1:])
    now, after, late = (only(real[..., None], one, 1.0) for one in followed)
    reward, slope = only(real, rewards[:, :-1].to(logits.dtype)), only(real, slopes[:, :-1], 1.0)
    return plain + penalty * mean(bellman_rank(now, after, late, reward, slope, gamma=gamma), real)


def info_nce(first: torch.Tensor, second: torch.Tensor, real: torch.Tensor, *, temperature: float) -> torch.Tensor:
    """(N,) by how much less each vector's second view is like its first one than those of others are, 0 where not real.

        -log( e^{cos(a_i, b_i) / t} / sum_j e^{cos(a_i, b_j) / t} )

    Args:
        first, second: (N, H) a and b.
        real: (N,) those that are compared.
        temperature: t > 0.

    Raises:
        ValueError: the temperature is not positive.
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    a, b = (torch.nn.functional.normalize(only(real[:, None], one, 1.0), dim=-1) for one in (first, second))
    alike = only(real[None, :], a @ b.T / temperature, torch.finfo(a.dtype).min / 4)
    return only(real, torch.logsumexp(alike, 1) - only(real, alike.diagonal()))


@loss.method(
    "contrastive-preference", paper="arXiv:2401.06080", equation="section 3.2, SimCSE",
    note="views are two passes with dropout; it prints neither temperature nor weight: those of SimCSE and 0.1",
    reading=OutputReading(rewards=True),
)  # fmt: skip
def contrastive_preference(
    totals: torch.Tensor,
    features: torch.Tensor,
    views: torch.Tensor,
    pairs: torch.Tensor,
    mask: torch.Tensor,
    *,
    contrast: float = 0.1,
    temperature: float = 0.05,
    margin: float = 0.0,
    smoothing: float = 0.0,
) -> Loss:
    """Ranks pairs, and tells the responses of a batch apart by their features.

        mean_p -log sigmoid(r_better - r_worse - margin) + contrast mean_i info_nce(f_i, f'_i)

    Args:
        totals: (B,) r, NaN where a trajectory has none: its pairs are left out.
        features: (B, S, H) f; the last step's is that of the response.
        views: (B, S, H) f' of another pass; equal to f without dropout (`lora_dropout`, or the backbone's), which
            leaves only the distances to others to learn.
        pairs: (P, 2) rows of the better and of the worse one.
        mask: True at real steps.
        contrast: weight >= 0; 0 is `bradley-terry`.
        temperature: > 0, of the cosines.
        margin, smoothing: as of `bradley-terry`.

    Raises:
        ValueError: a setting is outside its range.
    """
    if contrast < 0:
        raise ValueError(f"contrast must not be negative, got {contrast}")
    (first, some), (second, _) = at_end(features, mask), at_end(views, mask)
    compared = torch.zeros_like(some)
    compared[pairs.flatten()] = True
    apart = info_nce(first, second, some & compared, temperature=temperature)
    plain = bradley_terry(totals, pairs, margin=margin, smoothing=smoothing)
    return plain + contrast * mean(apart, some & compared)
