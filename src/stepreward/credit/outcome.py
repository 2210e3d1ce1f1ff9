"""Credit by the outcome alone: every step of a trajectory gets the same advantage.

B trajectories, N steps of all of them. NumPy or torch in, the same out.
"""

from __future__ import annotations

from dataclasses import dataclass

from array_api_compat import array_namespace

from stepreward.core.catalog import credit
from stepreward.credit.segments import Alone, Array, Groups, Trajectories, one_of, typed, whitened

SHIFT_SPLIT_NEUTRAL = ("shift", "split", "neutral")
"""What never looks at step scores cannot be moved by them."""


@credit.method(
    "grpo",
    paper="arXiv:2402.03300",
    equation="section 4.1.2",
    note="epsilon and the outcome-only sum as in TRL 1.16; a group of one gets 0",
    objective="outcome",
    invariant=SHIFT_SPLIT_NEUTRAL,
)
def group_relative(
    outcome: Array,
    group: Array,
    offsets: Array,
    *,
    epsilon: float = 1e-4,
    correction: int = 1,
    alone: Alone = "zero",
) -> Array:
    """Standardises outcomes within their group.

        A_i = (o_i - mean_g) / (std_g + epsilon)

    With two outcomes the expected gradient has the direction of the outcome's; its length depends on how hard the
    problem is, so over many problems it weighs easy and hard ones more than the plain gradient would.

    Args:
        outcome: (B,).
        group: (B,) problem of each.
        offsets: (B + 1,).
        epsilon: added to the deviation.
        correction: 1 for the unbiased deviation, 0 for the biased one.
        alone: what the only trajectory of its group gets.

    Returns:
        (N,) advantages.
    """
    made = Groups(group).standardised(outcome, epsilon=epsilon, correction=correction, alone=alone)
    return _spread(made, offsets)


credit.preset("grpo-verl", of="grpo", note="verl 0.10: a group of one keeps its raw score", epsilon=1e-6, alone="raw")
credit.preset("grpo-openrlhf", of="grpo", note="OpenRLHF 0.11", epsilon=1e-9)


@credit.method(
    "lite-ppo",
    paper="arXiv:2508.08221",
    equation="the group's mean and the batch's deviation",
    note="TRL 1.16 with scale_rewards='batch', its epsilon; a group of one gets 0",
    objective="outcome",
    invariant=SHIFT_SPLIT_NEUTRAL,
)
def group_centred_batch_scaled(outcome: Array, group: Array, offsets: Array, *, epsilon: float = 1e-4) -> Array:
    """Subtracts the group's mean and divides by the batch's deviation, so that all problems keep their weight.

        A_i = (o_i - mean_g) / (std + epsilon)

    Args:
        outcome: (B,).
        group: (B,) problem of each.
        offsets: (B + 1,).
        epsilon: added to the unbiased deviation of all outcomes of the batch; of a single one it is 0.
    """
    together = Groups(array_namespace(group).zeros_like(group))
    return _spread(Groups(group).centred(outcome) / (together.deviation(outcome) + epsilon), offsets)


@credit.method(
    "dr-grpo",
    paper="arXiv:2503.20783",
    equation="section 3.2",
    note="the advantage; the other half of the paper, no division by length, is the trainer's loss",
    objective="outcome",
    invariant=SHIFT_SPLIT_NEUTRAL,
)
def group_centred(outcome: Array, group: Array, offsets: Array, *, alone: Alone = "zero") -> Array:
    """Subtracts the group's mean and leaves the scale alone, so that hard and easy problems weigh as they are.

    Args:
        outcome: (B,).
        group: (B,) problem of each.
        offsets: (B + 1,).
        alone: what the only trajectory of its group gets.
    """
    return _spread(Groups(group).centred(outcome, alone=alone), offsets)


credit.preset(
    "minirl",
    of="dr-grpo",
    paper="arXiv:2512.01374",
    note="MiniRL's advantage, not divided by length; its importance weights, masks and routing replay are the loss's",
)


@credit.method(
    "rloo",
    paper="arXiv:2402.14740",
    equation="section 3.2",
    note="a group of one has no baseline and gets 0, as in TRL 1.16",
    objective="outcome",
    invariant=SHIFT_SPLIT_NEUTRAL,
)
def leave_one_out(outcome: Array, group: Array, offsets: Array, *, alone: Alone = "zero") -> Array:
    """Subtracts the mean of the others in the group: an unbiased gradient with little variance.

    Args:
        outcome: (B,).
        group: (B,) problem of each.
        offsets: (B + 1,).
        alone: what the only trajectory of its group gets.
    """
    groups, xp = Groups(group), array_namespace(outcome)
    one_of("alone", alone, Alone)
    made = outcome - groups.mean_of_others(outcome)
    return _spread(made if alone == "raw" else xp.where(groups.count(made) > 1, made, xp.zeros_like(made)), offsets)


