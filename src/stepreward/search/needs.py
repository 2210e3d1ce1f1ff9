"""What each search needs beside a policy, found by running it in a small world."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from stepreward.core.catalog import search as searches
from stepreward.core.driver import Driver
from stepreward.core.errors import MissingDataError
from stepreward.core.flows import Budget, Compare, Continuation, Judged, Propose, Score, Scored
from stepreward.core.keys import Key
from stepreward.core.types import Problem, Step

DEPTH = 3
"""Steps of a solution of the small world."""
TOLD = ("logprobs", "self_certainty")
"""What some searches read of a policy's steps, and some policies tell."""


class _World:
    """Answers every question of a search, and notes whom it would have asked."""

    name, batch_size, concurrency = "world", 64, 1

    def __init__(self, tells: Sequence[str]) -> None:
        self.tells, self.asked = tells, set[str](tells)

    def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
        return [[_continued(question, key, self.tells) for key in question.sample_keys()] for question in questions]

    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        self.asked.add("scorer")
        rows = [[int(step.text) / 10 for step in question.steps] for question in questions]
        return [Scored(np.array(row), 1, 1) for row in rows]

    def compare_many(self, questions: Sequence[Compare]) -> list[Judged]:
        self.asked.add("judge")
        return [Judged(0.75)] * len(questions)

    def grade(self, problem: Problem, steps: Sequence[Step]) -> float:
        self.asked.add("grader")
        return 1.0

    def answer(self, problem: Problem, steps: Sequence[Step]) -> str | None:
        self.asked.add("grader")
        return steps[-1].text if steps else None


@cache
def needs(name: str) -> frozenset[str]:
    """Whom a search asks beside the policy (`scorer`, `judge`, `grader`), and what it reads of the policy's steps.

    Args:
        name: of the search; with its default settings.
    """
    for tells in ((), *((one,) for one in TOLD)):
        world: Any = _World(tells)
        driver = Driver(policy=world, scorer=world, judge=world, grader=world, budget=Budget(rollouts=1000))
        try:
            next(driver.run([searches[name].take({"problem": Problem("p", "p"), "key": Key.seed(0)})]))
        except MissingDataError:
            continue
        return frozenset(world.asked)
    return frozenset({"more than is known here"})


def _continued(question: Propose, key: Key, tells: Sequence[str]) -> Continuation:
    left = DEPTH - len(question.prefix)
    count = 1 if question.until == "step" else left
    digits = key.rng().integers(10, size=min(count, question.max_tokens or count))
    logprobs = (-0.5,) if "logprobs" in tells else None
    meta = {"self_certainty": 1.0} if "self_certainty" in tells else {}
    steps = tuple(Step(str(digit), logprobs=logprobs, meta=meta) for digit in digits)
    ended = len(steps) == left
    return Continuation(steps, ended, len(steps), truncated=not ended and question.until == "end")
