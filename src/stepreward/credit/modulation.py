"""Credit that starts from the outcome's advantage and weighs steps by what else is known of them.

B trajectories, N steps of all of them. NumPy or torch in, the same out.
"""

from __future__ import annotations

from typing import Literal

from array_api_compat import array_namespace, device

from stepreward.core.catalog import credit
from stepreward.credit.segments import Array, Groups, Trajectories, one_of, typed

Norm = Literal["std", "mean", "others"]
"""The baseline of a value: the group's mean and deviation, its mean, or the mean of the others."""
EPSILON = 1e-6


@credit.method(
    "empg",
    paper="arXiv:2509.09265",
    equation="the modulated advantage: self-calibrating scale, future clarity, then the batch's mean removed",
    note="formula as restated by a re-implementation, with its defaults 1, 1, 0.05; entropies are scaled to [0, 1] "
    "over the batch",
    objective="none",
    invariant=("shift",),
)
def entropy_modulated(
    outcome: Array,
    group: Array,
    offsets: Array,
    entropy: Array,
    *,
    sharpness: float = 1.0,
    clarity: float = 1.0,
    bonus: float = 0.05,
) -> Array:
    """Strengthens credit where the policy was sure, weakens it where it was not, and pays steps that lead to clarity.

        A_k = o_i g(H_k) + bonus e^(-clarity H_{k+1}) - batch mean,    g = e^(-sharpness H) / mean e^(-sharpness H)

    o is standardised in the group; a last step leads nowhere and has no bonus.

    Args:
        outcome: (B,).
        group: (B,) problem of each.
        offsets: (B + 1,).
        entropy: (N,) mean entropy of the policy over each step's tokens.
        sharpness: kappa, at least 0.
        clarity: kappa', at least 0.
        bonus: zeta.
    """
    xp = array_namespace(entropy)
    trajectories = Trajectories(offsets, entropy.shape[0])
    if not entropy.shape[0]:
        return entropy
    # Equal entropies are all scaled to 0: the divisor is then 1 instead of 0.
    low, high = xp.min(entropy), xp.max(entropy)
    scaled = (entropy - low) / xp.where(high > low, high - low, xp.ones_like(high))
    scale = xp.exp(-sharpness * scaled)
    whole = trajectories.spread(Groups(group).standardised(outcome, epsilon=EPSILON))
    onward = xp.where(~trajectories.ends, xp.exp(-clarity * trajectories.next(scaled)), xp.zeros_like(scaled))
    made = whole * scale / xp.mean(scale) + bonus * onward
    return made - xp.mean(made)


@credit.method(
    "duration-aware",
    paper="arXiv:2509.01684",
    note="duration-aware policy gradients: a step's term is weighed by the time it took over the batch's mean, so that "
    "fast actions, which come back sooner, do not count more",
    objective="none",
    invariant=("shift", "split", "neutral"),
)
def weighed_by_duration(outcome: Array, group: Array, offsets: Array, duration: Array) -> Array:
    """Weighs each step's share of the outcome's advantage by the time that it took.

        A_k = (o - mean of others) duration_k / mean duration

    Args:
        outcome: (B,).
        group: (B,) problem of each.
        offsets: (B + 1,).
        duration: (N,) time or work of each step, at least 0; with tokens it is the weight of a loss by tokens.
    """
    xp = array_namespace(duration)
    trajectories = Trajectories(offsets, duration.shape[0])
    weight = duration / xp.mean(duration) if duration.shape[0] else duration
    return trajectories.spread(outcome - Groups(group).mean_of_others(outcome)) * weight


@credit.method(
    "istar",
    paper="arXiv:2509.19199",
    equation="episode-level and step-level advantages, A = A_E + omega A_S",
    note="over all steps of the group; the released code sees the first step of each trajectory alone. Step rewards "
    "are beta log pi_model / pi_old, beta 0.05: a `score.implicit` model's gains. The release's runs are `istar-rloo`",
    objective="none",
    invariant=("shift",),
)
def episode_and_step(
    rewards: Array,
    outcome: Array,
    group: Array,
    offsets: Array,
    *,
    weight: float = 1.0,
    norm: Norm = "std",
    scaled: bool = False,
) -> Array:
    """Adds to the outcome relative to the group each step's own reward relative to those of the group's steps.

        A_k = z over the group of o + weight z over the group's steps of r_k

    Nothing of what follows a step is credited to it.

    Args:
        rewards: (N,).
        outcome: (B,).
        group: (B,) problem of each.
        offsets: (B + 1,).
        weight: omega.
        norm: z of both: less the mean over the deviation, less the mean alone, or less the mean of the others.
        scaled: divide step rewards by the largest of the batch, up or down, first.
    """
    trajectories = Trajectories(offsets, rewards.shape[0])
    if scaled and rewards.shape[0]:
        xp = array_namespace(rewards)
        rewards = rewards / (xp.max(xp.abs(rewards)) + EPSILON)
    whole = trajectories.spread(_relative_to_group(Groups(group), outcome, norm))
    return whole + weight * _relative_to_group(Groups(trajectories.spread(group)), rewards, norm)


