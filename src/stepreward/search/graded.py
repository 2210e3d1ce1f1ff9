"""Searches with the grades of what they found, asked of the driver: bounded, counted, and kept in its log."""

from __future__ import annotations

from stepreward.core.flows import Flow, Grade
from stepreward.core.types import Problem
from stepreward.search.found import Found


def with_outcome(search: Flow[Found], problem: Problem) -> Flow[tuple[Found, float]]:
    """A search, and the grade of the candidate that it chose: 0 where it chose none.

    The grade is NaN where the problem has no reference, or the answer could not be graded.
    """
    found = yield from search
    trajectory = found.trajectory
    if problem.reference is None:
        return found, float("nan")
    if trajectory is None or not trajectory.steps:
        return found, 0.0
    (grade,) = yield [Grade(problem, trajectory.steps)]
    return found, float(grade)


def with_outcomes(search: Flow[Found], problem: Problem) -> Flow[tuple[Found, list[float]]]:
    """A search, and the grade of each of its candidates, NaN where one could not be graded."""
    found = yield from search
    asked = [Grade(problem, trajectory.steps) for trajectory in found.tree.trajectories()]
    grades = (yield asked) if asked else []
    return found, [float(grade) for grade in grades]
