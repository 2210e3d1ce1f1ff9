"""Worlds whose every value is known, a policy and a reward model in them, and what an estimator's runs there cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from stepreward.core.catalog import estimate
from stepreward.core.keys import Key, uniforms
from stepreward.core.runtime.driver import Driver
from stepreward.core.runtime.flows import Score, Scored
from stepreward.core.types import Problem, Step
from stepreward.policies.tabular import TabularPolicy
from stepreward.tasks.enumerable import EnumerableWorld

KEY = Key.seed(0)
T_95 = {1: math.nan, 2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365}
"""The 97.5 % point of Student's t of one degree of freedom less, by the number of worlds."""


def saying(world: EnumerableWorld) -> TabularPolicy:
    """The world's policy, which reports log-probabilities: of two to five tokens a step, one of which decides."""

    def choices(problem: Problem, prefix: Sequence[Step]) -> list[tuple[Step, float, bool]]:
        return [(_said(problem, prefix, step, p), p, end) for step, p, end in world.next_steps(problem, prefix)]

    return TabularPolicy(choices, world.name)


def _said(problem: Problem, prefix: Sequence[Step], step: Step, p: float) -> Step:
    bits = np.array([KEY.fold("tokens", problem.id, *(one.text for one in prefix), step.text).bits], np.uint64)
    more = 1 + int(4 * uniforms(bits, 0)[0])
    sure = max(math.log(p) / (more + 1), math.log(0.99))
    return replace(step, logprobs=(math.log(p) - more * sure, *[sure] * more))


@dataclass(frozen=True)
class Blurred:
    """Exact values with noise of a standard deviation of 0.15, within [0, 1]: a fair reward model."""

    world: EnumerableWorld
    name: str = "exact values, blurred"
    batch_size: int = 256

    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        """Scores of each step."""
        return [
            Scored(np.array([self._score(q.problem, q.steps[: i + 1]) for i in range(len(q.steps))])) for q in questions
        ]

    def _score(self, problem: Problem, prefix: Sequence[Step]) -> float:
        bits = np.array([KEY.fold("blur", problem.id, *(step.text for step in prefix)).bits], np.uint64)
        noise = 0.15 * math.sqrt(12) * (float(uniforms(bits, 0)[0]) - 0.5)
        return float(np.clip(self.world.value(problem, prefix) + noise, 0.0, 1.0))


@dataclass(frozen=True)
class Run:
    """One estimator over the solutions, or problems, of one world."""

    made: list[Any]
    rollouts: int
    tokens: int


def run(world: EnumerableWorld, name: str, items: Sequence[Any], settings: Mapping[str, Any]) -> Run:
    """Results in order, and what they cost; equal questions of different items are paid once each."""
    driver = Driver(policy=saying(world), scorer=Blurred(world), grader=world)
    method, key = estimate[name], KEY.fold("label")
    flows = [
        method.take({"trajectory": one, "problem": getattr(one, "problem", one), "key": key}, **settings)
        for one in items
    ]
    done = sorted(driver.run(flows), key=lambda finished: finished.index)
    return Run([one.result for one in done], driver.bill.proposals, driver.bill.generated_tokens)


def reached(rows: Sequence[Mapping[str, float]], error: float, cost: str) -> float:
    """Cost at which an estimator's error is that of the reference, on the line between two settings of its grid.

    Behind the last one the squared error falls as one over the cost, for at most twice that cost.
    """
    points = [(row["squared"], row[cost]) for row in rows]
    for (worse, less), (better, more) in pairwise(points):
        if better <= error <= worse:
            share = math.log(worse / error) / math.log(worse / better) if worse > better else 1.0
            return math.exp(math.log(less) + share * math.log(more / less))
    if points[0][0] <= error:
        return points[0][1]
    rest, cost_of_last = points[-1]
    return cost_of_last * rest / error if rest <= 2 * error else float("nan")


def interval(values: Sequence[float]) -> dict[str, float]:
    """Geometric mean over worlds with a 95 % interval, of logarithms by Student's t; NaN where a world has none."""
    logs = np.log(np.array(values))
    half = T_95[len(logs)] * logs.std(ddof=1) / math.sqrt(len(logs)) if len(logs) > 1 else float("nan")
    return {
        "value": float(np.exp(logs.mean())),
        "low": float(np.exp(logs.mean() - half)),
        "high": float(np.exp(logs.mean() + half)),
    }


def times(found: Mapping[str, float] | None) -> str:
    """A saving as text."""
    return "-" if found is None else f"{found['value']:.1f} ({found['low']:.1f} to {found['high']:.1f})"
