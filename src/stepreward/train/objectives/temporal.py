"""Objectives whose targets are made of the model's own values of later steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from stepreward.core.catalog import loss
from stepreward.core.optional import Deferred
from stepreward.core.vocabulary import Flag
from stepreward.train.objectives.loss import Loss, Per, mean, only
from stepreward.train.objectives.pointwise import Fit, Link, pointwise
from stepreward.train.objectives.reading import OutputReading, Settings

if TYPE_CHECKING:
    import torch
else:
    torch = Deferred("torch")


def td_targets(
    values: torch.Tensor,
    rewards: torch.Tensor,
    mask: torch.Tensor,
    *,
    gamma: float = 1.0,
    steps: int = 1,
    lam: float = 1.0,
) -> torch.Tensor:
    """Targets of temporal differences, detached: the mean of returns over 1 to n steps, with weights that decay.

        G^k_t = sum_{i < k} gamma^i r_{t+i} + gamma^k V_{t+k}
        target_t = (1 - lam) sum_{k < n} lam^{k-1} G^k_t + lam^{n-1} G^n_t

    A return that passes the end of its trajectory ends there: nothing follows the last step. So steps >= S is
    Monte Carlo with lam = 1, and TD(lam) with lam < 1.

    Args:
        values: (B, S) V, the value at each step.
        rewards: (B, S) r, the reward of each step; NaN makes the targets that need it NaN.
        mask: True at real steps, which stand at the beginning of their rows.
        gamma: discount in [0, 1].
        steps: n >= 1.
        lam: in [0, 1].

    Returns:
        (B, S), NaN at entries outside `mask`.

    Raises:
        ValueError: a setting is outside its range.
    """
    if not (0 <= gamma <= 1 and 0 <= lam <= 1 and steps >= 1):
        raise ValueError(f"gamma and lam must be in [0, 1] and steps at least 1, got {gamma}, {lam}, {steps}")
    n = max(1, min(steps, values.shape[1]))
    v = only(mask, values.detach())
    r = only(mask, rewards.to(values.dtype))
    width = values.shape[1]
    # Beyond the end all rewards and values are 0, so that a return ends where its trajectory does.
    v, r = (torch.nn.functional.pad(a, (0, n)) for a in (v, r))
    sums = torch.zeros_like(values)
    target = torch.zeros_like(values)
    for k in range(1, n + 1):
        sums = sums + gamma ** (k - 1) * r[:, k - 1 : k - 1 + width]
        weight = lam ** (k - 1) * (1 - lam if k < n else 1)
        if weight:
            target = target + weight * (sums + gamma**k * v[:, k : k + width])
    return only(mask, target, torch.nan)


def rewards_of(rewards: torch.Tensor, outcome: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(B, S) the rewards of steps, of which the last one's is the outcome (B,) of its trajectory.

    A trajectory of known outcome without any other known reward earned 0 before its end.
    """
    last = mask & ~follows(mask)
    alone = (rewards.isnan() | ~follows(mask)).all(1) & ~outcome.isnan()
    return torch.where(last, outcome.to(rewards.dtype)[:, None], torch.where(alone[:, None], 0.0, rewards))


def follows(mask: torch.Tensor) -> torch.Tensor:
    """(B, S) whether another real step follows each step."""
    return torch.nn.functional.pad(mask, (0, 1))[:, 1:]


