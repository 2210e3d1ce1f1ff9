"""Particle methods: solutions grown together, weighed by their step scores, and resampled so that good ones multiply.

Each states the distribution over solutions that it samples from as the number of particles grows; with exact scores
the tests check that. p is the policy's own distribution, r_t the step scores.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from stepreward.core.catalog import search
from stepreward.core.keys import Key
from stepreward.core.runtime.flows import Flow
from stepreward.core.types import Problem
from stepreward.core.vocabulary import Count, MaxSteps, Rounds
from stepreward.search import budgets
from stepreward.search.candidates import ROOT, Candidate, Found, choice
from stepreward.search.growth import Growth
from stepreward.search.particles.resampling import Name as Resampling
from stepreward.search.particles.resampling import effective_size, multinomial, normalised, resampler
from stepreward.search.setting_checks import positive

Potential = Callable[[Sequence[float]], float]
"""From a particle's step scores so far to the logarithm of what its newest step multiplies its weight by."""
FLOOR = 1e-7
"""Least distance of a probability from 0 and 1 when its logit is taken."""


@dataclass(frozen=True, slots=True)
class Particle:
    """A candidate with the logarithm of its weight."""

    candidate: Candidate
    weight: float = 0.0
    apart: bool = False
    """Its end came as a sample of its own, after its last step: it made one move more than it has steps."""


def log_odds(scores: Sequence[float], temperature: float = 1.0) -> float:
    """log(r / (1 - r)) / temperature of the newest score, with r kept in [1e-7, 1 - 1e-7]."""
    right = float(np.clip(newest(scores), FLOOR, 1 - FLOOR))
    return float(np.log(right) - np.log1p(-right)) / temperature


def measured(scores: Sequence[float]) -> list[float]:
    """The scores without those of observations, which are NaN."""
    return [score for score in scores if score == score]


def newest(scores: Sequence[float]) -> float:
    """The newest score; 1/2 before there is one."""
    real = measured(scores)
    return real[-1] if real else 0.5


@dataclass(frozen=True)
class ParticleFilter:
    """The settings that all particle methods share, and the sweep that they decide.

    Raises:
        UnknownNameError: there is no such resampler.
        ValueError: `n` is not positive.
    """

    growth: Growth
    """Of the problem."""
    n: int
    """Particles."""
    potential: Potential
    """Weighs each new step."""
    max_steps: int
    """Most steps of a solution."""
    resample: Resampling = "systematic"
    """Name of the resampler."""
    gate: float = 1.0
    """Resample only where the effective number of particles is below this share of them; 1 resamples always."""
    ending: Potential = lambda scores: 0.0
    """Logarithm of the factor of a particle's weight when it ends; 0 for potentials whose product is the target."""

    def __post_init__(self) -> None:
        positive(n=self.n)
        resampler(self.resample)

    def search(self, key: Key, *, vote: bool) -> Flow[Found]:
        """One sweep, and the choice among its particles by their weights."""
        return (yield from concluded(self.growth, (yield from self.sweep(key)), vote))

    def sweep(self, key: Key, kept: Sequence[Particle] = ()) -> Flow[list[Particle]]:
        """Grows the particles to their ends; `kept` are solutions that stay among them whatever is drawn."""
        particles = [Particle(ROOT)] * self.n
        for step in range(self.max_steps):
            # The first particles are the kept ones: each repeats a move of its own where the others draw one.
            followed = [_after_moves(one, step) for one in kept]
            grown = yield from self._grow_all(particles[len(kept) :], key.fold("grow", step))
            if grown is None:
                break
            fixed = [
                self._moved(Particle(before, p.weight, one.apart), _after_moves(one, step + 1))
                for one, before, p in zip(kept, followed, particles, strict=False)
            ]
            particles = [*fixed, *grown]
            if all(p.candidate.finished for p in particles):
                break
            particles = self._resampled(particles, len(kept), key.fold("resample", step))
        return particles

    def _grow_all(self, particles: Sequence[Particle], key: Key) -> Flow[list[Particle] | None]:
        """The particles after one more step, finished ones as they are; None where nothing can be grown."""
        going = [p.candidate for p in particles if not p.candidate.finished]
        if not going or self.growth.spent:
            return None if not particles or self.growth.spent else list(particles)
        parents = {candidate.path: candidate for candidate in going}
        counts = Counter(candidate.path for candidate in going)
        keys = [key.fold(i) for i in range(len(parents))]
        made = yield from self.growth.grow(list(parents.values()), [counts[path] for path in parents], keys=keys)
        if not any(made):
            return None
        # Equal samples of a prefix come back once, with their number: each particle there takes one of them.
        fresh = {
            path: [c for c in children for _ in range(c.count)] for path, children in zip(parents, made, strict=True)
        }
        moved = []
        for p in particles:
            waiting = fresh.get(p.candidate.path, []) if not p.candidate.finished else []
            if waiting:
                moved.append(self._moved(p, waiting.pop()))
            elif p.candidate.finished:
                moved.append(p)
        return moved

    def _moved(self, particle: Particle, to: Candidate) -> Particle:
        if particle.candidate.finished:
            return particle
        said_more = len(to.scores) > len(particle.candidate.scores)
        weight = particle.weight + (self.potential(to.scores) if said_more else 0.0)
        apart = to.finished and len(to.steps) == len(particle.candidate.steps)
        return Particle(replace(to, count=1), weight + (self.ending(to.scores) if to.finished else 0.0), apart)

    def _resampled(self, particles: list[Particle], fixed: int, key: Key) -> list[Particle]:
        weights = normalised([p.weight for p in particles])
        if effective_size(weights) >= self.gate * len(particles) and self.gate < 1:
            return particles
        # Particles that could not be grown are gone: the draw makes the number whole again.
        chosen = resampler(self.resample)(weights, self.n - fixed, key)
        return [replace(p, weight=0.0) for p in [*particles[:fixed], *(particles[i] for i in chosen)]]


