"""Every benchmark's metrics equal an independent literal reading of its definition."""

from __future__ import annotations

import math

import pytest
from benchmarks.benchmark_parity import TOLERANCE, Recorded, page, table

from stepreward.core.catalog import bench
from stepreward.core.errors import InputError
from stepreward.core.types import Comparison, Problem, Step, Trajectory


def test_metrics_equal_the_literal_readings() -> None:
    rows = table(quick=True)
    apart = [row for row in rows if not row["difference"] <= TOLERANCE]
    assert not apart, apart
    read = {row["benchmark"] for row in rows}
    # These compare a scorer with itself, or wrap functions that have oracles of their own.
    alone = {"robustness", "order", "length-bias", "token-attack", "over-optimisation", "reward-distance"}
    assert {method.name for method in bench} - read == alone
    text = page(rows)
    assert "| rm-bench | random | hard, normal, easy, average |" in text


def tied(row_id: str, good: list[float], bad: list[float]) -> Comparison:
    problem = Problem(row_id, "Name a colour.")
    candidates = tuple(Trajectory(problem, (Step(str(k)),)) for k in range(len(good) + len(bad)))
    worth = (1.0,) * len(good) + (0.0,) * len(bad)
    return Comparison(problem, candidates, worth, "Ties", {"v": (*good, *bad)}, {"row_id": row_id})


def test_ties_worked_out() -> None:
    """Prompt 0: gap 1 of the tied row over a spread of 0.5, gap 0.6 of its reference. Prompt 1: the tied row fails.

    Accuracies 1/2 and 1; preferred 1/2; the smaller gaps, 0.6 and -1, are above the spread in one of two; margins
    tanh(0.6 / 0.5 - 1) and, without a spread, -1.
    """
    rows = [
        tied("ref:0", [0.6], [0.0]), tied("tied:0", [2.0, 1.5], [0.5]),
        tied("ref:1", [0.9], [0.0]), tied("tied:1", [1.0, 1.0], [2.0, 0.0]),
    ]  # fmt: skip
    made = bench["reward-bench-2"].take({"scorer": Recorded("v"), "data": rows})
    margin = (math.tanh(0.2) - 1) / 2
    expected = 0.3 * 0.5 + 0.3 * 1 + 0.2 * 0.5 + 0.2 * 0.5 + 0.01 * margin
    assert made.groups["Ties"]["score"].value == pytest.approx(expected, abs=1e-12)
    assert made.metrics["score"].value == pytest.approx(expected, abs=1e-12)
    assert "accuracy" not in made.metrics  # it leaves Ties out


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([tied("7", [1.0], [0.0])], "ids must be ref:N and tied:N"),
        ([tied("tied:7", [1.0], [0.0])], "has 1 right of 2 answers"),
        ([tied("ref:7", [1.0], [0.0])], "no prompt of Ties has a reference row and a tied row"),
    ],
)
def test_ties_that_are_not_whole_are_an_error(rows: list[Comparison], message: str) -> None:
    with pytest.raises(InputError, match=message):
        bench["reward-bench-2"].take({"scorer": Recorded("v"), "data": rows})
