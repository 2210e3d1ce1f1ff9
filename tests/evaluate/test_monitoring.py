"""Measures of monitors, by hand and in worlds whose answer is known."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from tests.score.agent_runs import made_runs

import stepreward
from stepreward.core.errors import InputError
from stepreward.core.measure.false_alarms import AlarmBound
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.evaluate import monitoring
from stepreward.evaluate.monitoring import first_alarms, measure_monitor, measure_over_splits
from stepreward.score.monitor.run_monitor import Monitor
from stepreward.score.monitor.statistic import chosen
from stepreward.score.monitor.watched_runs import watched_runs


def run(problem: str, turns: int, outcome: float, first_error: int | None = None, size: int = 10) -> Trajectory:
    steps = tuple(Step("a" * size) for _ in range(turns))
    return Trajectory(Problem(problem, problem), steps, outcome, first_error=first_error)


# It alarms after three turns: of the maxima 2 and 3 below, 3 turns are above the level 2 at alpha 1/2.
MONITOR = Monitor(chosen("turn"), AlarmBound([1.0, 2.0, 2.0], [0, 1, 2]), 0.3, 0.3)


def test_measures_are_those_counted_by_hand() -> None:
    rows = [
        run("a", 3, 1.0), run("a", 4, 1.0),  # looked at after 2 and 3 turns: the second is a false alarm
        run("b", 1, 1.0),  # never looked at
        run("b", 6, 0.0),  # stopped after 3 of 6
        run("c", 10, 0.0),  # stopped after 3 of 10
        run("c", 3, 0.0, size=40),  # over before
        run("d", 5, float("nan")),
    ]  # fmt: skip
    made = measure_monitor(MONITOR, watched_runs(rows))
    found = {name: one.value for name, one in made.measures["monitor"].items()}
    # The mean over the problems a and b of the share of their good runs that were stopped.
    assert found["false_alarms"] == pytest.approx((1 / 2 + 0) / 2)
    assert found["recall"] == pytest.approx(2 / 3)
    assert found["lead_turns"] == pytest.approx((3 + 7) / 2)
    assert found["lead_share"] == pytest.approx((3 / 6 + 7 / 10) / 2)
    assert found["saved"] == pytest.approx((30 + 70) / (60 + 100 + 120))
    assert (made.runs, made.good, made.bad, made.problems, made.left_out) == (6, 3, 3, 3, 1)
    json.dumps(made.to_json(), allow_nan=False)


def test_before_a_first_error_an_alarm_is_false_and_stops_nothing_more() -> None:
    # After 3 turns: before the error of a, at that of b, and after that of c.
    rows = [run("a", 8, 0.0, 4), run("b", 8, 0.0, 2), run("c", 8, 0.0, 0), run("d", 2, 0.0, 1)]
    found = measure_monitor(MONITOR, watched_runs(rows, good="before-error")).measures["monitor"]
    assert found["false_alarms"].value == 1 / 4
    assert found["recall"].value == 2 / 4
    assert found["lead_turns"].value == 5


def test_the_first_alarm_is_of_the_run_that_raised_it() -> None:
    runs = watched_runs([run("a", 3, 1.0), run("b", 1, 1.0), run("c", 4, 1.0)])
    assert first_alarms(runs, np.array([False, False, False, True, True])).tolist() == [-1, -1, 1]
    assert first_alarms(runs, np.array([True, True, False, False, False])).tolist() == [0, -1, -1]


def test_over_splits_the_bound_holds_and_a_monitor_that_sees_failures_finds_them() -> None:
    runs = watched_runs(made_runs(80, 4))
    made = measure_over_splits(runs, ["features"], alpha=0.2, splits=40)
    for row in made.measures.values():
        assert row["false_alarms"].low <= 0.2
    assert made.measures["random"]["recall"].value == pytest.approx(0.2, abs=0.08)
    assert made.measures["random"]["lead_share"].value == pytest.approx(0.5, abs=0.12)
    # Repetition and errors say more than how long a run is.
    assert made.versus_turn["features"]["recall"].low > 0
    assert made.above is not None
    assert 0 < made.above["features"] < 1, "the bound is for the draw of the calibration, not for each"


def test_where_only_length_tells_the_turn_is_not_beaten() -> None:
    rng = stepreward.Key.seed(0).rng()
    rows = [
        run(f"p{i}", int(n) + (5 if i % 2 else 0), float(i % 2 == 0)) for i, n in enumerate(rng.integers(3, 9, 120))
    ]
    made = measure_over_splits(watched_runs(rows), ["features"], alpha=0.2, splits=30)
    assert made.measures["turn"]["recall"].low > 0.3
    assert made.versus_turn["features"]["recall"].low < 0.05


def test_a_column_of_scores_is_watched_too() -> None:
    runs = watched_runs(made_runs(60, 5, score=True), column="score")
    made = measure_over_splits(runs, ["mean-score"], alpha=0.2, splits=20)
    assert made.versus_turn["mean-score"]["recall"].low > 0


def test_no_problem_is_on_two_sides_of_a_split(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = watched_runs(made_runs(30))
    used: list[set[int]] = []
    fitted, bounded, counted = monitoring.statistic_of, monitoring.bound_of, monitoring._units

    def fit(own, reads, rows, strength):  # type: ignore[no-untyped-def]
        used.append(set(own.problem[rows].tolist()))
        return fitted(own, reads, rows, strength)

    def bound(own, values, rows):  # type: ignore[no-untyped-def]
        used.append(set(own.problem[rows].tolist()))
        return bounded(own, values, rows)

    def count(own, first, rows):  # type: ignore[no-untyped-def]
        used.append(set(own.problem[rows].tolist()))
        return counted(own, first, rows)

    for name, stand_in in (("statistic_of", fit), ("bound_of", bound), ("_units", count)):
        monkeypatch.setattr(monitoring, name, stand_in)
    measure_over_splits(runs, ["features"], splits=3)
    assert used
    for at in range(3):
        split = used[at * 8 : (at + 1) * 8]
        # features: fit, bound, count; turn: an empty fit, bound, count; random: bound, count.
        assert not split[0] & split[1]
        assert not (split[0] | split[1]) & split[2]
        assert split[3] == set()
        assert not split[4] & split[5]
        assert split[6] == split[4]
        assert split[0] | split[1] | split[2] == set(range(30))


def test_runs_unlike_those_calibrated_on_are_noticed() -> None:
    old = made_runs(120, 6)
    monitor = stepreward.fit_monitor(old)
    alike = stepreward.evaluate_monitor(_renamed(made_runs(60, 7)), monitor)
    rows = [replace(one, outcome=1.0) for one in _renamed(made_runs(60, 8))]  # failures that are called successes
    other = stepreward.evaluate_monitor(rows, monitor)
    assert alike.drift is not None
    assert other.drift is not None
    assert alike.drift < 20 < other.drift


def _renamed(rows: list[Trajectory]) -> list[Trajectory]:
    return [replace(one, problem=Problem(f"new {one.problem.id}", one.problem.prompt)) for one in rows]


def test_what_it_was_fitted_on_is_not_measured() -> None:
    rows = made_runs(40)
    monitor = stepreward.fit_monitor(rows)
    assert stepreward.evaluate_monitor([*rows, *_renamed(made_runs(5, 3))], monitor).known == len(rows)
    with pytest.raises(InputError, match="fitted on all of these"):
        stepreward.evaluate_monitor(rows, monitor)
    with pytest.raises(InputError, match="splits of a fitted monitor"):
        stepreward.evaluate_monitor(_renamed(rows), monitor, splits=3)
    # Its rate may be chosen anew.
    assert stepreward.evaluate_monitor(_renamed(rows), monitor, alpha=0.4).alpha == 0.4


def test_too_few_problems_are_refused() -> None:
    with pytest.raises(InputError, match="cannot be split in three"):
        measure_over_splits(watched_runs(made_runs(2)), ["turn"])
    with pytest.raises(ValueError, match="to test on"):
        measure_over_splits(watched_runs(made_runs(9)), ["turn"], test=1.0)
