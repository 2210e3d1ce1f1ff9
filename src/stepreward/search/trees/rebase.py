"""REBASE: a fixed number of samples a step, shared among all open candidates by how well they score."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import chain

import numpy as np

from stepreward.core.catalog import search
from stepreward.core.keys import Key
from stepreward.core.runtime.flows import Flow
from stepreward.core.types import Problem
from stepreward.core.vocabulary import Count, MaxSteps
from stepreward.search import budgets
from stepreward.search.candidates import ROOT, Candidate, Found, choice, ends
from stepreward.search.growth import Growth
from stepreward.search.setting_checks import positive

Thinned = Callable[[list[Candidate], int], list[Candidate]]
"""From the open candidates and the samples that are left for them to the candidates that get some."""


def balanced(
    rewards: Sequence[float], width: int, temperature: float = 0.2, *, counts: Sequence[int] | None = None
) -> list[int]:
    """Shares `width` samples among candidates in proportion to the softmax of their rewards, rounded to whole samples.

        c_i = ceil(W exp(r_i / T) / S),  W <- W - c_i,  S <- S - exp(r_i / T),    best first, W and S what is left

    The best are rounded up while samples last, so the worst may get none. As T -> 0 all go to the best (the earliest of
    equals), as T -> infinity they are spread evenly.

    Args:
        rewards: one of each candidate; NaN and -infinity get a share only where no other is there to take it.
        width: W, samples to share.
        temperature: T > 0.
        counts: equal samples that were merged into each candidate: it takes the shares of all of them, one after the
            other, as if they were candidates of their own. None takes 1 each.

    Returns:
        Samples of each candidate, `width` together, in the order of `rewards`; equal rewards are served in order.

    Raises:
        ValueError: `temperature` is not positive.
    """
    positive(temperature=temperature)
    owner = np.repeat(np.arange(len(rewards)), 1 if counts is None else counts)
    worth = np.array([-np.inf if math.isnan(r) else r for r in rewards], np.float64)[owner]
    if not np.isfinite(worth).any():
        worth = np.zeros(len(worth))
    order = np.argsort(-worth, kind="stable")
    mass = np.exp((worth[order] - worth[order[0]]) / temperature) if len(worth) else np.empty(0)
    # Sums of what follows rather than differences: the last share is then exactly all that is left.
    rest = np.cumsum(mass[::-1])[::-1]
    shares = [0] * len(rewards)
    left = width
    for place, i in enumerate(owner[order].tolist()):
        share = mass[place] / rest[place] if rest[place] > 0 else 1.0
        # A whole number of samples must not be rounded up because of its last bit.
        taken = min(left, math.ceil(left * share - 1e-9))
        shares[i] += taken
        left -= taken
    return shares


def balance(candidates: Sequence[Candidate], width: int, temperature: float) -> list[int]:
    """`balanced` over candidates by their totals, each as many times as it was sampled."""
    return balanced([c.total for c in candidates], width, temperature, counts=[c.count for c in candidates])


def balanced_growth(
    growth: Growth, width: int, temperature: float, max_steps: int, vote: bool, thinned: Thinned | None = None
) -> Flow[Found]:
    """Grows all open candidates by `width` samples a step, shared by `balanced`, and chooses among the ends.

    Args:
        growth: of the problem.
        width, temperature: as in `balanced`; each solution that ends, or is cut, takes a sample away.
        max_steps: most steps of a solution.
        vote: choose by the weighted vote over the ends instead of the best one.
        thinned: which of several open candidates stay, from them and the samples that are left.
    """
    kept, ended, left = [ROOT], list[Candidate](), width
    for _ in range(max_steps):
        if not growth.open(kept):
            # The budget is spent, or all are finished: open candidates are returned as they are.
            break
        if thinned is not None and len(kept) > 1:
            kept = thinned(kept, left)
        grown = yield from growth.grow(kept, balance(kept, left, temperature))
        if not any(grown):
            break
        children = [*chain.from_iterable(grown)]
        ended += [c for c in children if c.finished]
        kept = [c for c in children if not c.finished]
        left = sum(c.count for c in kept)
    return (yield from growth.conclude(ends([*ended, *kept]), select=choice(vote)))


@search.method(
    "rebase",
    paper="arXiv:2408.00724",
    equation="section 3.2, Eq. 3 and Algorithm 1",
    note="a sample that ends the solution, or is cut by a limit, is not replaced, as in the released code; equal "
    "samples of a node are scored once and take the shares of as many nodes, as if they stood apart",
    asks=("scorer",),
    budget=budgets.width,
)
def rebase(
    problem: Problem,
    key: Key,
    *,
    width: Count = 16,
    temperature: float = 0.2,
    max_steps: MaxSteps = 40,
    aggregate: str = "last",
    vote: bool = True,
) -> Flow[Found]:
    """Samples `width` steps at each depth and gives more of them to candidates with better scores.

    Spends what beam search spends at the same width, but keeps every candidate that gets a sample. See `balanced` for
    the shares.

    Args:
        problem: what to solve.
        key: randomness.
        width: W, samples of a step; each solution that ends, or is cut, takes one away.
        temperature: T of the softmax over totals.
        max_steps: most steps of a solution.
        aggregate: total of a candidate's step scores; the last score in the paper.
        vote: choose by the weighted vote over the ends instead of the best one.
    """
    return (yield from balanced_growth(Growth(problem, key, aggregate), width, temperature, max_steps, vote))