def _relative_to_group(groups: Groups, values: Array, norm: Norm) -> Array:
    """Values relative to their group's; 0 where the group has no other."""
    one_of("norm", norm, Norm)
    if norm == "std":
        return groups.standardised(values, epsilon=EPSILON)
    above = groups.centred(values)
    if norm == "mean":
        return above
    xp, n = array_namespace(values), groups.count(values)
    return above * n / xp.where(n > 1, n - 1, xp.ones_like(n))


credit.preset(
    "istar-rloo",
    of="istar",
    paper="arXiv:2509.19199",
    note="the estimator of the release's scripts, core_istar.py and dp_rm.py, but for its baseline, which sees the "
    "first step of each trajectory alone. A group of one gets 0, there its raw reward",
    invariant=(),
    norm="others",
    scaled=True,
)


@credit.method(
    "grpo-by-verdicts",
    paper="arXiv:2507.23317",
    equation="thought-level process rewards, whose sums to the end telescope to this: its two propositions",
    note="in a wrong solution a poor verdict means that what the step says goes into the final answer",
    unverified="TP-GRPO (arXiv:2507.23317): from notes with its formulas, as there is no code and the paper could not "
    "be read; the value of its weight is in no reachable source, 1 is ours",
    objective="none",
    invariant=("split", "neutral"),
)
def spared_and_fined(
    rewards: Array, outcome: Array, group: Array, offsets: Array, *, threshold: float = 0.5, weight: float = 1.0
) -> Array:
    """Gives each step the standardised outcome, fines poor steps of right solutions, and spares good ones of wrong.

        right solution:  A_k = z           at good steps,    z - weight a   at poor ones
        wrong solution:  A_k = 0           at good steps,    z              at poor ones

    z is the outcome standardised in the group, a the share of it that is right. Verdicts alone count, so cutting a step
    in two, or adding more of what is already there, earns nothing.

    Args:
        rewards: (N,) step scores.
        outcome: (B,) above 1/2 counts as right.
        group: (B,) problem of each.
        offsets: (B + 1,).
        threshold: steps scored above it are good.
        weight: alpha, of the fine.
    """
    xp = array_namespace(rewards)
    trajectories, groups = Trajectories(offsets, rewards.shape[0]), Groups(group)
    whole = trajectories.spread(groups.standardised(outcome, epsilon=EPSILON))
    right = xp.astype(outcome > 0.5, whole.dtype)
    fined = whole - weight * trajectories.spread(groups.mean(right))
    good, nothing = rewards > threshold, xp.zeros_like(whole)
    return xp.where(trajectories.spread(right) > 0, xp.where(good, whole, fined), xp.where(good, nothing, whole))


@credit.method(
    "capo",
    paper="arXiv:2508.02298",
    equation="the token reward r_v W_whole - 1[wrong] W_process, standardised over the group's tokens",
    note="wrong steps are those scored at or below a threshold, where the paper takes votes of 4 critiques: their "
    "intersection for models of 1 to 1.5 B parameters, majority or union for 7 B",
    objective="none",
    invariant=("split",),
)
def wrong_steps_pay(
    rewards: Array,
    outcome: Array,
    group: Array,
    offsets: Array,
    lengths: Array,
    *,
    whole: float = 2.0,
    process: float = 1.0,
    threshold: float = 0.5,
) -> Array:
    """Pays every token the outcome, takes a fine off those of wrong steps, and standardises over the group's tokens.

    Args:
        rewards: (N,) step scores.
        outcome: (B,).
        group: (B,) problem of each.
        offsets: (B + 1,).
        lengths: (N,) tokens of each step.
        whole: W_whole, more than `process`, so that no right solution is worth less than a wrong one.
        process: W_process, the fine.
        threshold: steps scored at or below it are wrong.

    Raises:
        ValueError: the fine is not less than the outcome's weight.
    """
    if process >= whole:
        raise ValueError(f"process must be less than whole, got {process} and {whole}")
    xp = array_namespace(rewards)
    trajectories = Trajectories(offsets, rewards.shape[0])
    fine = xp.astype(rewards <= threshold, rewards.dtype) * process
    paid = whole * trajectories.spread(outcome) - fine
    groups = Groups(trajectories.spread(group))
    return groups.standardised(paid, typed(lengths, rewards), epsilon=EPSILON)


