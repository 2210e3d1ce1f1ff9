"""Beam search within the nucleus of the policy's samples: steps that it takes seldom are not scored."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stepreward.core.catalog import search
from stepreward.core.keys import Key
from stepreward.core.runtime.flows import Flow
from stepreward.core.types import Problem
from stepreward.core.vocabulary import Count, MaxSteps
from stepreward.search import budgets
from stepreward.search.beams.beam_loop import beam_loop
from stepreward.search.candidates import Candidate, Found, best
from stepreward.search.growth import Growth


def nucleus(counts: Sequence[int], top_p: float) -> list[int]:
    """The fewest of the most frequent whose share of all reaches `top_p`, in their order; the earlier of equals.

    Args:
        counts: (C,) how often each was sampled.
        top_p: in (0, 1].
    """
    order = np.argsort(-np.asarray(counts), kind="stable")
    share = np.cumsum(np.asarray(counts)[order]) / max(sum(counts), 1)
    # A share that equals the bound reaches it: rounding must not add one more.
    few = int(np.searchsorted(share, top_p - 1e-9)) + 1
    return sorted(order[:few].tolist())


@search.method(
    "saffron",
    paper="arXiv:2506.06444",
    equation="conservative exploration and the shared prefix cache, as in the released saffron.py",
    note="over steps instead of tokens: a step's share of equal samples stands for its probability, and one batch of "
    "scores on shared prefixes for the multifurcation model, which names the rewards of all next tokens at once. No "
    "least length of a solution; what its model has not learned of (the unseen tokens) is here what has no score",
    asks=("scorer",),
    budget=budgets.several("beams"),
)
def conservative_search(
    problem: Problem,
    key: Key,
    *,
    beams: Count = 4,
    width: Count = 8,
    top_p: float = 0.8,
    max_steps: MaxSteps = 40,
    aggregate: str = "last",
    vote: bool = False,
) -> Flow[Found]:
    """Beam search among steps that the policy takes often: a wrong score cannot lead far from the policy.

    Whole solutions compete with each other alone: one stays until `beams` better ones are found; the best new prefixes
    take the remaining places. With `top_p=1` and solutions of one length it is `beam`.

    Args:
        problem: what to solve.
        key: randomness.
        beams: candidates kept after each step, whole solutions among them.
        width: samples of each; the first step draws `beams * width`.
        top_p: share of the samples of a candidate that its most frequent next steps must reach; others are dropped.
        max_steps: most steps of a solution.
        aggregate: total of a candidate's step scores.
        vote: choose by the weighted vote over the final beams instead of the best one.

    Raises:
        ValueError: `top_p` is not in (0, 1].
    """
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p must be in (0, 1], got {top_p}")
    growth = Growth(problem, key, aggregate)

    def keep(kept: Sequence[Candidate], grown: list[list[Candidate]]) -> Flow[list[Candidate]]:
        usual = [some[i] for some in grown for i in nucleus([c.count for c in some], top_p)]
        new = best((yield from growth.score(usual)), beams)
        whole = best([c for c in [*kept, *new] if c.finished], beams)
        # A prefix with a higher score than a solution may still fail: solutions keep their places.
        return [*whole, *(c for c in new if not c.finished)][:beams]

    return (yield from beam_loop(growth, growth.sprout, keep, beams=beams, width=width, max_steps=max_steps, vote=vote))
