"""Objectives on pairs and groups of trajectories of the same problem.

`totals` is one number a trajectory: the output at its last step, or beta times the log-ratio of a whole solution to a
reference model, which makes `bradley-terry` DPO.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from stepreward.core.catalog import loss
from stepreward.core.optional import Deferred
from stepreward.train.objectives.loss import Loss, mean, only
from stepreward.train.objectives.reading import OutputReading

if TYPE_CHECKING:
    import torch
else:
    torch = Deferred("torch")

_BOUND, _INSIDE = 5.0, 1e-3
"""Rewards between which the barrier is finite, and how near to them it is taken."""
PairLink = Literal["logistic", "hinge", "smooth-hinge", "square"]


def preference(
    difference: torch.Tensor,
    *,
    link: PairLink = "logistic",
    margin: float | torch.Tensor = 0.0,
    smoothing: float = 0.0,
    focal: float = 0.0,
) -> torch.Tensor:
    """Terms that want each difference, better minus worse, to be large.

    Args:
        difference: d, any shape.
        link: `logistic` -log sigmoid(d); `hinge` max(0, 1 - d); `smooth-hinge`, its smooth form over a width of 5;
            `square` (d - 1/2)^2, which with d = beta times a log-ratio is IPO's scaled by beta^2.
        margin: subtracted from d first.
        smoothing: chance in [0, 1/2] that the pair is the other way round; 1/2 for a tie.
        focal: g >= 0: a term is multiplied by (1 - 2 max(0, sigmoid(d) - 1/2))^g, so that clear pairs weigh less.

    Raises:
        ValueError: a setting is outside its range.
    """
    if not 0 <= smoothing <= 0.5 or focal < 0:
        raise ValueError(f"smoothing must be in [0, 1/2] and focal not negative, got {smoothing} and {focal}")
    d = difference - margin
    terms = (1 - smoothing) * _linked(d, link) + (smoothing * _linked(-d, link) if smoothing else 0.0)
    # 1 - 2 max(0, sigmoid(d) - 1/2) is 1 for a pair in the wrong order, else 2 sigmoid(-d).
    return terms * (2 * torch.sigmoid(-d)).clamp(max=1) ** focal if focal else terms


def _linked(d: torch.Tensor, link: PairLink) -> torch.Tensor:
    if link == "logistic":
        return torch.nn.functional.softplus(-d)
    if link == "hinge":
        return (1 - d).clamp(min=0)
    if link == "smooth-hinge":
        width = 5.0
        return torch.where(d >= 1 - width, (1 - d).clamp(min=0) ** 2 / (2 * width), 1 - width / 2 - d)
    if link == "square":
        return (d - 0.5) ** 2
    raise ValueError(f"link is 'logistic', 'hinge', 'smooth-hinge' or 'square', got {link!r}")


def _differences(totals: torch.Tensor, pairs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(P,) better minus worse, 0 where one of them is NaN, and which (P,) pairs have both."""
    better, worse = totals[pairs[:, 0]], totals[pairs[:, 1]]
    known = ~(better.isnan() | worse.isnan())
    return only(known, better) - only(known, worse), known


@loss.method(
    "bradley-terry", paper="arXiv:2203.02155", equation="Eq. 1",
    note="with totals from log-ratios it is DPO, arXiv:2305.18290 Eq. 7; smoothing as of arXiv:2401.06080",
    reading=OutputReading(rewards=True),
)  # fmt: skip
def bradley_terry(
    totals: torch.Tensor,
    pairs: torch.Tensor,
    *,
    margin: float = 0.0,
    smoothing: float = 0.0,
    temperature: float = 1.0,
    link: PairLink = "logistic",
    focal: float = 0.0,
    barrier: float = 0.0,
) -> Loss:
    """Ranks the better trajectory of each pair above the worse one.

        mean_p -log sigmoid( (r_better - r_worse - margin) / temperature ) + barrier (b(r_better) + b(r_worse))

    with b(r) = -log(5 - r) - log(5 + r), which keeps rewards between -5 and 5.

    Args:
        totals: (B,) r, NaN where a trajectory has none: its pairs are left out.
        pairs: (P, 2) rows of the better and of the worse one.
        margin: by which it should be better.
        smoothing: chance in [0, 1/2] that a pair is the other way round.
        temperature: > 0.
        link: what the difference is compared by.
        focal: >= 0; above 0, pairs that are in order already weigh less, see `preference`.
        barrier: weight >= 0 of the barrier.
    """
    if temperature <= 0 or barrier < 0:
        raise ValueError(f"temperature must be positive and barrier not negative, got {temperature} and {barrier}")
    d, known = _differences(totals, pairs)
    terms = preference((d - margin) / temperature, link=link, smoothing=smoothing, focal=focal)
    if barrier:
        ends = only(known[:, None], totals[pairs]).clamp(-_BOUND + _INSIDE, _BOUND - _INSIDE)
        terms = terms - barrier * ((_BOUND - ends).log() + (_BOUND + ends).log()).sum(1)
    return mean(terms, known)


