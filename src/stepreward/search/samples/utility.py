"""Sampling as long as the expected gain of one more step exceeds its cost."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from stepreward.core.catalog import search
from stepreward.core.keys import Key
from stepreward.core.runtime.flows import Flow
from stepreward.core.types import Floats, Problem
from stepreward.core.vocabulary import Count, MaxSteps
from stepreward.search import budgets
from stepreward.search.candidates import ROOT, Candidate, Found, choice, ends
from stepreward.search.growth import Growth
from stepreward.search.setting_checks import positive

_EXACT = 12
"""Open candidates up to which all sets of them are compared."""


def utility(chances: Floats, steps: Floats, sets: NDArray[np.bool_], *, cost: float, delay: float) -> Floats:
    """Expected utility of completing sets of candidates.

        1 - prod_i (1 - p_i) - cost sum_i L_i - delay max_i L_i,    i in the set

    The expected greatest reward of independent samples that are right or wrong, less compute and latency
    (arXiv:2512.01457).

    Args:
        chances: p, (N,) that each turns out right.
        steps: L, (N,) that each still needs.
        sets: (M, N) True where a candidate is in a set.
        cost: of a step.
        delay: of a step of the longest.

    Returns:
        (M,) utilities.
    """
    missed = np.where(sets, 1 - chances, 1.0).prod(axis=1)
    longest = np.where(sets, steps, 0.0).max(axis=1, initial=0.0)
    made: Floats = 1 - missed - cost * (sets * steps).sum(axis=1) - delay * longest
    return made


def worth_growing(
    chances: Sequence[float], steps: Sequence[float], have: float, *, cost: float, delay: float
) -> list[int]:
    """The set of open candidates of the highest utility, given the best finished one.

    Up to 12 candidates all sets are compared; with more, the one that adds most is added until none adds anything.

    Args:
        chances: (N,) that each turns out right.
        steps: (N,) that each still needs.
        have: chance that a finished candidate is right.
        cost: of a step.
        delay: of a step of the longest.
    """
    n = len(chances)
    # The best finished candidate is the last one, and in every set: it needs no further step.
    p, need = np.append(np.asarray(chances, np.float64), have), np.append(np.asarray(steps, np.float64), 0.0)
    if n <= _EXACT:
        # Bit i of a set's number says whether candidate i is in it.
        sets = np.arange(2**n)[:, None] >> np.arange(n) & 1 == 1
        with_finished = np.hstack([sets, np.ones((len(sets), 1), bool)])
        # Sets in order of their size: of equal utilities the smallest set is first.
        order = np.argsort(sets.sum(axis=1), kind="stable")
        worth = utility(p, need, with_finished[order], cost=cost, delay=delay)
        # Rounded, since equal utilities differ in their last digits: the smaller set must win a tie.
        return np.flatnonzero(sets[order[int(np.argmax(np.round(worth, 12)))]]).tolist()
    chosen = np.zeros(n + 1, bool)
    chosen[n] = True
    while not chosen.all():
        others = np.flatnonzero(~chosen)
        sets = np.repeat(chosen[None], len(others) + 1, axis=0)
        sets[np.arange(len(others)), others] = True
        worth = np.round(utility(p, need, sets, cost=cost, delay=delay), 12)
        at = int(np.argmax(worth[:-1]))
        if worth[at] <= worth[-1]:
            break
        chosen[others[at]] = True
    return np.flatnonzero(chosen[:n]).tolist()


@search.method(
    "zip-rc",
    paper="arXiv:2512.01457",
    equation="section 4: the sampling utility and its meta-actions",
    note="a calibrated step score stands for the distribution of the reward, and the mean length of the solutions that "
    "ended for that of the length, in steps; the paper's model predicts both at every token",
    asks=("scorer",),
    budget=budgets.samples,
)
def while_worth_it(
    problem: Problem,
    key: Key,
    *,
    n: Count = 8,
    cost: float = 0.01,
    delay: float = 0.0,
    length: float = 6.0,
    prior: float = 0.5,
    max_steps: MaxSteps = 40,
    aggregate: str = "last",
    vote: bool = False,
) -> Flow[Found]:
    """Grows, step by step, the open and new candidates that are worth more than they cost.

    A candidate that is not worth it now may be later. With `cost=0` and `delay=0` all `n` are brought to their ends.

    Args:
        problem: what to solve.
        key: randomness.
        n: solutions begun at most.
        cost: of a step, in chances of a right answer.
        delay: of a step of the longest candidate.
        length: steps of a solution, before any has ended.
        prior: chance that a new sample is right, before any was scored.
        max_steps: most steps of a solution.
        aggregate: total of a candidate's step scores, read as the chance that it turns out right.
        vote: choose by the weighted vote over the ends instead of the best one.

    Raises:
        ValueError: a cost is negative, or `n` is above 128: choosing a set takes time that grows with its cube.
    """
    if n > 128:
        raise ValueError(f"n must be at most 128, got {n}")
    if cost < 0 or delay < 0:
        raise ValueError(f"cost and delay must not be negative, got {cost} and {delay}")
    positive(length=length, max_steps=max_steps)
    growth = Growth(problem, key, aggregate)
    waiting, ended, begun, first = list[Candidate](), list[Candidate](), 0, list[float]()
    long = list[Candidate]()
    for level in range(n * max_steps):
        if growth.spent:
            break
        long += [c for c in waiting if c.turns >= max_steps]
        waiting = [c for c in waiting if c.turns < max_steps]
        options = [*waiting, *[ROOT] * (n - begun)]
        if not options:
            break
        mean = float(np.mean([c.turns for c in ended])) if ended else length
        start = float(np.mean(first)) if first else prior
        chances = [start if c is ROOT else _chance(c) for c in options]
        needs = [max(1.0, mean - c.turns) for c in options]
        have = max((_chance(c) for c in ended), default=0.0)
        chosen = worth_growing(chances, needs, have, cost=cost, delay=delay)
        if not chosen and not ended:
            chosen = [int(np.argmax(chances))]
        if not chosen:
            break
        going = [options[i] for i in chosen if options[i] is not ROOT]
        new = len(chosen) - len(going)
        parents = [*going, *([ROOT] if new else [])]
        keys = [growth.key.fold("worth", level, i) for i in range(len(parents))]
        grown = yield from growth.grow(parents, [*[1] * len(going), *([new] if new else [])], keys=keys)
        begun += new
        first += [_chance(c) for c in grown[-1] for _ in range(c.count)] if new else []
        paused = [c for i, c in enumerate(options) if i not in chosen and c is not ROOT]
        tips = [*chain.from_iterable(grown)]
        ended += [c for c in tips if c.finished]
        # A candidate that the budget refused to grow stays open.
        stay = [*paused, *going] if growth.spent else paused
        waiting = [*stay, *(c for c in tips if not c.finished)]
    return (yield from growth.conclude(ends([*ended, *long, *waiting]), select=choice(vote)))


def _chance(candidate: Candidate) -> float:
    """Its total as a chance of success, 1/2 where it was not scored."""
    return 0.5 if np.isnan(candidate.total) else float(np.clip(candidate.total, 0.0, 1.0))
