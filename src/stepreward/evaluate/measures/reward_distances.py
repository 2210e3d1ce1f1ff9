"""How far apart two rewards are, whatever shaping and scale they come in: EPIC and STARC, exact in finite processes.

A reward is an array (S, A, S') over the states, actions and next states of a process.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from stepreward.core.errors import InputError
from stepreward.core.types import Floats


def values(reward: Floats, transition: Floats, policy: Floats, *, discount: float) -> Floats:
    """(S,) values of a policy: the solution of V = sum_a pi(a|s) sum_s' P(s'|s,a) (R(s,a,s') + discount V(s')).

    Args:
        reward: (S, A, S').
        transition: (S, A, S') probabilities of the next state.
        policy: (S, A) probabilities of actions.
        discount: in [0, 1).

    Raises:
        InputError: shapes do not fit, rows are no distributions, or the discount is outside [0, 1).
    """
    _check(reward, transition, policy, discount)
    step = np.einsum("sa,sat->st", policy, transition)
    gain = np.einsum("sa,sat,sat->s", policy, transition, reward)
    return np.linalg.solve(np.eye(len(gain)) - discount * step, gain)


def canonical(reward: Floats, transition: Floats, policy: Floats, *, discount: float) -> Floats:
    """(S, A, S') the reward without potential shaping and without what is moved between next states.

        c(R)(s, a, s') = E_{S' ~ P(s, a)}[R(s, a, S') - V(s) + discount V(S')]

    The value-adjusted levelling of STARC (arXiv:2309.15257, definition 4): two rewards with the same canonical form
    order policies alike in this process.

    Args:
        reward: (S, A, S').
        transition: (S, A, S') probabilities of the next state.
        policy: (S, A) any policy that the values are taken of.
        discount: in [0, 1).
    """
    worth = values(reward, transition, policy, discount=discount)
    expected = np.einsum("sat,sat->sa", transition, reward + discount * worth) - worth[:, None]
    return np.broadcast_to(expected[:, :, None], reward.shape).copy()


def starc(
    first: Floats,
    second: Floats,
    transition: Floats,
    *,
    policy: Floats | None = None,
    discount: float = 0.9,
    norm: Literal["l1", "l2", "max"] = "l2",
) -> float:
    """Distance of two rewards in [0, 1]: 0 if they order all policies alike, 1 if they order them the other way round.

        d(R1, R2) = m(s(R1) - s(R2)) / 2,    s(R) = c(R) / n(c(R)),  0 where n(c(R)) is 0

    Args:
        first, second: (S, A, S').
        transition: (S, A, S') probabilities of the next state.
        policy: (S, A) that canonical forms are taken with; uniform where None.
        discount: in [0, 1).
        norm: n and m.

    Raises:
        InputError: shapes do not fit, rows are no distributions, or the discount is outside [0, 1).
    """
    uniform = np.full(transition.shape[:2], 1 / transition.shape[1])
    chosen = uniform if policy is None else policy
    order = {"l1": 1, "l2": 2, "max": np.inf}[norm]
    scaled = []
    for reward in (first, second):
        plain = canonical(reward, transition, chosen, discount=discount).ravel()
        size = float(np.linalg.norm(plain, order))
        # What is left of a trivial reward after cancelling is rounding, not a direction.
        scaled.append(plain / size if size > 1e-12 else np.zeros_like(plain))
    return min(float(np.linalg.norm(scaled[0] - scaled[1], order)) / 2, 1.0)


def epic(first: Floats, second: Floats, *, discount: float = 0.9) -> float:
    """EPIC distance in [0, 1] over uniform states and actions (arXiv:2006.13900, definitions 4.1 and 4.5).

        C(R)(s, a, s') = R(s, a, s') + E[discount R(s', A, S') - R(s, A, S') - discount R(S, A, S')]
        d = sqrt((1 - rho(C(R1), C(R2))) / 2),   rho the correlation over uniform (s, a, s')

    Args:
        first, second: (S, A, S') with as many next states as states.
        discount: in [0, 1].
    """
    flat = []
    for reward in (first, second):
        mean = reward.mean(axis=(1, 2))
        made = reward + discount * mean[None, None, :] - mean[:, None, None] - discount * mean.mean()
        flat.append((made - made.mean()).ravel())
    sizes = [float(np.linalg.norm(one)) for one in flat]
    if min(sizes) < 1e-12:
        return 0.0 if max(sizes) < 1e-12 else float(np.sqrt(0.5))
    correlation = float(flat[0] @ flat[1]) / (sizes[0] * sizes[1])
    return float(np.sqrt(max(1 - correlation, 0.0) / 2))


def _check(reward: Floats, transition: Floats, policy: Floats, discount: float) -> None:
    if reward.shape != transition.shape or reward.ndim != 3 or policy.shape != reward.shape[:2]:
        shapes = f"{reward.shape}, {transition.shape} and {policy.shape}"
        what = f"reward, transition and policy do not fit: {shapes}"
        raise InputError(what, remedy="pass (S, A, S), (S, A, S), (S, A)")
    for name, rows in (("transition", transition), ("policy", policy)):
        if (rows < 0).any() or not np.allclose(rows.sum(axis=-1), 1):
            raise InputError(f"{name} must be probabilities that sum to 1", remedy="normalise each row")
    if not 0 <= discount < 1:
        raise InputError(f"discount must be in [0, 1), got {discount}", remedy="use a number just below 1")
