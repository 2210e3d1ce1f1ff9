"""Monte Carlo tree search against a recursive search of plain objects, and what every such tree keeps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pytest

from stepreward.core.catalog import search
from stepreward.core.keys import Key
from stepreward.core.runtime.driver import Driver
from stepreward.core.runtime.flows import Continuation, Flow, Propose, Score, Scored
from stepreward.core.search_tree import puct, uct, uct_floored
from stepreward.core.types import Problem, Step
from stepreward.search.candidates import Found
from stepreward.search.trees.mcts import puct_search, uct_search
from stepreward.tasks.enumerable import EnumerableWorld
from tests.search.worlds import Blurred

WORLD = EnumerableWorld(5, 3, seed=4)
PROBLEMS = WORLD.problems(8)
KEY = Key.seed(0)


value = Blurred(WORLD, 0.4).value


class Choices:
    """Sample i takes choice i, whatever the key."""

    name, batch_size, concurrency = "choices", 64, 1

    def __init__(self) -> None:
        self.rounds: list[int] = []

    def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
        self.rounds.append(len(questions))
        return [[self._one(q, i) for i in range(q.n)] for q in questions]

    def _one(self, question: Propose, i: int) -> Continuation:
        made: tuple[Step, ...] = ()
        finished = False
        while not finished and (not made or question.until == "end"):
            step, _, finished = WORLD.next_steps(question.problem, (*question.prefix, *made))[i % 3]
            made += (step,)
        return Continuation(made, finished, len(made))


def find(flow: Flow[Found], policy: Any = None) -> Found:
    return next(Driver(policy=policy or Choices(), scorer=Blurred(WORLD, 0.4), grader=WORLD).run([flow])).result


@dataclass
class Node:
    steps: tuple[Step, ...]
    prior: float
    own: float
    visits: int = 0
    total: float = 0.0
    children: list[Node] = field(default_factory=list)
    expanded: bool = False


def slow_search(problem: Problem, rule: str, simulations: int, width: int) -> Node:
    """One simulation after another, nodes as objects, formulas with scalars."""

    def expand(node: Node) -> None:
        node.expanded = True
        choices = WORLD.next_steps(problem, node.steps)
        counts = [sum(i % 3 == c for i in range(width)) for c in range(3)]
        for (step, _, _), count in zip(choices, counts, strict=False):
            if count:
                steps = (*node.steps, step)
                node.children.append(Node(steps, count / width, value(problem, steps)))

    def score(parent: Node, child: Node) -> float:
        mean = child.total / child.visits if child.visits else child.own
        if rule == "puct":
            bonus = math.log((parent.visits + 19652 + 1) / 19652) + 1.25
            return mean + bonus * child.prior * math.sqrt(parent.visits) / (1 + child.visits)
        if any(not c.visits for c in parent.children):
            return -math.inf if child.visits else child.own
        return mean + 1.414 * math.sqrt(math.log(parent.visits) / child.visits)

    root = Node((), 1.0, 0.0)
    expand(root)
    for _ in range(simulations):
        path = [root]
        while True:
            node = path[-1]
            if not node.expanded and node.visits and len(node.steps) < WORLD.depth:
                expand(node)
            if not node.children:
                break
            best = max(node.children, key=lambda c: score(node, c))
            path.append(best)
            if not best.visits:
                break
        for node in path:
            node.visits += 1
            node.total += path[-1].own
    return root


def flat(node: Node) -> dict[tuple[str, ...], tuple[int, float]]:
    made = {tuple(s.text for s in node.steps): (node.visits, node.total)}
    for child in node.children:
        made |= flat(child)
    return made


@pytest.mark.parametrize(("search", "rule"), [(puct_search, "puct"), (uct_search, "uct")])
@pytest.mark.parametrize(("simulations", "width"), [(1, 3), (7, 3), (60, 3), (60, 5), (40, 1)])
def test_one_at_a_time_it_is_the_recursive_search(search: Any, rule: str, simulations: int, width: int) -> None:
    for problem in PROBLEMS[:4]:
        found = find(search(problem, KEY, simulations=simulations, width=width, at_once=1))
        slow = flat(slow_search(problem, rule, simulations, width))
        tree = found.searched
        assert tree is not None
        visits, values = tree.column("visits"), tree.column("value")
        paths: list[tuple[str, ...]] = [()]
        for node in range(1, tree.n):
            paths.append((*paths[int(tree.parent[node])], tree.step(node).text))
        # What completes an answer that no simulation reached is not of the tree: NaN.
        assert {path for path, n in zip(paths, visits, strict=True) if n == n} == set(slow)
        for path, n, mean in zip(paths, visits, values, strict=True):
            assert n != n or n == slow[path][0]
            if n == n and n:
                assert mean == pytest.approx(slow[path][1] / n)


@pytest.mark.parametrize("search", [puct_search, uct_search, partial(uct_search, floored=True, exploration=2.0)])
@pytest.mark.parametrize("at_once", [1, 4, 16])
def test_visits_add_up_and_no_simulation_is_lost(search: Any, at_once: int) -> None:
    for problem in PROBLEMS:
        found = find(search(problem, KEY, simulations=32, width=3, at_once=at_once))
        tree = found.searched
        assert tree is not None
        visits = tree.column("visits")
        assert visits[0] == 32
        below = np.bincount(tree.parent[1:], weights=np.nan_to_num(visits[1:]), minlength=tree.n)
        inner = np.unique(tree.parent[1:][~np.isnan(visits[1:])])
        # Simulations that ended at a node itself: one for its first visit, more only at an end.
        ended = visits[inner] - below[inner]
        assert ((ended >= 0) & (ended <= at_once)).all()
        assert ended[inner == 0] == 0


def test_several_in_flight_fill_batches_and_go_different_ways() -> None:
    rounds = {}
    for at_once in (1, 8):
        policy = Choices()
        find(puct_search(PROBLEMS[0], KEY, simulations=48, width=3, at_once=at_once), policy)
        rounds[at_once] = policy.rounds
    assert max(rounds[1]) == 1
    assert max(rounds[8]) > 1
    assert len(rounds[8]) < len(rounds[1])


@pytest.mark.parametrize("search", [puct_search, uct_search, partial(uct_search, floored=True, exploration=2.0)])
def test_with_the_exact_value_it_finds_a_right_end(search: Any) -> None:
    class Exact:
        name, batch_size = "exact", 64

        def score_many(self, questions: Sequence[Score]) -> list[Scored]:
            rows = [[WORLD.value(q.problem, q.steps[: t + 1]) for t in range(len(q.steps))] for q in questions]
            return [Scored(np.array(row)) for row in rows]

    for problem in PROBLEMS:
        flow = search(problem, KEY, simulations=80, width=3)
        found = next(Driver(policy=Choices(), scorer=Exact(), grader=WORLD).run([flow])).result
        assert found.answer == "right"


def test_rules_worked_out() -> None:
    visits, values, priors = np.array([3.0, 0.0]), np.array([0.5, 0.2]), np.array([0.75, 0.25])
    first = 0.5 + (math.log((4 + 1 + 19652) / 19652) + 1.25) * 0.75 * 2 / 4
    second = 0.2 + (math.log((4 + 1 + 19652) / 19652) + 1.25) * 0.25 * 2 / 1
    np.testing.assert_allclose(puct(4.0, visits, values, priors), [first, second])
    assert np.argmax(uct(4.0, visits, values, priors)) == 1, "who has no visit goes first"
    # MASPRM's own: chances .75 (two visits), .5 (one) and none are values .5, 0 and 0, whose bonus counts no visit as
    # one: .5 + 2 sqrt(ln 4 / 2), 2 sqrt(ln 4), and the same.
    three = uct_floored(4.0, np.array([2.0, 1.0, 0.0]), np.array([0.75, 0.5, 0.9]), np.ones(3))
    np.testing.assert_allclose(three, [2.16511, 2.35482, 2.35482], atol=1e-5)
    assert search["masprm-mcts"].settings["exploration"] == 2.0
    both = uct(4.0, np.array([3.0, 1.0]), values, priors, exploration=1.0)
    np.testing.assert_allclose(both, [0.5 + math.sqrt(math.log(4) / 3), 0.2 + math.sqrt(math.log(4))])


@pytest.mark.parametrize("search", [puct_search, uct_search, partial(uct_search, floored=True, exploration=2.0)])
def test_too_few_simulations_still_give_an_answer(search: Any) -> None:
    found = find(search(PROBLEMS[0], KEY, simulations=4, width=3, at_once=1))
    # Four simulations expand the root and one child at most; the rest of the five steps is one sample.
    whole = found.trajectory
    assert whole is not None
    assert (len(whole), found.answer is not None) == (5, True)
    assert found.tree.trajectories()[found.chosen].terminal
    assert len(found.answers) == 1
    tree = found.searched
    assert tree is not None
    visits, node = tree.column("visits"), 0
    for step in whole.steps:
        below = np.flatnonzero(tree.parent == node)
        (node,) = (n for n in below if tree.step(n).text == step.text)
        assert np.isnan(visits[node]) or visits[node] == np.nanmax(visits[below]), "it follows the most visits"
    assert np.isnan(visits[node])
