"""VM-MCTS: a tree of first steps of whole solutions, valued by a value model; the best solution met is the answer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from stepreward.core.catalog import search
from stepreward.core.keys import Key
from stepreward.core.runtime.flows import Flow
from stepreward.core.search_tree import SearchTree, ucb_smoothed
from stepreward.core.types import Problem
from stepreward.core.vocabulary import Count, MaxSteps, Rounds
from stepreward.search import budgets
from stepreward.search.candidates import ROOT, Candidate, Found, Path, choice, ends, total_of
from stepreward.search.growth import Growth
from stepreward.search.setting_checks import positive


@search.method(
    "vm-mcts",
    paper="arXiv:2508.19576",
    equation="section 3.3, assisted decoding",
    note="as in the released code at test time: a leaf samples whole solutions, whose distinct first steps are its "
    "children; ties go to the first child. A child's value is the total of its own scores within a whole solution",
    asks=("scorer",),
    budget=budgets.several("rounds", budgets.SOLUTIONS),
)
def value_tree(
    problem: Problem,
    key: Key,
    *,
    rounds: Rounds = 8,
    width: Count = 5,
    kept: int = 3,
    exploration: float = 0.2,
    floor: float = 0.1,
    max_steps: MaxSteps = 40,
    aggregate: str = "last",
    vote: bool = False,
) -> Flow[Found]:
    """Searches prefixes by upper confidence bounds of a value model, and samples whole solutions from each.

    Args:
        problem: what to solve.
        key: randomness.
        rounds: walks from the root.
        width: solutions sampled from each node that a walk ends at.
        kept: children of a node that may be visited, the best by value.
        exploration: weight of what has few visits.
        floor: added to a child's visits.
        max_steps: most steps of a prefix that solutions are sampled from.
        aggregate: total of step scores, read as a value.
        vote: choose by the weighted vote over all solutions instead of the best one.
    """
    positive(rounds=rounds, width=width, kept=kept, floor=floor)
    growth, tree = Growth(problem, key, aggregate), SearchTree(ROOT)
    rule = partial(ucb_smoothed, exploration=exploration, floor=floor)
    whole: list[Candidate] = []
    for _ in range(rounds):
        node = tree.descend(rule)
        candidate = tree.items[node]
        expanded = tree.children[node] is not None
        if candidate.finished or expanded or candidate.turns >= max_steps:
            tree.back_up(node, float(tree.value[node]))
            continue
        (made,) = yield from growth.complete([candidate], width)
        scored = yield from growth.score(made)
        whole += scored
        samples = _first_steps(candidate, scored, aggregate)
        firsts = [some[0] for some in samples]
        children = tree.expand(node, firsts, [one.path for one in firsts], [one.total for one in firsts])
        for child, some in zip(children.tolist(), samples, strict=True):
            tree.back_up(child, sum(one.total for one in some), len(some))
        # Walks choose among the best; the others count for the nodes above them.
        tree.children[node] = children[:kept]
        if growth.spent:
            break
    found = [candidate for candidate in whole if candidate.steps]
    return (yield from growth.conclude(ends(found), select=choice(vote), columns=tree.columns))


def _first_steps(start: Candidate, solutions: Sequence[Candidate], aggregate: str) -> list[list[Candidate]]:
    """First steps of solutions that go on from a prefix: the samples of each distinct one, the best valued first."""
    grown = [solution for solution in solutions if solution.turns > start.turns]
    depths = [solution.length_of(start.turns + 1) for solution in grown]
    scores = [solution.scores[:depth] for solution, depth in zip(grown, depths, strict=True)]
    totals = np.nan_to_num(total_of(scores, aggregate)).tolist() if grown else []
    samples: dict[tuple[Path, bool], list[Candidate]] = {}
    for solution, depth, some, total in zip(grown, depths, scores, totals, strict=True):
        # It is finished only where the first step is all that the solution still had.
        first = Candidate(solution.first(depth), solution.finished and len(solution.steps) == depth, some, total)
        samples.setdefault((first.path, first.finished), []).append(first)
    return sorted(samples.values(), key=lambda some: -some[0].total)
