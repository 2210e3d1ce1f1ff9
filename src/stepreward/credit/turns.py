"""Credit by turns: each step compared with the turns of its group.

B trajectories, N steps of all of them. NumPy or torch in, the same out. A group of one has no baseline: its step
gets 0, never its raw reward.
"""

from __future__ import annotations

from array_api_compat import array_namespace

from stepreward.core.catalog import credit
from stepreward.credit.outcome import generalised_advantage
from stepreward.credit.segments import Array, Groups, Trajectories, typed
from stepreward.credit.shaping import group_standardised

EPSILON = 1e-6


@credit.method(
    "mt-grpo",
    paper="arXiv:2505.11821",
    equation="section 4.2",
    note="for any number of turns; the paper has two. A turn's own reward counts for that turn alone",
    objective="none",
    invariant=("shift", "split"),
)
def turn_rewards_and_outcome(
    rewards: Array, outcome: Array, group: Array, offsets: Array, place: Array, *, weight: float = 1.0
) -> Array:
    """Adds to the standardised outcome the standardised reward of the turn, among the turns of the same number.

    Args:
        rewards: (N,).
        outcome: (B,).
        group: (B,) problem of each trajectory.
        offsets: (B + 1,).
        place: (N,) number of each turn; an unscored turn keeps its number.
        weight: of the turn's term.
    """
    trajectories = Trajectories(offsets, rewards.shape[0])
    whole = Groups(group).standardised(outcome, epsilon=EPSILON)
    places = Groups.of_pairs(trajectories.spread(group), place)
    return trajectories.spread(whole) + weight * places.standardised(rewards, epsilon=EPSILON)


@credit.method(
    "igpo",
    paper="arXiv:2510.14967",
    equation="Eqs. 5 and 6",
    note="as in the paper: standardised over all turns of the group; the code centres by turn number",
    objective="centred-return",
    invariant=("shift",),
)
def standardised_turns_to_go(
    rewards: Array, outcome: Array, group: Array, offsets: Array, *, discount: float = 1.0
) -> Array:
    """Standardises the rewards of all turns of a group, the outcome added to the last, and sums them to the end.

    Args:
        rewards: (N,), such as the gain in the answer's likelihood.
        outcome: (B,).
        group: (B,) problem of each trajectory.
        offsets: (B + 1,).
        discount: of later turns.
    """
    trajectories = Trajectories(offsets, rewards.shape[0])
    paid = group_standardised(rewards + trajectories.at_end(outcome), group, offsets)
    return trajectories.to_go(paid, discount=discount)


@credit.method(
    "step-grpo",
    paper="arXiv:2509.22644",
    equation="section 3.3: the reward list of WebGen-Agent",
    note="a step is credited with its own reward alone, not with what follows from it",
    objective="none",
    invariant=("shift",),
)
def standardised_steps(rewards: Array, group: Array, offsets: Array) -> Array:
    """Standardises step rewards over all steps of the group.

    Args:
        rewards: (N,).
        group: (B,) problem of each trajectory.
        offsets: (B + 1,).
    """
    return group_standardised(rewards, group, offsets)


@credit.method(
    "kevin",
    paper="arXiv:2507.11948",
    equation="section 4: sums of discounted scores, standardised over all turns",
    note="the outcome is paid at the last turn",
    objective="return",
    invariant=(),
)
def standardised_returns(
    rewards: Array, outcome: Array, group: Array, offsets: Array, *, discount: float = 1.0
) -> Array:
    """Takes the discounted return of each turn as a sample of its own and standardises over all turns of the group.

    Args:
        rewards: (N,).
        outcome: (B,).
        group: (B,) problem of each trajectory.
        offsets: (B + 1,).
        discount: of later turns; the paper uses 0.4.
    """
    trajectories = Trajectories(offsets, rewards.shape[0])
    returns = trajectories.to_go(rewards + trajectories.at_end(outcome), discount=discount)
    return group_standardised(returns, group, offsets)


@credit.method(
    "matchtir",
    paper="arXiv:2601.10712",
    equation="section 3.3: the mean of both levels",
    note="a turn that only one trajectory reaches gets 0 from its level; the code gives it its raw return",
    objective="none",
    invariant=(),
)
def trajectory_and_turn_level(
    rewards: Array, outcome: Array, group: Array, offsets: Array, place: Array, *, discount: float = 0.9
) -> Array:
    """Averages the standardised outcome with the standardised return of the turn, among turns of the same number.

    Args:
        rewards: (N,) such as matches of a turn's calls with the gold ones.
        outcome: (B,).
        group: (B,) problem of each trajectory.
        offsets: (B + 1,).
        place: (N,) number of each turn; an unscored turn keeps its number.
        discount: of later turns.
    """
    trajectories = Trajectories(offsets, rewards.shape[0])
    whole = Groups(group).standardised(outcome, epsilon=EPSILON)
    places = Groups.of_pairs(trajectories.spread(group), place)
    returns = trajectories.to_go(rewards + trajectories.at_end(outcome), discount=discount)
    return (trajectories.spread(whole) + places.standardised(returns, epsilon=EPSILON)) / 2


