"""ReST-MCTS*'s search: a greedy roll-out corrects the value of each new leaf; a node is worth its visited children."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import numpy as np

from stepreward.core.catalog import search
from stepreward.core.keys import Key
from stepreward.core.runtime.flows import Flow
from stepreward.core.search_tree import SearchTree, ucb1
from stepreward.core.types import Problem
from stepreward.core.vocabulary import Count, MaxSteps, Rounds
from stepreward.search import budgets
from stepreward.search.candidates import ROOT, Candidate, Found, best, choice, ends
from stepreward.search.growth import Growth
from stepreward.search.setting_checks import positive
from stepreward.search.trees.mcts import expand


@dataclass(eq=False)
class GreedyRollouts:
    """Roll-outs that take the best of a few samples at every step, and the solutions that they reached."""

    growth: Growth
    width: int
    steps: int
    first: int
    """Index of their first sample, after those of expansion: a node that is expanded later repeats none of them."""
    ended: list[Candidate] = field(default_factory=list)

    def highest_value(self, start: Candidate) -> Flow[float]:
        """The highest value among the steps of a roll-out; that of a finished start, 0 where no step could be had."""
        if start.finished:
            return float(np.nan_to_num(start.total))
        top, at = 0.0, start
        for _ in range(self.steps):
            sprouts = yield from self.growth.sprout(self.growth.open([at]), self.width, first=self.first)
            grown = yield from self.growth.score([c for some in sprouts for c in some])
            if not grown:
                break
            (at,) = best(grown, 1)
            top = max(top, float(np.nan_to_num(at.total)))
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
    simulations: Rounds = 32,
    width: Count = 3,
    exploration: float = 0.7,
    unvisited: float = 1.0,
    alpha: float = 0.5,
    rollout_width: int = 1,
    rollout_steps: int = 3,
    gate: float = 0.9,
    max_steps: MaxSteps = 40,
    aggregate: str = "last",
    vote: bool = False,
) -> Flow[Found]:
    """Searches by values that look a few steps ahead: a step with a high score that leads nowhere falls behind.

        v <- alpha v_max + (1 - alpha) v        of a new leaf, v_max the highest value on its greedy roll-out
        V <- sum_c N_c V_c / sum_c N_c          of all nodes above it, over visited children

    It ends at the first solution on a walk whose value reaches `gate`; that solution is chosen.

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
    growth, tree = Growth(problem, key, aggregate), SearchTree(ROOT)
    rule = partial(ucb1, exploration=exploration, unvisited=unvisited)
    rollouts, accepted = GreedyRollouts(growth, rollout_width, rollout_steps if alpha else 0, width), None
    for _ in range(simulations):
        node = tree.descend(rule)
        candidate = tree.items[node]
        if candidate.finished and tree.value[node] >= gate:
            accepted = candidate
            break
        if growth.open([candidate]) and candidate.turns < max_steps:
            (grown,) = yield from growth.grow([candidate], width)
            if len(expand(tree, node, grown)):
                leaf = tree.choose(rule, node)
                highest = yield from rollouts.highest_value(tree.items[leaf])
                tree.value[leaf] += alpha * (highest - tree.value[leaf])
                # The mean over visited children reads the leaf from now on.
                tree.visits[leaf] += 1
        tree.back_up_children(node)
        if growth.spent:
            break
    found = [accepted] if accepted else (yield from _solutions(growth, tree, rollouts.ended))
    return (yield from growth.conclude(found, select=choice(vote), columns=partial(tree.columns, unvisited=True)))


def _solutions(growth: Growth, tree: SearchTree[Candidate], rolled: list[Candidate]) -> Flow[list[Candidate]]:
    """The tree's ends; without one those of roll-outs; without those the best leaf, completed by one sample."""
    below = tree.children[1:]
    leaves = [node for node, children in enumerate(below, 1) if children is None or not len(children)]
    found = [tree.items[node] for node in leaves if tree.items[node].finished]
    found = found or list({candidate.path: candidate for candidate in rolled}.values())
    if found or not leaves:
        return found
    top = tree.items[max(leaves, key=lambda node: tree.value[node])]
    made: list[Candidate] = []
    if growth.open([top]):
        (fresh,) = yield from growth.complete([top])
        made = yield from growth.score(fresh)
    return ends([*(tree.items[node] for node in leaves), *made])
