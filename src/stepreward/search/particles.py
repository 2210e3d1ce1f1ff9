"""Particle methods: solutions grown together, weighed by their step scores, and resampled so that good ones multiply.

Each states the distribution over solutions that it samples from as the number of particles grows; with exact scores
the tests hold it to that. p is the policy's own distribution, r_t the step scores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from stepreward.core.catalog import search
from stepreward.core.flows import Flow
from stepreward.core.keys import Key, uniforms
from stepreward.core.types import Problem
from stepreward.search.found import ROOT, Candidate, Found
from stepreward.search.growth import Growth
from stepreward.search.resampling import RESAMPLERS, effective_size, normalised

Potential = Callable[[Sequence[float]], float]
"""From a particle's step scores so far to the logarithm of what its newest step multiplies its weight by."""
FLOOR = 1e-7
"""Least distance of a probability from 0 and 1 when its logit is taken."""


@dataclass(frozen=True, slots=True)
class Particle:
    """A candidate with the logarithm of its weight."""

    candidate: Candidate
    weight: float = 0.0


def log_odds(scores: Sequence[float], temperature: float = 1.0) -> float:
    """log(r / (1 - r)) / temperature of the newest score, with r kept in [1e-7, 1 - 1e-7]."""
    last = float(np.clip(_last(scores), FLOOR, 1 - FLOOR))
    return float(np.log(last) - np.log1p(-last)) / temperature


def difference(scores: Sequence[float], strength: float = 1.0) -> float:
    """strength (r_t - r_{t-1}): the product over steps is e^(strength r_T)."""
    real = _known(scores)
    return strength * (real[-1] - (real[-2] if len(real) > 1 else 0.0)) if real else 0.0


def greatest(scores: Sequence[float], strength: float = 1.0) -> float:
    """strength max_{s <= t} r_s."""
    return strength * max(_known(scores), default=0.0)


def summed(scores: Sequence[float], strength: float = 1.0) -> float:
    """strength sum_{s <= t} r_s."""
    return strength * sum(_known(scores))


def _known(scores: Sequence[float]) -> list[float]:
    return [score for score in scores if score == score]


def _last(scores: Sequence[float]) -> float:
    known = _known(scores)
    return known[-1] if known else 0.5


