"""Whole solutions that are cut where they go wrong and sampled again from there; each counts for all its prefixes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from stepreward.core.catalog import search
from stepreward.core.keys import Key
from stepreward.core.measure.first_error import first_error
from stepreward.core.measure.rollout_priority import priority
from stepreward.core.prefix_names import TOP
from stepreward.core.runtime.flows import Flow
from stepreward.core.types import Problem
from stepreward.core.vocabulary import Count, Rounds
from stepreward.search import budgets
from stepreward.search.candidates import ROOT, Candidate, Found, Path, choice, ends
from stepreward.search.growth import Growth
from stepreward.search.setting_checks import positive


@dataclass
class SampledSolutions:
    """R solutions, with the prefixes that they were sampled from."""

    solutions: list[Candidate] = field(default_factory=list)
    origin: list[int] = field(default_factory=list)
    """(R,) number of steps of the prefix that each was sampled from."""
    cut: list[bool] = field(default_factory=list)
    """(R,) whether it was cut already."""
    visits: dict[Path, int] = field(default_factory=dict)
    """Number of solutions cut, by the prefix that they were sampled from."""
    drawn: dict[Path, int] = field(default_factory=dict)
    """Number of samples drawn from each prefix."""

    def add(self, parent: Candidate, solutions: Sequence[Candidate], n: int) -> None:
        """Adds the solutions that came of `n` samples from a prefix: fewer where the budget ended."""
        self.solutions += solutions
        self.origin += [len(parent.steps)] * len(solutions)
        self.cut += [False] * len(solutions)
        self.drawn[parent.path] = self.drawn.get(parent.path, 0) + n

    def start(self, row: int) -> Path:
        """The prefix that a solution was sampled from."""
        return (TOP, *self.solutions[row].places)[self.origin[row]]

    def value(self, path: Path) -> float:
        """Mean total of all solutions that begin with a prefix, wherever they were sampled; 0.5 where none is known."""
        # Every solution through the prefix counts, also those that were sampled from a shorter one.
        known = [c.total for c in self.solutions if path in (TOP, *c.places) and c.total == c.total]
        return float(np.mean(known)) if known else 0.5

    def next(self, *, alpha: float, beta: float, scale: float, c_puct: float) -> int | None:
        """The row of the solution to cut next; None where every solution with a step of its own was cut."""
        own = [Candidate(c.steps[at:]).turns for c, at in zip(self.solutions, self.origin, strict=True)]
        rows = [i for i, done in enumerate(self.cut) if not done and own[i]]
        if not rows:
            return None
        paths = [self.start(i) for i in rows]
        value = {path: self.value(path) for path in set(paths)}
        # The text that a cut gives up is what follows its prefix: lengths are counted from there.
        worth = priority(
            np.array([value[path] for path in paths]),
            np.array([own[i] for i in rows], np.float64),
            np.array([self.visits.get(path, 0) for path in paths], np.float64),
            float(sum(self.visits.values())),
            alpha=alpha, beta=beta, scale=scale, c_puct=c_puct,
        )  # fmt: skip
        return rows[int(np.argmax(worth))]


@search.method(
    "omega",
    paper="arXiv:2406.06592",
    equation="Eqs. 2 and 3 and the reuse of rollouts, at test time",
    note="without an answer to compare with: a prefix is worth the mean total of all solutions through it, and a "
    "solution goes wrong at its first step scored at or below `threshold`, or at its worst one; lengths are in steps",
    asks=("scorer",),
    budget=budgets.cuts,
)
def reusing_search(
    problem: Problem,
    key: Key,
    *,
    n: Count = 4,
    rounds: Rounds = 4,
    again: int = 2,
    threshold: float = 0.5,
    alpha: float = 0.5,
    beta: float = 0.9,
    scale: float = 10.0,
    c_puct: float = 0.125,
    aggregate: str = "min",
    vote: bool = False,
) -> Flow[Found]:
    """Samples solutions, and again and again repairs the one of highest priority: a good start that goes wrong late.

    Args:
        problem: what to solve.
        key: randomness.
        n: solutions to begin with.
        rounds: solutions to cut.
        again: samples after each cut.
        threshold: steps scored at or below it are wrong.
        alpha, beta: in (0, 1], weights of a prefix's value and of a solution's length.
        scale: steps, the L of the paper.
        c_puct: weight of prefixes that were seldom cut.
        aggregate: total of a solution's step scores, in [0, 1].
        vote: choose by the weighted vote over all solutions instead of the best one.

    Raises:
        ValueError: `alpha` or `beta` is not in (0, 1], or `scale` is not positive.
    """
    if not (0 < alpha <= 1 and 0 < beta <= 1):
        raise ValueError(f"alpha and beta must be in (0, 1], got {alpha} and {beta}")
    positive(scale=scale, again=again)
    growth, pool = Growth(problem, key, aggregate), SampledSolutions()
    (fresh,) = yield from growth.complete([ROOT], n)
    pool.add(ROOT, (yield from growth.score(fresh)), n)
    for _ in range(rounds):
        row = None if growth.spent else pool.next(alpha=alpha, beta=beta, scale=scale, c_puct=c_puct)
        if row is None:
            break
        solution, origin = pool.solutions[row], pool.origin[row]
        pool.cut[row] = True
        start = pool.start(row)
        pool.visits[start] = pool.visits.get(start, 0) + 1
        parent = _prefix_before_error(solution, origin, threshold)
        (fresh,) = yield from growth.complete([parent], again, first=pool.drawn.get(parent.path, 0))
        pool.add(parent, (yield from growth.score(fresh)), again)
    return (yield from growth.conclude(ends(pool.solutions), select=choice(vote)))


def _prefix_before_error(solution: Candidate, origin: int, threshold: float) -> Candidate:
    """The prefix before the first step after `origin` at or below the threshold, or else before the worst one."""
    scores = np.array(solution.scores[origin:])
    scores = np.where(np.isnan(scores), np.inf, scores)
    bad = int(first_error(scores, threshold))
    at = origin + (bad if bad >= 0 else int(np.argmin(scores)))
    return solution.before(at)
