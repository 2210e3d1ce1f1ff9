"""Feynman-Kac steering: particles weighed by a potential of their scores, towards p(x) e^(strength r_T) at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from stepreward.core.catalog import search
from stepreward.core.errors import UnknownNameError
from stepreward.core.keys import Key
from stepreward.core.runtime.flows import Flow
from stepreward.core.types import Problem
from stepreward.core.vocabulary import Count, MaxSteps
from stepreward.search import budgets
from stepreward.search.candidates import Found
from stepreward.search.growth import Growth
from stepreward.search.particles.particle_filters import ParticleFilter, measured
from stepreward.search.particles.resampling import Name as Resampling

Name = Literal["difference", "max", "sum"]


def difference(scores: Sequence[float]) -> float:
    """r_t - r_{t-1}: the sum over steps is r_T."""
    real = measured(scores)
    return real[-1] - (real[-2] if len(real) > 1 else 0.0) if real else 0.0


def greatest(scores: Sequence[float]) -> float:
    """max_{s <= t} r_s."""
    return max(measured(scores), default=0.0)


def summed(scores: Sequence[float]) -> float:
    """sum_{s <= t} r_s."""
    return sum(measured(scores))


POTENTIALS: Mapping[Name, Callable[[Sequence[float]], float]] = {
    "difference": difference, "max": greatest, "sum": summed,
}  # fmt: skip
"""From a particle's step scores so far to the logarithm of its newest step's potential, over the strength."""


@search.method(
    "feynman-kac",
    paper="arXiv:2501.06848",
    equation="the difference, max and sum potentials, and the correction at the end",
    note="on steps of reasoning instead of diffusion",
    asks=("scorer",),
    budget=budgets.particles,
)
def steered(
    problem: Problem,
    key: Key,
    *,
    n: Count = 16,
    potential: Name = "difference",
    strength: float = 4.0,
    resample: Resampling = "systematic",
    gate: float = 0.5,
    max_steps: MaxSteps = 40,
    vote: bool = True,
) -> Flow[Found]:
    """Samples in proportion to p(x) e^(strength r_T), weighing each step by a potential of the scores so far.

    All potentials have the same target: at its end a particle gets the factor that its steps still lack.

    Args:
        problem: what to solve.
        key: randomness.
        n: particles.
        potential: which particles multiply on the way: those whose score just rose, those that have had the greatest
            score, or those that have gathered the most.
        strength: lambda; 0 samples from the policy.
        resample: multinomial, systematic, stratified or residual.
        gate: resamples only where the effective number of particles is below this share of n.
        max_steps: most steps of a solution.
        vote: choose the answer with the most weight instead of the heaviest particle.
    """
    if potential not in POTENTIALS:
        raise UnknownNameError("potential", potential, POTENTIALS)
    of = POTENTIALS[potential]

    def weigh(scores: Sequence[float]) -> float:
        return strength * of(scores)

    def correct(scores: Sequence[float]) -> float:
        # Weights so far multiply to e^(strength paid); the target is e^(strength r_T).
        paid = sum(of(scores[: t + 1]) for t, score in enumerate(scores) if score == score)
        return strength * ((measured(scores) or [0.0])[-1] - paid)

    particles = ParticleFilter(Growth(problem, key, "last"), n, weigh, max_steps, resample, gate, correct)
    return (yield from particles.search(key, vote=vote))


_CONTINUED = {
    "difference": "whose score rises",
    "max": "by their greatest score so far",
    "sum": "by the sum of their scores",
}
for _name, _which in _CONTINUED.items():
    search.preset(
        f"fk-{_name}",
        of="feynman-kac",
        paper="arXiv:2501.06848",
        note=f"continues particles {_which}",
        potential=_name,
    )
