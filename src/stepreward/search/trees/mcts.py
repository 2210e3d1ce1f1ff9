"""Monte Carlo tree search with step scores as values: selection by PUCT or UCT, several walks in flight.

A node is a prefix. Its value is the total of its own step scores, which are computed once, when its parent is expanded.
A walk goes down from the root by the rule of selection to a node without children, and adds that node's value to all
nodes above it. A node is expanded at its second visit. If the walks are over before any reached the end of a solution,
one sample completes the path that they agree on.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from stepreward.core.catalog import search
from stepreward.core.keys import Key
from stepreward.core.runtime.flows import Flow
from stepreward.core.search_tree import Nodes, Rule, SearchTree, puct, uct, uct_floored
from stepreward.core.types import Problem
from stepreward.core.vocabulary import Count, MaxSteps, NoDraws, Rounds
from stepreward.search import budgets
from stepreward.search.candidates import ROOT, Candidate, Found, choice, ends
from stepreward.search.growth import Growth
from stepreward.search.setting_checks import positive


def expand(tree: SearchTree[Candidate], node: int, children: Sequence[Candidate]) -> Nodes:
    """Adds candidates below a node: valued by their totals, 0 where not scored; priors are their shares of samples."""
    counts = np.array([child.count for child in children], np.float64)
    values = np.nan_to_num([child.total for child in children])
    return tree.expand(node, children, [child.path for child in children], values, counts / counts.sum())


def _simulated(
    problem: Problem, key: Key, rule: Rule, *, simulations: int, width: int, at_once: int, max_steps: int,
    aggregate: str, vote: bool,
) -> Flow[Found]:  # fmt: skip
    positive(width=width, at_once=at_once)
    growth, tree = Growth(problem, key, aggregate), SearchTree(ROOT)
    (first,) = yield from growth.grow([ROOT], width)
    expand(tree, 0, first)
    done = 0
    while done < simulations and first:
        walks: list[int] = []
        for _ in range(min(at_once, simulations - done)):
            walks.append(tree.descend(rule))
            tree.in_flight[tree.path(walks[-1])] += 1
        yield from _grow_visited(tree, growth, set(walks), width, max_steps)
        for node in walks:
            tree.in_flight[tree.path(node)] -= 1
            # A walk goes through a node that was visited before, to the best of its new children.
            leaf = tree.descend(rule, node) if tree.visits[node] else node
            tree.back_up(leaf, float(tree.own[leaf]))
        done += len(walks)
        if growth.spent:
            break
    found = tree.items[1:]
    if growth.open(found) and not any(candidate.finished for candidate in found):
        (whole,) = yield from growth.complete([tree.items[tree.most_visited()]])
        found += yield from growth.score(whole)
    return (yield from growth.conclude(ends(found), select=choice(vote), columns=tree.columns))


def _grow_visited(
    tree: SearchTree[Candidate], growth: Growth, leaves: set[int], width: int, max_steps: int
) -> Flow[None]:
    """Expands those leaves of this round that have been visited before, all by one list of questions."""
    nodes = sorted(
        node
        for node in leaves
        if tree.children[node] is None
        and tree.visits[node] > 0
        and not tree.items[node].finished
        and tree.items[node].turns < max_steps
    )
    if not nodes or growth.spent:
        return
    grown = yield from growth.grow([tree.items[node] for node in nodes], width)
    for node, children in zip(nodes, grown, strict=True):
        expand(tree, node, children)


@search.method(
    "mcts",
    paper="arXiv:1712.01815",
    equation="the pseudo-code's PUCT, as public code uses it with step scores for values",
    note="priors are the shares of equal samples, not log-probabilities; values are totals of step scores; no noise at "
    "the root and no play-outs",
    asks=("scorer",),
    budget=budgets.walks,
)
def puct_search(
    problem: Problem,
    key: Key,
    *,
    simulations: Rounds = 32,
    width: Count = 4,
    at_once: NoDraws = 4,
    base: float = 19652.0,
    start: float = 1.25,
    max_steps: MaxSteps = 40,
    aggregate: str = "last",
    vote: bool = False,
) -> Flow[Found]:
    """Searches where values and priors promise most and visits are few, by PUCT.

    Args:
        problem: what to solve.
        key: randomness.
        simulations: walks from the root.
        width: samples of a node when it is expanded.
        at_once: simulations in flight together: 1 is the sequential search, more fill batches.
        base, start: of the bonus, see `puct`.
        max_steps: most steps of a solution.
        aggregate: total of a candidate's step scores, the value of its node; the last score in public code.
        vote: choose by the weighted vote over the ends instead of the best one.
    """
    positive(base=base)
    rule = partial(puct, base=base, start=start)
    return (
        yield from _simulated(
            problem, key, rule, simulations=simulations, width=width, at_once=at_once, max_steps=max_steps,
            aggregate=aggregate, vote=vote,
        )
    )  # fmt: skip


@search.method(
    "uct",
    paper="Kocsis and Szepesvari, Bandit based Monte-Carlo Planning, ECML 2006",
    equation="section 2.2",
    note="values are totals of step scores instead of play-outs; 1.414 is the constant of public code",
    asks=("scorer",),
    budget=budgets.walks,
)
def uct_search(
    problem: Problem,
    key: Key,
    *,
    simulations: Rounds = 32,
    width: Count = 4,
    at_once: NoDraws = 4,
    exploration: float = 1.414,
    max_steps: MaxSteps = 40,
    aggregate: str = "last",
    vote: bool = False,
    floored: bool = False,
) -> Flow[Found]:
    """Searches by upper confidence bounds: every child once, then those that may still be the best.

    Args:
        problem: what to solve.
        key: randomness.
        simulations: walks from the root.
        width: samples of a node when it is expanded.
        at_once: simulations in flight together.
        exploration: C of the bonus.
        max_steps: most steps of a solution.
        aggregate: total of a candidate's step scores, the value of its node.
        vote: choose by the weighted vote over the ends instead of the best one.
        floored: bound by `uct_floored`, which forces no child to be tried; totals are then in [0, 1].
    """
    rule = partial(uct_floored if floored else uct, exploration=exploration)
    return (
        yield from _simulated(
            problem, key, rule, simulations=simulations, width=width, at_once=at_once, max_steps=max_steps,
            aggregate=aggregate, vote=vote,
        )
    )  # fmt: skip


search.preset(
    "alphamath-mcts",
    of="mcts",
    paper="arXiv:2405.03553",
    note="AlphaMath's MCTS at inference: PUCT with a value model, the constant 1.25 (1.5 where it makes "
    "data) and no growth of the bonus; its priors are exp of a step's mean log-probability, here shares of equal "
    "samples. Its step beam is `step-beam`",
    base=1e9,
)


search.preset(
    "masprm-mcts",
    of="uct",
    paper="arXiv:2510.24803",
    note="the selection of MAS_MCTS in the released code, over agents' turns: a step is a turn, `Step.agent` its "
    "speaker. A turn is worth its score, where the code plays on to the end; of the turns that end a solution "
    "together each waits for a walk of its own. The code has one simulation in flight",
    floored=True,
    exploration=2.0,
)