class Filter:
    """One sweep of a particle method.

    Args:
        growth: of the search.
        n: particles.
        potential: weighs each new step.
        ending: what a particle's weight is multiplied by when it ends, as a logarithm; 0 for potentials whose product
            is the target already.
        resample: name of the resampler.
        gate: resamples only where the effective number of particles is below this share of them; 1 does so always.
    """

    def __init__(
        self, growth: Growth, n: int, potential: Potential, *, ending: Potential = lambda scores: 0.0,
        resample: str = "systematic", gate: float = 1.0,
    ) -> None:  # fmt: skip
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}")
        self.growth, self.n, self.potential, self.ending = growth, n, potential, ending
        self.resample, self.gate = RESAMPLERS[resample], gate

    def sweep(self, key: Key, max_steps: int, kept: Sequence[Candidate] = ()) -> Flow[list[Particle]]:
        """Grows the particles to their ends; `kept` are solutions that stay among them whatever is drawn."""
        particles = [Particle(ROOT)] * self.n
        for step in range(max_steps):
            followed = [ROOT if not step else _prefix(one, step) for one in kept]
            grown = yield from self._grown(particles[len(kept) :], key.fold("grow", step))
            if grown is None:
                break
            # A kept solution goes its own way; the others move freely.
            fixed = [
                self._moved(Particle(before, p.weight), _prefix(one, step + 1))
                for one, before, p in zip(kept, followed, particles, strict=False)
            ]
            particles = [*fixed, *grown]
            if all(p.candidate.finished for p in particles):
                break
            particles = self._resampled(particles, len(kept), key.fold("resample", step))
        return particles

    def _grown(self, particles: Sequence[Particle], key: Key) -> Flow[list[Particle] | None]:
        """One step more of every particle that is not at its end; None where nothing grows."""
        open_ones = list(dict.fromkeys(p.candidate.path for p in particles if not p.candidate.finished))
        first = {p.candidate.path: p.candidate for p in particles if not p.candidate.finished}
        if not open_ones or self.growth.spent:
            return None if not particles or self.growth.spent else list(particles)
        counts = [sum(p.candidate.path == path and not p.candidate.finished for p in particles) for path in open_ones]
        keys = [key.fold(i) for i in range(len(open_ones))]
        made = yield from self.growth.grow([first[path] for path in open_ones], counts, keys=keys)
        if not any(made):
            return None
        # Equal samples of a place come back once, with their number: each particle takes one of them.
        fresh = {
            path: [c for c in children for _ in range(c.count)] for path, children in zip(open_ones, made, strict=True)
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
        return Particle(replace(to, count=1), weight + (self.ending(to.scores) if to.finished else 0.0))

    def _resampled(self, particles: list[Particle], fixed: int, key: Key) -> list[Particle]:
        weights = normalised([p.weight for p in particles])
        if effective_size(weights) >= self.gate * len(particles) and self.gate < 1:
            return particles
        chosen = self.resample(weights, self.n - fixed, key)
        return [Particle(p.candidate) for p in particles[:fixed]] + [Particle(particles[i].candidate) for i in chosen]


def _prefix(candidate: Candidate, length: int) -> Candidate:
    """The candidate as it stood after some of its steps."""
    if length >= len(candidate.steps):
        return candidate
    return Candidate(candidate.steps[:length], False, candidate.scores[:length])


def _concluded(growth: Growth, particles: Sequence[Particle], vote: bool) -> Flow[Found]:
    """Chooses by the weights of what is left: particles that stand in the same place are one candidate."""
    weights = normalised([p.weight for p in particles]) if particles else np.zeros(0)
    mass: dict[tuple[object, bool], float] = {}
    first: dict[tuple[object, bool], Candidate] = {}
    for p, weight in zip(particles, weights.tolist(), strict=True):
        name = (p.candidate.path, p.candidate.finished)
        mass[name] = mass.get(name, 0.0) + weight
        first.setdefault(name, p.candidate)
    ended = [name for name, candidate in first.items() if candidate.finished] or list(first)
    totals = np.array([mass[name] for name in ended])
    select = "weighted-vote" if vote else "best-of-n"
    return (yield from growth.conclude([first[name] for name in ended], select=select, totals=totals))


@search.method(
    "particle-filter",
    paper="arXiv:2502.01618",
    equation="Algorithm 1",
    note="a finished particle keeps its weight and its place in the resampling, with no further factor",
)
def particle_filter(
    problem: Problem,
    key: Key,
    *,
    n: int = 16,
    temperature: float = 1.0,
    resample: str = "systematic",
    gate: float = 1.0,
    max_steps: int = 40,
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
    growth = Growth(problem, key, "last")
    sweep = Filter(growth, n, lambda scores: log_odds(scores, temperature), resample=resample, gate=gate)
    return (yield from _concluded(growth, (yield from sweep.sweep(key, max_steps)), vote))


@search.method(
    "particle-gibbs",
    paper="arXiv:2502.01618",
    equation="section 3.3: particle Gibbs; Andrieu, Doucet and Holenstein (2010) for the conditional filter",
    note="one solution of the last sweep, drawn by weight, is kept through the next; the particles of all sweeps count",
)
def particle_gibbs(
    problem: Problem,
    key: Key,
    *,
    n: int = 8,
    sweeps: int = 2,
    temperature: float = 1.0,
    max_steps: int = 40,
    vote: bool = True,
) -> Flow[Found]:
    """Repeats the particle filter with a solution of the last sweep among the particles, towards the same distribution.

    Resampling is multinomial, as the conditional filter wants it.

    Args:
        problem: what to solve.
        key: randomness.
        n: particles of a sweep, at least 2.
        sweeps: how many.
        temperature: of the odds, as in `particle-filter`.
        max_steps: most steps of a solution.
        vote: choose the answer with the most weight instead of the heaviest particle.

    Raises:
        ValueError: `n` is less than 2.
    """
    if n < 2:
        raise ValueError(f"n must be at least 2: one particle is kept, got {n}")
    growth = Growth(problem, key, "last")
    sweep = Filter(growth, n, lambda scores: log_odds(scores, temperature), resample="multinomial")
    everything: list[Particle] = []
    kept: list[Candidate] = []
    for number in range(sweeps):
        made = yield from sweep.sweep(key.fold("sweep", number), max_steps, kept)
        weights = normalised([p.weight for p in made])
        everything += [Particle(p.candidate, float(np.log(max(w, 1e-300)))) for p, w in zip(made, weights, strict=True)]
        (drawn,) = RESAMPLERS["multinomial"](weights, 1, key.fold("kept", number))
        kept = [made[drawn].candidate]
        if growth.spent:
            break
    return (yield from _concluded(growth, everything, vote))


def _feynman_kac(
    problem: Problem, key: Key, potential: Potential, ending: Potential, *, n: int, resample: str, gate: float,
    max_steps: int, vote: bool,
) -> Flow[Found]:  # fmt: skip
    growth = Growth(problem, key, "last")
    sweep = Filter(growth, n, potential, ending=ending, resample=resample, gate=gate)
    return (yield from _concluded(growth, (yield from sweep.sweep(key, max_steps)), vote))


@search.method(
    "fk-difference",
    paper="arXiv:2501.06848",
    equation="the difference potential",
    note="on steps of reasoning instead of diffusion",
)
def difference_steering(
    problem: Problem,
    key: Key,
    *,
    n: int = 16,
    strength: float = 4.0,
    resample: str = "systematic",
    gate: float = 0.5,
    max_steps: int = 40,
    vote: bool = True,
) -> Flow[Found]:
    """Samples in proportion to p(x) e^(strength r_T), weighing each step by how far it moves the score.

    Args:
        problem: what to solve.
        key: randomness.
        n: particles.
        strength: lambda; 0 samples from the policy.
        resample: multinomial, systematic, stratified or residual.
        gate: resamples only where the effective number of particles is below this share of n.
        max_steps: most steps of a solution.
        vote: choose the answer with the most weight instead of the heaviest particle.
    """
    return (
        yield from _feynman_kac(
            problem, key, lambda scores: difference(scores, strength), lambda scores: 0.0, n=n, resample=resample,
            gate=gate, max_steps=max_steps, vote=vote,
        )
    )  # fmt: skip


def _corrected(potential: Potential, strength: float) -> Potential:
    """What makes the product of potentials e^(strength r_T) when a particle ends."""

    def ending(scores: Sequence[float]) -> float:
        paid = sum(potential(scores[: t + 1]) for t, score in enumerate(scores) if score == score)
        return strength * (_last(scores) if _known(scores) else 0.0) - paid

    return ending


@search.method(
    "fk-max",
    paper="arXiv:2501.06848",
    equation="the max potential, and the correction at the end",
    note="on steps of reasoning instead of diffusion",
)
def greatest_steering(
    problem: Problem,
    key: Key,
    *,
    n: int = 16,
    strength: float = 4.0,
    resample: str = "systematic",
    gate: float = 0.5,
    max_steps: int = 40,
    vote: bool = True,
) -> Flow[Found]:
    """Samples in proportion to p(x) e^(strength r_T), keeping meanwhile who has had the greatest score.

    Args:
        problem: what to solve.
        key: randomness.
        n: particles.
        strength: lambda; 0 samples from the policy.
        resample: multinomial, systematic, stratified or residual.
        gate: resamples only where the effective number of particles is below this share of n.
        max_steps: most steps of a solution.
        vote: choose the answer with the most weight instead of the heaviest particle.
    """

    def potential(scores: Sequence[float]) -> float:
        return greatest(scores, strength)

    return (
        yield from _feynman_kac(
            problem, key, potential, _corrected(potential, strength), n=n, resample=resample, gate=gate,
            max_steps=max_steps, vote=vote,
        )
    )  # fmt: skip


@search.method(
    "fk-sum",
    paper="arXiv:2501.06848",
    equation="the sum potential, and the correction at the end",
    note="on steps of reasoning instead of diffusion",
)
def summed_steering(
    problem: Problem,
    key: Key,
    *,
    n: int = 16,
    strength: float = 4.0,
    resample: str = "systematic",
    gate: float = 0.5,
    max_steps: int = 40,
    vote: bool = True,
) -> Flow[Found]:
    """Samples in proportion to p(x) e^(strength r_T), keeping meanwhile who has gathered the most.

    Args:
        problem: what to solve.
        key: randomness.
        n: particles.
        strength: lambda; 0 samples from the policy.
        resample: multinomial, systematic, stratified or residual.
        gate: resamples only where the effective number of particles is below this share of n.
        max_steps: most steps of a solution.
        vote: choose the answer with the most weight instead of the heaviest particle.
    """

    def potential(scores: Sequence[float]) -> float:
        return summed(scores, strength)

    return (
        yield from _feynman_kac(
            problem, key, potential, _corrected(potential, strength), n=n, resample=resample, gate=gate,
            max_steps=max_steps, vote=vote,
        )
    )  # fmt: skip


@search.method(
    "reward-weighted",
    note="importance sampling by the final score, as reward-weighted resampling has it: a particle filter that weighs "
    "only at the end",
)
def reward_weighted(
    problem: Problem, key: Key, *, n: int = 16, strength: float = 4.0, aggregate: str = "last", vote: bool = True
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
    return (yield from growth.conclude(scored, select="weighted-vote" if vote else "best-of-n", totals=mass))


@search.method(
    "transfer-q",
    paper="arXiv:2405.20495",
    equation="the decoding rule: the policy's probability times e^(Q / alpha)",
    note="over sampled steps instead of tokens, Q the score: self-normalised importance sampling among `width` samples",
)
def tilted_steps(
    problem: Problem,
    key: Key,
    *,
    n: int = 4,
    width: int = 8,
    strength: float = 8.0,
    max_steps: int = 40,
    vote: bool = True,
) -> Flow[Found]:
    """Draws each step among a few samples in proportion to the exponential of its score: p(a) e^(strength r) at last.

    Args:
        problem: what to solve.
        key: randomness.
        n: solutions drawn so.
        width: samples of each step.
        strength: 1 / alpha; 0 samples from the policy, large ones take the best step.
        max_steps: most steps of a solution.
        vote: choose by the weighted vote instead of the best one.
    """
    return (yield from _stepwise(problem, key, lambda r: strength * r, n, width, max_steps, vote, by_count=True))


@search.method(
    "gflownet",
    note="sampling by flows at the level of steps, as GFlowNet fine-tuning of reasoners has it: each step is taken in "
    "proportion to its score, read as the flow through it. Training the flows is not part of this",
)
def flow_steps(
    problem: Problem, key: Key, *, n: int = 4, width: int = 8, max_steps: int = 40, vote: bool = True
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
    return (
        yield from _stepwise(
            problem, key, lambda r: float(np.log(max(r, 1e-300))), n, width, max_steps, vote, by_count=False
        )
    )


def _stepwise(
    problem: Problem, key: Key, log_weight: Callable[[float], float], n: int, width: int, max_steps: int, vote: bool, *,
    by_count: bool,
) -> Flow[Found]:  # fmt: skip
    growth = Growth(problem, key, "last")
    walkers = [ROOT] * n
    for step in range(max_steps):
        moving = [i for i, walker in enumerate(walkers) if not walker.finished]
        if not moving or growth.spent:
            break
        keys = [key.fold("step", step, i) for i in moving]
        grown = yield from growth.grow([walkers[i] for i in moving], width, keys=keys)
        stuck = 0
        for i, children in zip(moving, grown, strict=True):
            if not children:
                stuck += 1
                continue
            logs = np.array([log_weight(_last(c.scores)) + (np.log(c.count) if by_count else 0.0) for c in children])
            u = float(uniforms(np.array([key.fold("choose", step, i).bits], np.uint64), np.array([0]))[0])
            chances = normalised(logs.tolist())
            walkers[i] = children[min(int(np.searchsorted(np.cumsum(chances), u)), len(children) - 1)]
        if stuck == len(moving):
            break
    return (yield from growth.conclude(_finished(walkers), select="weighted-vote" if vote else "best-of-n"))


def _finished(walkers: Sequence[Candidate]) -> list[Candidate]:
    return [walker for walker in walkers if walker.finished] or [walker for walker in walkers if walker.steps]
