"""Shapes of step rewards: rewards in, rewards out, before any advantage is taken.

N steps of all trajectories, one after another, with `offsets` (B + 1,). NumPy or torch in, the same out.
"""

from __future__ import annotations

import numpy as np
from array_api_compat import array_namespace

from stepreward.core.catalog import shape
from stepreward.credit.segments import Array, Groups, Trajectories, typed, whitened


@shape.method("clip", paper="arXiv:2410.15115", equation="section 4.2: r' = min(r - eta, 0)")
def clipped(rewards: Array, *, ceiling: float = 0.5) -> Array:
    """Leaves of each reward only what it lacks to a ceiling, so that no step is worth adding.

    Args:
        rewards: (N,).
        ceiling: rewards at or above it become 0.
    """
    xp = array_namespace(rewards)
    return xp.minimum(rewards - ceiling, xp.zeros_like(rewards))


@shape.method("delta", paper="arXiv:2410.15115", equation="section 4.2: r'_k = r_k - r_{k+1}, and 0 at the last step")
def differences(rewards: Array, offsets: Array) -> Array:
    """Pays the drop to the next reward, so that the sum to go from a step is its own reward and no more.

    The last step, whose reward is the outcome, gets 0; the one before it keeps its reward.

    Args:
        rewards: (N,).
        offsets: (B + 1,).
    """
    xp = array_namespace(rewards)
    trajectories = Trajectories(offsets, rewards.shape[0])
    kept = xp.where(trajectories.ends, xp.zeros_like(rewards), rewards)
    return kept - trajectories.next(kept)


@shape.method("clip-delta", paper="arXiv:2410.15115", equation="section 4.2: clip first, then delta")
def clipped_differences(rewards: Array, offsets: Array, *, ceiling: float = 0.5) -> Array:
    """Clips rewards, then pays their differences: a bounded sum that no added step can raise.

    Args:
        rewards: (N,).
        offsets: (B + 1,).
        ceiling: as in `clip`.
    """
    return differences(clipped(rewards, ceiling=ceiling), offsets)


@shape.method(
    "potential", paper="ICML 1999, Ng, Harada and Russell", equation="theorem 1: F = discount Phi(s') - Phi(s)"
)
def potential(rewards: Array, offsets: Array, *, discount: float = 1.0, start: float = 0.0) -> Array:
    """Reads rewards as potentials of the states that steps reach and pays their increase; the end's potential is 0.

    The sum over a trajectory is the constant -`start`, whatever the steps: the best policy stays the best one.

    Args:
        rewards: (N,) potential of the state after each step; that of a last step is not used.
        offsets: (B + 1,).
        discount: of the process.
        start: potential of every first state.
    """
    xp = array_namespace(rewards)
    trajectories = Trajectories(offsets, rewards.shape[0])
    after = xp.where(trajectories.ends, xp.zeros_like(rewards), rewards)
    return discount * after - trajectories.previous(rewards, first=start)


@shape.method(
    "progress", paper="arXiv:2410.08146", equation="Eq. 2: the prover's value after the step less that before"
)
def progress(rewards: Array, offsets: Array, *, start: float = 0.0) -> Array:
    """Reads rewards as values of prefixes and pays each step what it added.

    Args:
        rewards: (N,) value after each step.
        offsets: (B + 1,).
        start: value of the bare problem.
    """
    return rewards - Trajectories(offsets, rewards.shape[0]).previous(rewards, first=start)


