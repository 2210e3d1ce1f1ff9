"""What breaks the contract of an environment is named."""

from __future__ import annotations

import random

import pytest

from stepreward.core.runtime.acts import Observation
from stepreward.core.types import Problem, Step
from stepreward.testing import ContractError, check_environment
from tests.environments.counting import Counting, ForkedCounting

PROBLEM = Problem("p", "Count to 9.", "9")
ACTIONS = ["*2", "+1", "*2"]


class Plain(Counting):
    def act(self, action: Step) -> Observation:
        if action.text.strip() not in ("+1", "*2", "-1"):
            return Observation.of(f"no action {action.text!r}", outcome=0.0)
        return super().act(action)


class Forks(Plain):
    def fork(self) -> Plain:
        made = type(self)()
        made.value, made.turns, made.target = self.value, self.turns, self.target
        return made


@pytest.mark.parametrize("kind", [Plain, Forks])
def test_environments_that_keep_it(kind: type) -> None:
    check_environment(kind, PROBLEM, ACTIONS)


class Random(Plain):
    def act(self, action: Step) -> Observation:
        return Observation.of(str(random.random()))


class Shared(Forks):
    def fork(self) -> Plain:
        self.value += 1
        return self


class Beyond(Plain):
    def act(self, action: Step) -> Observation:
        return Observation.of("far", outcome=7.0)


class Speaking(Plain):
    def act(self, action: Step) -> Observation:
        return Observation((Step("I act too"),))


@pytest.mark.parametrize(
    ("kind", "rule"),
    [
        (Random, "repeats itself"), (Shared, "forks share nothing"), (Beyond, "outcomes"), (Speaking, "observations"),
        (ForkedCounting, "errors are observations"),
    ],
)  # fmt: skip
def test_the_broken_rule_is_named(kind: type, rule: str) -> None:
    with pytest.raises(ContractError) as raised:
        check_environment(kind, PROBLEM, ACTIONS)
    assert raised.value.rule == rule
