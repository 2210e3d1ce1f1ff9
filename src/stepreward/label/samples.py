"""Samples: whole solutions of a problem with their outcomes, for labelling and selection."""

from __future__ import annotations

from stepreward.core.keys import Key
from stepreward.core.runtime.flows import Flow, Grade, Propose
from stepreward.core.types import Problem, Trajectory


def graded_samples(
    problem: Problem, key: Key, *, n: int = 16, temperature: float | None = None
) -> Flow[list[Trajectory]]:
    """Samples `n` solutions and grades them; one cut before its end gets outcome 0 and is not terminal.

    Solutions without a step are left out.
    """
    (made,) = yield [Propose(problem, (), key.fold("samples", problem.id), n=n, temperature=temperature)]
    grades = yield [Grade(problem, c.steps) for c in made]
    return [
        Trajectory(problem, c.steps, grade if c.finished else 0.0, c.finished)
        for c, grade in zip(made, grades, strict=True)
        if c.steps
    ]
