"""Token hidden rewards: how much a gradient step on a token moves the likelihood of right solutions.

NumPy or torch in, the same out, on the device where a policy's logits and hidden states are.
"""

from __future__ import annotations

from array_api_compat import array_namespace

from stepreward.core.errors import InputError
from stepreward.credit.segments import Array, Groups, typed


def hidden_rewards(
    gradients: Array,
    hidden: Array,
    to_gradients: Array,
    to_hidden: Array,
    *,
    to_weights: Array | None = None,
    at_once: int = 1024,
) -> Array:
    """How far a step up on each token raises the log-likelihood of other tokens, to first order in the last layer.

        s_t = sum_{t'} w_t' (g_t . g_t') (h_t . h_t'),    g = onehot(y) - pi

    For the unembedding's weights. With w = 1 it is NTHR; with w = 1 / length of the right solution that t' is of, the
    token hidden reward of THR (arXiv:2510.03669), up to the sign of t's own outcome, which is in the advantage.

    Args:
        gradients: (T, V) g of the tokens to measure.
        hidden: (T, D) h, the last hidden states that predicted them.
        to_gradients: (T', V) g of the tokens of right solutions.
        to_hidden: (T', D).
        to_weights: (T',) w; all 1 where None.
        at_once: tokens whose products are in memory together.

    Returns:
        (T,) positive where learning the token helps right solutions.

    Raises:
        InputError: shapes do not fit.
        ValueError: `at_once` is less than 1.
    """
    if at_once < 1:
        raise ValueError(f"at_once must be at least 1, got {at_once}")
    weights = len(to_hidden) if to_weights is None else len(to_weights)
    if len(gradients) != len(hidden) or not len(to_gradients) == len(to_hidden) == weights:
        raise InputError(
            f"{len(gradients)} gradients for {len(hidden)} hidden states, {len(to_gradients)} for {len(to_hidden)} "
            f"with {weights} weights",
            remedy="pass one of each a token",
        )
    if to_weights is not None:
        to_hidden = to_hidden * typed(to_weights, to_hidden)[:, None]
    xp = array_namespace(gradients, hidden, to_gradients, to_hidden)
    parts = [slice(start, start + at_once) for start in range(0, max(len(gradients), 1), at_once)]
    products = ((gradients[part] @ to_gradients.T, hidden[part] @ to_hidden.T) for part in parts)
    return xp.concat([xp.sum(one * other, axis=1) for one, other in products])


def negative_token_weights(
    rewards: Array, of_right: Array, right_rows: Array, success: float, *, scale: float = 1.0
) -> Array:
    """Weights of a wrong solution's tokens that spare those which right solutions need.

        w_t = 2 |1/2 - p| if s_t > scale min_i mean_t s_{i,t}, else 1

    The minimum is over the group's right solutions. Without one, or with a success rate of 0 or 1, all weights are 1.

    Args:
        rewards: (T,) hidden rewards of the wrong solution's tokens.
        of_right: (T',) hidden rewards of the right solutions' tokens.
        right_rows: (T',) which right solution each is of.
        success: p, the share of the group that is right, in [0, 1].
        scale: beta, of the threshold.

    Raises:
        ValueError: `success` is not in [0, 1].
    """
    if not 0 <= success <= 1:
        raise ValueError(f"success must be in [0, 1], got {success}")
    xp = array_namespace(rewards)
    full = xp.ones_like(rewards)
    if not len(of_right):
        return full
    threshold = scale * xp.min(Groups(right_rows).mean(of_right))
    return xp.where(rewards > threshold, 2 * abs(0.5 - success) * full, full)


def steered_token_weights(rewards: Array, advantages: Array, *, lean: float = 0.1, least: float = 0.0) -> Array:
    """Weights of tokens that lean training towards exploiting what is known to be right, or away from it.

        w_t = (1 + lean sign(A_t s_t)) [|s_t| > least]

    Token hidden rewards (THR, arXiv:2510.03669): the sign of A_t s_t says whether the update on a token, up or down,
    raises the likelihood of right solutions. The paper leans by 0.1 either way.

    Args:
        rewards: (T,) hidden rewards s of tokens, as `hidden_rewards` gives them with the weights of THR.
        advantages: (T,) A of the same tokens.
        lean: in [-1, 1]: above 0 for exploitation, below for exploration.
        least: tau, tokens whose hidden reward is not larger than it, up or down, are left out.

    Raises:
        ValueError: `lean` is not in [-1, 1].
    """
    if not -1 <= lean <= 1:
        raise ValueError(f"lean must be in [-1, 1], got {lean}")
    xp = array_namespace(rewards)
    leaning = 1 + lean * xp.sign(typed(advantages, rewards)) * xp.sign(rewards)
    return xp.where(xp.abs(rewards) > least, leaning, xp.zeros_like(leaning))
