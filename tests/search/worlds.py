"""Who answers searches in an enumerable world where what is asked can be worked out beside them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stepreward.core.runtime.flows import Continuation, Propose, Score, Scored
from stepreward.core.types import Problem, Step
from stepreward.tasks.enumerable import EnumerableWorld


class Blurred:
    """Scores by the chance of success, blurred by a hash: nothing is as good as it looks. Remembers what was asked.

    Args:
        world: of three branches.
        noise: share of the hash.
    """

    name, batch_size = "blurred", 64

    def __init__(self, world: EnumerableWorld, noise: float) -> None:
        self.world, self.noise = world, noise
        self.asked: list[Score] = []

    def value(self, problem: Problem, steps: Sequence[Step]) -> float:
        """Of a prefix."""
        hashed = int("".join(s.text.strip() for s in steps) or "0", 3) * 2654435761 % 997 / 997
        return (1 - self.noise) * self.world.value(problem, steps) + self.noise * hashed

    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        self.asked += questions
        rows = [[self.value(q.problem, q.steps[: t + 1]) for t in range(len(q.steps))] for q in questions]
        return [Scored(np.array(row), len(row), len(row)) for row in rows]


class Wheel:
    """Sample i of a prefix takes choice (i + depth) of three at every step, whatever the key."""

    name, batch_size, concurrency = "wheel", 64, 1

    def __init__(self, world: EnumerableWorld) -> None:
        self.world = world
        self.asked: list[Propose] = []

    def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
        self.asked += questions
        return [[self.sample(q.problem, q.prefix, q.first + i, q.until) for i in range(q.n)] for q in questions]

    def step(self, problem: Problem, prefix: Sequence[Step], i: int) -> tuple[Step, bool]:
        """Sample i of the next step, and whether it ends the solution."""
        step, _, finished = self.world.next_steps(problem, tuple(prefix))[(i + len(prefix)) % 3]
        return step, finished

    def sample(self, problem: Problem, prefix: Sequence[Step], i: int, until: str = "end") -> Continuation:
        """Sample i after a prefix."""
        made: tuple[Step, ...] = ()
        finished = False
        while not finished and (not made or until == "end"):
            step, finished = self.step(problem, (*prefix, *made), i)
            made += (step,)
        return Continuation(made, finished, len(made))