@loss.method(
    "td", paper="arXiv:2509.15110", equation="the released two-step trainer",
    note="its gamma is 0.8 whatever its argument says; the last step's reward is the outcome here",
)  # fmt: skip
def temporal_difference(
    logits: torch.Tensor,
    rewards: torch.Tensor,
    outcome: torch.Tensor,
    mask: torch.Tensor,
    *,
    fit: Fit = "bce",
    link: Link = "sigmoid",
    gamma: float = 0.8,
    steps: int = 2,
    lam: float = 1.0,
    per: Per = "step",
) -> Loss:
    """Fits each step's value to its next rewards and the model's own value after them, the last one to the outcome.

        mean_s loss(z_s, clip(target_s)),    V = sigmoid(z), target as of `td_targets`, target_S = o

    Args:
        logits: z.
        rewards: (B, S) reward of each step, NaN where not known; the last step's is not read. Where none of a
            trajectory's is known and its outcome is, the others are 0.
        outcome: (B,) o, NaN where not known.
        mask: True at real steps, which stand at the beginning of their rows.
        fit: how a value is compared with its target.
        link: how it comes from z; behind a sigmoid targets are clipped to [0, 1].
        gamma: discount in [0, 1].
        steps: steps before the model's own value is taken.
        lam: below 1, the mean over fewer steps, with weights that decay by it.
        per: the unit of the mean.
    """
    values = only(mask, logits.sigmoid() if link == "sigmoid" else logits)
    earned = rewards_of(rewards.to(logits.dtype), outcome, mask)
    targets = td_targets(values, earned, mask, gamma=gamma, steps=steps, lam=lam)
    if link == "sigmoid":
        targets = targets.clamp(0, 1)
    real = mask & ~targets.isnan()
    return mean(pointwise(logits, targets, real, fit=fit, link=link), real, per)


