"""Rewards that pay for what a trajectory cost, where models of several prices can be asked."""

from __future__ import annotations

from array_api_compat import array_namespace

from stepreward.core.catalog import shape
from stepreward.credit.segments import Array, Trajectories, typed

_NOTHING = 1e-12
"""A spread of costs below it is none."""


@shape.method(
    "router-r1",
    note="the reward of repository ulab-uiuc/Router-R1, commit 801a240; its percentiles are of the last 1000 answers, "
    "here of the batch, or its last `window` trajectories, and a broken format is no part of it",
)
def priced(
    rewards: Array,
    outcome: Array,
    duration: Array,
    offsets: Array,
    *,
    weight: float = 0.5,
    window: int = 1000,
    low: float = 5.0,
    high: float = 95.0,
) -> Array:
    """Pays cheap right answers more than dear ones: the last step's reward makes R of the outcome s.

        R = s (1 - w) + w C,    C = 1 - clip((x - p_low) / (p_high - p_low), 0, 1),    x = sqrt(cost)

    and R = s where s is 0. With an outcome paid beside the rewards, the last step gets R - s. C is 1/2 where all cost
    the same.

    Args:
        rewards: (N,).
        outcome: (B,) s, in [0, 1].
        duration: (N,) cost of each step, not negative, such as tokens times the price of the model that was asked.
        offsets: (B + 1,).
        weight: w in [0, 1]; the authors' default is 0, their examples go to 0.9.
        window: trajectories, the last of the batch, whose costs the percentiles are of.
        low, high: percentiles.

    Raises:
        ValueError: `weight` is outside [0, 1], `window` is not positive, or 0 <= low < high <= 100 does not hold.
    """
    if not (0 <= weight <= 1 and window >= 1 and 0 <= low < high <= 100):
        what = f"weight={weight}, window={window}, low={low}, high={high}"
        raise ValueError(f"expected a weight in [0, 1], a window and 0 <= low < high <= 100, got {what}")
    xp, trajectories = array_namespace(rewards), Trajectories(offsets, rewards.shape[0])
    if not len(trajectories):
        return rewards
    cost = xp.sqrt(trajectories.total(typed(duration, rewards)))
    ordered = xp.sort(cost[-window:])
    bottom, top = _percentile(ordered, low), _percentile(ordered, high)
    spread = top - bottom
    flat = spread < _NOTHING
    share = (cost - bottom) / xp.where(flat, xp.ones_like(spread), spread)
    cheap = xp.where(flat, xp.full_like(cost, 0.5), 1 - xp.clip(share, 0.0, 1.0))
    gain = xp.where(outcome > 0, weight * (cheap - typed(outcome, rewards)), xp.zeros_like(cost))
    return rewards + trajectories.at_end(gain)


def _percentile(ordered: Array, percent: float) -> Array:
    """A percentile of values in ascending order, linear between neighbours."""
    place = percent / 100 * (ordered.shape[0] - 1)
    below = int(place)
    above = min(below + 1, ordered.shape[0] - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])
