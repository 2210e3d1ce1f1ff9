"""Beams as many as success needs: the rules by brute force, the searches by a transcription and at their limits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepreward.core.catalog import search
from stepreward.core.keys import Key
from stepreward.core.runtime.driver import Driver, Finished
from stepreward.core.runtime.flows import Continuation, Propose, Score, Scored
from stepreward.core.types import Problem, Step
from stepreward.search.beams.adaptive_beam import beams_needed, width_needed
from stepreward.search.candidates import Found
from stepreward.tasks.enumerable import EnumerableWorld

WORLD = EnumerableWorld(5, 3, seed=4)
PROBLEMS = WORLD.problems(6)


def value(problem: Problem, steps: Sequence[Step]) -> float:
    """The chance of success, blurred by a hash: nothing is as good as it looks."""
    noise = int("".join(s.text.strip() for s in steps) or "0", 3) * 2654435761 % 997 / 997
    return 0.7 * WORLD.value(problem, steps) + 0.3 * noise


class Valued:
    name, batch_size = "valued", 64

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale

    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        rows = [[self.scale * value(q.problem, q.steps[: t + 1]) for t in range(len(q.steps))] for q in questions]
        return [Scored(np.array(row), len(row), len(row)) for row in rows]


class Wheel:
    """Sample i of a prefix takes choice (i + depth) at every step, whatever the key."""

    name, batch_size, concurrency = "wheel", 64, 1

    def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
        return [[self._one(q, i) for i in range(q.n)] for q in questions]

    def _one(self, question: Propose, i: int) -> Continuation:
        step, _, finished = turned(question.problem, question.prefix, i)
        return Continuation((step,), finished, 1)


def turned(problem: Problem, prefix: Sequence[Step], i: int) -> tuple[Step, float, bool]:
    return WORLD.next_steps(problem, prefix)[(i + len(prefix)) % 3]


def run(name: str, problem: Problem, scorer: Any = None, **how: Any) -> Finished[Found]:
    flow = search[name].take({"problem": problem, "key": Key.seed(0)}, **how)
    return next(Driver(policy=Wheel(), scorer=scorer or Valued(), grader=WORLD).run([flow]))


def ends(found: Found) -> list[list[str]]:
    return [[s.text for s in t.steps] for t in found.tree.trajectories()]


def needed(chance: float) -> float:
    """Samples of which one succeeds with chance 0.99, no whole number."""
    return math.log(1 - 0.99) / math.log(1 - min(max(chance, 1e-4), 1 - 1e-4))


def slow(problem: Problem, beams: int, width: int, rule: str) -> tuple[int, list[str]]:
    """Samples paid for and the best end, by the published loop on tuples."""
    rows: list[tuple[tuple[Step, ...], bool]] = [((), False)]
    samples, paid = beams * width, 0

    def chance(row: tuple[tuple[Step, ...], bool]) -> float:
        return value(problem, row[0])

    while not all(done for _, done in rows):
        new: list[tuple[tuple[Step, ...], bool]] = []
        for steps, done in rows:
            if done:
                new.append((steps, True))
                continue
            paid += samples
            drawn = [turned(problem, steps, i) for i in range(samples)]
            texts = [step.text for step, _, _ in drawn]
            firsts = sorted(texts.index(text) for text in set(texts))
            new += [((*steps, drawn[i][0]), drawn[i][2]) for i in firsts]
        new.sort(key=lambda row: -chance(row))
        count = beams
        if rule == "k":
            count = 0
            for row in new:
                count += 1
                if count == beams or count * width >= math.ceil(needed(chance(row))):
                    break
        rows = new[:count]
        samples = width
        if rule == "m":
            samples = min(math.ceil(needed(min(map(chance, rows))) / beams), width)
    return paid, [s.text for s in rows[0][0]]


@pytest.mark.parametrize("rule", ["k", "m"])
@pytest.mark.parametrize(("beams", "width"), [(1, 3), (2, 4), (4, 3), (8, 8)])
def test_it_is_the_published_loop(rule: str, beams: int, width: int) -> None:
    for problem in PROBLEMS:
        made = run(f"ias-of-{rule}", problem, beams=beams, width=width)
        paid, end = slow(problem, beams, width, rule)
        assert made.bill.proposals == paid
        assert made.result.trajectory is not None
        assert [s.text for s in made.result.trajectory.steps] == end


@pytest.mark.parametrize("name", ["ias-of-k", "ias-of-m"])
def test_without_hope_it_is_beam_search_and_with_hope_it_costs_less(name: str) -> None:
    how = {"beams": 4, "width": 3, "aggregate": "last"}
    spent = []
    for problem in PROBLEMS:
        adaptive, plain = (run(one, problem, Valued(1e-6), **how) for one in (name, "beam"))
        assert adaptive.bill.proposals == plain.bill.proposals
        assert adaptive.result.answer == plain.result.answer
        assert ends(adaptive.result) == ends(plain.result)
        spent.append(run(name, problem, **how).bill.proposals - plain.bill.proposals)
    assert max(spent) <= 0
    assert min(spent) < 0


@given(
    chances=st.lists(st.floats(0, 1), min_size=1, max_size=12),
    size=st.integers(1, 9),
    most=st.integers(1, 9),
)
def test_the_rules_are_the_least_that_suffice(chances: list[float], size: int, most: int) -> None:
    ranked = sorted(chances, reverse=True)
    enough = [k for k in range(1, min(most, len(ranked)) + 1) if k * size >= math.ceil(needed(ranked[k - 1]) - 1e-9)]
    assert beams_needed(ranked, width=size, most=most) == (enough or [min(most, len(ranked))])[0]
    wide = [m for m in range(1, most + 1) if m * size >= needed(min(ranked)) - 1e-9]
    assert width_needed(ranked, beams=size, most=most) == (wide or [most])[0]


def test_rules_worked_out() -> None:
    # Chances of 0.9, 0.5 and 0.1 need 2, 7 and 44 samples.
    assert beams_needed([0.9, 0.5, 0.1], width=2, most=3) == 1
    assert beams_needed([0.5, 0.5, 0.5, 0.5], width=2, most=4) == 4
    assert beams_needed([0.5, 0.5, 0.5], width=3, most=2) == 2
    assert width_needed([0.9, 0.5], beams=2, most=8) == 4
    assert width_needed([0.9, 0.1], beams=2, most=8) == 8
