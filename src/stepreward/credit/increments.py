"""Shapes that read rewards as the value after each step, and pay the change of that value.

N steps of all trajectories, one after another, with `offsets` (B + 1,). NumPy or torch in, the same out.
"""

from __future__ import annotations

from array_api_compat import array_namespace

from stepreward.core.catalog import credit, shape
from stepreward.core.vocabulary import Count
from stepreward.credit.segments import Array, Groups, Trajectories
from stepreward.credit.shaping import progress


@shape.method(
    "red",
    paper="arXiv:2411.08302",
    equation="the redistributed reward and its blend with the sequence's",
    note="by step; the KL penalty is the trainer's",
)
def redistributed(rewards: Array, offsets: Array, *, start: float = 0.0, share: float = 1.0) -> Array:
    """Redistributes a sequence's reward over its steps by the change of a reward model's score, in part or whole.

        r'_k = share (r_k - r_{k-1}) + (1 - share) r_S [k = S]

    Sums to the last score, less `share * start`, whatever the share.

    Args:
        rewards: (N,) the model's score of everything up to each step.
        offsets: (B + 1,).
        start: score of the bare problem.
        share: beta_c in [0, 1].
    """
    trajectories = Trajectories(offsets, rewards.shape[0])
    last = trajectories.offsets[1:] - 1
    whole = trajectories.at_end(rewards[last]) if rewards.shape[0] else rewards
    return share * progress(rewards, offsets, start=start) + (1 - share) * whole


@shape.method(
    "vsrm",
    paper="arXiv:2508.10293",
    equation="the step reward with look-ahead; rollout_postprocess.py of the authors",
    note="placed at the step itself, where the code has the start of the next one. The code pays the first part "
    "nothing, as none is before it: here it is paid what it adds to `start`",
)
def first_change(
    rewards: Array, offsets: Array, *, start: float = 0.0, decay: float = 0.7, ahead: int = 4, least: float = 1e-5
) -> Array:
    """Pays the change in accuracy at a step, or, where there is none, the next one within a few steps, discounted.

        d_k = r_k - r_{k-1},    r'_k = decay^j d_{k+j} for the first j <= ahead with |d_{k+j}| >= least, else 0

    Args:
        rewards: (N,) accuracy of rollouts from each step.
        offsets: (B + 1,).
        start: accuracy from the bare problem.
        decay: for each step of looking ahead.
        ahead: most steps to look ahead.
        least: smaller changes are none.

    Raises:
        ValueError: `ahead` is negative.
    """
    if ahead < 0:
        raise ValueError(f"ahead must not be negative, got {ahead}")
    xp = array_namespace(rewards)
    trajectories = Trajectories(offsets, rewards.shape[0])
    change = progress(rewards, offsets, start=start)
    made, later = xp.zeros_like(change), change
    for j in range(ahead + 1):
        # The nearest change that is large enough stays: a later one does not replace it.
        made = xp.where((made == 0) & (xp.abs(later) >= least), decay**j * later, made)
        later = trajectories.next(later)
    return made


@shape.method(
    "turning-point",
    paper="arXiv:2602.06422",
    equation="incremental rewards, and the aggregate at turning points",
    note="at a turning point the increments' sign changes to that of the whole; the paper is on diffusion",
    unverified="the rule for turning points (arXiv:2602.06422): from a review, as the paper could not be read",
)
def turning_points(rewards: Array, offsets: Array, *, start: float = 0.0) -> Array:
    """Pays each step its increment, and a step that turns the trend to where it ends all that is gained from there on.

        d_k = r_k - r_{k-1},    r'_k = r_S - r_{k-1} if sign d_k != sign d_{k-1} and sign d_k = sign(r_S - start)

    Args:
        rewards: (N,) value after each step.
        offsets: (B + 1,).
        start: value before the first step.
    """
    xp = array_namespace(rewards)
    trajectories = Trajectories(offsets, rewards.shape[0])
    if not rewards.shape[0]:
        return rewards
    change = progress(rewards, offsets, start=start)
    last = trajectories.spread(rewards[trajectories.offsets[1:] - 1])
    sign = xp.sign(change)
    turned = (trajectories.position > 0) & (sign != trajectories.previous(sign)) & (sign == xp.sign(last - start))
    return xp.where(turned, last - trajectories.previous(rewards, first=start), change)


