"""Searches with the grades of what they found. The driver grades: bounded, counted, and kept in its log."""

from __future__ import annotations

from stepreward.core.runtime.flows import Flow, Grade
from stepreward.core.types import Problem
from stepreward.search.candidates import Found


def with_outcome(search: Flow[Found], problem: Problem, *, acts: bool = False) -> Flow[tuple[Found, float]]:
    """A search, and the grade of the candidate that it chose: 0 where it chose none, or one cut before its end.

    A solution that was cut has no answer; samples are graded in the same way. The grade is NaN where the problem has no
    reference and no tests, or the answer could not be graded. Where the search acts, its environment may decide without
    either.
    """
    found = yield from search
    trajectory = found.trajectory
    if not (acts or problem.gradable):
        return found, float("nan")
    if trajectory is None or not trajectory.steps or not trajectory.terminal:
        return found, 0.0
    (grade,) = yield [Grade(problem, trajectory.steps)]
    return found, float(grade)


def with_outcomes(search: Flow[Found], problem: Problem) -> Flow[tuple[Found, list[float]]]:
    """A search, and the grade of each of its candidates: 0 of one cut before its end, NaN where one was not graded."""
    found = yield from search
    trajectories = list(found.tree.trajectories())
    questions = [Grade(problem, one.steps) for one in trajectories if one.terminal]
    grades = iter((yield questions) if questions else [])
    return found, [float(next(grades)) if one.terminal else 0.0 for one in trajectories]
