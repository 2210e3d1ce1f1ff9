"""The Monte Carlo tree that labels steps; published labellers are presets of its settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import numpy as np

from stepreward.core.catalog import estimate
from stepreward.core.errors import BudgetExhausted, InputError
from stepreward.core.keys import Key
from stepreward.core.runtime.flows import Flow
from stepreward.core.search_tree import Rule, puct, ucb1, ucb_smoothed, ucb_spread, uct, uct_floored
from stepreward.core.tree import StepTree
from stepreward.core.types import Floats, Problem
from stepreward.core.vocabulary import Count
from stepreward.label.rollouts import Unfinished
from stepreward.label.trees.growing import Growing, Prior
from stepreward.label.trees.readouts import (
    any_right,
    best_leaf,
    discounted_leaves,
    distance_values,
    leaf_share,
    scaled,
)

Select = Literal["uct", "uct-floored", "ucb1", "ucb-smoothed", "ucb-spread", "puct", "random", "breadth"]
"""How walks go down: by a rule of `core.search_tree`, at random, or all prefixes of a depth before the next."""
Leaf = Literal["playout", "path", "rollouts", "scores", "score", "completions", "ends"]
"""What is valued where a walk ends: one new step by a rollout; a path of kept steps to an end; every new step by
rollouts, or by its score; the expanded step by its score; whole solutions whose first steps are the new ones; ends."""
Backup = Literal["mean", "children", "best"]
"""How values go up: the mean over walks; the mean of children by visits; the best child."""
Readout = Literal["mean", "leaf-share", "any-right", "distance", "best", "discounted", "score"]
"""What a step is worth in the end: what was backed up, a function of the ends below (`readouts`), or its score."""


_TOGETHER = 16
"""Prefixes of a depth that are expanded by one list of questions."""


@dataclass
class _Stop:
    """When a search has enough; 0 of each is never."""

    right_ends: int
    wrong_ends: int
    most_nodes: int
    stable: int
    moved: float
    sure: float
    _still: int = field(default=0, init=False)
    _last: float = field(default=float("nan"), init=False)

    def reached(self, grown: Growing) -> bool:
        """Called after each walk."""
        tree = grown.tree
        if self.most_nodes and len(tree.items) >= self.most_nodes:
            return True
        if self.right_ends or self.wrong_ends:
            right, wrong = grown.ends
            if right >= self.right_ends and wrong >= self.wrong_ends:
                return True
        if not self.stable:
            return False
        value = float(tree.value[0])
        still = abs(value - self._last) <= self.moved
        self._last = self._last if still else value
        self._still = self._still + 1 if still or min(value, 1 - value) <= self.sure else 0
        return self._still >= self.stable


@estimate.method(
    "tree",
    paper="Kocsis and Szepesvari, Bandit based Monte-Carlo Planning, ECML 2006",
    equation="section 2.2",
    note="its settings are those in which published tree labellers differ; a value is that under the search, which "
    "prefers good steps, and not under the policy: labels of different numbers of walks do not compare",
    asks=("policy", "grader"),
    transform="soft",
)
def monte_carlo_tree(
    problem: Problem,
    key: Key,
    *,
    simulations: Count = 32,
    width: Count = 4,
    select: Select = "uct",
    exploration: float = 1.414,
    unvisited: float = 1.0,
    floor: float = 0.1,
    prior: Prior = "share",
    first: float = -1.0,
    revisit: bool = True,
    leaf: Leaf = "playout",
    n: Count = 1,
    least: int = 0,
    greedy: bool = False,
    look_ahead: int = 0,
    alpha: float = 0.5,
    backup: Backup = "mean",
    keep: float = 0.0,
    discount: float = 1.0,
    readout: Readout = "mean",
    scale: bool = False,
    compress: float = 0.0,
    max_steps: Count = 40,
    right_ends: int = 0,
    wrong_ends: int = 0,
    most_nodes: int = 0,
    stable: int = 0,
    moved: float = 0.005,
    sure: float = 0.025,
    unfinished: Unfinished = "wrong",
) -> Flow[StepTree]:
    """Grows a tree of next steps by Monte Carlo search, and labels every step with what the search made of it.

    A walk goes down by `select` to a prefix without children, samples its next steps, values what is new, and backs the
    values up; equal samples are one child. An end is worth its outcome; one that could not be graded counts nothing.

    Args:
        problem: the problem.
        key: randomness.
        simulations: walks; depths where `select` is `breadth`.
        width: samples of next steps at an expansion.
        select: how walks go down.
        exploration: weight of the bonus of a rule of selection.
        unvisited: bonus of a child without a visit, of `ucb1`.
        floor: added to visits, of `ucb-smoothed`.
        prior: of `puct`.
        first: what a step counts as in selection before a walk comes to it; negative: its own value, 0 where it has
            none.
        revisit: walks may come to an end again, and count it again.
        leaf: what is valued where a walk ends.
        n: rollouts of a step, of `rollouts` and `playout`.
        least: where positive, a step at depth d has max(n // (d + 1), least) rollouts instead, 0 the bare problem.
        greedy: rollouts take the likeliest tokens.
        look_ahead: steps of a path behind the best new step, of `scores`: V = (1 - alpha) V + alpha max V on the path.
        alpha: see `look_ahead`.
        backup: how values go up.
        keep: share of a step's own value in that of its children, of `children`.
        discount: factor of a value with each step up, of `mean` and `best`, and of `discounted`.
        readout: what a step is worth in the end.
        scale: from 0, the least value of the tree, to 1, its largest.
        compress: chance of each step with three siblings or more to be joined with the one before it, at most one of
            them; read-outs of ends are of the tree behind it.
        max_steps: steps of a path; what is longer is an end that `unfinished` decides.
        right_ends, wrong_ends: distinct ends, both of which are enough; 0: not looked at.
        most_nodes: nodes that are enough; 0: not looked at.
        stable: walks in a row that are enough, in which the bare problem's value stayed within `moved` of what it was
            when it last moved, or within `sure` of 0 or 1; 0: not looked at.
        moved, sure: see `stable`.
        unfinished: what a path or a rollout that a limit cut counts as.

    Returns:
        The tree with columns value, n_rollouts, n_correct, visits, low, high, and score where there is a reward model.
        Values are in [0, 1] where outcomes and scores are. A spent budget returns what there is.

    Raises:
        InputError: a setting is out of its range, or priors are log-probabilities that the policy does not report.
    """
    shares = {"alpha": alpha, "keep": keep, "compress": compress}
    if not (all(0 <= share <= 1 for share in shares.values()) and 0 < discount <= 1 and floor > 0):
        what = f"{shares} must be in [0, 1], discount {discount} in (0, 1], floor {floor} positive"
        raise InputError(what, remedy="change that setting")
    if select == "breadth" and leaf in ("path", "score", "completions"):
        raise InputError(f"leaf={leaf} is of walks", remedy="take ends, rollouts, scores or playout with breadth")
    scored = leaf in ("scores", "score") or readout == "score"
    grown = Growing(problem, key, width=width, max_steps=max_steps, prior=prior, unfinished=unfinished, scored=scored)
    rules: Mapping[str, Rule] = {
        "uct": partial(uct, exploration=exploration),
        "uct-floored": partial(uct_floored, exploration=exploration),
        "ucb1": partial(ucb1, exploration=exploration, unvisited=unvisited),
        "ucb-smoothed": partial(ucb_smoothed, exploration=exploration, floor=floor),
        "ucb-spread": partial(ucb_spread, exploration=exploration),
        # A constant bonus: the logarithm of the rule is that of a very large base.
        "puct": partial(puct, base=1e12, start=exploration),
        "random": grown.at_random,
    }
    walks = _Walks(grown, leaf, n, least, greedy, look_ahead, alpha, backup, keep, discount, revisit)
    stop = _Stop(right_ends, wrong_ends, most_nodes, stable, moved, sure)
    try:
        for number in range(simulations):
            if grown.tree.closed[0]:
                break
            if select == "breadth":
                yield from walks.level(number)
            else:
                yield from walks.walk(grown.tree.descend(rules[select]))
            if stop.reached(grown):
                break
    except BudgetExhausted:
        pass
    grown.compress(compress)
    value = _read(grown, readout, discount)
    return grown.grown(scaled(value) if scale else value)


@dataclass
class _Walks:
    """What happens where a walk ends."""

    grown: Growing
    leaf: Leaf
    n: int
    least: int
    greedy: bool
    look_ahead: int
    alpha: float
    backup: Backup
    keep: float
    discount: float
    revisit: bool

    def level(self, depth: int) -> Flow[None]:
        """Expands all open prefixes of a depth, some at a time, so that a budget that ends keeps what was paid."""
        tree = self.grown.tree
        depths = [0]
        for parent in tree.parent[1:]:
            depths.append(depths[parent] + 1)
        nodes = [i for i, place in enumerate(tree.items) if depths[i] == depth and not place.ended]
        if not nodes:
            tree.close(0)
        for at in range(0, len(nodes), _TOGETHER):
            some = nodes[at : at + _TOGETHER]
            children = yield from self.grown.expand(some)
            for node, own in zip(some, children, strict=True):
                self._settle_ends([node])
                yield from self._value(own)

    def walk(self, node: int) -> Flow[None]:
        """Goes on from the prefix without children at which a walk ends."""
        grown = self.grown
        if self._settle_ends([node]):
            return
        if self.leaf == "completions":
            yield from self._complete(node)
        elif self.leaf == "path":
            yield from self._path(node)
        else:
            (children,) = yield from grown.expand([node])
            if self._settle_ends([node]):
                return
            if self.leaf == "score":
                # New steps wait for walks of their own; ends are worth their outcome at once.
                self._settle(node, grown.at(node).score)
                self._settle_ends(children)
            else:
                yield from self._value(children)

    def _path(self, node: int) -> Flow[None]:
        while True:
            (children,) = yield from self.grown.expand([node])
            if self._settle_ends([node]) or self._settle_ends(children) or not children:
                return
            node = self.grown.pick(children)

    def _complete(self, node: int) -> Flow[None]:
        made = yield from self.grown.complete(node)
        self._settle_ends([node])
        for child, outcomes in made:
            known = [outcome for outcome in outcomes if not np.isnan(outcome)]
            if known:
                self._settle(node, float(np.mean(known)), len(known))
            if self.grown.at(child).ended:
                self._close(child)

    def _value(self, children: Sequence[int]) -> Flow[None]:
        """Values new steps: ends by their outcome, others by what `leaf` says."""
        grown = self.grown
        if self.leaf == "playout" and children:
            # One new step alone: the others wait for walks of their own.
            children = [grown.pick(children)]
        open_ = [child for child in children if not grown.at(child).ended]
        if self.leaf == "scores" and self.look_ahead:
            yield from self._look_ahead(children)
            return
        # Before anything else is asked: a budget may end there.
        self._settle_ends(children)
        if self.leaf in ("playout", "rollouts") and open_:
            yield from grown.roll_out(open_, [self._rollouts(child) for child in open_], greedy=self.greedy)
        if self.leaf != "ends":
            for child in open_:
                self._settle(child, float(grown.tree.own[child]))

    def _look_ahead(self, children: Sequence[int]) -> Flow[None]:
        """Corrects the value of the best new step by a path behind it, and backs that one up."""
        grown, values = self.grown, self.grown.tree.own
        known = [child for child in children if not np.isnan(values[child])]
        if known:
            best = max(known, key=lambda child: float(values[child]))
            value = float(values[best])
            if not grown.at(best).ended:
                ahead = yield from grown.look_ahead(best, self.look_ahead)
                value = value if np.isnan(ahead) else (1 - self.alpha) * value + self.alpha * ahead
            self._settle(best, value)
        for child in children:
            if grown.at(child).ended:
                self._close(child)

    def _rollouts(self, node: int) -> int:
        return max(self.n // (self.grown.at(node).depth + 1), self.least) if self.least else self.n

    def _settle_ends(self, children: Sequence[int]) -> bool:
        """Backs up the outcome of every end among nodes; True where there is one."""
        ends = [child for child in children if self.grown.at(child).ended]
        for child in ends:
            self._settle(child, self.grown.at(child).outcome)
            self._close(child)
        return bool(ends)

    def _close(self, end: int) -> None:
        if not self.revisit or np.isnan(self.grown.at(end).outcome):
            self.grown.tree.close(end)

    def _settle(self, node: int, value: float, visits: int = 1) -> None:
        """Backs a value up from a node; one that is not known is none."""
        if np.isnan(value):
            return
        tree = self.grown.tree
        if self.backup == "mean":
            tree.back_up(node, value * visits, visits, discount=self.discount)
            return
        if tree.children[node] is None:
            tree.value[node] = value
        if self.backup == "children":
            tree.back_up_children(node, keep=self.keep)
        else:
            tree.back_up_best(node, discount=self.discount)


def _read(grown: Growing, readout: Readout, discount: float) -> Floats:
    """(n,) what each node is worth in the end, NaN where not measured."""
    tree, arrays = grown.tree, grown.arrays()
    parent, ends, samples = arrays["parent"], arrays["ends"], arrays["samples"]
    if readout == "mean":
        return np.where(tree.visits > 0, tree.value, ends)
    if readout == "score":
        return np.array([place.score for place in tree.items])
    if readout == "leaf-share":
        return leaf_share(parent, ends, samples)
    if readout == "discounted":
        return discounted_leaves(parent, ends, samples, discount=discount)
    if readout == "best":
        return best_leaf(parent, ends, discount=discount)
    return any_right(parent, ends) if readout == "any-right" else distance_values(parent, ends)
