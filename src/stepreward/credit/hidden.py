"""Token hidden rewards: how much a gradient step on a token moves the likelihood of right solutions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepreward.core.errors import InputError

Floats = NDArray[np.floating[Any]]


def hidden_rewards(
    gradients: Floats, hidden: Floats, to_gradients: Floats, to_hidden: Floats, *, at_once: int = 1024
) -> NDArray[np.float64]:
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
    """
    if len(gradients) != len(hidden) or len(to_gradients) != len(to_hidden):
        raise InputError(
            f"{len(gradients)} gradients for {len(hidden)} hidden states, {len(to_gradients)} for {len(to_hidden)}",
            remedy="pass one of each a token",
        )
    made = np.zeros(len(gradients))
    for start in range(0, len(gradients), at_once):
        part = slice(start, start + at_once)
        made[part] = ((gradients[part] @ to_gradients.T) * (hidden[part] @ to_hidden.T)).sum(axis=1)
    return made


def negative_token_weights(
    rewards: Floats, of_right: Floats, right_rows: NDArray[np.integer[Any]], success: float, *, scale: float = 1.0
) -> NDArray[np.float64]:
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
    if not len(of_right):
        return np.ones(len(rewards))
    _, index = np.unique(right_rows, return_inverse=True)
    means = np.bincount(index, of_right) / np.bincount(index)
    spared: NDArray[np.float64] = np.where(rewards > scale * means.min(), 2 * abs(0.5 - success), 1.0)
    return spared


def steered_token_weights(
    rewards: Floats, advantages: Floats, *, lean: float = 0.1, least: float = 0.0
) -> NDArray[np.float64]:
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
    influence = np.asarray(advantages, np.float64) * rewards
    made: NDArray[np.float64] = np.where(np.abs(influence) > least, 1 + lean * np.sign(influence), 0.0)
    return made
