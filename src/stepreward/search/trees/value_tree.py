"""VM-MCTS: a tree of first steps of whole solutions, valued by a value model; the best solution met is the answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from stepreward.core.catalog import search
from stepreward.core.keys import Key
from stepreward.core.runtime.flows import Flow
from stepreward.core.types import Problem
from stepreward.core.vocabulary import Count
from stepreward.search import budgets
from stepreward.search.candidates import ROOT, Candidate, Found, Path, choice, ends, total_of
from stepreward.search.growth import Growth
from stepreward.search.setting_checks import positive


@dataclass(eq=False)
class Node:
    """A prefix, with the visits and values that came through it."""

    candidate: Candidate
    parent: Node | None = None
    visits: int = 0
    total: float = 0.0
    """Sum of the values of its visits."""
    children: list[Node] = field(default_factory=list)
    """Those that may be chosen."""
    expanded: bool = False

    @property
    def value(self) -> float:
        """Mean over its visits."""
        return self.total / self.visits if self.visits else 0.0

    def bound(self, exploration: float, floor: float) -> float:
        """What children are chosen by.

        V + exploration sqrt( (1 + ln N_parent) / (floor + N) )
        """
        above = self.parent.visits if self.parent is not None else self.visits
        return self.value + exploration * math.sqrt((1 + math.log(max(above, 1))) / (floor + self.visits))

    def back_up(self, visits: int, total: float) -> None:
        """Adds visits and their values to this node and all above it."""
        node: Node | None = self
        while node is not None:
            node.visits, node.total, node = node.visits + visits, node.total + total, node.parent


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
    rounds: int = 8,
    width: Count = 5,
    kept: int = 3,
    exploration: float = 0.2,
    floor: float = 0.1,
    max_steps: Count = 40,
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
    growth, root = Growth(problem, key, aggregate), Node(ROOT)
    whole: list[Candidate] = []
    nodes = [root]
    for _ in range(rounds):
        node = root
        while node.children:
            node = max(node.children, key=lambda child: child.bound(exploration, floor))
        if node.candidate.finished or (node.expanded and not node.children) or len(node.candidate.steps) >= max_steps:
            node.back_up(1, node.value)
            continue
        (made,) = yield from growth.complete([node.candidate], width)
        scored = yield from growth.score(made)
        whole += scored
        rivals = _first_steps(node, scored, aggregate)
        node.children, node.expanded = rivals[:kept], True
        nodes += rivals
        node.back_up(sum(child.visits for child in rivals), sum(child.total for child in rivals))
        if growth.spent:
            break
    found = [candidate for candidate in whole if candidate.steps]
    return (yield from growth.conclude(ends(found), select=choice(vote), columns=lambda paths: _columns(nodes, paths)))


def _first_steps(node: Node, solutions: Sequence[Candidate], aggregate: str) -> list[Node]:
    """The distinct first steps of solutions that go on from a node, best first; each sample is a visit of its value."""
    depth = len(node.candidate.steps) + 1
    grown = [solution for solution in solutions if len(solution.steps) >= depth]
    firsts = [(solution.first(depth), solution.scores[:depth]) for solution in grown]
    values = np.nan_to_num(total_of([scores for _, scores in firsts], aggregate)).tolist() if firsts else []
    made: dict[tuple[Path, bool], Node] = {}
    for solution, (steps, scores), value in zip(grown, firsts, values, strict=True):
        child = Candidate(steps, solution.finished and len(solution.steps) == depth, scores, value)
        known = made.setdefault((child.path, child.finished), Node(child, node))
        known.visits, known.total = known.visits + 1, known.total + value
    return sorted(made.values(), key=lambda child: -child.candidate.total)


def _columns(nodes: Sequence[Node], paths: Sequence[Path]) -> dict[str, np.ndarray[tuple[int], np.dtype[np.float64]]]:
    """Visits and values by the paths of a tree's nodes; NaN where a node was not visited by itself."""
    at = {node.candidate.path: node for node in nodes}
    found = [at.get(path) for path in paths]
    return {
        "visits": np.array([np.nan if node is None else node.visits for node in found]),
        "value": np.array([np.nan if node is None or not node.visits else node.value for node in found]),
    }
