"""Repaired steps: the first fatal step of a known world is repaired, no other can be, and nothing leaks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from tests.label.label_world import PROBLEM, World, steps

from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.runtime.driver import Driver
from stepreward.core.runtime.flows import Continuation, Propose
from stepreward.core.types import Problem, Provenance, Step, Trajectory
from stepreward.label.omega import tree_labels
from stepreward.label.planted.repaired_steps import repaired_steps

KEY = Key.seed(3)
WORLD = World(length=5)
GIVEN = Problem(PROBLEM.id, PROBLEM.text, reference="no x")


@dataclass
class Mender:
    """Answers requests for repairs with a text, and rolls out as the world's policy does."""

    answer: str
    name: str = "mender"
    batch_size: int = 64
    concurrency: int = 1

    def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
        policy = WORLD.policy()
        return [
            [Continuation((Step(self.answer),), True, 1)] * q.n
            if "repaired" in q.problem.id
            else policy.propose([q])[0]
            for q in questions
        ]


def repaired(answer: str, letters: str = "abxab", problem: Problem = GIVEN, **settings: Any) -> list[Trajectory]:
    wrong = Trajectory(problem, steps(letters), WORLD.grade(problem, steps(letters)))
    flow = repaired_steps(wrong, KEY, **settings)
    tree = next(Driver(policy=Mender(answer), grader=WORLD).run([flow])).result
    return tree_labels(tree, Provenance("test"))


def test_the_first_fatal_step_is_repaired_and_both_are_valued() -> None:
    own, new = repaired("It says x.\n<wrong>3</wrong>\n<step>b</step>", n=64)
    assert [step.text for step in new.steps] == ["a\n", "b\n", "b\n"]
    assert new.steps[-1].meta == {"repaired": True}
    np.testing.assert_array_equal(own.column("value"), [np.nan, np.nan, 0, np.nan, np.nan])
    exact = WORLD.value(new.steps)
    assert abs(new.column("value")[2] - exact) < 4 * np.sqrt(exact * (1 - exact) / 64)
    assert own.column("n_rollouts")[2] == new.column("n_rollouts")[2] == 64
    assert own.facts["repaired"] == {"asked": 1, "unread": 0, "unconfirmed": 0}


@pytest.mark.parametrize(("answer", "unread", "unconfirmed"), [
    ("<wrong>5</wrong><step>a</step>", 0, 1),  # the error stands before it
    ("<wrong>1</wrong><step>x</step>", 0, 1),  # the new step is an error itself
    ("<wrong>3</wrong><step> x </step>", 1, 0),  # nothing new
    ("<wrong>0</wrong><step>b</step>", 1, 0), ("<wrong>6</wrong><step>b</step>", 1, 0), ("Step 3 is wrong.", 1, 0),
    ("<think><wrong>3</wrong><step>b</step>", 1, 0),  # a thought that never ended
    ("<wrong>3</wrong><step>b, so that the answer is no x</step>", 1, 0),  # gives the reference away
])  # fmt: skip
def test_what_is_no_repair(answer: str, unread: int, unconfirmed: int) -> None:
    (own,) = repaired(answer, n=16)
    assert own.facts["repaired"] == {"asked": 1, "unread": unread, "unconfirmed": unconfirmed}
    assert np.isnan(own.labels[:-1]).all()


def test_right_solutions_are_left_alone_and_problems_need_a_reference() -> None:
    (own,) = repaired("<wrong>1</wrong><step>b</step>", "ababa")
    assert own.facts["repaired"]["asked"] == 0
    with pytest.raises(InputError, match="no reference"):
        repaired("", problem=PROBLEM)


def test_equal_repairs_count_once() -> None:
    made = repaired("<wrong>3</wrong><step>b</step>", n=8, tries=3)
    assert len(made) == 2
    assert made[0].facts["repaired"] == {"asked": 3, "unread": 2, "unconfirmed": 0}
