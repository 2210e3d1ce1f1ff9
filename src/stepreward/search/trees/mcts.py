"""Monte Carlo tree search with step scores as values: selection by PUCT or UCT, several leaves in flight.

A node is a prefix. Its value is the total of its own step scores, asked for once, when its parent is expanded. A
simulation goes down from the root by the rule of selection to a node that no simulation has ended at, or to the end of
a solution, and adds that node's value to all above it. A node is expanded when a simulation would pass through it. If
the simulations are over before any reached the end of a solution, one sample completes the path that they agree on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from stepreward.core.catalog import search
from stepreward.core.keys import Key
from stepreward.core.runtime.flows import Flow
from stepreward.core.types import Problem
from stepreward.core.vocabulary import Count
from stepreward.search import budgets
from stepreward.search.candidates import ROOT, Candidate, Found, Path, choice, ends
from stepreward.search.growth import Growth
from stepreward.search.setting_checks import positive

Floats = NDArray[np.float64]
Rule = Callable[[float, Floats, Floats, Floats], Floats]
"""`(visits of the parent, visits, mean values and priors of its children) -> (children,) what is chosen by`."""


def puct(
    parent: float, visits: Floats, values: Floats, priors: Floats, *, base: float = 19652.0, start: float = 1.25
) -> Floats:
    """AlphaZero's rule: mean value, and a bonus by prior that falls with visits and slowly grows with the parent's.

        Q + (ln((N + base + 1) / base) + start) P sqrt(N) / (1 + n)

    arXiv:1712.01815, the pseudo-code; constants as public code for reasoning has them.

    Args:
        parent: N, visits of the parent.
        visits: (C,) n of each child.
        values: (C,) Q, mean value; that of a child's own score where it has no visit.
        priors: (C,) P, share of the samples that came out as this child.
        base, start: c2 and c1.
    """
    made: Floats = values + (np.log((parent + base + 1) / base) + start) * priors * np.sqrt(parent) / (1 + visits)
    return made


def uct(parent: float, visits: Floats, values: Floats, priors: Floats, *, exploration: float = 1.414) -> Floats:
    """UCB for trees: children without a visit first, then mean value and a bonus for the seldom visited.

        Q + exploration sqrt(ln N / n),    infinite at n = 0, by order of values there

    Kocsis and Szepesvari, ECML 2006, section 2.2.

    Args:
        parent: N, visits of the parent.
        visits: (C,) n of each child.
        values: (C,) Q, mean value.
        priors: (C,), not used.
        exploration: C.
    """
    bonus = exploration * np.sqrt(np.log(max(parent, 1.0)) / np.maximum(visits, 1.0))
    made: Floats = np.where(visits > 0, values + bonus, np.inf)
    if not (visits > 0).all():
        # Among those without a visit the best scored goes first.
        made = np.where(visits > 0, -np.inf, values)
    return made


def uct_floored(parent: float, visits: Floats, values: Floats, priors: Floats, *, exploration: float = 2.0) -> Floats:
    """UCB whose bonus counts no visit as one, so that no child must be tried first; chances count from -1 to 1.

        (2 Q - 1) + exploration sqrt(ln max(N, 1) / max(n, 1)),    0 for 2 Q - 1 at n = 0

    MASPRM's released code, `MAS_MCTS`.

    Args:
        parent: N, visits of the parent.
        visits: (C,) n of each child.
        values: (C,) Q in [0, 1], mean value.
        priors: (C,), not used.
        exploration: C.
    """
    signed = np.where(visits > 0, 2 * values - 1, 0.0)
    made: Floats = signed + exploration * np.sqrt(np.log(max(parent, 1.0)) / np.maximum(visits, 1.0))
    return made


class SearchTree:
    """Visits and values of the nodes of one search, as arrays; node 0 is the bare problem.

    Args:
        rule: of selection.
    """

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.candidates: list[Candidate] = [ROOT]
        self.parent: list[int] = [-1]
        self.children: list[NDArray[np.int64] | None] = [None]
        """Nodes below each; None before it is expanded."""
        self.own = np.zeros(1)
        """(n,) each node's own value, from its scores."""
        self.prior = np.ones(1)
        self.visits = np.zeros(1)
        """(n,) simulations that ended at the node or below it."""
        self.total = np.zeros(1)
        """(n,) sum of what they brought."""
        self.flying = np.zeros(1)
        """(n,) simulations through the node that have no answer yet: they count as visits that brought nothing."""

    def descend(self, node: int = 0) -> list[int]:
        """Nodes of one simulation from a node on: down to an end, an unexpanded node, or one without a visit."""
        path = [node]
        while (below := self.children[path[-1]]) is not None and len(below):
            path.append(self.chosen(path[-1], below))
            if self.visits[path[-1]] + self.flying[path[-1]] == 0:
                break
        return path

    def chosen(self, node: int, below: NDArray[np.int64]) -> int:
        """The child that the rule takes; the first of equals."""
        # Virtual loss: one in flight is a visit of value 0, so that the next simulation goes another way.
        visits = self.visits[below] + self.flying[below]
        mean = self.total[below] / np.maximum(visits, 1.0)
        values = np.where(visits > 0, mean, self.own[below])
        parent = float(self.visits[node] + self.flying[node])
        return int(below[int(np.argmax(self.rule(parent, visits, values, self.prior[below])))])

    def expand(self, node: int, children: Sequence[Candidate]) -> None:
        """Gives a node its children, possibly none."""
        first, n = len(self.candidates), len(children)
        count = sum(child.count for child in children)
        self.candidates += children
        self.parent += [node] * n
        self.children += [None] * n
        self.children[node] = np.arange(first, first + n)
        worth = np.array([0.0 if np.isnan(child.total) else child.total for child in children])
        self.own = np.append(self.own, worth)
        self.prior = np.append(self.prior, [child.count / count for child in children])
        self.visits, self.total, self.flying = (
            np.append(old, np.zeros(n)) for old in (self.visits, self.total, self.flying)
        )

    def hold(self, path: Sequence[int], sign: int = 1) -> None:
        """Marks the nodes of a simulation as in flight, or, with -1, as landed."""
        self.flying[list(path)] += sign

    def back_up(self, path: Sequence[int], value: float) -> None:
        """Adds a simulation's value to all of its nodes."""
        nodes = list(path)
        self.visits[nodes] += 1
        self.total[nodes] += value

    def favourite(self) -> int:
        """The leaf below the most visited children, of equals the best valued: what the simulations agree on."""
        node = 0
        while (below := self.children[node]) is not None and len(below):
            mean = self.total[below] / np.maximum(self.visits[below], 1.0)
            node = int(
                below[np.lexsort((-np.where(self.visits[below] > 0, mean, self.own[below]), -self.visits[below]))[0]]
            )
        return node

    def columns(self, paths: Sequence[Path]) -> dict[str, Floats]:
        """Visits and values by the paths of another tree's nodes; NaN where a node is not of this one."""
        at = {candidate.path: node for node, candidate in enumerate(self.candidates)}
        nodes = [at.get(path, -1) for path in paths]
        known = np.array([node >= 0 for node in nodes])
        mean = self.total / np.maximum(self.visits, 1.0)
        visits = np.where(known, self.visits[nodes], np.nan)
        return {"visits": visits, "value": np.where(known & (visits > 0), mean[nodes], np.nan)}


