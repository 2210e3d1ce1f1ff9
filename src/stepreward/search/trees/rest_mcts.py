"""ReST-MCTS*'s search: a greedy roll-out mends the value of each new leaf, and a node is worth its visited children."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from stepreward.core.catalog import search
from stepreward.core.keys import Key
from stepreward.core.runtime.flows import Flow
from stepreward.core.types import Problem
from stepreward.core.vocabulary import Count
from stepreward.search import budgets
from stepreward.search.candidates import ROOT, Candidate, Found, Path, best, choice, ends
from stepreward.search.growth import Growth
from stepreward.search.setting_checks import positive


@dataclass(eq=False)
class Node:
    """A prefix with its value, as far as it is known."""

    candidate: Candidate
    value: float = 0.0
    parent: Node | None = None
    visits: int = 0
    children: list[Node] = field(default_factory=list)

    def chosen(self, exploration: float, unvisited: float) -> Node:
        """The child of the highest bound; the first of equals.

        V + exploration sqrt( 2 ln N_parent / N ),    V + unvisited where N = 0
        """
        return max(self.children, key=lambda child: child.bound(self.visits, exploration, unvisited))

    def bound(self, above: int, exploration: float, unvisited: float) -> float:
        """What it is chosen by, under a parent of so many visits."""
        if not self.visits:
            return self.value + unvisited
        return self.value + exploration * math.sqrt(2 * math.log(above) / self.visits)

    def back_up(self) -> None:
        """Counts a visit here and above; each node becomes the mean of its children by their visits.

        V = sum_c N_c V_c / sum_c N_c
        """
        node: Node | None = self
        while node is not None:
            node.visits += 1
            below = sum(child.visits for child in node.children)
            if below:
                node.value = sum(child.visits * child.value for child in node.children) / below
            node = node.parent


@dataclass(eq=False)
class Walk:
    """The settings of roll-outs, and where they ended."""

    growth: Growth
    width: int
    steps: int
    first: int
    """Number of their first sample, behind those of expansion, so that a node's own growth repeats none."""
    ended: list[Candidate] = field(default_factory=list)

    def from_node(self, start: Candidate) -> Flow[float]:
        """The highest value on the way of a few greedy steps; the start's own if it is an end, 0 if nothing came."""
        if start.finished:
            return _worth(start)
        top, at = 0.0, start
        for _ in range(self.steps):
            sprouts = yield from self.growth.sprout(self.growth.open([at]), self.width, first=self.first)
            grown = yield from self.growth.score([c for some in sprouts for c in some])
            if not grown:
                break
            (at,) = best(grown, 1)
            top = max(top, _worth(at))
        self.ended += [at] if at.finished else []
        return top


@search.method(
    "rest-mcts",
    paper="arXiv:2406.03816",
    equation="MCTS* with greedy roll-outs, as in MCTS/mcts.py of the released code",
    note="the scorer is the value model. No self-critic: an end is where the policy ends, only an end is accepted at "
    "`gate`, and no hints are sampled by. Ties go to the first child; without an accepted end the best whole solution "
    "is chosen, the tree's before those of roll-outs, instead of the best node",
    asks=("scorer",),
    budget=budgets.walks,
)
def greedy_rollout_search(
    problem: Problem,
    key: Key,
    *,
    simulations: int = 32,
    width: Count = 3,
    exploration: float = 0.7,
    unvisited: float = 1.0,
    alpha: float = 0.5,
    rollout_width: int = 1,
    rollout_steps: int = 3,
    gate: float = 0.9,
    max_steps: Count = 40,
    aggregate: str = "last",
    vote: bool = False,
) -> Flow[Found]:
    """Searches by values that look a few steps ahead: a step that reads well and leads nowhere loses its lead.

        v <- alpha v_max + (1 - alpha) v        of a new leaf, v_max the highest value on its greedy roll-out
        V <- sum_c N_c V_c / sum_c N_c          of all nodes above it, over visited children

    It ends at the first solution chosen whose value reaches `gate`, which is then the answer.

    Args:
        problem: what to solve.
        key: randomness.
        simulations: most walks from the root.
        width: samples of a node when it is expanded.
        exploration: weight of the bonus for what has few visits.
        unvisited: bonus of what has none.
        alpha: weight of the roll-out, in [0, 1]; at 0 none is made.
        rollout_width: samples of each step of a roll-out, the best of which is taken.
        rollout_steps: most steps of a roll-out.
        gate: value at which a solution is accepted.
        max_steps: most steps of a prefix that is expanded.
        aggregate: total of step scores, read as a value in [0, 1].
        vote: without an accepted solution, choose by the weighted vote instead of the best one.

    Raises:
        ValueError: `alpha` is not in [0, 1].
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be in [0, 1], got {alpha}")
    positive(simulations=simulations, width=width, rollout_width=rollout_width)
    growth, root = Growth(problem, key, aggregate), Node(ROOT)
    walk, nodes, accepted = Walk(growth, rollout_width, rollout_steps if alpha else 0, width), [root], None
    for _ in range(simulations):
        node = root
        while node.children:
            node = node.chosen(exploration, unvisited)
        if node.candidate.finished and node.value >= gate:
            accepted = node.candidate
            break
        if growth.open([node.candidate]) and len(node.candidate.steps) < max_steps:
            (grown,) = yield from growth.grow([node.candidate], width)
            node.children = [Node(child, _worth(child), node) for child in grown]
            nodes += node.children
        if node.children:
            leaf = node.chosen(exploration, unvisited)
            leaf.value += alpha * ((yield from walk.from_node(leaf.candidate)) - leaf.value)
            leaf.visits += 1
        node.back_up()
        if growth.spent:
            break
    found = [accepted] if accepted else (yield from _whole(growth, nodes, walk.ended))
    return (yield from growth.conclude(found, select=choice(vote), columns=lambda paths: _columns(nodes, paths)))


def _worth(candidate: Candidate) -> float:
    """Its total as a value; 0, the lowest, where that is not known."""
    return 0.0 if np.isnan(candidate.total) else candidate.total


def _whole(growth: Growth, nodes: Sequence[Node], rolled: Sequence[Candidate]) -> Flow[list[Candidate]]:
    """The tree's ends; without one those of roll-outs; without those the best leaf, completed by one sample."""
    leaves = [node for node in nodes[1:] if not node.children]
    found = [node.candidate for node in leaves if node.candidate.finished]
    unique = {candidate.path: candidate for candidate in rolled}
    found = found or [*unique.values()]
    if found or not leaves:
        return found
    top = max(leaves, key=lambda node: node.value).candidate
    made: list[Candidate] = []
    if growth.open([top]):
        (fresh,) = yield from growth.complete([top])
        made = yield from growth.score(fresh)
    return ends([*(node.candidate for node in leaves), *made])


def _columns(nodes: Sequence[Node], paths: Sequence[Path]) -> dict[str, NDArray[np.float64]]:
    """Visits and values by the paths of a tree's nodes; NaN where a node is not of this search's tree."""
    at = {node.candidate.path: node for node in nodes}
    found = [at.get(path) for path in paths]
    return {
        "visits": np.array([np.nan if node is None else node.visits for node in found]),
        "value": np.array([np.nan if node is None else node.value for node in found]),
    }
