"""Filters: which trajectories stay, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from stepreward.core.catalog import keep
from stepreward.core.types import Problem, Provenance, Step, Trajectory
from stepreward.label.filters import consensus, informative, self_accuracy
from stepreward.label.rollouts import labelled

NAN = float("nan")


def row(problem: str, outcome: float, label: list[float] | None = None, **other: object) -> Trajectory:
    label = label if label is not None else [1.0, outcome]
    steps = tuple(Step(f"{i}\n") for i in range(len(label)))
    n = np.array(other.get("n", [0] * len(label)), np.int64)
    correct = np.array(other.get("correct", [0] * len(label)), np.int64)
    trajectory = Trajectory(Problem(problem, ""), steps, outcome)
    root = float(other.get("root", NAN))  # type: ignore[arg-type]
    return labelled(trajectory, np.array(label), n, correct, root, Provenance("test"))


def test_informative_problems_were_both_won_and_lost() -> None:
    rows = [
        row("mixed", 1),
        row("always", 1),
        row("mixed", 0),
        row("never", 0),
        row("lost once", 1, n=[4, 0], correct=[3, 0]),
        row("won once", 0, n=[4, 0], correct=[1, 0]),
        row("root", 0, root=0.25),
        row("unknown", NAN),
        row("half is wrong", 0.5),
        row("half and right", 0.5),
        row("half and right", 1),
    ]
    kept = [True, False, True, False, True, True, True, False, False, True, True]
    assert informative(rows).tolist() == kept


def test_self_accuracy_is_the_root_value_or_the_mean_outcome() -> None:
    rows = [row("a", 1), row("a", 1), row("a", 1), row("a", 0), row("b", 1), row("b", 0), row("c", 0, root=0.75)]
    assert self_accuracy(rows).tolist() == [True] * 4 + [False, False, True]
    assert self_accuracy(rows, lowest=0, highest=0.5).tolist() == [False] * 4 + [True, True, False]
    assert self_accuracy([row("d", NAN)], lowest=0).tolist() == [False]
    with pytest.raises(ValueError, match="lowest"):
        self_accuracy(rows, lowest=0.9, highest=0.1)


def test_consensus_means_the_same_first_error() -> None:
    first = [row("a", 0, [1, 0, 0]), row("b", 0, [1, 0, 0]), row("c", 1, [1, 1, 1]), row("d", 0, [0.2, NAN, 0])]
    second = [row("a", 0, [1, 0, NAN]), row("b", 0, [1, 1, 0]), row("c", 1, [1, 1, 1]), row("d", 0, [1, 1, 0])]
    assert consensus(first, second).tolist() == [True, False, True, True]
    assert consensus(first, second, threshold=0.5).tolist() == [True, False, True, False]
    with pytest.raises(ValueError, match="same trajectories"):
        consensus(first, second[:2])
    with pytest.raises(ValueError, match="trajectory 0 differs"):
        consensus(first, second[::-1])


@pytest.mark.parametrize("name", ["informative", "self-accuracy", "consensus"])
def test_no_rows_are_no_rows(name: str) -> None:
    assert keep[name].take({"trajectories": [], "others": []}).shape == (0,)