def _simulated(
    problem: Problem, key: Key, rule: Rule, *, simulations: int, width: int, at_once: int, max_steps: int,
    aggregate: str, vote: bool,
) -> Flow[Found]:  # fmt: skip
    positive(width=width, at_once=at_once)
    growth, tree = Growth(problem, key, aggregate), SearchTree(rule)
    children = yield from growth.grow([ROOT], width)
    tree.expand(0, children[0])
    done = 0
    while done < simulations and tree.children[0] is not None and len(tree.children[0]):
        paths: list[list[int]] = []
        for _ in range(min(at_once, simulations - done)):
            paths.append(tree.descend())
            tree.hold(paths[-1])
        yield from _expand(tree, growth, {path[-1] for path in paths}, width, max_steps)
        for path in paths:
            tree.hold(path, -1)
            # A node that has been visited is passed through, to the best of its new children.
            reached = path[:-1] + tree.descend(path[-1]) if tree.visits[path[-1]] else path
            tree.back_up(reached, float(tree.own[reached[-1]]))
        done += len(paths)
        if growth.spent:
            break
    found = tree.candidates[1:]
    if growth.open(found) and not any(candidate.finished for candidate in found):
        (whole,) = yield from growth.complete([tree.candidates[tree.favourite()]])
        found += yield from growth.score(whole)
    return (yield from growth.conclude(ends(found), select=choice(vote), columns=tree.columns))


def _expand(tree: SearchTree, growth: Growth, leaves: set[int], width: int, max_steps: int) -> Flow[None]:
    """Expands those leaves of this round that have been visited before, all by one list of questions."""
    nodes = sorted(
        node
        for node in leaves
        if tree.children[node] is None
        and tree.visits[node] > 0
        and not tree.candidates[node].finished
        and len(tree.candidates[node].steps) < max_steps
    )
    if not nodes or growth.spent:
        return
    grown = yield from growth.grow([tree.candidates[node] for node in nodes], width)
    for node, children in zip(nodes, grown, strict=True):
        tree.expand(node, children)


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
    simulations: int = 32,
    width: Count = 4,
    at_once: int = 4,
    base: float = 19652.0,
    start: float = 1.25,
    max_steps: Count = 40,
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

    def rule(parent: float, visits: Floats, values: Floats, priors: Floats) -> Floats:
        return puct(parent, visits, values, priors, base=base, start=start)

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
    simulations: int = 32,
    width: Count = 4,
    at_once: int = 4,
    exploration: float = 1.414,
    max_steps: Count = 40,
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
