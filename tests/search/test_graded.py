"""Grades of what a search found: solutions cut before their end have no answer, whatever stands in them."""

from __future__ import annotations

import numpy as np

from stepreward.core.runtime.driver import Driver
from stepreward.core.runtime.flows import Flow
from stepreward.core.tree import StepTree
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.search.candidates import Found
from stepreward.search.graded_candidates import with_outcome, with_outcomes
from stepreward.tasks.mathematics import MathGrader

PROBLEM = Problem("p", "What is half of one?", "1/2")
RIGHT, CUT, WRONG = r"So \boxed{0.5}.", r"So \boxed{\frac12}, or", r"So \boxed{2}."


def search(chosen: int) -> Flow[Found]:
    texts = [RIGHT, CUT, WRONG]
    tree = StepTree.from_trajectories([Trajectory(PROBLEM, (Step(text),), terminal=text != CUT) for text in texts])
    return Found(tree, np.ones(3), ("0.5", None, "2"), chosen)
    yield []  # a flow that asks nothing


def test_the_chosen_solution_is_graded_if_it_ended() -> None:
    flows = [with_outcome(search(chosen), PROBLEM) for chosen in range(3)]
    made = {one.index: one.result[1] for one in Driver(grader=MathGrader()).run(flows)}
    np.testing.assert_array_equal([made[row] for row in range(3)], [1.0, 0.0, 0.0])


def test_every_candidate_is_graded_if_it_ended() -> None:
    (one,) = Driver(grader=MathGrader()).run([with_outcomes(search(0), PROBLEM)])
    np.testing.assert_array_equal(one.result[1], [1.0, 0.0, 0.0])
