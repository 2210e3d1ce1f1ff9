"""Credit by states: a step compared with the steps of its group that began in the same state.

B trajectories, N steps of all of them. NumPy or torch in, the same out. States of different groups are never pooled.
A step whose state no other step shares has no baseline: it gets 0 from its state.
"""

from __future__ import annotations

from typing import Literal

from array_api_compat import array_namespace

from stepreward.core.catalog import credit
from stepreward.credit.segments import Alone, Array, Groups, Trajectories, one_of

Scale = Literal["none", "std"]
"""Subtract the group's mean only, or divide by its standard deviation too."""
Over = Literal["trajectories", "steps"]
"""What a mean over whole trajectories counts: each once, or each as often as it has steps."""
EPSILON = 1e-6


def _relative_to_group(
    groups: Groups, values: Array, scale: Scale, alone: Alone = "zero", correction: int = 1
) -> Array:
    one_of("scale", scale, Scale)
    if scale == "none":
        return groups.centred(values, alone=alone)
    return groups.standardised(values, epsilon=EPSILON, correction=correction, alone=alone)


@credit.method(
    "gigpo",
    paper="arXiv:2505.10978",
    equation="Eqs. 3 to 8",
    note="statistics over trajectories as in the paper; the code takes them over the rows of steps: over='steps'",
    objective="return",
    invariant=("neutral",),
)
def group_in_group(
    rewards: Array,
    outcome: Array,
    group: Array,
    offsets: Array,
    state: Array,
    *,
    weight: float = 1.0,
    discount: float = 1.0,
    scale: Scale = "none",
    over: Over = "trajectories",
    alone: Alone = "zero",
) -> Array:
    """Adds to the trajectory's advantage that of the step among all steps of the group taken in the same state.

        A_k = (R - mean_group R) + weight (G_k - mean_state G),    R = sum r + o,  G_k = r_k + discount G_{k+1}

    Args:
        rewards: (N,).
        outcome: (B,), paid at the last step.
        group: (B,) problem of each trajectory.
        offsets: (B + 1,).
        state: (N,) identity of the state before each step; states of different groups are never pooled.
        weight: omega, of the state's term.
        discount: of later rewards within a trajectory; the paper's agents use 0.95.
        scale: subtract means only, or divide by deviations too.
        over: what the first term's mean and deviation count.
        alone: what the only member of a group gets from the first term.
    """
    one_of("over", over, Over)
    trajectories = Trajectories(offsets, rewards.shape[0])
    paid = rewards + trajectories.at_end(outcome)
    total, problem = trajectories.total(paid), trajectories.spread(group)
    if over == "steps":
        whole = _relative_to_group(Groups(problem), trajectories.spread(total), scale, alone)
    else:
        whole = trajectories.spread(_relative_to_group(Groups(group), total, scale, alone))
    places = Groups.of_pairs(problem, state)
    return whole + weight * _relative_to_group(places, trajectories.to_go(paid, discount=discount), scale)


credit.preset(
    "gigpo-verl-agent",
    of="gigpo",
    note="verl-agent's code: means over the rows of steps, so long trajectories count more; a group of one step is raw",
    over="steps",
    alone="raw",
    discount=0.95,
    invariant=(),
)


@credit.method(
    "hgpo",
    paper="arXiv:2602.22817",
    equation="the weighted mean over hierarchical groups; recipe/hgpo of the authors",
    note="deviations are the biased ones, as in the code; there an advantage of exactly 0 loses its weight as well",
    objective="return",
    invariant=(),
)
def groups_by_history(
    rewards: Array,
    outcome: Array,
    group: Array,
    offsets: Array,
    state: Array,
    *,
    history: int = 2,
    power: float = 1.0,
    discount: float = 1.0,
    scale: Scale = "none",
) -> Array:
    """Averages advantages among steps in the same state, in the same last two states, and so on, longer ones more.

        A_k = sum_h w_h (G_k - mean_{same last h + 1 states} G) / sum_h w_h,    w_h = (h + 1)^power

    The sums are over the step's histories that another step shares; without any it is 0.
    With no history it is the state's term of `gigpo`.

    Args:
        rewards: (N,).
        outcome: (B,), paid at the last step.
        group: (B,) problem of each trajectory.
        offsets: (B + 1,).
        state: (N,) identity of the state before each step.
        history: number of states before the present one in the longest history.
        power: alpha: 0 weighs all lengths alike.
        discount: of later rewards within a trajectory.
        scale: subtract means only, or divide by deviations too.

    Raises:
        ValueError: `history` is negative.
    """
    if history < 0:
        raise ValueError(f"history must not be negative, got {history}")
    trajectories = Trajectories(offsets, rewards.shape[0])
    returns = trajectories.to_go(rewards + trajectories.at_end(outcome), discount=discount)
    present = Groups.of_pairs(trajectories.spread(group), state)
    xp, places = array_namespace(returns), present
    made = mass = xp.zeros_like(returns)
    for h in range(history + 1):
        shared = xp.astype((places.count(returns) > 1) & (trajectories.position >= h), returns.dtype)
        weight = shared * (h + 1) ** power
        made, mass = made + weight * _relative_to_group(places, returns, scale, correction=0), mass + weight
        # The same states up to here: the same state now, and before it the same states up to there.
        places = Groups.of_pairs(present.of, trajectories.previous(places.of, first=-1))
    return made / xp.where(mass > 0, mass, xp.ones_like(mass))


@credit.method(
    "shared-edges",
    note="edges come as data, so any notion of a state will do",
    unverified="SALT (arXiv:2510.20022): from its abstract, as there is no public code; its normalisation is unknown",
    objective="outcome",
    invariant=("shift", "split", "neutral"),
)
def shared_edges(outcome: Array, group: Array, offsets: Array, edge: Array, *, epsilon: float = 1e-4) -> Array:
    """Gives steps that trajectories share the mean of those trajectories' advantages; others keep their own.

        A_k = mean of (o_j - mean_group) / (std_group + epsilon) over the group's steps with the same edge

    Args:
        outcome: (B,).
        group: (B,) problem of each trajectory.
        offsets: (B + 1,).
        edge: (N,) identity of state and action of each step.
        epsilon: added to the deviation.
    """
    trajectories = Trajectories(offsets, edge.shape[0])
    whole = trajectories.spread(Groups(group).standardised(outcome, epsilon=epsilon))
    return Groups.of_pairs(trajectories.spread(group), edge).mean(whole)


@credit.method(
    "archer",
    paper="arXiv:2402.19446",
    equation="section 3.3: the actor's advantage of an utterance",
    note="both critics come as data; training them is not part of this",
    objective="outcome",
    invariant=("shift", "split", "neutral"),
)
def action_less_state(action_values: Array, values: Array) -> Array:
    """Takes what a critic says of the action in its state, less what it says of the state.

        A_k = Q(s_k, a_k) - V(s_k)

    Args:
        action_values: (N,) Q of each step.
        values: (N,) V before each step.
    """
    return action_values - values