loss.preset(
    "internlm2-reward", of="bradley-terry", paper="arXiv:2403.17297", focal=2.0, barrier=0.01,
    note="focal ranking and logarithmic barrier as in XTuner",
)  # fmt: skip


@loss.method("siblings", note="Bradley-Terry on steps behind the same prefix", reading=OutputReading(rewards=True))
def sibling_preference(
    logits: torch.Tensor,
    siblings: torch.Tensor,
    gap: torch.Tensor,
    *,
    least: float = 0.0,
    margin: float = 0.0,
    smoothing: float = 0.0,
    link: PairLink = "logistic",
) -> Loss:
    """Ranks the better of two steps that follow the same prefix above the worse one.

        mean_p -log sigmoid(z_better - z_worse - margin)

    Args:
        logits: (B, S) z.
        siblings: (P, 4) row and step of the better one, row and step of the worse one.
        gap: (P,) difference of their labels, above 0.
        least: pairs with a smaller gap are left out.
        margin: by which the better one should be above the worse one.
        smoothing: chance in [0, 1/2] that a pair is the other way round.
        link: what the difference is compared by.
    """
    known = gap >= least
    d = logits[siblings[:, 0], siblings[:, 1]] - logits[siblings[:, 2], siblings[:, 3]]
    return mean(preference(only(known, d), link=link, margin=margin, smoothing=smoothing), known)


@loss.method("preference-strength", paper="arXiv:2410.01257", reading=OutputReading(rewards=True))
def by_strength(
    totals: torch.Tensor,
    pairs: torch.Tensor,
    strength: torch.Tensor,
    *,
    use: Literal["scale", "margin"] = "scale",
) -> Loss:
    """Ranks the better trajectory above the worse one, the more the clearer the preference is.

        mean_p m_p (-log sigmoid(d_p)),    or    mean_p -log sigmoid(d_p - m_p)

    The mean is over pairs, not divided by the strengths.

    Args:
        totals: (B,) rewards, d is the better one's minus the worse one's.
        pairs: (P, 2) rows of the better and of the worse one.
        strength: (P,) m >= 0, NaN where not known: such pairs are left out.
        use: which of the two.

    Raises:
        ValueError: there is no such use.
    """
    if use not in ("scale", "margin"):
        raise ValueError(f"use is 'scale' or 'margin', got {use!r}")
    d, known = _differences(totals, pairs)
    known = known & ~strength.isnan()
    m = only(known, strength.to(d.dtype))
    return mean(m * preference(d) if use == "scale" else preference(d, margin=m), known)


@loss.method(
    "nca",
    paper="arXiv:2402.05369",
    note="the pair form in TRL's DPO trainer; the totals are log-ratios",
    reading=OutputReading(rewards=True),
)
def noise_contrastive(totals: torch.Tensor, pairs: torch.Tensor) -> Loss:
    """Raises the better trajectory's reward and keeps both from growing without bound.

        mean_p -log sigmoid(r_better) - 1/2 log sigmoid(-r_better) - 1/2 log sigmoid(-r_worse)

    Args:
        totals: (B,) r, beta times the log-ratio of a whole solution.
        pairs: (P, 2) rows of the better and of the worse one.
    """
    softplus = torch.nn.functional.softplus
    _, known = _differences(totals, pairs)
    better, worse = (only(known, totals[pairs[:, side]]) for side in (0, 1))
    return mean(softplus(-better) + 0.5 * softplus(better) + 0.5 * softplus(worse), known)


def antisymmetric(better: torch.Tensor, worse: torch.Tensor, gate: torch.Tensor | None = None) -> torch.Tensor:
    """(...) preference score of embeddings (..., 2 k): sum_i g_i (v_2i u_2i+1 - v_2i+1 u_2i); v over itself scores 0.

    Args:
        better: v.
        worse: u.
        gate: (..., k) g >= 0; all 1 where None.
    """
    terms = better[..., 0::2] * worse[..., 1::2] - better[..., 1::2] * worse[..., 0::2]
    return (terms if gate is None else gate * terms).sum(-1)