@shape.method(
    "thoughts",
    note="contiguous steps of one verdict are one thought, as in TP-GRPO (arXiv:2507.23317), which pays otherwise: see "
    "the credit `grpo-by-verdicts`. Here a thought gets the mean of its steps, once",
)
def thoughts(rewards: Array, offsets: Array, *, threshold: float = 0.5) -> Array:
    """Merges neighbouring steps of one verdict into a thought and pays it once, at its end.

    Cutting a step in two, or adding more of what is already there, earns nothing.

    Args:
        rewards: (N,).
        offsets: (B + 1,).
        threshold: rewards above it are a good verdict.
    """
    xp = array_namespace(rewards)
    trajectories = Trajectories(offsets, rewards.shape[0])
    good = xp.astype(rewards > threshold, rewards.dtype)
    begins = (trajectories.position == 0) | (trajectories.previous(good) != good)
    # Runs are numbered over all trajectories; the first step of a trajectory always begins one.
    runs = Groups(xp.cumulative_sum(xp.astype(begins, offsets.dtype)))
    ends = trajectories.ends | (trajectories.next(good) != good)
    return xp.where(ends, runs.mean(rewards), xp.zeros_like(rewards))


@shape.method(
    "td-target",
    paper="arXiv:2509.15110",
    equation="the n-step target; tdrm_2_step_train.py of the authors",
    note="what a value model is fitted to, not what a policy is paid",
)
def temporal_difference_target(
    rewards: Array, values: Array, outcome: Array, offsets: Array, *, n: Count = 3, discount: float = 0.8
) -> Array:
    """Targets of a value model before each step: rewards of the next n steps, then what the model itself says.

        y_k = clip(sum_{j < n} discount^j r_{k+j} + discount^n V_{k+n}, 0, 1)

    A trajectory that ends first closes with its outcome: discount^(S - k) o in place of the model's word.

    Args:
        rewards: (N,) reward of each step.
        values: (N,) the model's value before each step.
        outcome: (B,).
        offsets: (B + 1,).
        n: steps, at least 1.
        discount: gamma.

    Raises:
        ValueError: `n` is less than 1.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    xp = array_namespace(rewards)
    trajectories = Trajectories(offsets, rewards.shape[0])
    made, reward, value = xp.zeros_like(rewards), rewards, values
    for j in range(n):
        made = made + discount**j * reward
        reward, value = trajectories.next(reward), trajectories.next(value)
    # Past the end `next` gives 0, so the sum stops by itself; the outcome closes it at the right discount.
    left = xp.astype(trajectories.remaining, rewards.dtype)
    closed = discount**left * trajectories.spread(outcome)
    made = made + xp.where(trajectories.remaining > n, discount**n * value, closed)
    return xp.clip(made, 0.0, 1.0)


@credit.method(
    "dense-grpo",
    paper="arXiv:2601.20218",
    equation="step-wise reward gains, standardised at each time step over the group",
    note="the paper's steps denoise images; the same arithmetic on any steps",
    objective="none",
    invariant=("shift", "split"),
)
def increments_by_place(rewards: Array, group: Array, offsets: Array, place: Array, *, start: float = 0.0) -> Array:
    """Standardises what each step changed among the steps in the same place of the group's other trajectories.

        A_k = z over the group's k-th steps of (r_k - r_{k-1})

    Args:
        rewards: (N,) value after each step.
        group: (B,) problem of each trajectory.
        offsets: (B + 1,).
        place: (N,) number of each step; an unscored step keeps its number.
        start: value before the first step.
    """
    trajectories = Trajectories(offsets, rewards.shape[0])
    places = Groups.of_pairs(trajectories.spread(group), place)
    return places.standardised(progress(rewards, offsets, start=start))


credit.preset(
    "red",
    of="step-rloo",
    paper="arXiv:2411.08302",
    note="see the shape red; RLOO's baseline. Sums to the last score, which ends every trajectory alike here",
    objective="last-score",
    invariant=("shift", "split"),
    shape="red",
)
credit.preset(
    "vsrm",
    of="step-rloo",
    paper="arXiv:2508.10293",
    note="see the shape vsrm; the outcome is added to the last step's reward, in the code it replaces that",
    objective="none",
    invariant=("shift",),
    shape="vsrm",
)
credit.preset(
    "turning-point",
    of="step-rloo",
    paper="arXiv:2602.06422",
    note="see the shape of that name",
    unverified="the rule for turning points (arXiv:2602.06422): from a review, as the paper could not be read",
    objective="last-score",
    invariant=("shift",),
    shape="turning-point",
)
