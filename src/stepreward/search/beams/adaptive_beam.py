"""Beam searches that set the number of beams, or of samples of each, by the chances of success of their prefixes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from stepreward.core.catalog import search
from stepreward.core.keys import Key
from stepreward.core.runtime.flows import Flow
from stepreward.core.types import Problem
from stepreward.core.vocabulary import Count, MaxSteps
from stepreward.search import budgets
from stepreward.search.beams.beam_loop import beam_loop, keep_best, rivals
from stepreward.search.candidates import Candidate, Found, best
from stepreward.search.growth import Growth
from stepreward.search.samples.stopping import samples_for
from stepreward.search.setting_checks import positive

NOTE = (
    "one score both ranks and budgets; the released code ranks by the median and budgets by a lower quantile of one "
    "model, which a scorer calibrated by `quantile` gives in the same order. Beams are chosen after each step, in the "
    "released code after every fifth; equal samples are one candidate"
)


def beams_needed(chances: Sequence[float], *, width: int, most: int, confidence: float = 0.99) -> int:
    """The fewest beams, best first, whose samples are as many as the last of them needs.

        K = min { k : k M >= N(p_k) or k = most }

    arXiv:2506.09338, IAS of K; N is `samples_for`.

    Args:
        chances: (C,) p of success from each prefix, best first.
        width: M, samples of each beam.
        most: K is at most this many, and at most C.
        confidence: of N.
    """
    for k, chance in enumerate(chances[:most], start=1):
        if k * width >= samples_for(chance, confidence=confidence):
            return k
    return min(len(chances), most)


def width_needed(chances: Sequence[float], *, beams: int, most: int, confidence: float = 0.99) -> int:
    """Samples of each beam with which all beams together reach what the worst of them needs.

        M = min( most, ceil( (ln(1 - confidence) / ln(1 - p_min)) / K ) )

    arXiv:2506.09338, IAS of M.

    Args:
        chances: (C,) p of success from each prefix that is kept.
        beams: K, as many as may be kept.
        most: M is at most this many.
        confidence: of the budget.
    """
    # ceil(ceil(x) / K) = ceil(x / K) for whole K.
    return min(most, math.ceil(samples_for(min(chances), confidence=confidence) / beams))


def _chance(candidate: Candidate) -> float:
    """Its total as a chance of success; 0 where it was not scored."""
    return max(candidate.rank, 0.0)


@search.method(
    "ias-of-k",
    paper="arXiv:2506.09338",
    equation="instance-adaptive beam search, IAS of K",
    note=NOTE,
    asks=("scorer",),
    budget=budgets.several("beams"),
)
def adaptive_beams(
    problem: Problem,
    key: Key,
    *,
    beams: Count = 8,
    width: Count = 8,
    confidence: float = 0.99,
    max_steps: MaxSteps = 40,
    aggregate: str = "last",
    vote: bool = False,
) -> Flow[Found]:
    """Beam search that keeps few beams while the best prefixes are likely to succeed, and more where they are not.

    Where every score is 0 it is `beam`.

    Args:
        problem: what to solve.
        key: randomness.
        beams: most candidates kept after each step, see `beams_needed`.
        width: samples of each; the first step draws `beams * width`.
        confidence: C of the budget.
        max_steps: most steps of a solution.
        aggregate: total of a candidate's step scores, read as its chance of success.
        vote: choose by the weighted vote over the final beams instead of the best one.
    """

    positive(beams=beams, width=width)
    growth = Growth(problem, key, aggregate)

    def keep(kept: Sequence[Candidate], grown: list[list[Candidate]]) -> Flow[list[Candidate]]:
        scored = yield from growth.score(rivals(kept, grown))
        ranked = best(scored, len(scored))
        chances = [_chance(c) for c in ranked]
        return ranked[: beams_needed(chances, width=width, most=beams, confidence=confidence)]

    return (yield from beam_loop(growth, growth.sprout, keep, beams=beams, width=width, max_steps=max_steps, vote=vote))


@search.method(
    "ias-of-m",
    paper="arXiv:2506.09338",
    equation="instance-adaptive beam search, IAS of M",
    note=NOTE,
    asks=("scorer",),
    budget=budgets.several("beams"),
)
def adaptive_widths(
    problem: Problem,
    key: Key,
    *,
    beams: Count = 8,
    width: Count = 8,
    confidence: float = 0.99,
    max_steps: MaxSteps = 40,
    aggregate: str = "last",
    vote: bool = False,
) -> Flow[Found]:
    """Beam search that samples each beam seldom while all are likely to succeed, and more often where one is not.

    Where every score is 0 it is `beam`.

    Args:
        problem: what to solve.
        key: randomness.
        beams: candidates kept after each step.
        width: most samples of each, see `width_needed`; the first step draws `beams * width`.
        confidence: C of the budget.
        max_steps: most steps of a solution.
        aggregate: total of a candidate's step scores, read as its chance of success.
        vote: choose by the weighted vote over the final beams instead of the best one.
    """

    def resize(kept: Sequence[Candidate]) -> int:
        return width_needed([_chance(c) for c in kept], beams=beams, most=width, confidence=confidence)

    positive(beams=beams, width=width)
    growth = Growth(problem, key, aggregate)
    return (
        yield from beam_loop(
            growth, growth.sprout, keep_best(growth, beams), beams=beams, width=width, max_steps=max_steps, vote=vote,
            resize=resize,
        )
    )  # fmt: skip
