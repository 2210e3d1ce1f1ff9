"""What every search declares, held against a run of it: whom it asks, and that a budget is never exceeded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from stepreward.core.catalog import families, search
from stepreward.core.errors import InputError, MissingDataError
from stepreward.core.keys import Key
from stepreward.core.method import Method
from stepreward.core.runtime.flows import Compare, Continuation, Extract, Propose, Question, Score
from stepreward.core.types import Problem, Step
from stepreward.core.vocabulary import ASKS
from stepreward.search.budgets import SOLUTIONS, STEPS, WALKS

EVERY = pytest.mark.parametrize("method", list(search), ids=lambda m: m.name)
DEPTH = 3
"""Steps of a solution of the small world; a step is a digit, and is worth a tenth of it."""
PROBLEM = Problem("p", "p")


@dataclass
class World:
    """Answers every question of a search by hand, and notes what was asked."""

    tells: tuple[str, ...] = ("logprobs", "self_certainty")
    asked: set[str] = field(default_factory=set)
    rounds: list[list[Propose]] = field(default_factory=list)
    """Questions to the policy, round by round; without those to an expert and those whose answers are no solutions."""

    def run(self, method: Method[..., Any], settings: Mapping[str, Any], seed: int = 0) -> Any:
        flow = method.take({"problem": PROBLEM, "key": Key.seed(seed)}, **settings)
        try:
            questions = next(flow)
            while True:
                of_solutions = [q for q in questions if isinstance(q, Propose) and not q.expert]
                self.rounds.append([q for q in of_solutions if q.problem.id == "p" or q.partial])
                questions = flow.send([self.answer(question) for question in questions])
        except StopIteration as end:
            return end.value

    def answer(self, question: Question) -> Any:
        if isinstance(question, Propose):
            self.asked |= {"policy", *(["expert"] if question.expert else [])}
            self.asked |= {"instructions"} if question.problem.id != PROBLEM.id else set()
            return [self._continued(question, key) for key in question.sample_keys()]
        if isinstance(question, Score):
            self.asked.add("scorer")
            return np.array([int(step.text) / 10 for step in question.steps])
        if isinstance(question, Compare):
            self.asked.add("judge")
            return 0.75
        self.asked.add("grader")
        return "".join(step.text for step in question.steps) if isinstance(question, Extract) else 1.0

    def _continued(self, question: Propose, key: Key) -> Continuation:
        left = DEPTH - len(question.prefix)
        count = min(1 if question.until == "step" else left, left)
        logprobs = (-0.5,) if "logprobs" in self.tells else None
        meta = {"self_certainty": 1.0} if "self_certainty" in self.tells else {}
        steps = tuple(Step(str(d), logprobs=logprobs, meta=meta) for d in key.rng().integers(10, size=count))
        return Continuation(steps, len(steps) == left, len(steps))


@pytest.mark.sampled(4)
@EVERY
def test_it_asks_exactly_those_that_it_declares(method: Method[..., Any]) -> None:
    told = set(method.asks) & {"logprobs", "self_certainty"}
    world = World(tuple(told))
    for seed in range(5):
        world.run(method, {}, seed)
    assert world.asked | told == set(method.asks)
    assert len(set(method.asks)) == len(method.asks)
    for name in told:
        with pytest.raises(MissingDataError, match=name):
            World(tuple(told - {name})).run(method, {})


def counted(world: World, found: Any, unit: str) -> int:
    """What a run spent, in a unit of a budget."""
    if unit == STEPS:
        return max(sum(question.n for question in asked) for asked in world.rounds)
    if unit == SOLUTIONS:
        return sum(q.n for asked in world.rounds for q in asked if q.until == "end" or not q.prefix)
    assert unit == WALKS
    return int(np.nansum(found.searched.column("visits")[found.searched.parent == 0]))


@pytest.mark.sampled(4)
@EVERY
@pytest.mark.parametrize("budget", [1, 2, 3, 5, 6, 8, 13, 16])
def test_a_budget_is_never_exceeded_and_nearly_spent(method: Method[..., Any], budget: int) -> None:
    assert method.budget is not None
    settings = method.within(budget)
    world = World()
    spent = counted(world, world.run(method, settings), method.budget.unit)
    assert 1 <= spent <= budget, settings
    if method.name in ("beam", "dvts", "best-of-n", "rebase", "particle-filter", "vm-mcts", "mcts", "particle-gibbs"):
        # Those that neither stop early nor merge: what the grid of two settings cannot use is a quarter at most.
        assert spent >= budget - budget / 4 - 1, settings


@EVERY
def test_what_a_budget_does_not_decide_is_left_to_the_user(method: Method[..., Any]) -> None:
    made = method.within(8)
    assert made.keys() <= method.settings.keys()
    assert all(type(value) is type(method.settings[name]) for name, value in made.items())
    for name in ("aggregate", "vote", "max_steps", "threshold"):
        assert name not in made
    for wrong in (0, -1):
        with pytest.raises(InputError, match="at least 1"):
            method.within(wrong)


def test_a_width_that_the_user_names_bounds_that_of_the_budget() -> None:
    assert search["beam"].within(8) == {"beams": 2, "width": 4}
    assert search["beam"].within(8, {"width": 8}) == {"beams": 1, "width": 8}
    assert search["beam"].within(7) == {"beams": 2, "width": 3}
    assert search["greedy"].within(8) == {"width": 8}, "greedy keeps one candidate whatever the budget"
    assert search["mcts"].within(8) == {"simulations": 8}
    assert search["glore"].within(2) == {"n": 1, "local_request": ""}
    assert search["search-r2"].within(1) == {"n": 1, "rounds": 0}
    assert search["omega"].within(8, {"again": 1}) == {"n": 4, "rounds": 4, "again": 1}


def test_words_are_those_of_the_vocabulary() -> None:
    asked = {name for family in families.values() for method in family for name in method.asks}
    assert asked == ASKS.keys()
