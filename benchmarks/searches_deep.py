"""What a search's own bookkeeping costs as solutions grow longer: processor seconds at each depth, and their ratios.

    python -m benchmarks.searches_deep [--quick]

Policy, scorer and grader answer at once, with steps of 100 tokens, so that all of the time is the search's and the
driver's. `doubled.NAME` is how many times longer each depth took than the one of half its length: 2 is linear.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from stepreward.core.catalog import search
from stepreward.core.keys import Key
from stepreward.core.runtime.driver import Driver
from stepreward.core.runtime.flows import Continuation, Propose, Score, Scored
from stepreward.core.types import Problem, Step

TOKENS = 100
DEPTHS, QUICK = (25, 50, 100, 200), (10, 20)
SEARCHES: dict[str, dict[str, Any]] = {
    "beam": {"beams": 4, "width": 4}, "rebase": {"width": 16}, "particle-filter": {"n": 16}, "dvts": {"trees": 4},
}  # fmt: skip
REPEATS = 3


class Instant:
    """Policy, scorer and grader without work: a step is named by its key, and solutions end at a given depth."""

    name, batch_size, concurrency = "instant", 64, 1

    def __init__(self, depth: int) -> None:
        self.depth = depth

    def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
        """One step a sample."""
        return [[self._step(key, len(q.prefix) + 1) for key in q.sample_keys()] for q in questions]

    def _step(self, key: Key, depth: int) -> Continuation:
        tokens = tuple(range(key.bits % 1000, key.bits % 1000 + TOKENS))
        return Continuation((Step(f"{key.bits} " + "word " * TOKENS, tokens=tokens),), depth >= self.depth, TOKENS)

    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        """A step's score is told by its text."""
        return [Scored(np.array([int(step.text[:2]) / 100 for step in q.steps])) for q in questions]

    def grade(self, problem: Problem, steps: Sequence[Step]) -> float:
        """All are right."""
        return 1.0

    def answer(self, problem: Problem, steps: Sequence[Step]) -> str | None:
        """All are one."""
        return "1"


def seconds(name: str, depth: int) -> float:
    """The shortest of some runs of a search to a depth."""
    made = []
    for _ in range(REPEATS):
        all_in_one = Instant(depth)
        flow = search[name].take(
            {"problem": Problem("p", "?"), "key": Key.seed(0)}, max_steps=depth + 1, **SEARCHES[name]
        )
        start = time.process_time()
        (done,) = Driver(policy=all_in_one, scorer=all_in_one, grader=all_in_one).run([flow])
        made.append(time.process_time() - start)
        assert max(map(len, done.result.tree.trajectories())) == depth
    return min(made)


def main(quick: bool) -> dict[str, Any]:
    """Seconds and ratios of all searches."""
    depths = QUICK if quick else DEPTHS
    took = {name: {depth: seconds(name, depth) for depth in depths} for name in SEARCHES}
    ratios = {
        name: {depth: round(own[depth] / own[depth // 2], 2) for depth in depths[1:]} for name, own in took.items()
    }
    return {
        "doubled": ratios,
        "seconds": {name: {depth: round(t, 3) for depth, t in own.items()} for name, own in took.items()},
    }


if __name__ == "__main__":
    print(json.dumps(main("--quick" in sys.argv[1:]), indent=1))
