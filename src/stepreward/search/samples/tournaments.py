"""Selection by a judge that compares two solutions at a time: knockout and Elo."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from stepreward.core.catalog import search
from stepreward.core.keys import Key
from stepreward.core.runtime.flows import Compare, Extract, Flow
from stepreward.core.types import Problem
from stepreward.core.vocabulary import Count
from stepreward.search import budgets
from stepreward.search.candidates import ROOT, Candidate, Found
from stepreward.search.growth import Growth

Pair = tuple[int, int]


@search.method(
    "knockout",
    paper="arXiv:2501.13007",
    equation="section 3.3",
    note="pairs in order of sampling; a tie goes to the earlier; two that state the same answer are not judged, the "
    "earlier advances",
    asks=("judge",),
    budget=budgets.samples,
)
def knockout(problem: Problem, key: Key, *, n: Count = 8, both_orders: bool = True) -> Flow[Found]:
    """Samples `n` solutions and lets a judge knock them out in pairs until one is left.

    Takes at most n - 1 comparisons, twice as many in both orders, in ceil(log2 n) rounds. Totals are the rounds that a
    solution survived. Cut solutions take part only where none finished.

    Args:
        problem: what to solve.
        key: randomness.
        n: solutions.
        both_orders: judge each pair in both orders and take the mean, so that a preference for
            the first place cancels out.
    """
    growth = Growth(problem, key)
    (candidates,) = yield from growth.complete([ROOT], n)
    alive, answers = yield from _entrants(problem, candidates)
    survived = np.zeros(len(candidates))
    while len(alive) > 1:
        pairs = list(zip(alive[::2], alive[1::2], strict=False))
        open_pairs = [(a, b) for a, b in pairs if answers[a] is None or answers[a] != answers[b]]
        judged = yield from _compare(problem, candidates, open_pairs, both_orders)
        winners = [b if judged.get((a, b), 0.5) < 0.5 else a for a, b in pairs]
        survived[winners] += 1
        # An odd one out advances without a comparison.
        alive = [*winners, *alive[2 * len(pairs) :]]
    # The winner may have had a bye; it still ranks above all others.
    survived[alive] = survived.max(initial=0) + (len(candidates) > 1)
    return (yield from growth.conclude(candidates, totals=survived))


@search.method(
    "elo",
    paper="Elo, The Rating of Chessplayers, Past and Present (1978)",
    note="every pair once, in the rounds of a round-robin schedule; a judge's chance is the result of the game",
    asks=("judge",),
    budget=budgets.samples,
)
def elo(
    problem: Problem,
    key: Key,
    *,
    n: Count = 8,
    k: float = 32.0,
    start: float = 1000.0,
    scale: float = 400.0,
    both_orders: bool = True,
) -> Flow[Found]:
    """Samples `n` solutions, lets a judge compare every pair and takes the one with the highest Elo rating.

        R_a <- R_a + K (S - E),    E = 1 / (1 + 10^((R_b - R_a) / scale)),    S the judge's chance that a is better

    Takes n (n - 1) / 2 comparisons, twice as many in both orders. Totals are the ratings.

    Args:
        problem: what to solve.
        key: randomness.
        n: solutions.
        k: most points that one comparison moves.
        start: rating before the first comparison.
        scale: points of difference at which the better one is expected to win 10 of 11.
        both_orders: judge each pair in both orders and take the mean.
    """
    growth = Growth(problem, key)
    (candidates,) = yield from growth.complete([ROOT], n)
    players, _ = yield from _entrants(problem, candidates)
    judged = yield from _compare(problem, candidates, [*combinations(players, 2)], both_orders)
    ratings = np.full(len(candidates), start)
    # The schedule numbers players from 0; rows that take no part keep the rating of the start.
    ratings[players] = elo_ratings(
        len(players),
        {(players.index(a), players.index(b)): s for (a, b), s in judged.items()},
        k=k,
        start=start,
        scale=scale,
    )
    return (yield from growth.conclude(candidates, totals=ratings))


def elo_ratings(
    n: int, results: dict[Pair, float], *, k: float = 32.0, start: float = 1000.0, scale: float = 400.0
) -> NDArray[np.float64]:
    """(n,) ratings after one round robin; see `elo` for the update.

    Args:
        n: players.
        results: for every pair (a, b) with a < b, what a got of the game, in [0, 1].
        k, start, scale: as in `elo`.
    """
    ratings = np.full(n, start)
    for games in round_robin(n):
        # A player has at most one game a round, so the order within it does not matter.
        for a, b in games:
            expected = 1 / (1 + 10 ** ((ratings[b] - ratings[a]) / scale))
            moved = k * (results[a, b] - expected)
            ratings[a] += moved
            ratings[b] -= moved
    return ratings


def round_robin(n: int) -> list[list[Pair]]:
    """Rounds in which each of `n` players meets every other once and plays at most once a round (circle method)."""
    circle = [*range(n), *([-1] if n % 2 else [])]
    rounds = []
    for _ in range(len(circle) - 1):
        half = len(circle) // 2
        pairs = zip(circle[:half], reversed(circle[half:]), strict=True)
        rounds.append(sorted((min(p), max(p)) for p in pairs if min(p) >= 0))
        circle = [circle[0], circle[-1], *circle[1:-1]]
    return rounds


def _entrants(problem: Problem, candidates: Sequence[Candidate]) -> Flow[tuple[list[int], dict[int, str | None]]]:
    """Rows that take part, the finished ones if there are any, and what each answers."""
    rows = [row for row, c in enumerate(candidates) if c.finished and c.steps]
    if not rows:
        rows = [row for row, c in enumerate(candidates) if c.steps]
        return rows, dict.fromkeys(rows)
    said = yield [Extract(problem, candidates[row].steps) for row in rows]
    return rows, dict(zip(rows, said, strict=True))


def _compare(
    problem: Problem, candidates: Sequence[Candidate], pairs: Sequence[Pair], both_orders: bool
) -> Flow[dict[Pair, float]]:
    """The chance that the first of each pair is the better one."""
    orders = [(a, b) for a, b in pairs for a, b in ([(a, b), (b, a)] if both_orders else [(a, b)])]
    if not orders:
        return {}
    said = yield [Compare(problem, candidates[a].steps, candidates[b].steps) for a, b in orders]
    chance = dict(zip(orders, said, strict=True))
    return {(a, b): (chance[a, b] + 1 - chance[b, a]) / 2 if both_orders else chance[a, b] for a, b in pairs}
