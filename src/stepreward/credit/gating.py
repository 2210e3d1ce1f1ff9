"""Shapes that let the outcome decide what a step reward is worth, so that it cannot be farmed on wrong solutions.

N steps of all trajectories, one after another, with `offsets` (B + 1,). NumPy or torch in, the same out. The outcome
itself is paid by the credit method that takes a shape; the presets at the end are such pairs.
"""

from __future__ import annotations

import math

from array_api_compat import array_namespace

from stepreward.core.catalog import credit, shape
from stepreward.credit import process as _process  # noqa: F401  registers what the presets are of
from stepreward.credit.segments import Array, Groups, Trajectories


@shape.method(
    "posterior",
    paper="arXiv:2508.05170",
    equation="the reward R_f + R_o + R_o R_t, its last term",
    note="by step; the format's reward is part of the outcome",
)
def posterior(rewards: Array, outcome: Array, offsets: Array, *, weight: float = 1.0) -> Array:
    """Multiplies step rewards by the outcome: good reasoning to a wrong end is worth nothing.

        r'_k = weight o r_k

    Args:
        rewards: (N,).
        outcome: (B,) in [0, 1].
        offsets: (B + 1,).
        weight: of step rewards beside the outcome.
    """
    return weight * rewards * Trajectories(offsets, rewards.shape[0]).spread(outcome)


@shape.method(
    "gated",
    paper="arXiv:2508.10548",
    equation="gated reward accumulation (G-RA): the low-level reward where the high-level one is at least a threshold",
    note="from public summaries; the threshold's value in the paper could not be checked",
)
def gated(rewards: Array, outcome: Array, offsets: Array, *, threshold: float = 0.5) -> Array:
    """Keeps the step rewards of trajectories whose outcome reaches a threshold and drops all others.

    Args:
        rewards: (N,).
        outcome: (B,).
        offsets: (B + 1,).
        threshold: least outcome that opens the gate.
    """
    xp = array_namespace(rewards)
    high = Trajectories(offsets, rewards.shape[0]).spread(outcome)
    return xp.where(high >= threshold, rewards, 0 * high)


@shape.method(
    "trust",
    paper="arXiv:2505.17018",
    equation="the trustworthiness weight and its annealing; reward code of SophiaVL-R1",
    note="one thinking reward a response in the paper: here the mean of its steps decides trust, and each is weighted",
)
def trusted(
    rewards: Array,
    outcome: Array,
    group: Array,
    offsets: Array,
    *,
    weight: float = 0.3,
    step: int = 0,
    horizon: float = 500.0,
    least: float = 0.2,
) -> Array:
    """Trusts step rewards as far as they rank the group's right solutions over wrong ones, and less as training goes.

        r'_k = weight e^(-step / horizon) trust r_k,    trust = min(1, e^(mean of right - mean of wrong))

    0 for wrong solutions, and in groups that are all right or all wrong: there is nothing to check trust on.

    Args:
        rewards: (N,) in [0, 1].
        outcome: (B,) in [0, 1].
        group: (B,) problem of each.
        offsets: (B + 1,).
        weight: of step rewards at the start of training.
        step: updates of the policy so far.
        horizon: updates in which the weight falls to 1/e.
        least: outcomes below it are wrong.

    Raises:
        ValueError: `horizon` is not positive.
    """
    if horizon <= 0:
        raise ValueError(f"horizon must be positive, got {horizon}")
    xp = array_namespace(rewards)
    trajectories, groups = Trajectories(offsets, rewards.shape[0]), Groups(group)
    mean = trajectories.mean(rewards)
    right = xp.astype(outcome >= least, mean.dtype)
    # A trajectory without steps has no score that could be trusted or not.
    scored = xp.astype(trajectories.sizes > 0, mean.dtype)
    gap = groups.mean(mean, right * scored) - groups.mean(mean, (1 - right) * scored) + 0 * groups.total(outcome)
    mixed = (groups.total(right * scored) > 0) & (groups.total((1 - right) * scored) > 0)
    trust = xp.where(mixed, xp.exp(xp.minimum(gap, xp.zeros_like(gap))), 0 * gap) * right
    return weight * math.exp(-step / horizon) * rewards * trajectories.spread(trust)


@shape.method("centre", note="folklore: rewards less a constant, one half for probabilities, so that a doubt costs")
def centred(rewards: Array, *, value: float = 0.5) -> Array:
    """Subtracts a constant, so that only steps better than it are worth adding.

    Args:
        rewards: (N,).
        value: what is worth nothing.
    """
    return rewards - value


credit.preset(
    "p-grpo",
    of="total-rloo",
    paper="arXiv:2508.05170",
    note="step rewards where the outcome is right; RLOO's baseline in place of the group's deviation",
    objective="posterior",
    invariant=("neutral",),
    shape="posterior",
)
credit.preset(
    "conciseness",
    of="total-rloo",
    paper="arXiv:2511.09158",
    note="conciseness reward function: a conciseness score that counts only with the outcome, from the abstract; the "
    "paper's weight could not be checked",
    objective="posterior",
    invariant=("neutral",),
    shape="posterior",
)
credit.preset(
    "g-ra",
    of="total-rloo",
    paper="arXiv:2508.10548",
    note="gated reward accumulation, see the shape gated; RLOO's baseline",
    objective="posterior",
    invariant=("neutral",),
    shape="gated",
)
credit.preset(
    "trust-grpo",
    of="total-rloo",
    paper="arXiv:2505.17018",
    note="see the shape trust; RLOO's baseline",
    objective="none",
    invariant=(),
    shape="trust",
)
credit.preset(
    "ppr",
    of="step-rloo",
    paper="arXiv:2509.25598",
    note="ReNorm: r_p + r_o - 1, both parts centred by one half; the outcome's half falls to the baseline. The paper's "
    "PPO has a critic instead",
    objective="centred-by-half",
    invariant=(),
    shape="centre",
)