credit.preset(
    "likelihood",
    of="rloo",
    paper="arXiv:2602.03979",
    note="outcomes are log-likelihoods of the reference after the reasoning: `score.language.LikelihoodScorer`, "
    "mean='sum', at the last step. As they depend on the policy, the loss adds minus the log-likelihood, weight 1",
)
credit.preset("rloo-verl", of="rloo", note="verl 0.10: a group of one keeps its raw score", alone="raw")


@credit.method(
    "reinforce++",
    paper="arXiv:2501.03262",
    equation="Eq. 8",
    note="returns whitened over the tokens of the batch; the KL penalty of the paper is the trainer's",
    objective="outcome",
    invariant=SHIFT_SPLIT_NEUTRAL,
)
def whitened_outcome(outcome: Array, offsets: Array, lengths: Array, *, epsilon: float = 1e-8) -> Array:
    """Whitens outcomes over all tokens of the batch, long trajectories counting more.

    Args:
        outcome: (B,).
        offsets: (B + 1,).
        lengths: (N,) tokens of each step.
        epsilon: added to the variance.
    """
    return whitened(_spread(outcome, offsets), lengths, epsilon=epsilon)


@credit.method(
    "reinforce++-baseline",
    paper="arXiv:2501.03262",
    equation="section 3.3",
    note="the group's mean first, then whitening over the tokens of the batch. A group of one counts as 0, in verl as "
    "its raw score",
    objective="outcome",
    invariant=SHIFT_SPLIT_NEUTRAL,
)
def whitened_group_centred(
    outcome: Array, group: Array, offsets: Array, lengths: Array, *, epsilon: float = 1e-8
) -> Array:
    """Subtracts the group's mean, then whitens over all tokens of the batch.

    Args:
        outcome: (B,).
        group: (B,) problem of each.
        offsets: (B + 1,).
        lengths: (N,) tokens of each step.
        epsilon: added to the variance.
    """
    return whitened(_spread(Groups(group).centred(outcome), offsets), lengths, epsilon=epsilon)


@credit.method(
    "opo",
    paper="arXiv:2505.23585",
    equation="the optimal baseline under equal token gradients",
    note="as in verl: the baseline includes the trajectory's own outcome. A group of one gets 0, in verl its raw score",
    objective="outcome",
    invariant=("shift", "split"),
)
def length_weighted_baseline(outcome: Array, group: Array, offsets: Array, lengths: Array) -> Array:
    """Subtracts the group's mean weighted by length: the baseline of least variance if each token adds as much.

        A_i = o_i - sum_j L_j o_j / sum_j L_j

    Args:
        outcome: (B,).
        group: (B,) problem of each.
        offsets: (B + 1,).
        lengths: (N,) tokens of each step.
    """
    trajectories = Trajectories(offsets, lengths.shape[0])
    tokens = trajectories.total(typed(lengths, outcome))
    return trajectories.spread(outcome - Groups(group).mean(outcome, tokens))


@credit.method(
    "gdpo",
    paper="arXiv:2601.05242",
    equation="section 3",
    note="each component standardised in its group, weighted, summed, then standardised over the batch's trajectories, "
    "as TRL 1.16 with normalize_then_sum; verl whitens over tokens, so that long ones count more",
    objective="components",
    invariant=("split", "neutral"),
)
def components_standardised(
    components: Array, group: Array, offsets: Array, *, weights: tuple[float, ...] = (), epsilon: float = 1e-4
) -> Array:
    """Standardises each part of the reward within the group before they are added, so that none drowns the others.

    Args:
        components: (B, C) parts of the reward; one that is NaN enters no mean and adds nothing.
        group: (B,) problem of each.
        offsets: (B + 1,).
        weights: one a part; all 1 where empty.
        epsilon: added to each deviation, the batch's included.

    Raises:
        ValueError: another number of weights than parts, or no parts.
    """
    parts = components.shape[1] if components.ndim == 2 else 0
    if not parts:
        raise ValueError(f"components are (B, C) with at least one part, got shape {tuple(components.shape)}")
    if weights and len(weights) != parts:
        raise ValueError(f"{len(weights)} weights for {parts} components")
    xp, groups = array_namespace(components), Groups(group)
    total = xp.zeros_like(components[:, 0])
    for c, weight in enumerate(weights or (1.0,) * parts):
        # A part that was not measured has weight 0 in its mean, and adds 0 to the total.
        known = ~xp.isnan(components[:, c])
        part = xp.where(known, components[:, c], xp.zeros_like(total))
        counts = xp.astype(known, part.dtype)
        total = total + weight * counts * groups.standardised(part, counts, epsilon=epsilon)
    together = Groups(xp.zeros_like(group))
    return _spread(together.standardised(total, epsilon=epsilon), offsets)


