"""Token hidden rewards: how much a gradient step on a token moves the likelihood of right solutions.

NumPy or torch in, the same out, on the device where a policy's logits and hidden states are.
"""

from __future__ import annotations

from array_api_compat import array_namespace

from stepreward.core.errors import InputError
from stepreward.credit.segments import Array, Groups, typed


def hidden_rewards(
    gradients: Array, hidden: Array, to_gradients: Array, to_hidden: Array, *, at_once: int = 1024
) -> Array:
    """How far a step up on each token raises the log-likelihood of other tokens, to first order in the last layer.

        s_t = sum_{t'} (g_t . g_t') (h_t . h_t') = g_t^T M h_t,    M = sum_t' g_t' h_t'^T,    g = onehot(y) - pi

    NTHR (arXiv:2510.03669 and its predecessor), for the unembedding's weights. The (V, D) matrix M is never made where
    there are fewer tokens than that.

    Args:
        gradients: (T, V) g of the tokens asked about.
        hidden: (T, D) h, the last hidden states that predicted them.
        to_gradients: (T', V) g of the tokens of right solutions.
        to_hidden: (T', D).
        at_once: tokens whose products are held together.

    Returns:
        (T,) positive where learning the token helps right solutions.

    Raises:
        InputError: shapes do not fit.
        ValueError: `at_once` is less than 1.
    """
    if at_once < 1:
        raise ValueError(f"at_once must be at least 1, got {at_once}")
    if len(gradients) != len(hidden) or len(to_gradients) != len(to_hidden):
        raise InputError(
            f"{len(gradients)} gradients for {len(hidden)} hidden states, {len(to_gradients)} for {len(to_hidden)}",
            remedy="pass one of each a token",
        )
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

        w_t = (1 + lean sign(A_t s_t)) [|A_t s_t| > least]

    Token hidden rewards (THR, arXiv:2510.03669): A_t s_t says whether the update on a token, up or down, raises the
    likelihood of right solutions. From public summaries of the paper; its exact weights are not verified.

    Args:
        rewards: (T,) hidden rewards s of tokens, as `hidden_rewards` gives them.
        advantages: (T,) A of the same tokens.
        lean: in [-1, 1]: above 0 for exploitation, below for exploration.
        least: tokens of less influence are left out.

    Raises:
        ValueError: `lean` is not in [-1, 1].
    """
    if not -1 <= lean <= 1:
        raise ValueError(f"lean must be in [-1, 1], got {lean}")
    xp, influence = array_namespace(rewards), typed(advantages, rewards) * rewards
    return xp.where(xp.abs(influence) > least, 1 + lean * xp.sign(influence), xp.zeros_like(influence))
