"""The tree of a Monte Carlo search, for searches and for labels: prefixes with their visits and values.

Four choices define such a search: the selection rule of a walk (`Rule`); the value of a new leaf, by scores or by
rollouts; the backup to the nodes above it (`back_up`, `back_up_children`); and the columns read at the end (`columns`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stepreward.core.prefix_names import TOP, Name
from stepreward.core.types import Floats

Nodes = NDArray[np.int64]
Item = TypeVar("Item")
Rule = Callable[[float, Floats, Floats, Floats], Floats]
"""`(visits of the parent, visits, values, priors of its children) -> (C,)`: the walk takes the child of the largest."""


class SearchTree(Generic[Item]):
    """Nodes of one search, as arrays of length n; node 0 is the bare problem.

    Args:
        root: what the search keeps for the bare problem.
        value: what the bare problem is worth before a walk.
    """

    def __init__(self, root: Item, value: float = 0.0) -> None:
        self.items: list[Item] = [root]
        """What the search keeps for each node."""
        self.node_of: dict[Name, int] = {TOP: 0}
        """The node of each prefix, by its name; the latest where two have the same steps."""
        self.parent: list[int] = [-1]
        self.children: list[Nodes | None] = [None]
        """Nodes below each; None before it is expanded."""
        self.own = np.array([value])
        """Value of each node by itself, before any walk."""
        self.prior = np.ones(1)
        self.visits = np.zeros(1)
        """Walks that ended at the node or below it."""
        self.total = np.zeros(1)
        """Sum of the values of those walks."""
        self.value = self.own.copy()
        """What each node is worth now: its own value until a walk is backed up to it."""
        self.in_flight = np.zeros(1)
        """Walks through the node whose value is not known yet."""
        self.closed = np.zeros(1, bool)
        """Nodes that no walk takes any more."""

    def expand(
        self,
        node: int,
        items: Sequence[Item],
        names: Sequence[Name],
        values: ArrayLike,
        priors: ArrayLike | None = None,
    ) -> Nodes:
        """Adds children, possibly none, below a node, and returns their numbers.

        Args:
            node: their parent.
            items: (C,) what the search keeps for each.
            names: (C,) name of each prefix.
            values: (C,) value of each by itself.
            priors: (C,) share of the samples that came out as each; equal shares where None.
        """
        count = len(items)
        made = np.arange(len(self.items), len(self.items) + count)
        self.items += items
        self.node_of |= zip(names, made.tolist(), strict=True)
        self.parent += [node] * count
        self.children += [None] * count
        known = self.children[node]
        self.children[node] = made if known is None else np.append(known, made)
        self.own, self.value = np.append(self.own, values), np.append(self.value, values)
        self.prior = np.append(self.prior, np.full(count, 1 / max(count, 1)) if priors is None else priors)
        none = np.zeros(count)
        self.visits, self.total, self.in_flight = (
            np.append(old, none) for old in (self.visits, self.total, self.in_flight)
        )
        self.closed = np.append(self.closed, np.zeros(count, bool))
        return made

    def path(self, node: int) -> list[int]:
        """The nodes from the root to this one."""
        nodes = [node]
        while nodes[-1]:
            nodes.append(self.parent[nodes[-1]])
        return nodes[::-1]

    def descend(self, rule: Rule, node: int = 0) -> int:
        """The node without children at which a walk from this one ends, by a rule of selection."""
        while (below := self.children[node]) is not None and len(below):
            node = self.choose(rule, node)
        return node

    def choose(self, rule: Rule, node: int) -> int:
        """The child that the rule takes; the first of equals."""
        below = self.children[node]
        assert below is not None, "only a node with children is chosen from"
        # A rule may refuse all others for a child without a visit: it must not see one that is closed.
        below = below[~self.closed[below]] if not self.closed[below].all() else below
        # Virtual loss: a walk in flight is a visit of value 0, so that the next walk goes another way.
        waiting = self.in_flight[below]
        visits = self.visits[below] + waiting
        values = np.where(waiting > 0, self.total[below] / np.maximum(visits, 1.0), self.value[below])
        parent = float(self.visits[node] + self.in_flight[node])
        return int(below[int(np.argmax(rule(parent, visits, values, self.prior[below])))])

    def close(self, node: int) -> None:
        """Ends walks to a node, and to all above whose children are closed by then."""
        self.closed[node] = True
        while node and (around := self.children[self.parent[node]]) is not None and self.closed[around].all():
            node = self.parent[node]
            self.closed[node] = True

    def back_up(self, node: int, value: float, visits: int = 1, *, discount: float = 1.0) -> None:
        """Adds a walk to its last node and to all above: each is worth the mean over its walks.

        Args:
            node: where the walk ended.
            value: sum of the values of the visits.
            visits: how many visits the walk is.
            discount: factor of the value with each step up.
        """
        nodes = self.path(node)
        self.visits[nodes] += visits
        self.total[nodes] += value * discount ** np.arange(len(nodes) - 1, -1, -1.0)
        self.value[nodes] = self.total[nodes] / np.maximum(self.visits[nodes], 1.0)

    def back_up_children(self, node: int, *, keep: float = 0.0) -> None:
        """Counts a visit of a node and of all above: each is worth the mean of its children, weighted by their visits.

            V = (1 - keep) sum_c N_c V_c / sum_c N_c + keep V_own

        A node none of whose children was visited keeps its value.

        Args:
            node: where the walk ended.
            keep: share of a node's own value, before any walk, where it is known.
        """
        for above in reversed(self.path(node)):
            self.visits[above] += 1
            below = self.children[above]
            weight = 0.0 if below is None else self.visits[below].sum()
            if weight:
                mean, own = (self.visits[below] * self.value[below]).sum() / weight, self.own[above]
                self.value[above] = mean if np.isnan(own) else (1 - keep) * mean + keep * own

    def back_up_best(self, node: int, *, discount: float = 1.0) -> None:
        """Counts a visit of a node and of all above: each is worth its best child that was visited.

        V = discount max_c V_c
        """
        for above in reversed(self.path(node)):
            self.visits[above] += 1
            below = self.children[above]
            known = self.value[below][self.visits[below] > 0] if below is not None else np.empty(0)
            if known.size:
                self.value[above] = discount * known.max()

    def most_visited(self) -> int:
        """The leaf below the most visited children, of equals the most valuable: what the walks agree on."""
        node = 0
        while (below := self.children[node]) is not None and len(below):
            # The last key of `lexsort` is the first to sort by: visits, then value.
            node = int(below[np.lexsort((-self.value[below], -self.visits[below]))[0]])
        return node

    def nodes(self, names: Sequence[Name]) -> Nodes:
        """(m,) the node of each prefix, by its name; -1 where it is none of this tree."""
        return np.array([self.node_of.get(name, -1) for name in names], np.int64)

    def columns(self, names: Sequence[Name], *, unvisited: bool = False) -> dict[str, Floats]:
        """`visits` and `value` by the names of another tree's nodes, NaN where a node is none of this tree.

        Args:
            names: (m,) of prefixes.
            unvisited: give nodes without a visit their own value instead of NaN.
        """
        nodes = self.nodes(names)
        visits = np.where(nodes >= 0, self.visits[nodes], np.nan)
        known = (visits >= 0) if unvisited else (visits > 0)
        return {"visits": visits, "value": np.where(known, self.value[nodes], np.nan)}


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
    """UCB for trees: children without a visit first, the best scored of them leading, then the highest bound.

        Q + exploration sqrt(ln N / n)

    Kocsis and Szepesvari, ECML 2006, section 2.2.

    Args:
        parent: N, visits of the parent.
        visits: (C,) n of each child.
        values: (C,) Q, mean value.
        priors: (C,), not used.
        exploration: C.
    """
    fresh = visits == 0
    if fresh.any():
        return np.where(fresh, values, -np.inf)
    made: Floats = values + exploration * np.sqrt(np.log(max(parent, 1.0)) / visits)
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


def ucb1(
    parent: float, visits: Floats, values: Floats, priors: Floats, *, exploration: float = 0.7, unvisited: float = 1.0
) -> Floats:
    """UCB1 with a finite bonus for a child without a visit.

        Q + exploration sqrt(2 ln N / n),    Q + unvisited at n = 0

    ReST-MCTS*'s released code (arXiv:2406.03816).

    Args:
        parent: N, visits of the parent.
        visits: (C,) n of each child.
        values: (C,) Q; that of a child's own score where it has no visit.
        priors: (C,), not used.
        exploration: weight of the bonus.
        unvisited: bonus of a child without a visit.
    """
    bonus = exploration * np.sqrt(2 * np.log(max(parent, 1.0)) / np.maximum(visits, 1.0))
    return values + np.where(visits > 0, bonus, unvisited)


def ucb_smoothed(
    parent: float, visits: Floats, values: Floats, priors: Floats, *, exploration: float = 0.2, floor: float = 0.1
) -> Floats:
    """UCB whose bonus stays finite, and positive at the first walk.

        Q + exploration sqrt((1 + ln N) / (floor + n))

    VM-MCTS (arXiv:2508.19576, section 3.3).

    Args:
        parent: N, visits of the parent.
        visits: (C,) n of each child.
        values: (C,) Q, mean value.
        priors: (C,), not used.
        exploration: weight of the bonus.
        floor: added to n, positive.
    """
    made: Floats = values + exploration * np.sqrt((1 + np.log(max(parent, 1.0))) / (floor + visits))
    return made


def ucb_spread(
    parent: float, visits: Floats, values: Floats, priors: Floats, *, exploration: float = 6.36396
) -> Floats:
    """UCB whose bonus falls with the visits themselves, and is finite without any.

        Q + exploration sqrt(ln N) / (1 + n)

    ARMAP's released agents (arXiv:2502.12130).

    Args:
        parent: N, visits of the parent.
        visits: (C,) n of each child.
        values: (C,) Q.
        priors: (C,), not used.
        exploration: weight of the bonus.
    """
    made: Floats = values + exploration * np.sqrt(np.log(max(parent, 1.0))) / (1 + visits)
    return made
