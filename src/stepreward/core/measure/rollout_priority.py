"""Which rollout of a tree to look at next: OmegaPRM's priority, for labelling and for search."""

from __future__ import annotations

import math

import numpy as np

from stepreward.core.types import Floats


def priority(
    value: Floats,
    length: Floats,
    visits: Floats,
    total_visits: float,
    *,
    alpha: float,
    beta: float,
    scale: float,
    c_puct: float,
) -> Floats:
    """What makes a wrong rollout worth searching: a promising start, a short text, few visits.

        Q + U,    Q = alpha^(1 - MC(s)) beta^(length / scale),    U = c_puct sqrt(sum_s' N(s')) / (1 + N(s))

    Args:
        value: (R,) MC of each rollout's state, in [0, 1].
        length: (R,) tokens of each rollout.
        visits: (R,) N of each rollout's state.
        total_visits: sum of N over all states.
        alpha, beta: in (0, 1].
        scale: tokens, the L of the paper.
        c_puct: weight of the exploration term.

    Returns:
        (R,) priorities (Eqs. 2 and 3 of arXiv:2406.06592).
    """
    quality = alpha ** (1 - value) * beta ** (length / scale)
    exploration = c_puct * math.sqrt(total_visits) / (1 + visits)
    return np.asarray(quality + exploration, np.float64)
