"""ReST-MCTS*'s search against a transcription of the published rounds, and what its settings do at their limits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from stepreward.core.catalog import search
from stepreward.core.keys import Key
from stepreward.core.runtime.driver import Driver
from stepreward.core.runtime.flows import Continuation, Propose, Score, Scored
from stepreward.core.types import Problem, Step
from stepreward.search.candidates import Found
from stepreward.tasks.enumerable import EnumerableWorld
from tests.search.worlds import Blurred, Wheel

WORLD = EnumerableWorld(5, 3, seed=4)
PROBLEMS = WORLD.problems(6)
KEY = Key.seed(0)


SCORER, POLICY = Blurred(WORLD, 0.4), Wheel(WORLD)
value, option = SCORER.value, POLICY.step


def find(problem: Problem, **how: Any) -> Found:
    flow = search["rest-mcts"].take({"problem": problem, "key": KEY}, **how)
    return next(Driver(policy=POLICY, scorer=SCORER, grader=WORLD).run([flow])).result


Name = tuple[str, ...]


class Published:
    """The published rounds, on dictionaries by the texts of a prefix, with recursion for its loops."""

    def __init__(
        self, problem: Problem, *, width: int = 3, exploration: float = 0.7, unvisited: float = 1.0, alpha: float = 0.5,
        rollout_width: int = 1, rollout_steps: int = 3, gate: float = 0.9,
    ) -> None:  # fmt: skip
        self.problem, self.width, self.c, self.inf, self.alpha = problem, width, exploration, unvisited, alpha
        self.branch, self.forward, self.gate = rollout_width, rollout_steps, gate
        self.steps: dict[Name, tuple[Step, ...]] = {(): ()}
        self.ends: set[Name] = set()
        self.kids: dict[Name, list[Name]] = {}
        self.n: dict[Name, int] = {(): 0}
        self.v: dict[Name, float] = {(): 0.0}

    def run(self, rounds: int) -> Name | None:
        for _ in range(rounds):
            node = self.select(())
            if node in self.ends and self.v[node] >= self.gate:
                return node
            if node not in self.ends:
                self.expand(node)
                leaf = self.favourite(node)
                top = self.v[leaf] if leaf in self.ends else self.greedy(self.steps[leaf], self.forward)
                self.v[leaf] = self.v[leaf] * (1 - self.alpha) + top * self.alpha
                self.n[leaf] += 1
            self.back(node)
        return None

    def select(self, node: Name) -> Name:
        return self.select(self.favourite(node)) if node in self.kids else node

    def favourite(self, node: Name) -> Name:
        def bound(kid: Name) -> float:
            if self.n[kid] == 0:
                return self.v[kid] + self.inf
            return self.v[kid] + self.c * math.sqrt(2 * math.log(self.n[node]) / self.n[kid])

        return max(self.kids[node], key=bound)

    def expand(self, node: Name) -> None:
        self.kids[node] = []
        for i in range(self.width):
            step, finished = option(self.problem, self.steps[node], i)
            kid = (*node, step.text)
            if kid in self.kids[node]:
                continue
            self.kids[node].append(kid)
            self.steps[kid] = (*self.steps[node], step)
            self.n[kid], self.v[kid] = 0, value(self.problem, self.steps[kid])
            self.ends |= {kid} if finished else set()

    def greedy(self, at: tuple[Step, ...], more: int) -> float:
        if more == 0:
            return 0.0
        made = [option(self.problem, at, self.width + i) for i in range(self.branch)]
        worth = [value(self.problem, (*at, step)) for step, _ in made]
        top = worth.index(max(worth))
        if made[top][1]:
            return worth[top]
        return max(worth[top], self.greedy((*at, made[top][0]), more - 1))

    def back(self, node: Name) -> None:
        for length in range(len(node), -1, -1):
            at = node[:length]
            self.n[at] += 1
            if (below := sum(self.n[kid] for kid in self.kids.get(at, ()))) > 0:
                self.v[at] = sum(self.n[kid] * self.v[kid] for kid in self.kids[at]) / below


SETTINGS = [
    {},
    {"width": 2, "exploration": 0.2},
    {"rollout_width": 2, "alpha": 0.8, "rollout_steps": 2},
    {"unvisited": 0.1, "exploration": 1.4},
    {"gate": 0.5},
    {"alpha": 0.0, "rollout_steps": 0},
    {"alpha": 1.0},
]


@pytest.mark.sampled(4)
@pytest.mark.parametrize("how", SETTINGS, ids=str)
@pytest.mark.parametrize("rounds", [1, 7, 60])
def test_it_is_the_published_search(how: dict[str, Any], rounds: int) -> None:
    for problem in PROBLEMS:
        slow = Published(problem, **how)
        accepted = slow.run(rounds)
        found = find(problem, simulations=rounds, **how)
        tree = found.searched
        assert tree is not None
        assert found.trajectory is not None
        paths: list[Name] = [()]
        for node in range(1, tree.n):
            paths.append((*paths[int(tree.parent[node])], tree.step(node).text))
        visits, values = (dict(zip(paths, tree.column(name), strict=True)) for name in ("visits", "value"))
        # What roll-outs passed and the tree did not is NaN.
        assert {path for path, n in visits.items() if n == n} == set(slow.n)
        assert [visits[path] for path in slow.n] == list(slow.n.values())
        assert [values[path] for path in slow.n] == pytest.approx(list(slow.v.values()))
        chosen = tuple(step.text for step in found.trajectory.steps)
        if accepted is not None:
            assert chosen == accepted
        elif slow.ends:
            assert slow.v[chosen] == max(slow.v[end] for end in slow.ends)
        assert found.trajectory.terminal


def test_both_ways_to_end_are_met() -> None:
    ended = [Published(problem, gate=0.5).run(60) is not None for problem in PROBLEMS]
    assert any(ended)
    assert any(Published(problem).run(7) is None for problem in PROBLEMS)


def test_a_step_that_reads_well_and_leads_nowhere_loses_its_lead() -> None:
    # Two first steps: `a`, 0.6, leads to 0.1; `b`, 0.5, leads to 0.9. After one roll-out each: 0.35 and 0.7.
    scores = {"a": 0.6, "ax": 0.1, "b": 0.5, "bx": 0.9}

    class Two:
        name, batch_size, concurrency = "two", 64, 1

        def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
            return [[self._one(q, i) for i in range(q.n)] for q in questions]

        def _one(self, question: Propose, i: int) -> Continuation:
            text = "x" if question.prefix else "ab"[i % 2]
            return Continuation((Step(text),), text == "x", 1)

    class Told:
        name, batch_size = "told", 64

        def score_many(self, questions: Sequence[Score]) -> list[Scored]:
            texts = ["".join(s.text for s in q.steps) for q in questions]
            return [Scored(np.array([scores[text[: t + 1]] for t in range(len(text))])) for text in texts]

    class Reads:
        name = "reads"

        def grade(self, problem: Problem, steps: Sequence[Step]) -> float:
            return 0.0

        def answer(self, problem: Problem, steps: Sequence[Step]) -> str | None:
            return steps[-1].text

    def after(alpha: float) -> dict[str, float]:
        data = {"problem": Problem("p", "?"), "key": KEY}
        flow = search["rest-mcts"].take(data, simulations=1, width=2, alpha=alpha)
        tree = next(Driver(policy=Two(), scorer=Told(), grader=Reads()).run([flow])).result.searched
        assert tree is not None
        return {tree.step(n).text: float(tree.column("value")[n]) for n in range(1, tree.n)}

    assert after(0.5)["a"] == pytest.approx(0.35)
    assert after(0.0)["a"] == pytest.approx(0.6)
    assert after(0.5)["b"] == pytest.approx(0.5), "it was not visited"


def test_a_prefix_of_the_most_steps_is_not_expanded() -> None:
    tree = find(PROBLEMS[0], simulations=60, max_steps=2, alpha=0.0).searched
    assert tree is not None
    nodes = np.bincount(tree.depth).tolist()
    assert nodes[:3] == [1, 3, 9]
    assert nodes[3:] == [1, 1, 1], "below it there is only the sample that completes the best leaf"


def test_alpha_out_of_range() -> None:
    with pytest.raises(ValueError, match="alpha must be in"):
        find(PROBLEMS[0], alpha=1.5)
