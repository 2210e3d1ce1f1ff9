"""Pairs of a model's own ranking, by hand."""

from __future__ import annotations

import math

import numpy as np

from stepreward.core.types import Problem, Step, Trajectory
from stepreward.label.self_ranked import agreement, best_and_worst


def rows(problem: str, outcomes: list[float]) -> list[Trajectory]:
    return [Trajectory(Problem(problem, "?"), (Step(f"{problem}{i}"),), one) for i, one in enumerate(outcomes)]


def test_the_best_and_the_worst_of_each_problem() -> None:
    # Totals 3, 5, 4 and one that nobody could read: the second wins, the first loses.
    some = [*rows("a", [1, 0, 1, 1]), *rows("b", [1, 1]), *rows("c", [0, 1])]
    made = best_and_worst(some, np.array([3, 5, 4, math.nan, 2, 2, math.nan, 1]))
    assert [(one.text, one.outcome) for one in made] == [("a1", 1.0), ("a0", 0.0)]
    # All of b are equal, and c has one that is known.
    assert [one.facts["graded"] for one in made] == [0, 1]
    assert agreement(made) == 0


def test_of_equal_totals_the_first_counts_and_labels_of_others_go() -> None:
    some = [one.with_columns({"label": np.ones(1), "score": np.ones(1)}) for one in rows("a", [math.nan] * 4)]
    made = best_and_worst(some, np.array([1.0, 2.0, 2.0, 1.0]))
    assert [one.text for one in made] == ["a1", "a0"]
    assert all("label" not in one.columns and "score" in one.columns for one in made)
    assert math.isnan(agreement(made))
