"""A method costs one function: in each family it is then found, called, listed and offered; nothing else changes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stepreward.core.catalog import Family, families
from stepreward.core.keys import Key
from stepreward.core.runtime.driver import Driver
from stepreward.core.runtime.flows import Flow, Grade
from stepreward.core.step_check import StepCheck
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.environments.episode_pool import EpisodePool
from stepreward.pipeline.compare import comparable
from stepreward.policies.scripted import ScriptedPolicy
from stepreward.search import budgets
from stepreward.search.candidates import ROOT, Found
from stepreward.search.growth import Growth
from stepreward.serve.gateway.planning import names, plan
from stepreward.serve.requests.request_schemas import ChatRequest
from tests.cli.running import invoke
from tests.environments.counting import pool

PROBLEM = Problem("p", "1 + 1?", reference="2")
TRAJECTORY = Trajectory(PROBLEM, (Step("1 + 1\n"), Step("= 2\n")))
LABELLED = TRAJECTORY.with_columns({"label": np.array([1.0, 0.5])})
SCORES = np.array([[0.2, 0.8]])
MASK = np.array([[True, True]])


def segment(text: str) -> list[Step]:
    """Cuts at semicolons."""
    return [Step(part) for part in text.split(";")]


def estimate(problem: Problem, trajectory: Trajectory) -> Flow[float]:
    """Asks for the outcome alone."""
    (grade,) = yield [Grade(problem, trajectory.steps)]
    return float(grade)


def transform(trajectory: Trajectory) -> Trajectory:
    """Turns labels round."""
    return trajectory.with_columns({"label": 1 - trajectory.labels})


def keep(trajectories: Sequence[Trajectory]) -> NDArray[np.bool_]:
    """Keeps what is right from the start."""
    return np.array([one.labels[0] == 1 for one in trajectories])


def loss(logits: Any, labels: Any, mask: Any) -> float:
    """Counts errors of sign."""
    return float(((logits > 0) != labels)[mask].sum())


def aggregate(scores: Any, mask: Any) -> Any:
    """Takes the second score."""
    return scores[:, 1]


class Halves:
    """Halves scores."""

    def fit(self, scores: Any, outcome: Any) -> Halves:
        return self

    def predict(self, scores: Any) -> Any:
        return scores / 2


def select(totals: Any) -> Any:
    """Takes the last one."""
    return np.array([len(totals) - 1])


def search(problem: Problem, key: Key, *, n: int = 3) -> Flow[Found]:
    """Samples and takes the majority."""
    growth = Growth(problem, key)
    (candidates,) = yield from growth.complete([ROOT], n)
    return (yield from growth.conclude(candidates, select="majority"))


def credit(rewards: Any) -> Any:
    """Pays three times the reward."""
    return 3 * rewards


def reward(steps: Any) -> Any:
    """Counts characters."""
    return [len(step.text) for step in steps]


def check(problem: Problem, steps: Any) -> list[StepCheck]:
    """Knows one right step."""
    return [StepCheck(step.text == "= 2\n" or None) for step in steps]


def generate(key: Key) -> Iterator[Problem]:
    """Makes one problem."""
    yield PROBLEM


def environment() -> EpisodePool:
    """Counts."""
    return pool()


def bench(scorer: Any, data: Any) -> dict[str, int]:
    """Counts rows."""
    return {"rows": len(data)}


class Right:
    """Grades everything as right."""

    name = "right"

    def grade(self, problem: Problem, steps: Any) -> float:
        return 1.0

    def answer(self, problem: Problem, steps: Any) -> str:
        return steps[-1].text.strip()


def ran(flow: Any) -> Any:
    """The result of a flow."""
    return next(Driver(policy=ScriptedPolicy({"": ["= 2\n"]}), grader=Right()).run([flow])).result


Check = Callable[[Any], bool]
FLAT = {"rewards": [1.0, 2.0], "offsets": [0, 2]}
ONE_OF_EACH: dict[str, tuple[Any, dict[str, Any], Check]] = {
    "segment": (segment, {"text": "a;b"}, lambda made: [step.text for step in made] == ["a", "b"]),
    "estimate": (estimate, {"problem": PROBLEM, "trajectory": TRAJECTORY}, lambda flow: ran(flow) == 1.0),
    "transform": (transform, {"trajectory": LABELLED}, lambda made: made.labels.tolist() == [0, 0.5]),
    "filter": (keep, {"trajectories": [LABELLED, TRAJECTORY]}, lambda made: made.tolist() == [True, False]),
    "loss": (loss, {"logits": SCORES - 0.5, "labels": np.array([[1, 1]]), "mask": MASK}, lambda made: made == 1),
    "aggregate": (aggregate, {"scores": SCORES, "mask": MASK}, lambda made: made.tolist() == [0.8]),
    "calibrate": (Halves, {}, lambda made: made.fit([0.5], [1]).predict(SCORES).tolist() == [[0.1, 0.4]]),
    "select": (select, {"totals": np.array([0.1, 0.9, 0.5])}, lambda made: made.tolist() == [2]),
    "search": (search, {"problem": PROBLEM, "key": Key.seed(0)}, lambda flow: ran(flow).answers == ("= 2",) * 3),
    "credit": (credit, FLAT, lambda made: made.tolist() == [3, 6]),
    "shape": (credit, FLAT, lambda made: made.tolist() == [3, 6]),
    "reward": (reward, {"steps": TRAJECTORY.steps}, lambda made: made == [6, 4]),
    "check": (
        check,
        {"problem": PROBLEM, "steps": TRAJECTORY.steps},
        lambda made: [m.right for m in made] == [None, True],
    ),
    "generate": (generate, {"key": Key.seed(0)}, lambda made: list(made) == [PROBLEM]),
    "environment": (environment, {}, lambda made: made.name == "counting"),
    "bench": (bench, {"scorer": "any", "data": [1, 2]}, lambda made: made == {"rows": 2}),
}
"""A function of each family, data for it, and what it makes of them."""


@pytest.fixture(params=families)
def added(request: pytest.FixtureRequest) -> Iterator[tuple[Family, str]]:
    """A family with one method more, which is taken out again."""
    family = families[request.param]
    before = [method.name for method in family]
    declared = {"budget": budgets.samples} if family.name == "search" else {}
    family.method("one-more", note="an example", **declared)(ONE_OF_EACH[family.name][0])
    yield family, before[0]
    del family._methods["one-more"]
    assert [method.name for method in family] == before


def test_one_function_is_a_method(added: tuple[Family, str]) -> None:
    family, other = added
    _, data, check = ONE_OF_EACH[family.name]
    assert check(family["one-more"].take(data))
    rows = {row["name"]: row for row in json.loads(invoke(f"methods {family.name} --json"))}
    assert other in rows
    assert rows["one-more"]["summary"] == family["one-more"].summary
    assert "one-more" in invoke(f"methods {family.name}")


def test_a_search_is_then_offered_compared_and_budgeted() -> None:
    family = families["search"]
    family.method("one-more", note="an example", budget=budgets.samples)(search)
    try:
        assert "policy:one-more" in names("policy")
        assert "one-more" in comparable()
        body = {"model": "policy:one-more", "messages": [{"role": "user", "content": "?"}], "budget": 5}
        assert plan(ChatRequest.model_validate(body), "policy", "beam", {}).settings == {"n": 5}
    finally:
        del family._methods["one-more"]
