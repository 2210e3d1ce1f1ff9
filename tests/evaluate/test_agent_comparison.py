"""Two agents on the same problems: closed forms, identities, and how often the intervals hold the truth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from tests.score.agent_runs import made_runs

from stepreward.core.errors import InputError
from stepreward.core.types import Problem, Step, Steps, Trajectory
from stepreward.evaluate.agent_comparison import AgentComparison, AgentRuns, agent_runs, compared_agents
from stepreward.evaluate.measures.run_numbers import RUN_MEASURES, run_numbers

SEEN = Step("fine", "observation", "tool")


def run(name: str, outcome: float = math.nan, *, actions: int = 1, text: str = "", **facts: Any) -> Trajectory:
    return Trajectory(Problem(name, text or f"Do {name}."), (Step("act"),) * actions, outcome, facts=facts)


def compared(a: Sequence[Trajectory], b: Sequence[Trajectory], **how: Any) -> AgentComparison:
    fields = {name: how[name] for name in ("by", "seeds") if name in how}
    how.pop("seeds", None)
    return compared_agents(agent_runs(a, **fields), agent_runs(b, **fields), **how)


def test_the_numbers_of_a_run_by_hand() -> None:
    steps = (
        Step("look", meta={"usage": {"completion_tokens": 3, "prompt_tokens": 10}}), Step("Error: none", "observation"),
        Step("ask", meta={"usage": {"completion_tokens": 4, "prompt_tokens": 20}}),
        # A user who speaks of an error is no tool that failed.
        Step("I cannot", "observation", "user"),
        Step("end", meta={"usage": {"completion_tokens": 5, "prompt_tokens": 30}}),
    )  # fmt: skip
    nan = math.nan
    one = Trajectory(Problem("p", "p"), steps, 0.5, first_error=2, facts={"total_cost": 0.125},
                     columns={"score": np.array([0.5, nan, 0.25, nan, 0.75])})  # fmt: skip
    want = {"outcome": 0.5, "mean_score": 0.5, "worst_score": 0.25, "actions": 3, "tokens": 12, "tokens_read": 60,
            "cost": 0.125, "tool_errors": 1, "right_share": 1 / 3, "first_error": 2}  # fmt: skip
    assert dict(zip(RUN_MEASURES, run_numbers(one).tolist(), strict=True)) == want
    # An action without a score may be the lowest one; a run that never went wrong has no first wrong action.
    half = one.with_columns({"score": np.array([0.5, nan, nan, nan, 0.75])})
    right = dict(zip(RUN_MEASURES, run_numbers(replace(half, first_error=-1)).tolist(), strict=True))
    assert math.isnan(right["mean_score"])
    assert math.isnan(right["worst_score"])
    assert math.isnan(right["first_error"])
    assert right["right_share"] == 1


@pytest.mark.parametrize(
    ("labels", "share", "first"),
    [
        ([1.0, math.nan, 0.0], 0.5, 2),  # the observation between is no action
        ([1.0, math.nan, 1.0], 1, math.nan),
        ([0.0, math.nan, math.nan], 0, 1),  # what comes later does not matter
        ([math.nan, math.nan, 0.0], math.nan, math.nan),  # the first action may be wrong too
        ([1.0, math.nan, math.nan], math.nan, math.nan),
        ([math.nan] * 3, math.nan, math.nan),
    ],
)
def test_labels_say_where_the_first_error_is(labels: list[float], share: float, first: float) -> None:
    one = Trajectory(Problem("p", "p"), (Step("a"), SEEN, Step("b")), columns={"label": np.array(labels)})
    at = [*RUN_MEASURES]
    found = run_numbers(one)
    np.testing.assert_equal([found[at.index("right_share")], found[at.index("first_error")]], [share, first])


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 12), st.integers(1, 3), st.integers(0, 1000))
def test_an_agent_is_not_unlike_itself(problems: int, runs: int, seed: int) -> None:
    rows = made_runs(problems, seed, runs=runs, score=True)
    made = compared(rows, rows[::-1])
    assert {"outcome", "actions", "mean_score", "worst_score"} <= made.measures.keys()
    for name, one in made.measures.items():
        assert one.difference.value == pytest.approx(0, abs=1e-12)
        assert one.higher == one.lower == 0
        assert one.equal == one.difference.n
        assert one.difference.n < 2 or one.difference.low - 1e-12 <= 0 <= one.difference.high + 1e-12
        assert one.a.value == pytest.approx(one.b.value), name
    # Even all ties say little of a few problems: Wilson's interval of 0 of n others.
    outcome = made.measures["outcome"].difference
    assert outcome.high > 1 / (problems + 4)
    assert outcome.low == pytest.approx(-outcome.high)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_to_exchange_the_agents_turns_the_signs(seed: int) -> None:
    a, b = made_runs(9, seed, runs=3), made_runs(9, seed + 1, runs=2)
    one, other = compared(a, b), compared(b, a)
    for name, measure in one.measures.items():
        turned = other.measures[name]
        assert measure.difference.value == pytest.approx(-turned.difference.value)
        assert (measure.higher, measure.lower, measure.equal) == (turned.lower, turned.higher, turned.equal)
        assert measure.difference.value == pytest.approx(measure.a.value - measure.b.value)


def test_means_are_over_problems_and_differences_are_paired() -> None:
    # x: A 1/2 of two runs, B 0. y: A 1, B 1. z is A's alone, w is B's. Of u, B does not know how it ended.
    a = [run("x", 1), run("x", 0), run("y", 1), run("z", 1), run("u", 1)]
    b = [run("y", 1, actions=3), run("x", 0), run("w", 0), run("u")]
    made = compared(a, b)
    assert (made.by, made.problems, made.only) == ("id", ("x", "y", "u"), (("z",), ("w",)))
    assert made.runs == (4, 3)
    outcome = made.measures["outcome"]
    assert (outcome.a.value, outcome.b.value, outcome.difference.value, outcome.difference.n) == (0.75, 0.5, 0.25, 2)
    assert (outcome.higher, outcome.lower, outcome.equal, outcome.runs_without) == (1, 0, 1, (0, 1))
    # Of x 0, of y 1 - 3, of u 0.
    assert made.measures["actions"].difference.value == pytest.approx(-2 / 3)
    assert [row["result"] for row in made.rows()] == ["a", "tie", None]
    assert made.rows()[2]["outcome_b"] is None
    assert made.rows()[0]["runs_a"] == 2


def test_more_runs_of_a_problem_are_no_more_evidence() -> None:
    a, b = made_runs(20, 1), made_runs(20, 2)
    once, often = compared(a, b).to_json()["measures"], compared(a * 7, b * 7).to_json()["measures"]
    for name, one in once.items():
        for part in ("a", "b", "difference"):
            assert often[name][part] == pytest.approx(one[part])


def of_numbers(outcome: Steps, actions: Steps) -> AgentRuns:
    """(P, R) outcomes and actions of R runs of each problem."""
    ids = [str(p) for p in range(len(outcome)) for _ in outcome[p]]
    rows = np.full((len(ids), len(RUN_MEASURES)), np.nan)
    rows[:, 0], rows[:, [*RUN_MEASURES].index("actions")] = outcome.ravel(), actions.ravel()
    return AgentRuns(ids, ids, [""] * len(ids), [""] * len(ids), [*rows])


@pytest.mark.parametrize("problems", [12, 60])
def test_intervals_hold_the_true_difference_as_often_as_they_say(problems: int) -> None:
    # Hard and easy problems, three runs of each alike: A takes two more actions on average, by skewed numbers.
    rng, held, outcomes = np.random.default_rng(problems), 0, 0
    for _ in range(200):
        hard, better = rng.exponential(4, (problems, 1)), rng.random((problems, 1))
        a, b = (
            of_numbers(
                (rng.random((problems, 3)) < better * worth).astype(float),
                1.0 + rng.poisson(hard + more, (problems, 3)),
            )
            for worth, more in ((0.9, 2), (0.6, 0))
        )
        made = compared_agents(a, b, draws=400).measures
        held += made["actions"].difference.low <= 2 <= made["actions"].difference.high
        outcomes += made["outcome"].difference.low <= 0.15 <= made["outcome"].difference.high
    # 95 % of 200, within three standard errors of 1.5 %.
    assert held >= 181
    assert outcomes >= 181


def test_few_problems_have_the_interval_of_students_distribution() -> None:
    # Normal differences: the interval is mean +- t s / sqrt(n), with t of n - 1 degrees, up to its random draws.
    rng, n, ratios = np.random.default_rng(3), 9, []
    for _ in range(40):
        a, b = of_numbers(*np.zeros((2, n, 1))), of_numbers(*np.zeros((2, n, 1)))
        drawn = rng.normal(0, 1, n)
        for row, value in zip(a.rows, drawn, strict=True):
            row[[*RUN_MEASURES].index("actions")] = value
        one = compared_agents(a, b, draws=2000).measures["actions"].difference
        ratios.append((one.high - one.low) / (2 * stats.t.ppf(0.975, n - 1) * drawn.std(ddof=1) / np.sqrt(n)))
    assert np.mean(ratios) == pytest.approx(1, abs=0.05)


def test_seeds_widen_an_interval_by_what_varies_between_them() -> None:
    # The difference is 1 with one seed and 0 with the other, whatever the problem.
    a = [run(str(p), actions=2 if s else 1, trained=s) for p in range(30) for s in (0, 1)]
    b = [run(str(p), actions=1, trained=s) for p in range(30) for s in (0, 1)]
    crossed, plain = (compared(a, b, **how).measures["actions"].difference for how in ({"seeds": "trained"}, {}))
    assert crossed.value == plain.value == 0.5
    assert (crossed.low, crossed.high) == (0, 1)
    assert (plain.low, plain.high) == (0.5, 0.5)
    left = compared(a, [*b, run("1", trained=2)], seeds="trained")
    assert left.seeds == ("0", "1")
    assert left.other_seeds == (0, 1)
    with pytest.raises(InputError, match="both have 1: there are 0, 1 and 1"):
        compared(a, [one for one in b if one.facts["trained"]], seeds="trained")


def test_problems_are_joined_by_id_text_or_a_field() -> None:
    a, b = [run("a-1", 1, text="Same.", task="t")], [run("b-9", 0, text="Same.", task="t"), run("b-8", 0)]
    by_text = compared(a, b)
    assert (by_text.by, by_text.problems, by_text.only) == ("text", ("a-1",), ((), ("b-8",)))
    by_field = compared(a, b, by="task")
    assert (by_field.problems, by_field.nameless, by_field.only) == (("t",), (0, 1), ((), ()))
    assert by_field.measures["outcome"].difference.value == 1
    with pytest.raises(InputError, match="by their id: the first are 'a-1' and 'b-8', 'b-9'"):
        compared(a, b, by="id")
    # One id and other texts: told, as ids that count rows would join what does not belong together.
    assert compared([run("1", text="x"), run("2", text="y")], [run("1", text="x"), run("2", text="z")]).other_text == 1


def test_a_single_problem_gives_no_interval_where_a_number_has_no_bounds() -> None:
    made = compared([run("x", 1, actions=5)], [run("x", 1)]).measures
    assert made["actions"].difference.value == 4
    assert math.isnan(made["actions"].difference.low)
    assert made["outcome"].difference.low < -0.5 < 0.5 < made["outcome"].difference.high


def test_what_neither_tells_is_no_measure() -> None:
    made = compared([run("x"), run("y", 1)], [run("x", 1), run("y")])
    assert set(made.measures) == {"actions"}
    assert "outcome_a" not in made.rows()[0]


def test_what_is_left_out_and_not_told_is_counted_run_by_run() -> None:
    """Two seeds are in both; A has two runs of a third, B three. Cells have one or two runs, their means count once."""
    a = [run("x", 1, s=1), run("x", 0, s=1), run("x", 0, s=2), run("y", 1, s=1), run("y", 1, s=2)]
    a += [run("x", 1, s=3), run("y", 1, s=3)]
    b = [run(name, 0, s=seed, text="Otherwise.") for name in "xy" for seed in (1, 2)]
    b += [run(name, s=1, text="Otherwise.") for name in "xy"] + [run(name, 1, s=4, text="Otherwise.") for name in "xyx"]
    made = compared(a, b, seeds="s")
    assert (made.seeds, made.runs, made.other_seeds) == (("1", "2"), (5, 6), (2, 3))
    assert made.other_text == 2
    outcome = made.measures["outcome"]
    assert outcome.runs_without == (0, 2)
    # Of x A has (1/2 + 0) / 2 over seeds, of y 1.
    assert (outcome.a.value, outcome.b.value, outcome.difference.value) == (0.625, 0.0, 0.625)
    assert (outcome.higher, outcome.lower, outcome.equal) == (2, 0, 0)
    # A row is the mean over all runs of a problem.
    assert [row["outcome_a"] for row in made.rows()] == [pytest.approx(1 / 3), 1.0]
    # A cell without a run leaves its problem out: nothing pairs it.
    one = compared([*a[:4]], b, seeds="s").measures["outcome"]
    assert (one.difference.n, one.higher) == (1, 1)


def test_what_one_agent_alone_tells_is_named() -> None:
    made = compared([run("x", 1), run("y")], [run("x"), run("y", 1)])
    assert made.apart == ("outcome",)
    assert set(made.measures) == {"actions"}
    assert made.to_json()["apart"] == ["outcome"]
    assert compared([run("x", 1)], [run("x", 0)]).apart == ()
