"""Beam searches that rank a step by the scores of steps rolled out after it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import expit, logit

from stepreward.core.catalog import search
from stepreward.core.keys import Key
from stepreward.core.runtime.flows import Flow
from stepreward.core.types import Problem
from stepreward.core.vocabulary import Count, MaxSteps
from stepreward.search import budgets
from stepreward.search.beams.beam_loop import Rank, beam_loop, keep_best
from stepreward.search.candidates import Candidate, Found, total_of
from stepreward.search.growth import Growth

_EDGE = 1e-6
"""Least distance of a score from 0 and 1, where its logit is infinite."""


@search.method(
    "lookahead",
    paper="arXiv:2408.03314",
    equation="section 5.2: lookahead search",
    note="a candidate is ranked by its rollout, and keeps its own scores for the choice at the end",
    asks=("scorer",),
    budget=budgets.several("beams"),
)
def lookahead_search(
    problem: Problem,
    key: Key,
    *,
    beams: Count = 4,
    width: Count = 4,
    ahead: int = 2,
    max_steps: MaxSteps = 40,
    aggregate: str = "last",
    vote: bool = False,
) -> Flow[Found]:
    """Beam search that ranks each step by the score after some more steps, rolled out at temperature 0.

    With `ahead=0` it is `beam`.

    Args:
        problem: what to solve.
        key: randomness.
        beams: candidates kept after each step.
        width: continuations of each; the first step draws `beams * width`.
        ahead: steps rolled out after each candidate; they are not kept.
        max_steps: most steps of a solution.
        aggregate: total of the step scores, of a rollout for its rank and of a candidate for the choice.
        vote: choose by the weighted vote over the final beams instead of the best one.
    """
    growth = Growth(problem, key, aggregate)

    def rank(rivals: Sequence[Candidate]) -> Flow[Sequence[float]]:
        return [tip.rank for tip in (yield from _rolled_out(growth, rivals, ahead, temperature=0.0))]

    keep = keep_best(growth, beams, rank)
    return (yield from beam_loop(growth, growth.sprout, keep, beams=beams, width=width, max_steps=max_steps, vote=vote))


def _rolled_out(
    growth: Growth, candidates: Sequence[Candidate], steps: int, *, temperature: float | None
) -> Flow[list[Candidate]]:
    """Each candidate with some more steps, scored; one that cannot be grown stays as it is."""
    tips = list(candidates)
    for _ in range(steps):
        going = [i for i, tip in enumerate(tips) if growth.open([tip])]
        grown = yield from growth.sprout([tips[i] for i in going], 1, temperature=temperature)
        for i, children in zip(going, grown, strict=True):
            tips[i] = children[0] if children else tips[i]
    return (yield from growth.score(tips))


def corrected_value(values: Sequence[float], *, rate: float = 0.5, gain: float = 0.05) -> float:
    """The first value, moved towards those that follow as long as they rise.

        V_t <- V_t + rate (V_{t+1} - V_t),    from the end of the rise back to the first

    arXiv:2501.07861, the look-ahead by temporal differences as in the released code: it stops at the first value that
    is less than `gain` above the one before, which is still moved towards.

    Args:
        values: at least one, in any unit.
        rate: alpha in [0, 1]; 0 keeps the first value.
        gain: the least rise that counts.
    """
    risen = 0
    while risen + 1 < len(values) and values[risen + 1] - values[risen] >= gain:
        risen += 1
    last = min(risen + 1, len(values) - 1)
    made = values[last]
    for value in reversed(values[:last]):
        made = value + rate * (made - value)
    return made


@search.method(
    "rearter",
    paper="arXiv:2501.07861",
    equation="test-time scaling: look-ahead search by temporal differences",
    note="on the logits of scores, as in the released code. Without the refinement of steps by explanations, for which "
    "a second model is trained",
    asks=("scorer",),
    budget=budgets.several("beams"),
)
def mended_search(
    problem: Problem,
    key: Key,
    *,
    beams: Count = 1,
    width: Count = 4,
    ahead: int = 3,
    rate: float = 0.5,
    gain: float = 0.05,
    max_steps: MaxSteps = 40,
    aggregate: str = "last",
    vote: bool = False,
) -> Flow[Found]:
    """Beam search that corrects each step's score by the scores of steps sampled after it: early scores are unreliable.

    With `ahead=0` or `rate=0` it is `beam`.

    Args:
        problem: what to solve.
        key: randomness.
        beams: candidates kept after each step.
        width: continuations of each; the first step draws `beams * width`.
        ahead: steps sampled after each candidate; they are not kept.
        rate: alpha of the correction.
        gain: the least rise of the logit from one step to the next for which the correction looks further.
        max_steps: most steps of a solution.
        aggregate: total of the step scores up to each of these steps, and of a candidate for the choice; in [0, 1].
        vote: choose by the weighted vote over the final beams instead of the best one.
    """
    growth = Growth(problem, key, aggregate)
    keep = keep_best(growth, beams, mended_rank(growth, ahead, rate, gain))
    return (yield from beam_loop(growth, growth.sprout, keep, beams=beams, width=width, max_steps=max_steps, vote=vote))


def mended_rank(growth: Growth, ahead: int, rate: float, gain: float) -> Rank:
    """What `rearter` compares candidates by.

    Raises:
        ValueError: `rate` is outside [0, 1].
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"rate must be in [0, 1], got {rate}")

    def rank(rivals: Sequence[Candidate]) -> Flow[Sequence[float]]:
        tips = yield from _rolled_out(growth, rivals, ahead, temperature=None)
        return [_corrected_rank(c, tip, growth.aggregate, rate, gain) for c, tip in zip(rivals, tips, strict=True)]

    return rank


def _corrected_rank(candidate: Candidate, tip: Candidate, aggregate: str, rate: float, gain: float) -> float:
    """A candidate's rank: its total, corrected by the totals of the longer prefixes up to the end of its roll-out."""
    # What an environment shows has no score, and its prefix the total of the action before: no rise.
    shown = [step.kind == "observation" for step in tip.steps[: len(tip.scores)]]
    lengths = [n for n in range(len(candidate.steps), len(tip.scores) + 1) if n and not shown[n - 1]]
    totals = total_of([tip.scores[:length] for length in lengths], aggregate)
    known = totals[~np.isnan(totals)]
    if not known.size:
        return candidate.rank
    return float(expit(corrected_value(logit(np.clip(known, _EDGE, 1 - _EDGE)).tolist(), rate=rate, gain=gain)))
