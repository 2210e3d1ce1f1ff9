"""The loop of all beam searches: sample below every open beam, choose among what is new and what is finished, go on.

A search is what it samples (`Sample`), whom it keeps (`Keep`), and how many samples a beam gets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import TypeVar

from stepreward.core.runtime.flows import Flow
from stepreward.search.candidates import ROOT, Candidate, Found, choice, ends
from stepreward.search.growth import Growth

T = TypeVar("T")
Sample = Callable[[Sequence[Candidate], int], Flow[list[list[T]]]]
"""From the open beams and a number of samples to what is new below each; `Growth.sprout`, for one."""
Keep = Callable[[Sequence[Candidate], list[list[T]]], Flow[list[Candidate]]]
"""From the beams so far and what is new below each open one to the next beams; none ends the search with those so
far."""
Rank = Callable[[Sequence[Candidate]], Flow[Sequence[float]]]
"""From scored candidates to what they are compared by, the highest the best."""


def beam_loop(
    growth: Growth,
    sample: Sample[T],
    keep: Keep[T],
    *,
    beams: int,
    width: int,
    max_steps: int,
    vote: bool,
    resize: Callable[[Sequence[Candidate]], int] | None = None,
) -> Flow[Found]:
    """Grows beams step by step, and chooses among the last ones.

    Args:
        growth: of the problem.
        sample: how next steps are sampled.
        keep: chooses the next beams.
        beams: as many as may be kept.
        width: samples of each open beam; the bare problem gets `beams * width`, those of all beams.
        max_steps: most steps of a solution.
        vote: choose by the weighted vote over the last beams instead of the best one.
        resize: from the beams kept to the samples of each in the next step; None keeps to `width`.

    Returns:
        The finished ones of the last beams, all of them if none finished.
    """
    kept, samples = [ROOT], beams * width
    for _ in range(max_steps):
        grown = yield from sample(growth.open(kept), samples)
        if not any(grown):
            break
        chosen = yield from keep(kept, grown)
        if not chosen:
            break
        kept, samples = chosen, resize(chosen) if resize else width
    return (yield from growth.conclude(ends(kept), select=choice(vote)))


def rivals(kept: Sequence[Candidate], grown: Sequence[Sequence[Candidate]]) -> list[Candidate]:
    """Everything that may be kept: finished beams, which are not sampled again, and what is new."""
    return [*(c for c in kept if c.finished), *chain.from_iterable(grown)]


def keep_best(growth: Growth, beams: int, rank: Rank | None = None) -> Keep[Candidate]:
    """Keeps the `beams` best of the finished beams and the new candidates, the earliest of equals.

    Args:
        growth: scores what is new.
        beams: how many.
        rank: what they are compared by; None compares their totals.
    """

    def keep(kept: Sequence[Candidate], grown: list[list[Candidate]]) -> Flow[list[Candidate]]:
        scored = yield from growth.score(rivals(kept, grown))
        ranks = [c.rank for c in scored] if rank is None else (yield from rank(scored))
        order = sorted(range(len(scored)), key=lambda i: -ranks[i])
        return [scored[i] for i in order[:beams]]

    return keep
