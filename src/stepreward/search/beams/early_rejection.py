"""Beam search that does not sample the rest of a step whose first tokens score badly."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from stepreward.core.catalog import search
from stepreward.core.keys import Key
from stepreward.core.runtime.flows import Flow
from stepreward.core.types import Problem
from stepreward.core.vocabulary import Count, MaxSteps, NoDraws
from stepreward.search import budgets
from stepreward.search.beams.beam_loop import beam_loop
from stepreward.search.candidates import Candidate, Found, best
from stepreward.search.growth import Growth, StepStart
from stepreward.search.setting_checks import positive


@search.method(
    "early-rejection",
    paper="arXiv:2508.01969",
    equation="Algorithm 1",
    note="a step that was completed is scored again, as a whole; public code keeps the score of its start, and leaves "
    "its separator in the middle of the step",
    asks=("scorer",),
    budget=budgets.several("beams"),
)
def early_rejection(
    problem: Problem,
    key: Key,
    *,
    beams: Count = 4,
    width: Count = 4,
    tokens: NoDraws = 64,
    max_steps: MaxSteps = 40,
    aggregate: str = "min",
    vote: bool = False,
) -> Flow[Found]:
    """Scores the first tokens of each next step and completes only those of the best.

    With `tokens` beyond any step's length it is `beam`.

    Args:
        problem: what to solve.
        key: randomness.
        beams: candidates kept after each step.
        width: starts of each; the first step begins `beams * width`.
        tokens: length of a start, in the policy's tokens.
        max_steps: most steps of a solution.
        aggregate: total of the step scores, a start counting as a step.
        vote: choose by the weighted vote over the final beams instead of the best one.

    Raises:
        ValueError: `tokens` is not positive.
    """
    positive(tokens=tokens)
    growth = Growth(problem, key, aggregate)

    def start(parents: Sequence[Candidate], n: int) -> Flow[list[list[StepStart]]]:
        return growth.start_steps(parents, n, tokens)

    def keep(kept: Sequence[Candidate], begun: list[list[StepStart]]) -> Flow[list[Candidate]]:
        starts = [*(StepStart(c, cut=False) for c in kept if c.finished), *chain.from_iterable(begun)]
        scored: list[Candidate] = yield from growth.score([one.candidate for one in starts])
        order = sorted(range(len(starts)), key=lambda i: -scored[i].rank)[:beams]
        # A start that goes on keeps no score: the whole step gets one of its own.
        promising = [starts[i] if starts[i].cut else StepStart(scored[i], cut=False) for i in order]
        # None is whole where the budget refused the rest of every start, or a limit cut it: the beams so far remain.
        whole = yield from growth.finish_steps(promising)
        return best((yield from growth.score(whole)), beams)

    return (yield from beam_loop(growth, start, keep, beams=beams, width=width, max_steps=max_steps, vote=vote))