@shape.method("soft-minimum", paper="arXiv:2504.15275", equation="Eq. 7: r*_k = softmax(-r / T)_k r_k")
def soft_minimum(rewards: Array, offsets: Array, *, temperature: float = 0.1) -> Array:
    """Moves the weight of a trajectory to its worst step: the new rewards sum to about the least old one.

    Args:
        rewards: (N,).
        offsets: (B + 1,).
        temperature: towards 0 only the worst step counts.

    Raises:
        ValueError: the temperature is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    xp = array_namespace(rewards)
    trajectories = Trajectories(offsets, rewards.shape[0])
    # Less the least first: the largest weight is 1, so that nothing overflows.
    least = trajectories.least_to_go(rewards)[trajectories.offsets[trajectories.of]]
    weights = xp.exp((least - rewards) / temperature)
    return rewards * weights / trajectories.spread(trajectories.total(weights))


@shape.method(
    "par",
    paper="arXiv:2502.18770",
    equation="preference as reward: the mean over references of the sigmoid of the reward over each",
    note="by step; the paper has one reward a response and up to 10 references. One reference for all prompts is "
    "`sigmoid`; variants of the code are `tanh` and `bounded`. Its penalty on length is `length-penalty`",
)
def preferred_to_references(rewards: Array, references: Array, offsets: Array, *, slope: float = 1.0) -> Array:
    """Bounds rewards to the mean chance of being preferred to a reference: gains saturate, so a hack pays little.

        r' = mean_m 1 / (1 + e^(-slope (r - reference_m)))

    Args:
        rewards: (N,).
        references: (B, M) rewards of reference answers to each trajectory's prompt, NaN where there are fewer; as a
            list, rows of any length. (B,) is one for each.
        offsets: (B + 1,).
        slope: k, of the sigmoid, times 4 at its middle.

    Raises:
        ValueError: there are no references.
    """
    xp = array_namespace(rewards, references)
    if not (references.shape[1:] or (1,))[0]:
        raise ValueError(f"references are (B, M) with at least one, got shape {tuple(references.shape)}")
    trajectories = Trajectories(offsets, rewards.shape[0])
    each = trajectories.spread(typed(references, rewards))
    each = each[:, None] if each.ndim == 1 else each
    known = ~xp.isnan(each)
    chance = sigmoid_centred(rewards[:, None] - xp.where(known, each, xp.zeros_like(each)), slope=slope)
    weight = xp.astype(known, each.dtype)
    return xp.sum(chance * weight, axis=1) / xp.sum(weight, axis=1)


@shape.method(
    "sigmoid", paper="arXiv:2502.18770", note="`par` with one reference for all prompts, or with a centred reward"
)
def sigmoid_centred(rewards: Array, *, reference: float = 0.0, slope: float = 1.0) -> Array:
    """Bounds rewards by a sigmoid around a reference's: gains saturate, so that a hack of the model pays little.

        r' = 1 / (1 + e^(-slope (r - reference)))

    Args:
        rewards: (N,).
        reference: reward that becomes one half.
        slope: of the sigmoid, times 4 at its middle.
    """
    xp = array_namespace(rewards)
    half = xp.tanh(slope * (rewards - reference) / 2)
    return (1 + half) / 2


@shape.method("tanh", paper="arXiv:2502.18770", note="a variant of the paper's code, centred")
def tanh_centred(rewards: Array, *, reference: float = 0.0, slope: float = 1.0) -> Array:
    """Bounds rewards to (-1, 1) around a reference's.

    Args:
        rewards: (N,).
        reference: reward that becomes 0.
        slope: at the reference.
    """
    return array_namespace(rewards).tanh(slope * (rewards - reference))


@shape.method("bounded", note="folklore: clipping")
def bounded(rewards: Array, *, low: float = -1.0, high: float = 1.0) -> Array:
    """Cuts rewards off at both ends.

    Args:
        rewards: (N,).
        low: least reward.
        high: greatest reward.

    Raises:
        ValueError: `low` is above `high`.
    """
    if low > high:
        raise ValueError(f"low must be at most high, got {low} and {high}")
    return array_namespace(rewards).clip(rewards, low, high)


@shape.method("group-normal", paper="arXiv:2402.03300", equation="section 4.1.3, the normalised step rewards")
def group_standardised(rewards: Array, group: Array, offsets: Array, *, epsilon: float = 1e-6) -> Array:
    """Standardises rewards over all steps of the group.

    Args:
        rewards: (N,).
        group: (B,) problem of each trajectory.
        offsets: (B + 1,).
        epsilon: added to the deviation.
    """
    trajectories = Trajectories(offsets, rewards.shape[0])
    return Groups(trajectories.spread(group)).standardised(rewards, epsilon=epsilon)


@shape.method("batch-normal", note="folklore: whitening over the batch, as engines do with advantages")
def batch_standardised(rewards: Array, *, epsilon: float = 1e-8, centre: bool = True) -> Array:
    """Standardises rewards over all steps there are.

    Args:
        rewards: (N,).
        epsilon: added to the variance.
        centre: subtract the mean; if not, only the scale is changed.
    """
    return whitened(rewards, epsilon=epsilon, centre=centre)


@shape.method("length-penalty", note="folklore: a fine for each token above what is free")
def fined_by_length(rewards: Array, lengths: Array, *, weight: float = 0.01, free: int = 0) -> Array:
    """Takes a fine off the rewards of long steps, growing with the tokens that are not free.

        r'_k = r_k - weight max(0, length_k - free)

    Args:
        rewards: (N,).
        lengths: (N,) tokens of each step.
        weight: of a token.
        free: tokens of a step that cost nothing.
    """
    xp = array_namespace(rewards)
    over = typed(lengths, rewards) - free
    return rewards - weight * xp.maximum(over, xp.zeros_like(over))


@shape.method("repetition-penalty", note="folklore: a step that says what was said before earns nothing and is fined")
def fined_by_repetition(rewards: Array, said: Array, offsets: Array, *, fine: float = 0.5) -> Array:
    """Pays a step's words once a trajectory: those said before are fined instead.

    Args:
        rewards: (N,).
        said: (N,) identity of each step's words.
        offsets: (B + 1,).
        fine: what a repetition costs.
    """
    xp = array_namespace(rewards)
    trajectories = Trajectories(offsets, rewards.shape[0])
    words = Groups.of_pairs(trajectories.of, said).of
    order = xp.argsort(words, stable=True)
    sorted_words = words[order]
    # The first of each run of equal words, which a stable sort leaves in order, is where they were said first.
    again = xp.zeros_like(words, dtype=xp.bool)
    again[order[1:]] = sorted_words[1:] == sorted_words[:-1]
    return xp.where(again, xp.full_like(rewards, -fine), rewards)


@shape.method(
    "pspo",
    paper="arXiv:2411.11681",
    equation="PSPO-WRS: R = m f(m, K), ppo_trl.py of the authors",
    note="the code's piecewise form, blended by a sigmoid at four steps; the Weibull form in the same file is "
    "`pspo-weibull`. A step's score is the probability of its class 1 of -1, 0 and 1, read with the step before it",
)
def accuracy_by_length(rewards: Array, offsets: Array) -> Array:
    """Pays, at the end, the geometric mean of the step scores times a factor that grows with steps while they are good.

        R = m f,    m = (prod r)^(1/K),    f = m e^(K/2) up to K = 4,    f = (1 - s) b + s g beyond it
        b = m e^2,  s = sigmoid(10 (K - 4)),  g = b e^(0.1 (K - 4) lean)
        lean = 1 if m > 0.88433,  -1 if m < 0.2,  (m - 0.21159) / 0.88433 between

    The reward grows as m squared, because f contains a factor m. A trajectory of one step gets 0.

    Args:
        rewards: (N,) step scores, at least 0.
        offsets: (B + 1,).
    """
    xp = array_namespace(rewards)
    trajectories = Trajectories(offsets, rewards.shape[0])
    if not rewards.shape[0]:
        return rewards
    m = _geometric(rewards, trajectories)
    steps = xp.astype(trajectories.sizes, rewards.dtype)
    past = xp.maximum(steps - 4, xp.zeros_like(steps))
    between = (m - 0.21159) / 0.88433
    lean = xp.where(m > 0.88433, xp.ones_like(m), xp.where(m < 0.2, -xp.ones_like(m), between))
    base = m * float(np.exp(2.0))
    blend = (1 + xp.tanh(5 * past)) / 2
    beyond = (1 - blend) * base + blend * base * xp.exp(0.1 * past * lean)
    factor = xp.where(steps > 4, beyond, m * xp.exp(xp.minimum(steps, xp.full_like(steps, 4.0)) / 2))
    return trajectories.at_end(xp.where(steps > 1, m * factor, xp.zeros_like(m)))


@shape.method(
    "pspo-weibull",
    paper="arXiv:2411.11681",
    equation="the adjusted Weibull distribution over the number of steps, commented out in ppo_trl.py of the authors",
    note="the code's factor 10.735 is 1 over the density's greatest value; its runs use `pspo`",
)
def accuracy_by_weibull(rewards: Array, offsets: Array, *, form: float = 1.5, scale: float = 8.0) -> Array:
    """Pays, at the end, the geometric mean of the step scores times how usual the number of steps is.

        m = (prod r)^(1/K),    r'_K = m f(K) / max f,    f(K) = (K / scale)^(form - 1) e^(-(K / scale)^form)

    Full pay is at K = scale ((form - 1) / form)^(1 / form) steps; fewer and more are paid less, a single one nothing.

    Args:
        rewards: (N,) step scores, at least 0.
        offsets: (B + 1,).
        form: k of the distribution, above 1 so that it has a greatest value inside.
        scale: lambda, in steps.

    Raises:
        ValueError: `form` is not above 1, or `scale` not positive.
    """
    if form <= 1 or scale <= 0:
        raise ValueError(f"form must be above 1 and scale positive, got {form} and {scale}")
    xp = array_namespace(rewards)
    trajectories = Trajectories(offsets, rewards.shape[0])
    if not rewards.shape[0]:
        return rewards
    steps = xp.astype(trajectories.sizes, rewards.dtype)
    x = steps / scale
    top = ((form - 1) / form) ** (1 / form)
    usual = (x / top) ** (form - 1) * xp.exp(top**form - x**form)
    paid = _geometric(rewards, trajectories) * usual
    return trajectories.at_end(xp.where(steps > 1, paid, xp.zeros_like(paid)))


def _geometric(rewards: Array, trajectories: Trajectories) -> Array:
    """(B,) geometric mean of each trajectory's rewards; 0 where one is 0 or less."""
    xp = array_namespace(rewards)
    positive = rewards > 0
    # A reward of 0 or less makes the mean 0, which is set below: 1 in its place keeps the logarithm finite.
    logs = xp.log(xp.where(positive, rewards, xp.ones_like(rewards)))
    zeros = trajectories.total(xp.astype(~positive, rewards.dtype))
    mean = trajectories.mean(logs)
    return xp.where(zeros == 0, xp.exp(mean), xp.zeros_like(mean))