@credit.method(
    "bi-level-gae",
    paper="arXiv:2504.20073",
    equation="section 4: estimation over turns, then within each",
    note="turns come as data, so that one without a reward keeps its place; the code finds turns by their rewards",
    objective="return",
    invariant=("neutral",),
)
def turns_then_steps(
    rewards: Array,
    outcome: Array,
    values: Array,
    turn: Array,
    offsets: Array,
    *,
    turn_discount: float = 1.0,
    discount: float = 1.0,
    decay: float = 1.0,
) -> Array:
    """Estimates advantages of whole turns first, then from each those of the steps, or tokens, of its turn.

        A_k = R_k + turn_discount (V_{k+1} + decay A_{k+1}) - V_k,    V_k at the last step of turn k, which gets A_k
        A_t = discount (V_{t+1} + decay A_{t+1}) - V_t                before the last step of a turn

    Args:
        rewards: (N,); those of a turn are summed and paid at its end.
        outcome: (B,), paid at the end of the last turn.
        values: (N,) value before each step.
        turn: (N,) turn of each step; a new turn begins where it changes.
        offsets: (B + 1,).
        turn_discount: from turn to turn, in [0, 1].
        discount: within a turn.
        decay: lambda of both levels, in [0, 1].
    """
    xp = array_namespace(rewards)
    trajectories = Trajectories(offsets, rewards.shape[0])
    offsets = trajectories.offsets
    paid = rewards + trajectories.at_end(outcome)
    ends = trajectories.ends | (trajectories.next(turn) != turn)
    # Two levels of the same arrays: `turns` groups the turns of each trajectory, `steps` the steps of each turn.
    seen = xp.cumulative_sum(xp.astype(ends, offsets.dtype), include_initial=True)
    last = xp.nonzero(ends)[0]
    turns = Trajectories(seen[offsets], last.shape[0])
    steps = Trajectories(xp.concat([xp.zeros_like(offsets[:1]), xp.astype(last, offsets.dtype) + 1]), rewards.shape[0])
    end = values[last]
    whole = turns.to_go(steps.total(paid) + turn_discount * turns.next(end) - end, discount=turn_discount * decay)
    within = xp.where(steps.ends, steps.spread(whole), discount * steps.next(values) - values)
    return steps.to_go(within, discount=discount * decay)


@credit.method(
    "spa",
    paper="arXiv:2505.20732",
    equation="section 3.2: predicted progress and grounding, then PPO",
    note="the equation; the published script replaces predictions by outcomes and drops the last step",
    objective="attributed",
    invariant=("split", "neutral"),
)
def attributed_progress(
    rewards: Array,
    grounding: Array,
    values: Array,
    offsets: Array,
    *,
    weight: float = 1.0,
    grounded: float = 0.5,
    discount: float = 1.0,
    decay: float = 1.0,
) -> Array:
    """Pays a step what a model attributes to it of the outcome, and something for an action that could be executed.

    The attributed parts of a trajectory sum to about its outcome, which is therefore not paid again.

        r_k = weight c_k + grounded g_k,    then generalised advantages of r

    Args:
        rewards: (N,) attributed parts c.
        grounding: (N,) g: 1 where the action could be executed, else 0.
        values: (N,) value before each step.
        offsets: (B + 1,).
        weight: of attributed parts.
        grounded: of executable actions.
        discount: of later rewards, in [0, 1].
        decay: lambda, in [0, 1].
    """
    paid = weight * rewards + grounded * grounding
    total = Trajectories(offsets, paid.shape[0]).total(paid)
    unpaid = array_namespace(total).zeros_like(total)
    return generalised_advantage(paid, unpaid, values, offsets, discount=discount, decay=decay)


@credit.method(
    "turn-centred",
    paper="arXiv:2601.03525",
    equation="the advantages of trajectory and turn",
    note="step rewards are the rule `weighted-tests`. The trajectory's reward shrinks with every turn; means only, no "
    "deviations",
    unverified="VeRPO (arXiv:2601.03525): from notes with its formulas; the values of its weight and discount are in "
    "no reachable source, 1 and 0.9 are ours",
    objective="none",
    invariant=("shift",),
)
def trajectory_and_turn_centred(
    rewards: Array, outcome: Array, group: Array, offsets: Array, *, weight: float = 1.0, discount: float = 0.9
) -> Array:
    """Adds each turn's own centred reward to the centred outcome, which is worth less the more turns it took.

        A_k = (o discount^S - mean of the group) + weight (r_k - mean over the group's turns)

    Args:
        rewards: (N,) such as weighted unit tests passed after each turn.
        outcome: (B,).
        group: (B,) problem of each trajectory.
        offsets: (B + 1,).
        weight: beta, of the turn's term.
        discount: for each turn S of a trajectory, in (0, 1].
    """
    trajectories = Trajectories(offsets, rewards.shape[0])
    whole = Groups(group).centred(outcome * discount ** typed(trajectories.sizes, outcome))
    return trajectories.spread(whole) + weight * Groups(trajectories.spread(group)).centred(rewards)