@credit.method(
    "rlpr",
    paper="arXiv:2506.18254",
    equation="the debiased probability reward and the filter by standard deviation",
    note="the threshold is given: `MovingThreshold` keeps the paper's moving average. Probabilities are arithmetic "
    "means over the reference's tokens: `score.language.LikelihoodScorer(mean='arithmetic')`. The paper adds a reward "
    "of format, 0.9 r + 0.1 format, before it standardises",
    objective="outcome",
    invariant=SHIFT_SPLIT_NEUTRAL,
)
def debiased_probability(
    outcome: Array, prior: Array, group: Array, offsets: Array, *, least: float = 0.0, epsilon: float = 1e-6
) -> Array:
    """Rewards what reasoning adds to the probability of the reference answer, in groups where it makes a difference.

        r = min(1, max(0, o - prior)),    A = (r - mean_g) / (std_g + epsilon) where std_g >= least, else 0

    Args:
        outcome: (B,) mean probability of the reference's tokens after the reasoning.
        prior: (B,) the same without any.
        group: (B,) problem of each.
        offsets: (B + 1,).
        least: groups whose deviation is below it are left out: too easy or too hard to learn from.
        epsilon: added to the deviation.
    """
    xp, groups = array_namespace(outcome), Groups(group)
    # Reasoning that lowers the probability is worth 0, not less: the paper clips before it standardises.
    gained = xp.clip(outcome - prior, 0.0, 1.0)
    made = groups.standardised(gained, epsilon=epsilon)
    return _spread(xp.where(groups.deviation(gained) >= least, made, xp.zeros_like(made)), offsets)


@dataclass
class MovingThreshold:
    """The threshold `least` of `rlpr` as training goes: a share of the moving average of the groups' deviations.

        least = beta m,    m' = decay m + (1 - decay) mean std_g

    m is the plain mean over the first `start` batches, in which nothing is left out. As in the released code, with its
    settings for Qwen; beta is 0.9 for Llama and 1 for Gemma, whose average begins at the sixth batch.
    """

    beta: float = 0.5
    decay: float = 0.99
    start: int = 5
    mean: float = 0.0
    """m, so far."""
    seen: int = 0
    """Batches so far."""

    @property
    def least(self) -> float:
        """For the next batch."""
        return self.beta * self.mean if self.seen >= self.start else 0.0

    def update(self, outcome: Array, prior: Array, group: Array) -> None:
        """Takes in a batch, after its advantages were taken; unscored trajectories are left out.

        Args:
            outcome: (B,) as of `rlpr`.
            prior: (B,).
            group: (B,).
        """
        xp = array_namespace(outcome)
        scored = ~xp.isnan(outcome - prior)
        if not bool(xp.any(scored)):
            return
        gained = xp.clip(outcome[scored] - prior[scored], 0.0, 1.0)
        deviation = float(xp.mean(Groups(group[scored]).deviation(gained)))
        # The mean over the first batches is where the moving average starts.
        share = 1 / (self.seen + 1) if self.seen < self.start else 1 - self.decay
        self.mean, self.seen = self.mean + share * (deviation - self.mean), self.seen + 1


@credit.method(
    "gae",
    paper="arXiv:1506.02438",
    equation="Eq. 16",
    note="over steps; the outcome is paid at the last step, whose next value is 0",
    objective="return",
    invariant=("neutral",),
)
def generalised_advantage(
    rewards: Array, outcome: Array, values: Array, offsets: Array, *, discount: float = 1.0, decay: float = 1.0
) -> Array:
    """Sums discounted temporal differences of a critic.

        d_k = r_k + discount V_{k+1} - V_k,    A_k = d_k + discount decay A_{k+1}

    Args:
        rewards: (N,).
        outcome: (B,).
        values: (N,) value before each step.
        offsets: (B + 1,).
        discount: of later rewards, in [0, 1].
        decay: lambda in [0, 1]: 1 trusts returns, 0 the critic.
    """
    trajectories = Trajectories(offsets, rewards.shape[0])
    paid = rewards + trajectories.at_end(outcome)
    difference = paid + discount * trajectories.next(values) - values
    return trajectories.to_go(difference, discount=discount * decay)


@credit.method(
    "ppo",
    paper="arXiv:1707.06347",
    equation="Eq. 11, whitened",
    note="generalised advantages whitened over the tokens of the batch, as verl and OpenRLHF do; the clipped loss is "
    "the trainer's",
    objective="return",
    invariant=("neutral",),
)
def whitened_generalised_advantage(
    rewards: Array,
    outcome: Array,
    values: Array,
    offsets: Array,
    lengths: Array,
    *,
    discount: float = 1.0,
    decay: float = 1.0,
    epsilon: float = 1e-8,
) -> Array:
    """Standardises generalised advantages over all tokens of the batch, so that their scale stays the same.

    Where each token is a step, it is the estimator of token-level PPO.

    Args:
        rewards: (N,).
        outcome: (B,).
        values: (N,) value before each step.
        offsets: (B + 1,).
        lengths: (N,) tokens of each step.
        discount: of later rewards, in [0, 1].
        decay: lambda in [0, 1].
        epsilon: added to the variance.
    """
    made = generalised_advantage(rewards, outcome, values, offsets, discount=discount, decay=decay)
    return whitened(made, lengths, epsilon=epsilon)


def _spread(values: Array, offsets: Array) -> Array:
    return Trajectories(offsets, int(offsets[-1])).spread(values)
