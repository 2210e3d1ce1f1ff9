"""A world small enough to know everything about: right steps `a` and `b`, slips `s`, fatal errors `x`.

A solution has `length` steps. A fatal error loses it for good; after a slip, errors are twice as likely.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np

from stepreward.core.types import Problem, Step, Trajectory
from stepreward.policies.tabular import TabularPolicy
from stepreward.tasks.enumerable import EnumerableWorld

PROBLEM = Problem("p", "Get to the end without an x.")


def steps(letters: str) -> tuple[Step, ...]:
    """One step a letter."""
    return tuple(Step(f"{letter}\n") for letter in letters)


def letters(prefix: Sequence[Step]) -> str:
    return "".join(step.text.strip() for step in prefix)


def saying(world: EnumerableWorld) -> TabularPolicy:
    """The policy of an enumerable world, which reports the log-probabilities of its steps."""

    def choices(problem: Problem, prefix: Sequence[Step]) -> list[tuple[Step, float, bool]]:
        return [(replace(step, logprobs=(math.log(p),)), p, end) for step, p, end in world.next_steps(problem, prefix)]

    return TabularPolicy(choices, world.name)


@dataclass(frozen=True)
class World:
    """Also the grader of its solutions."""

    length: int = 6
    error: float = 0.15
    slip: float = 0.1
    name: str = field(default="no x", init=False)

    def choices(self, problem: Problem, prefix: Sequence[Step]) -> list[tuple[Step, float, bool]]:
        if len(prefix) == self.length:
            return []
        slipped = any(step.text == "s\n" for step in prefix)
        error = self.error * (2 if slipped else 1)
        chances = {"a": (1 - error - self.slip) / 2, "b": (1 - error - self.slip) / 2, "s": self.slip, "x": error}
        return [(Step(f"{name}\n"), chance, len(prefix) == self.length - 1) for name, chance in chances.items()]

    def policy(self) -> TabularPolicy:
        return TabularPolicy(self.choices, f"world {self.length} {self.error} {self.slip}")

    def grade(self, problem: Problem, solution: Sequence[Step]) -> float:
        return float(all(step.text != "x\n" for step in solution))

    def answer(self, problem: Problem, solution: Sequence[Step]) -> str | None:
        return None

    def value(self, prefix: Sequence[Step]) -> float:
        """The chance that the policy solves the problem from here, by recursion over everything it may do."""
        written = letters(prefix)
        return _value(self, len(written), "s" in written, "x" in written)

    def truth(self, trajectory: Trajectory) -> np.ndarray:
        return np.array([self.value(trajectory.prefix(t + 1)) for t in range(len(trajectory))])

    def trajectory(self, text: str, problem: Problem = PROBLEM) -> Trajectory:
        return Trajectory(problem, steps(text), self.grade(problem, steps(text)))


@cache
def _value(world: World, length: int, slipped: bool, lost: bool) -> float:
    """The value of each prefix of this length: of a slip and of an error it only counts that they are there."""
    prefix = steps(("s" * slipped + "x" * lost).ljust(length, "a"))
    choices = world.choices(PROBLEM, prefix)
    if not choices:
        return world.grade(PROBLEM, prefix)
    return sum(
        chance * _value(world, length + 1, slipped or step.text == "s\n", lost or step.text == "x\n")
        for step, chance, _ in choices
    )
