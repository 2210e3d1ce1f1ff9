"""A world in which an agent counts up to a target; all values in it are known exactly."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from stepreward.core.runtime.acts import Observation
from stepreward.core.types import Problem, Step
from stepreward.environments.episode_pool import EpisodePool
from stepreward.policies.tabular import TabularPolicy

CHANCES = {"+1": 0.5, "*2": 0.3, "-1": 0.2}
TURNS = 4


def counted(value: int, action: str) -> int:
    return {"+1": value + 1, "*2": value * 2, "-1": value - 1}[action]


class Counting:
    """Starts at 1; the episode is won at the reference, and over after four actions; acting again is its only copy."""

    begun = 0

    def __init__(self) -> None:
        self.value, self.turns, self.target, self.closed = 1, 0, 0, False

    def reset(self, problem: Problem) -> Observation:
        type(self).begun += 1
        assert problem.reference is not None
        self.target = int(problem.reference)
        return Observation.of("value 1\n", outcome=0.0)

    def act(self, action: Step) -> Observation:
        assert not self.closed
        self.value, self.turns = counted(self.value, action.text.strip()), self.turns + 1
        won = self.value == self.target
        return Observation.of(
            f"value {self.value}\n", done=won or self.turns == TURNS, reward=float(won), outcome=float(won),
            answer=str(self.value),
        )  # fmt: skip

    def close(self) -> None:
        self.closed = True


class ForkedCounting(Counting):
    """The same, copied by a snapshot."""

    def fork(self) -> ForkedCounting:
        made = ForkedCounting()
        made.value, made.turns, made.target = self.value, self.turns, self.target
        return made


def pool(*, forks: bool = False, live: int = 64, concurrency: int = 1) -> EpisodePool:
    return EpisodePool(ForkedCounting if forks else Counting, "counting", live=live, concurrency=concurrency)


def policy() -> TabularPolicy:
    """Draws an action whatever it sees; each is a whole turn."""
    return TabularPolicy(lambda *_: [(Step(f"{name}\n"), chance, True) for name, chance in CHANCES.items()], "counter")


@cache
def value(at: int, turns: int, target: int) -> float:
    """Exact chance to win from a state."""
    if at == target and turns:
        return 1.0
    if turns == TURNS:
        return 0.0
    return sum(chance * value(counted(at, name), turns + 1, target) for name, chance in CHANCES.items())


def value_of(steps: Sequence[Step], target: int) -> float:
    """Exact chance to win after steps."""
    at, turns = 1, 0
    for step in steps:
        if step.kind == "action":
            at, turns = counted(at, step.text.strip()), turns + 1
    return value(at, turns, target)