@loss.method(
    "general-preference",
    paper="arXiv:2410.02197",
    note="without its gate; embeddings are not normalised",
    reading=OutputReading(rewards=True, score=lambda settings: -1),
)
def general_preference(
    ends: torch.Tensor, pairs: torch.Tensor, *, temperature: float = 0.1, margin: float = 0.0
) -> Loss:
    """Ranks pairs by an antisymmetric score of embeddings, which can hold preferences that go in a circle.

        mean_p -log sigmoid( (s(v_better, v_worse) - margin) / temperature ),    s as of `antisymmetric`

    Args:
        ends: (B, 2 k) v, the outputs at each trajectory's last step.
        pairs: (P, 2) rows of the better and of the worse one.
        temperature: > 0.
        margin: by which s should be positive.

    Raises:
        ValueError: the number of outputs is odd, or the temperature not positive.
    """
    if ends.shape[-1] % 2 or temperature <= 0:
        raise ValueError(
            f"it needs an even number of outputs and a positive temperature: got {ends.shape[-1]}, {temperature}"
        )
    better, worse = ends[pairs[:, 0]], ends[pairs[:, 1]]
    known = ~(better.isnan() | worse.isnan()).any(-1)
    score = antisymmetric(only(known[:, None], better), only(known[:, None], worse))
    return mean(preference((score - margin) / temperature), known)


def mixture(differences: torch.Tensor, log_gate: torch.Tensor) -> torch.Tensor:
    """(P,) -log sum_k g_k sigmoid(d_k) of a pair that one of K kinds of judges compared.

    Args:
        differences: (P, K) d.
        log_gate: (P, K) log g, each row a distribution.
    """
    return -torch.logsumexp(log_gate + torch.nn.functional.logsigmoid(differences), -1)


def responsibilities(differences: torch.Tensor, log_gate: torch.Tensor, *, temperature: float = 1.0) -> torch.Tensor:
    """(P, K) detached share of each kind of judge in each pair: in proportion to g_k sigmoid(d_k)^(1 / temperature).

    With a temperature of 1 that is the posterior under `mixture` (arXiv:2505.24846).
    """
    return (log_gate + torch.nn.functional.logsigmoid(differences) / temperature).softmax(-1).detach()


@loss.method(
    "listwise",
    paper="arXiv:2402.02479",
    note="its gradient estimate is that of this cross-entropy",
    reading=OutputReading(rewards=True),
)
def listwise(totals: torch.Tensor, log_weights: torch.Tensor, group: torch.Tensor) -> Loss:
    """Fits the distribution over a problem's trajectories to that of their log-weights.

        mean_g - sum_i softmax(w)_i log softmax(r)_i,    i over the trajectories of problem g

    Args:
        totals: (B,) r: log-probabilities of the model (minus those of the proposal that drew them), or rewards.
        log_weights: (B,) w, NaN where not known: left out of both distributions.
        group: (B,) problem index.

    Returns:
        The mean over problems with at least two known trajectories, in nats.
    """
    known = ~(log_weights.isnan() | totals.isnan())
    _, index = torch.unique(group, return_inverse=True)
    n = int(index.max()) + 1 if len(index) else 0
    r, w = only(known, totals), only(known, log_weights.to(totals.dtype))
    share = only(known, (w - _group_logsumexp(w, index, known, n)[index]).exp())
    terms = only(known, share * (r - _group_logsumexp(r, index, known, n)[index]))
    sums = totals.new_zeros(n).index_add(0, index, terms)
    count = totals.new_zeros(n).index_add(0, index, known.to(totals.dtype))
    return mean(-sums, count > 1)


def _group_logsumexp(values: torch.Tensor, index: torch.Tensor, real: torch.Tensor, groups: int) -> torch.Tensor:
    """(groups,) log-sum-exp of the real values of each group, 0 for an empty one."""
    highest = values.new_full((groups,), -torch.inf).scatter_reduce(0, index, only(real, values, -torch.inf), "amax")
    highest = only(highest.isfinite(), highest).detach()
    sums = values.new_zeros(groups).index_add(0, index, only(real, (values - highest[index]).exp()))
    return torch.where(sums > 0, sums, 1).log() + highest
