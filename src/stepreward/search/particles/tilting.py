"""Sampling tilted by scores without resampling: whole solutions weighed at their ends, or each step drawn by its score.

p is the policy's own distribution; as in `particle_filters`, each method states what it samples from.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from stepreward.core.catalog import search
from stepreward.core.keys import Key, uniforms
from stepreward.core.runtime.flows import Flow
from stepreward.core.types import Problem
from stepreward.core.vocabulary import Count, MaxSteps
from stepreward.search import budgets
from stepreward.search.candidates import ROOT, Candidate, Found, choice, ends
from stepreward.search.growth import Growth
from stepreward.search.particles.particle_filters import newest
from stepreward.search.particles.resampling import normalised


@search.method(
    "reward-weighted",
    note="importance sampling by the final score, as reward-weighted resampling has it: a particle filter that weighs "
    "only at the end",
    asks=("scorer",),
    budget=budgets.samples,
)
def reward_weighted(
    problem: Problem, key: Key, *, n: Count = 16, strength: float = 4.0, aggregate: str = "last", vote: bool = True
) -> Flow[Found]:
    """Samples whole solutions and weighs each by the exponential of its total: p(x) e^(strength R).

    Args:
        problem: what to solve.
        key: randomness.
        n: solutions.
        strength: of the totals.
        aggregate: total of a candidate's step scores.
        vote: choose the answer with the most weight instead of the best solution.
    """
    growth = Growth(problem, key, aggregate)
    (made,) = yield from growth.complete([ROOT], n)
    scored = yield from growth.score(made)
    weights = np.array([strength * c.rank if np.isfinite(c.rank) else -np.inf for c in scored])
    top = weights.max(initial=-np.inf)
    mass = np.exp(weights - top) if np.isfinite(top) else np.ones(len(scored))
    return (yield from growth.conclude(scored, select=choice(vote), totals=mass))


@search.method(
    "transfer-q",
    paper="arXiv:2405.20495",
    equation="the decoding rule: the policy's probability times e^(Q / alpha)",
    note="over sampled steps instead of tokens, Q the score: self-normalised importance sampling among `width` samples",
    asks=("scorer",),
    budget=budgets.several("n"),
)
def tilted_steps(
    problem: Problem,
    key: Key,
    *,
    n: Count = 4,
    width: Count = 8,
    strength: float = 8.0,
    max_steps: MaxSteps = 40,
    vote: bool = True,
) -> Flow[Found]:
    """Draws each step among a few samples by the exponential of its score: in the limit p(a) e^(strength r).

    Args:
        problem: what to solve.
        key: randomness.
        n: solutions drawn so.
        width: samples of each step.
        strength: 1 / alpha; 0 samples from the policy, large ones take the best step.
        max_steps: most steps of a solution.
        vote: choose by the weighted vote instead of the best one.
    """

    def tilt(candidate: Candidate) -> float:
        # Equal samples are one candidate: its count stands for p(a).
        return strength * newest(candidate.scores) + float(np.log(candidate.count))

    return (yield from _draw_steps(problem, key, tilt, n, width, max_steps, vote))


@search.method(
    "gflownet",
    note="sampling by flows at the level of steps, as GFlowNet fine-tuning of reasoners has it: each step is taken in "
    "proportion to its score, read as the flow through it. Training the flows is not part of this",
    asks=("scorer",),
    budget=budgets.several("n"),
)
def flow_steps(
    problem: Problem, key: Key, *, n: Count = 4, width: Count = 8, max_steps: MaxSteps = 40, vote: bool = True
) -> Flow[Found]:
    """Takes each step among the distinct samples in proportion to its score: solutions in proportion to their reward.

    With exact flows, F(s) = sum of F over its children and F = R at ends, and all children seen.

    Args:
        problem: what to solve.
        key: randomness.
        n: solutions drawn so.
        width: samples of each step.
        max_steps: most steps of a solution.
        vote: choose by the weighted vote instead of the best one.
    """

    def flow(candidate: Candidate) -> float:
        return float(np.log(max(newest(candidate.scores), 1e-300)))

    return (yield from _draw_steps(problem, key, flow, n, width, max_steps, vote))


def _draw_steps(
    problem: Problem, key: Key, log_weight: Callable[[Candidate], float], n: int, width: int, max_steps: int, vote: bool
) -> Flow[Found]:
    """Grows `n` solutions, each step drawn among `width` samples in proportion to the exponential of its weight."""
    growth = Growth(problem, key, "last")
    walkers = [ROOT] * n
    for step in range(max_steps):
        moving = [i for i, walker in enumerate(walkers) if not walker.finished]
        if not moving or growth.spent:
            break
        keys = [key.fold("step", step, i) for i in moving]
        grown = yield from growth.grow([walkers[i] for i in moving], width, keys=keys)
        for i, children in zip(moving, grown, strict=True):
            if not children:
                continue
            u = float(uniforms(np.array([key.fold("choose", step, i).bits], np.uint64), np.array([0]))[0])
            shares = np.cumsum(normalised([log_weight(child) for child in children]))
            # Rounding may leave the last share below u.
            walkers[i] = children[min(int(np.searchsorted(shares, u)), len(children) - 1)]
        if not any(grown):
            break
    return (yield from growth.conclude(ends([walker for walker in walkers if walker.steps]), select=choice(vote)))
