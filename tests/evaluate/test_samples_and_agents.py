"""Best-of-N and agents' benchmarks at their edges: who is left out, what is refused, what a worked example gives."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from stepreward.core.catalog import bench
from stepreward.core.errors import InputError
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.evaluate.data.scoring import RecordedScorer

NAN = float("nan")


def sample(problem: str, number: int, score: float, right: float, answer: str) -> Trajectory:
    steps, columns = (Step(f"{problem}{number}"),), {"score:v": np.array([score])}
    return Trajectory(Problem(problem, "?"), steps, outcome=right, answer=answer, columns=columns)


POOL = [
    sample("a", 0, 0.2, 0, "1"), sample("a", 1, 0.3, 0, "1"), sample("a", 2, 0.9, 1, "2"),
    sample("b", 0, 0.8, 1, "7"), sample("b", 1, 0.8, 0, "8"), sample("b", 2, 0.1, 0, "8"),
]  # fmt: skip


def chosen(data: list[Trajectory], **settings: object) -> dict[str, float]:
    made = bench["best-of-n"].take({"scorer": RecordedScorer(data, "v"), "data": data}, **settings)
    return {name: one.value for name, one in made.metrics.items()}


def test_choices_worked_out() -> None:
    """a: the best is right, the majority says 1. b: the earlier of two best is right, the majority says 8.

    Votes by score: a has .5 for 1 and .9 for 2, right; b has .8 for 7 and .9 for 8, wrong.
    """
    made = chosen(POOL)
    assert made["best_of_n"] == 1
    assert made["majority"] == 0
    assert made["weighted_vote"] == 0.5
    assert made["one_sample"] == pytest.approx(1 / 3)
    assert made["pass_at_n"] == 1
    assert made["best_of_n_gain"] == 1
    # The first two of each problem: a has only wrong ones.
    assert chosen(POOL, n=2)["pass_at_n"] == 0.5


def test_votes_by_negative_rewards_are_left_out() -> None:
    assert "weighted_vote" not in chosen([one.with_columns({"score:v": one.scores["v"] - 1}) for one in POOL])


def test_samples_that_cannot_be_measured() -> None:
    ungraded = [*POOL[:2], replace(POOL[2], outcome=math.nan)]
    with pytest.raises(InputError, match="has no outcome"):
        chosen(ungraded)
    with pytest.raises(InputError, match="no problem has two solutions"):
        chosen([POOL[0], POOL[3]])


def trace(number: int, scores: list[float], first: int | None, agents: str = "ab") -> Trajectory:
    steps = tuple(Step(f"{number}.{k}", agent=agents[k % len(agents)]) for k in range(len(scores)))
    return Trajectory(
        Problem(f"t{number}", "?"), steps, first_error=first, columns={"score:v": np.array(scores)},
        facts={"mistake_agent": "b"},
    )  # fmt: skip


def blamed(data: list[Trajectory]) -> dict[str, float]:
    made = bench["who-and-when"].take({"scorer": RecordedScorer(data, "v"), "data": data})
    return {name: one.value for name, one in made.metrics.items()}


def test_the_lowest_step_and_its_agent_are_blamed() -> None:
    # Step 1 of b, exactly; of equals the earliest, step 0 of a; where nothing is scored, nothing is known.
    made = blamed([trace(0, [0.9, 0.1, 0.5], 1), trace(1, [0.3, 0.3], 1), trace(2, [NAN, NAN], 0)])
    assert made["step_accuracy"] == pytest.approx(1 / 2)
    assert made["agent_accuracy"] == pytest.approx(1 / 2)
    assert made["step_within_5"] == 1


def test_the_test_by_parts_of_numbers_takes_10_for_1() -> None:
    made = blamed([trace(0, [1.0] * 10 + [0.0], 1)])
    assert (made["step_accuracy"], made["step_accuracy_upstream"]) == (0, 1)


def test_traces_without_a_decisive_step_are_refused() -> None:
    with pytest.raises(InputError, match="no trace has a decisive step"):
        blamed([trace(0, [0.5], None), trace(1, [0.5], -1)])


def test_three_labels_by_two_thresholds() -> None:
    chat = trace(0, [0.1, 0.5, 0.9, NAN], None).with_columns({"label": np.array([0.0, 0.5, 1.0, 1.0])})
    have = {"scorer": RecordedScorer([chat], "v"), "data": [chat]}
    made = bench["agent-process-bench"].take(have, threshold=0.4, right_above=0.6).metrics
    assert made["step_accuracy"].value == pytest.approx(3 / 4)  # the step without a score is never right
    assert made["first_error_accuracy"].value == 1
    assert made["exact"].value == 0
    # At or below the first threshold is wrong, above the second right: .1 wrong, .5 and .9 neutral.
    at = bench["agent-process-bench"].take(have, threshold=0.1, right_above=0.9).metrics
    assert (at["step_accuracy"].value, at["first_error_accuracy"].value) == (2 / 4, 1)
    # One threshold for both: what is exactly there is neutral, so that labels are their own best scores.
    gold = chat.with_columns({"score:v": chat.labels})
    alone = {"scorer": RecordedScorer([gold], "v"), "data": [gold]}
    assert {one.value for one in list(bench["agent-process-bench"].take(alone).metrics.values())[:3]} == {1.0}
    assert bench["agent-process-bench"].take(have).metrics["silent"].value == 1 / 4
    with pytest.raises(ValueError, match="right_above must be at least threshold"):
        bench["agent-process-bench"].take(have, threshold=0.6, right_above=0.4)
    unrated = trace(0, [0.5], None)
    with pytest.raises(InputError, match="no message is rated"):
        bench["agent-process-bench"].take({"scorer": RecordedScorer([unrated], "v"), "data": [unrated]})


def test_totals_outside_the_unit_interval_are_not_calibrated() -> None:
    loud = [one.with_columns({"score:v": one.scores["v"] * 3}) for one in POOL]
    with pytest.raises(InputError, match=r"reach from 0\.3 to 2\.7"):
        bench["outcome-calibration"].take({"scorer": RecordedScorer(loud, "v"), "data": loud})