@credit.method(
    "prof",
    paper="arXiv:2509.03403",
    note="process-consistency filter, from its description: of the right the worst scored are dropped, of the wrong "
    "the best, so many of each that right and wrong are as even as they can be; GRPO on the rest",
    objective="none",
    invariant=("shift", "split"),
)
def consistent_only(rewards: Array, outcome: Array, group: Array, offsets: Array, *, keep: float = 0.5) -> Array:
    """Drops the trajectories whose step scores contradict their outcome most, and standardises outcomes over the rest.

    Args:
        rewards: (N,) step scores; a trajectory is ranked by their mean.
        outcome: (B,) 1 where right; above 1/2 counts as right.
        group: (B,) problem of each.
        offsets: (B + 1,).
        keep: share of a group that is kept, rounded up; those dropped get 0.

    Raises:
        ValueError: `keep` is not in (0, 1].
    """
    if not 0 < keep <= 1:
        raise ValueError(f"keep must be above 0 and at most 1, got {keep}")
    xp = array_namespace(rewards)
    trajectories, groups = Trajectories(offsets, rewards.shape[0]), Groups(group)
    mean = trajectories.mean(rewards)
    right = xp.astype(outcome > 0.5, mean.dtype)
    n, good = groups.count(mean), groups.total(right)
    wanted = xp.ceil(keep * n - 1e-9)
    # As even as possible: half of what is kept, unless one side has fewer.
    kept_good = xp.minimum(good, xp.maximum(wanted - (n - good), xp.floor((wanted + 1) / 2)))
    share = xp.where(right > 0, kept_good, wanted - kept_good)
    # Right and wrong solutions of a problem are ranked apart.
    sides = Groups(2 * groups.of + xp.astype(right, groups.of.dtype))
    kept = _least_in_group(sides, xp.where(right > 0, -mean, mean), share)
    # `kept` is a fraction where equal ones share the last place: it weighs them in mean and deviation.
    size = groups.total(kept)
    above = groups.centred(outcome, kept)
    free = xp.where(size > 1, size - 1, xp.ones_like(size))
    deviation = xp.sqrt(groups.total(kept * above**2) / free)
    return trajectories.spread(kept * above / (deviation + EPSILON))


def _least_in_group(groups: Groups, values: Array, share: Array) -> Array:
    """(B,) 1 for the `share` members of each group with the least values, else 0; equal ones share the last place."""
    xp = array_namespace(values)
    # Two stable sorts, by value and then by group: members of a group lie together, the least first.
    order = xp.argsort(values, stable=True)
    order = order[xp.argsort(groups.of[order], stable=True)]
    ordered = groups.of[order]
    place = xp.zeros_like(values)
    # A member's place is its position less that of the first member of its group.
    first = xp.searchsorted(ordered, ordered)
    place[order] = xp.astype(xp.arange(values.shape[0], device=device(values)) - first, values.dtype)
    # Equal values share the places that they take together, so that the order of rows does not matter.
    equal = Groups.of_pairs(groups.of, xp.unique_inverse(values).inverse_indices)
    ties = equal.count(values)
    before = equal.mean(place) - (ties - 1) / 2
    return xp.clip((share - before) / ties, 0.0, 1.0)


@credit.method(
    "multi-agent",
    note="the leave-one-out outcome shared out among agents; no one formula is agreed on: here a softmax of their mean "
    "step scores",
    objective="none",
    invariant=("shift", "split"),
)
def shared_by_agents(
    rewards: Array, outcome: Array, group: Array, offsets: Array, agent: Array, *, temperature: float = 1.0
) -> Array:
    """Re-assigns a trajectory's advantage to its agents by their mean step scores, so that the sum over agents stays.

        A_k = (o - mean of others) n w_agent,    w = softmax over the n agents of +-(mean score) / temperature

    A good advantage goes to the agents with better scores, a bad one to those with worse.

    Args:
        rewards: (N,) step scores.
        outcome: (B,).
        group: (B,) problem of each.
        offsets: (B + 1,).
        agent: (N,) who acts.
        temperature: large shares alike.

    Raises:
        ValueError: `temperature` is not positive.
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    xp = array_namespace(rewards)
    trajectories = Trajectories(offsets, rewards.shape[0])
    whole = trajectories.spread(outcome - Groups(group).mean_of_others(outcome))
    agents = Groups.of_pairs(trajectories.of, agent)
    favour = xp.where(whole < 0, -agents.mean(rewards), agents.mean(rewards)) / temperature
    # Less the trajectory's largest, so that nothing overflows; each agent counts once, however often it acts.
    top = -trajectories.least_to_go(-favour)[trajectories.offsets[trajectories.of]]
    mass = xp.exp(favour - top)
    once = 1 / agents.count(rewards)
    number = trajectories.spread(trajectories.total(once))
    return whole * number * mass / trajectories.spread(trajectories.total(mass * once))
