"""Credit by step rewards and the outcome together.

B trajectories, N steps of all of them. NumPy or torch in, the same out. `shape` names a method of the family shape that
rewrites the step rewards first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from array_api_compat import array_namespace

from stepreward.core.catalog import credit, shape
from stepreward.credit import shaping
from stepreward.credit.segments import Array, Groups, Trajectories, one_of, typed

Unit = Literal["step", "token"]


def shaped(available: Mapping[str, Array], name: str, settings: Mapping[str, Any] | None = None) -> Array:
    """Rewards under a method of the family shape; unchanged where the name is empty.

    Args:
        available: data by name, `rewards` among them.
        name: of the shape.
        settings: its hyper-parameters.

    Raises:
        UnknownNameError: no such shape or setting.
        MissingDataError: the shape needs more than there is.
    """
    return shape[name].take(available, **(settings or {})) if name else available["rewards"]


@credit.method(
    "step-rloo",
    note="folklore: REINFORCE on returns to go with the leave-one-out mean of totals as baseline",
    objective="return",
    invariant=("neutral",),
)
def return_to_go(
    rewards: Array,
    outcome: Array,
    group: Array,
    offsets: Array,
    *,
    weight: float = 1.0,
    outcome_weight: float = 1.0,
    discount: float = 1.0,
    shape: str = "",
    shape_settings: Mapping[str, Any] | None = None,
) -> Array:
    """Credits a step with all that comes after it, less what the group's others got in all.

        A_k = weight (r_k + discount r_{k+1} + ...) + w o - mean of others (weight sum r + w o),    w = outcome_weight

    The plain gradient of the sum. Scores that are all positive make it a bonus for more steps: shape them first.

    Args:
        rewards: (N,).
        outcome: (B,).
        group: (B,) problem of each.
        offsets: (B + 1,).
        weight: of step rewards beside the outcome.
        outcome_weight: of the outcome; 0 where a shape has paid it.
        discount: of later step rewards, in [0, 1]; the outcome is not discounted.
        shape: method of the family shape, applied to the rewards first; empty for none.
        shape_settings: its hyper-parameters.
    """
    trajectories = Trajectories(offsets, rewards.shape[0])
    available = {"rewards": rewards, "outcome": outcome, "group": group, "offsets": offsets}
    paid = weight * shaped(available, shape, shape_settings)
    # The outcome is paid to every step undiscounted, so it enters as one number a trajectory.
    ending = outcome_weight * outcome
    baseline = Groups(group).mean_of_others(trajectories.total(paid) + ending)
    return trajectories.to_go(paid, discount=discount) + trajectories.spread(ending - baseline)


credit.preset(
    "implicit-step-rloo",
    of="step-rloo",
    note="rewards are beta log pi_expert / pi_old of each step, as `score.implicit` and "
    "`connect.online_reward_models` make them",
    unverified="StepAgent (arXiv:2411.03817): its implicit reward, from its abstract, as there is no code and no "
    "formula was found; RLOO in place of its PPO",
)


@credit.method(
    "total-rloo",
    note="folklore: RLOO on the sum of step rewards and outcome, as engines do that add up the rewards of tokens",
    objective="return",
    invariant=("neutral",),
)
def whole_return(
    rewards: Array,
    outcome: Array,
    group: Array,
    offsets: Array,
    *,
    weight: float = 1.0,
    outcome_weight: float = 1.0,
    shape: str = "",
    shape_settings: Mapping[str, Any] | None = None,
) -> Array:
    """Credits every step with the whole trajectory's rewards, less what the group's others got.

        A_k = R - mean of others R,    R = weight sum r + outcome_weight o

    More variance than `step-rloo`, but right also where a step's reward hangs on what comes later, as a gated one does.

    Args:
        rewards: (N,).
        outcome: (B,).
        group: (B,) problem of each.
        offsets: (B + 1,).
        weight: of step rewards beside the outcome.
        outcome_weight: of the outcome; 0 where a shape has paid it.
        shape: method of the family shape, applied to the rewards first; empty for none.
        shape_settings: its hyper-parameters.
    """
    trajectories = Trajectories(offsets, rewards.shape[0])
    available = {"rewards": rewards, "outcome": outcome, "group": group, "offsets": offsets}
    total = weight * trajectories.total(shaped(available, shape, shape_settings)) + outcome_weight * outcome
    return trajectories.spread(total - Groups(group).mean_of_others(total))


credit.preset(
    "clip-delta",
    of="step-rloo",
    paper="arXiv:2410.15115",
    note="with RLOO's baseline; what a step is paid is known after the next one, so this is no gradient of the sum",
    objective="none",
    invariant=("split", "neutral"),
    shape="clip-delta",
)

credit.preset(
    "potential",
    of="step-rloo",
    paper="ICML 1999, Ng, Harada and Russell",
    note="a baseline by state: minus the score before the step; one half for the bare problem",
    objective="outcome",
    invariant=("shift", "split"),
    shape="potential",
    shape_settings={"start": 0.5},
)


@credit.method(
    "deepseekmath-process",
    paper="arXiv:2402.03300",
    equation="section 4.1.3",
    note="steps of all trajectories of a group are standardised together; the outcome takes no part",
    objective="centred-process",
    invariant=("shift",),
)
def standardised_steps_to_go(
    rewards: Array, group: Array, offsets: Array, *, epsilon: float = 1e-6, correction: int = 1
) -> Array:
    """Standardises step rewards over all steps of the group, then sums to the end.

    Longer trajectories gain nothing from rewards that are all high, but the gradient is that of rewards less their mean
    for each step, not of their sum.

    Args:
        rewards: (N,).
        group: (B,) problem of each trajectory.
        offsets: (B + 1,).
        epsilon: added to the deviation.
        correction: 1 for the unbiased deviation, 0 for the biased one.
    """
    trajectories = Trajectories(offsets, rewards.shape[0])
    groups = Groups(trajectories.spread(group))
    return trajectories.to_go(groups.standardised(rewards, epsilon=epsilon, correction=correction))


@credit.method(
    "prime",
    paper="arXiv:2502.01456",
    equation="Eq. 5",
    note="the paper's leave-one-out means, per token; the code's batch normalisations are the family shape's to add. "
    "Raising the rewards of all tokens changes nothing, raising those of all steps does where steps differ in length",
    objective="averaged-return",
    invariant=(),
)
def centred_process_and_outcome(
    rewards: Array, outcome: Array, group: Array, offsets: Array, lengths: Array, *, weight: float = 1.0
) -> Array:
    """Subtracts the others' mean reward per token from every token, sums to the end, and adds a leave-one-out outcome.

    Args:
        rewards: (N,) sum of a step's token rewards, such as beta log pi_model / pi_reference.
        outcome: (B,).
        group: (B,) problem of each.
        offsets: (B + 1,).
        lengths: (N,) tokens of each step.
        weight: of step rewards beside the outcome.
    """
    trajectories = Trajectories(offsets, rewards.shape[0])
    groups = Groups(group)
    tokens = typed(lengths, rewards)
    per_token = trajectories.mean(rewards, tokens)
    baseline = tokens * trajectories.spread(groups.mean_of_others(per_token, _with_steps(trajectories, rewards)))
    centred = trajectories.to_go(rewards - baseline)
    return weight * centred + trajectories.spread(outcome - groups.mean_of_others(outcome))


@credit.method(
    "pure",
    paper="arXiv:2504.15275",
    equation="Eqs. 6 to 8",
    note="the verifiable reward enters with its own leave-one-out baseline",
    objective="none",
    invariant=("split",),
)
def soft_minimum_to_go(
    rewards: Array,
    outcome: Array,
    group: Array,
    offsets: Array,
    lengths: Array,
    *,
    temperature: float = 0.1,
    weight: float = 1.0,
    baseline: Unit = "token",
) -> Array:
    """Credits a trajectory with about its worst step: soft minimum, less the others' mean, summed to the end.

    Args:
        rewards: (N,).
        outcome: (B,).
        group: (B,) problem of each.
        offsets: (B + 1,).
        lengths: (N,) tokens of each step.
        temperature: of the soft minimum.
        weight: of step rewards beside the outcome.
        baseline: what the mean of the others is taken over: steps, or tokens (then longer steps are charged more).
    """
    trajectories = Trajectories(offsets, rewards.shape[0])
    groups = Groups(group)
    moved = shaping.soft_minimum(rewards, offsets, temperature=temperature)
    one_of("baseline", baseline, Unit)
    # With tokens as the unit a step pays the baseline once for each of its tokens.
    size = typed(lengths, rewards) if baseline == "token" else array_namespace(rewards).ones_like(rewards)
    mean = groups.mean_of_others(trajectories.mean(moved, size), trajectories.total(size))
    centred = trajectories.to_go(moved - size * trajectories.spread(mean))
    return weight * centred + trajectories.spread(outcome - groups.mean_of_others(outcome))


@credit.method(
    "pure-strict",
    paper="arXiv:2504.15275",
    equation="Eq. 5: the return is the least reward from here on",
    note="baseline: the mean return over the steps of the others; the code divides by the longest response instead",
    objective="none",
    invariant=("shift", "split"),
)
def least_to_go(rewards: Array, outcome: Array, group: Array, offsets: Array, *, weight: float = 1.0) -> Array:
    """Credits a step with the least reward from it to the end, less the mean of that over the others' steps.

    Args:
        rewards: (N,).
        outcome: (B,).
        group: (B,) problem of each.
        offsets: (B + 1,).
        weight: of step rewards beside the outcome.
    """
    trajectories = Trajectories(offsets, rewards.shape[0])
    groups = Groups(group)
    least = trajectories.least_to_go(rewards)
    mean = trajectories.mean(least)
    centred = least - trajectories.spread(groups.mean_of_others(mean, _with_steps(trajectories, rewards)))
    return weight * centred + trajectories.spread(outcome - groups.mean_of_others(outcome))


@credit.method(
    "pav",
    paper="arXiv:2410.08146",
    equation="Eq. 5",
    note="values of the policy itself here make it the policy gradient; a prover's add its progress. RLOO for Q",
    objective="outcome",
    invariant=("shift", "split", "neutral"),
)
def outcome_and_progress(outcome: Array, values: Array, group: Array, offsets: Array, *, weight: float = 1.0) -> Array:
    """Adds to the outcome's advantage the progress that a prover makes by the step.

        A_k = o - mean of others + weight (V(after k) - V(before k)),   V(after the end) = o

    Args:
        outcome: (B,).
        values: (N,) the prover's value before each step.
        group: (B,) problem of each.
        offsets: (B + 1,).
        weight: alpha, of progress.
    """
    xp = array_namespace(values)
    trajectories = Trajectories(offsets, values.shape[0])
    ending = trajectories.spread(outcome)
    after = xp.where(trajectories.ends, ending, trajectories.next(values))
    return ending - trajectories.spread(Groups(group).mean_of_others(outcome)) + weight * (after - values)


def _with_steps(trajectories: Trajectories, like: Array) -> Array:
    """(B,) 1 where a trajectory has a step, and so a mean, else 0."""
    return array_namespace(like).astype(trajectories.sizes > 0, like.dtype)