def _critic_names(settings: Settings, outputs: int) -> tuple[str, ...]:
    return tuple(f"{what}{k + 1}" for what in "qv" for k in range(outputs // 2))


def _least_critic(settings: Settings, names: Sequence[str]) -> str:
    halves = names[: len(names) // 2], names[len(names) // 2 :]
    return "q = min({}); v = min({}); advantage = q - v; q".format(*map(", ".join, halves))


@loss.method(
    "archer", paper="arXiv:2402.19446", equation="the critic of its released code",
    note="the next action is the one that was taken, where it samples a new one; one backbone reads history and step "
    "together; a trajectory without rewards has its outcome alone",
    reading=OutputReading(rewards=True, begins=True, names=_critic_names, formula=_least_critic),
)  # fmt: skip
def twin_critics(
    outputs: torch.Tensor,
    lagging_outputs: torch.Tensor,
    rewards: torch.Tensor,
    outcome: torch.Tensor,
    mask: torch.Tensor,
    *,
    critics: Annotated[int, Flag(low=1)] = 2,
    gamma: float = 0.9,
    per: Per = "step",
) -> Loss:
    """Fits values of steps and states to each other: Q to the reward and the next state, V to the step taken there.

        sum_i mean_s ( Q_i(s) - r_s - gamma V'_i(s + 1) )^2 + mean_s ( V_i(s) - Q'_i(s) )^2

    Q_i(s) is the value of taking step s, read at its end; V_i(s) that of the state before it, read where it begins,
    behind the prompt or the last observation; Q', V' are those of a lagging copy. Nothing follows the last step: its Q
    has the target r. The target of V is the Q of the step that a trajectory took: over trajectories that share a
    prefix, its mean.

    Args:
        outputs: (B, S, 2 K) Q_1, ..., Q_K, V_1, ..., V_K, bare values.
        lagging_outputs: (B, S, 2 K) those of the lagging copy.
        rewards: (B, S) r of each step, NaN where not known; the last step's is not read. Where none of a trajectory's
            is known and its outcome is, the others are 0.
        outcome: (B,) r of the last step, NaN where not known.
        mask: True at real steps, which stand at the beginning of their rows.
        critics: K, each with targets of its own copy alone: a score is the least of their values.
        gamma: discount in [0, 1].
        per: the unit of each mean.

    Raises:
        ValueError: gamma is outside its range, or there are not 2 K outputs.
    """
    if not 0 <= gamma <= 1 or outputs.shape[-1] != 2 * critics:
        raise ValueError(f"gamma must be in [0, 1], got {gamma}; {outputs.shape[-1]} outputs of {critics} critics each")
    more, earned = follows(mask), rewards_of(rewards.to(outputs.dtype), outcome, mask)
    now, late = only(mask[..., None], outputs), only(mask[..., None], lagging_outputs.detach())
    of_step, of_state, late_step, late_state = (
        one[..., half] for one in (now, late) for half in (slice(critics), slice(critics, None))
    )
    # A state is taught by the step taken there, if that is taught itself.
    known = mask & ~earned.isnan()
    after = only(more[..., None], torch.nn.functional.pad(late_state, (0, 0, 0, 1))[:, 1:])
    target = only(known, earned)[..., None] + gamma * after
    by_step = mean((of_step - target).square().sum(-1), known, per)
    return by_step + mean((of_state - late_step).square().sum(-1), known, per)


def _recovered_reward(settings: Settings, names: Sequence[str]) -> str:
    formula = "q = before + {alpha:.9g} * advantage; reward = q - {gamma:.9g} * value; reward"
    return formula.format(**settings)


@loss.method(
    "b-coder", paper="arXiv:2310.03173", equation="Eq. 7-19",
    note="an action is a step; the next one's conservative value is that of the state, where it takes the checkpoint's "
    "greedy action; one value head in place of a frozen and a learned one; the weights beta are not its own",
    reading=OutputReading(rewards=True, policy=True, summed=True, formula=_recovered_reward),
)  # fmt: skip
def policy_critic(
    outputs: torch.Tensor,
    rewards: torch.Tensor,
    outcome: torch.Tensor,
    mask: torch.Tensor,
    *,
    alpha: float = 1.0,
    gamma: float = 1.0,
    cap: float = 1.0,
    advantage: float = 0.1,
    likelihood: float = 0.1,
    per: Per = "step",
) -> Loss:
    """Makes a language model the critic of its own steps: their values fall as their likelihood does.

        Q_s = V_s + alpha A_s,    A_s = sum_{t in s} l(y_t) - max_y l(y) <= 0
        mean_s ( Q_s - r_s - gamma min(V_{s+1}, cap) )^2 + mean_s ( V'_s - V_{s+1} )^2
            + advantage mean_{right b} sum_s |A_s| + likelihood mean_{right b} sum_s -log p(s)

    l are the logits of the language model, V_s is the value where step s begins, V'_s that at its end, which is V_{s+1}
    unless an observation stands between the two. Targets are detached. Nothing follows the last step: its Q has the
    target r, and V' behind it is 0. A reward is recovered as Q_s - gamma V'_s: without discount and observations they
    sum to V_1 - V'_S + alpha sum_s A_s.

    Args:
        outputs: (B, S, 4) V', V, A and log p of each step: outputs of a `policy`.
        rewards: (B, S) r of each step, NaN where not known; the last step's is not read. Where none of a trajectory's
            is known and its outcome is, the others are 0.
        outcome: (B,) r of the last step, NaN where not known; above 1/2 is right.
        mask: True at real steps, which stand at the beginning of their rows.
        alpha: > 0, value of a unit of the logits.
        gamma: discount in [0, 1].
        cap: greatest value of a state that a target takes: the greatest reward.
        advantage, likelihood: >= 0, weights of the terms that make right solutions likely.
        per: the unit of the means over steps.

    Raises:
        ValueError: a setting is outside its range, or there are not 4 outputs.
    """
    if not (alpha > 0 and 0 <= gamma <= 1 and advantage >= 0 and likelihood >= 0):
        what = "alpha must be positive, gamma in [0, 1], advantage and likelihood not negative"
        raise ValueError(f"{what}, got {alpha}, {gamma}, {advantage}, {likelihood}")
    if outputs.shape[-1] != 4:
        raise ValueError(f"a step has 4 outputs, its values, advantage and log-probability, got {outputs.shape[-1]}")
    more, earned = follows(mask), rewards_of(rewards.to(outputs.dtype), outcome, mask)
    behind, value, below, logprob = only(mask[..., None], outputs).unbind(-1)
    known = mask & ~earned.isnan()
    known_next = more & torch.nn.functional.pad(known, (0, 1))[:, 1:]
    after = only(more, torch.nn.functional.pad(value.detach(), (0, 1))[:, 1:])
    target = only(known, earned) + gamma * after.clamp(max=cap)
    bellman = mean((value + alpha * below - target).square(), known, per)
    # Where a step begins at the end of the one before, this is 0 but behind the last one.
    ends = mean((behind - after).square(), known_next | (mask & ~more & ~outcome.isnan()[:, None]), per)
    right = mask & (outcome > 0.5)[:, None]
    likely = likelihood * mean(-logprob, right, "trajectory-sum")
    return bellman + ends + advantage * mean(below.abs(), right, "trajectory-sum") + likely