def _after_moves(particle: Particle, count: int) -> Candidate:
    """A particle's candidate after the first `count` of its moves."""
    candidate = particle.candidate
    if count >= candidate.turns + particle.apart:
        return candidate
    length = candidate.length_of(count)
    return Candidate(candidate.first(length), False, candidate.scores[:length])


def concluded(growth: Growth, particles: Sequence[Particle], vote: bool) -> Flow[Found]:
    """Chooses by weight: particles with equal steps are one candidate, with the sum of their weights."""
    # A finished prefix and an open one of the same steps are two candidates: the end is a move of its own.
    weights = normalised([p.weight for p in particles]) if particles else np.zeros(0)
    mass: dict[tuple[object, bool], float] = {}
    first: dict[tuple[object, bool], Candidate] = {}
    for p, weight in zip(particles, weights.tolist(), strict=True):
        name = (p.candidate.path, p.candidate.finished)
        mass[name] = mass.get(name, 0.0) + weight
        first.setdefault(name, p.candidate)
    ended = [name for name, candidate in first.items() if candidate.finished] or list(first)
    totals = np.array([mass[name] for name in ended])
    return (yield from growth.conclude([first[name] for name in ended], select=choice(vote), totals=totals))


@search.method(
    "particle-filter",
    paper="arXiv:2502.01618",
    equation="Algorithm 1",
    note="a finished particle keeps its weight and its place in the resampling, with no further factor",
    asks=("scorer",),
    budget=budgets.particles,
)
def particle_filter(
    problem: Problem,
    key: Key,
    *,
    n: Count = 16,
    temperature: float = 1.0,
    resample: Resampling = "systematic",
    gate: float = 1.0,
    max_steps: MaxSteps = 40,
    vote: bool = True,
) -> Flow[Found]:
    """Samples solutions in proportion to the policy's probability times the odds that each of their steps is right.

        p(x) prod_t (r_t / (1 - r_t))^(1 / temperature)

    Args:
        problem: what to solve.
        key: randomness.
        n: particles.
        temperature: of the odds: towards infinity it samples from the policy.
        resample: multinomial, systematic, stratified or residual.
        gate: resamples only where the effective number of particles is below this share of n; 1 does so always.
        max_steps: most steps of a solution.
        vote: choose the answer with the most weight instead of the heaviest particle.
    """
    positive(temperature=temperature)
    odds = partial(log_odds, temperature=temperature)
    particles = ParticleFilter(Growth(problem, key, "last"), n, odds, max_steps, resample, gate)
    return (yield from particles.search(key, vote=vote))


@search.method(
    "particle-gibbs",
    paper="arXiv:2502.01618",
    equation="section 3.3: particle Gibbs; Andrieu, Doucet and Holenstein (2010) for the conditional filter",
    note="one solution of the last sweep, drawn by weight, is kept through the next; the particles of all sweeps count",
    asks=("scorer",),
    budget=budgets.sweeps,
)
def particle_gibbs(
    problem: Problem,
    key: Key,
    *,
    n: Count = 8,
    sweeps: Rounds = 2,
    temperature: float = 1.0,
    max_steps: MaxSteps = 40,
    vote: bool = True,
) -> Flow[Found]:
    """Repeats the particle filter with a solution of the last sweep among the particles, towards the same distribution.

    Resampling is multinomial, as the conditional filter wants it.

    Args:
        problem: what to solve.
        key: randomness.
        n: particles of a sweep, at least 2 where there are several.
        sweeps: how many.
        temperature: of the odds, as in `particle-filter`.
        max_steps: most steps of a solution.
        vote: choose the answer with the most weight instead of the heaviest particle.

    Raises:
        ValueError: `n` is less than 2 in several sweeps, or `sweeps` or `temperature` is not positive.
    """
    if n < 2 and sweeps > 1:
        raise ValueError(f"n must be at least 2: one particle is kept, got {n}")
    positive(temperature=temperature, sweeps=sweeps)
    odds = partial(log_odds, temperature=temperature)
    particles = ParticleFilter(Growth(problem, key, "last"), n, odds, max_steps, "multinomial")
    everything: list[Particle] = []
    kept: list[Particle] = []
    for number in range(sweeps):
        made = yield from particles.sweep(key.fold("sweep", number), kept)
        weights = normalised([p.weight for p in made])
        # Weights of different sweeps compare only after each sweep's sum is 1; the floor keeps the logarithm finite.
        everything += [replace(p, weight=float(np.log(max(w, 1e-300)))) for p, w in zip(made, weights, strict=True)]
        (drawn,) = multinomial(weights, 1, key.fold("kept", number))
        kept = [made[drawn]]
        if particles.growth.spent:
            break
    return (yield from concluded(particles.growth, everything, vote))
