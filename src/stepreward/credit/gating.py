"""Shapes that let the outcome decide what a step reward is worth, so that it cannot be farmed on wrong solutions.

N steps of all trajectories, one after another, with `offsets` (B + 1,). NumPy or torch in, the same out. The outcome
itself is paid by the credit method that takes a shape; the presets at the end are such pairs.
"""

from __future__ import annotations

import math

from array_api_compat import array_namespace

from stepreward.core.catalog import credit, shape
from stepreward.credit.segments import Array, Groups, Trajectories

ALIKE = (0.1, 0.9)
"""A group whose outcomes are all at most the first, or all at least the second, says nothing about its step scores."""


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
    "annealed-posterior",
    note="`posterior` with a weight that changes over training and by problem",
    unverified="conciseness reward function (arXiv:2511.09158): R = o (1 + alpha c (s + d)), from a review; the value "
    "of alpha, how s moves and how d is measured are in no reachable source",
)
def annealed_posterior(
    rewards: Array, outcome: Array, difficulty: Array, offsets: Array, *, strength: float = 1.0, anneal: float = 1.0
) -> Array:
    """Multiplies step rewards by the outcome, more for hard problems, and by what training has come to.

        r'_k = strength (anneal + d) o r_k

    Args:
        rewards: (N,) such as how concise a step is.
        outcome: (B,) in [0, 1].
        difficulty: (B,) d of each trajectory's problem.
        offsets: (B + 1,).
        strength: alpha.
        anneal: s at this point of training.
    """
    return posterior(rewards, outcome * (anneal + difficulty), offsets, weight=strength)


@shape.method(
    "gated",
    note="the low-level reward where the high-level one is at least a threshold",
    unverified="G-RA (arXiv:2508.10548): gated reward accumulation, from summaries; its threshold is in no reachable "
    "source, 0.5 is ours",
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
    return xp.where(high >= threshold, rewards, xp.zeros_like(rewards))


@shape.method(
    "trust",
    paper="arXiv:2505.17018",
    equation="the trustworthiness weight and its annealing; verl/workers/reward/custom.py of SophiaVL-R1",
    note="one thinking reward a response in the paper: here the mean of its steps decides trust, and each is weighted. "
    "The code counts thinking below `least` as 0 in the means, so that outcomes of 0 and 1 are always trusted; here "
    "wrong solutions have their own scores, as in the paper. The horizon is the code's default; the full run has 12000",
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
    split: float = 0.5,
    least: float = 0.2,
) -> Array:
    """Trusts step rewards as far as they rank the group's right solutions over wrong ones, and less as training goes.

        r'_k = weight e^(-step / horizon) trust r_k,    trust = min(1, e^(mean of right - mean of wrong))

    0 for outcomes below `least`, and in groups whose outcomes are all at most 0.1, or all at least 0.9. Where no
    solution is right, or none is wrong, trust is 1.

    Args:
        rewards: (N,) in [0, 1].
        outcome: (B,) in [0, 1].
        group: (B,) problem of each.
        offsets: (B + 1,).
        weight: of step rewards at the start of training.
        step: updates of the policy so far.
        horizon: updates in which the weight falls to 1/e.
        split: outcomes below it are wrong, in the two means.
        least: outcomes below it get nothing for their steps.

    Raises:
        ValueError: `horizon` is not positive.
    """
    if horizon <= 0:
        raise ValueError(f"horizon must be positive, got {horizon}")
    xp = array_namespace(rewards)
    trajectories, groups = Trajectories(offsets, rewards.shape[0]), Groups(group)
    mean = trajectories.mean(rewards)
    # A trajectory without steps has no score that could be trusted or not.
    scored = xp.astype(trajectories.sizes > 0, mean.dtype)
    right = xp.astype(outcome >= split, mean.dtype) * scored
    wrong = scored - right
    gap = groups.mean(mean, right) - groups.mean(mean, wrong)
    compared = (groups.total(right) > 0) & (groups.total(wrong) > 0)
    trust = xp.where(compared, xp.exp(xp.minimum(gap, xp.zeros_like(gap))), xp.ones_like(gap))
    low, high = ALIKE
    mixed = (groups.total(xp.astype(outcome > low, mean.dtype)) > 0) & (
        groups.total(xp.astype(outcome < high, mean.dtype)) > 0
    )
    trust = xp.where(mixed & (outcome >= least), trust, xp.zeros_like(trust))
    return weight * math.exp(-step / horizon) * rewards * trajectories.spread(trust)


@shape.method(
    "renorm",
    paper="arXiv:2509.25598",
    equation="ReNorm: the process score and the outcome, each less one half, at every step",
    note="the outcome is in every step's reward, and is not paid once more: outcome_weight=0",
)
def renormed(rewards: Array, outcome: Array, offsets: Array) -> Array:
    """Adds to each step's score its trajectory's outcome less 1, so that the outcome decides the sign.

        r'_k = r_k + o - 1,    in [0, 1] where o = 1, in [-1, 0] where o = 0

    Args:
        rewards: (N,) in [0, 1].
        outcome: (B,) in [0, 1].
        offsets: (B + 1,).
    """
    return rewards + Trajectories(offsets, rewards.shape[0]).spread(outcome) - 1


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
    "c-grpo",
    of="total-rloo",
    paper="arXiv:2601.06021",
    note="R = (1 - a) o + a o sum r with a = 0.3, as released for outcomes of 0 and 1, r of the rule `carr`; RLOO's "
    "baseline in place of the group's deviation. The scripts ask to divide sum r by the group's largest, which the "
    "code does not do",
    objective="posterior",
    invariant=("neutral",),
    shape="posterior",
    weight=0.3,
    outcome_weight=0.7,
)
credit.preset(
    "gated-rloo",
    of="total-rloo",
    note="the shape gated with RLOO's baseline",
    unverified="G-RA (arXiv:2508.10548): see the shape gated",
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
    note="rewards r_p + r_o - 1 of ReNorm, summed to the end, and nothing else; RLOO's baseline in place of the "
    "paper's critic. As the outcome is part of earlier steps' rewards too, returns to go are no gradient of their sum",
    objective="none",
    invariant=("split",),
    shape="renorm",
    outcome_weight=0.0,
)
