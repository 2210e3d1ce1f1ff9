"""Whom to blame: rules by hand, the identity of what agents lost, and the truth of an exact world."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.cli.running import invoke, refused
from tests.policies.test_crew import WORLD, sampled

import stepreward
from stepreward.core.errors import InputError
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.evaluate.agent_blame import blame_agents, blamed_step


def trace(values: list[float], agents: str, outcome: float = 0.0, problem: str = "p", **facts: object) -> Trajectory:
    steps = tuple(Step(f"{n}\n", "observation" if a == "." else "action", agent=a) for n, a in enumerate(agents))
    return Trajectory(Problem(problem, problem), steps, outcome, columns={"value": np.array(values)}, facts=facts)


def test_rules_by_hand() -> None:
    values = np.array([0.75, np.nan, 0.5, 0.125, 0.0, 0.0])
    assert blamed_step(values, 0.8, "lost") == 4
    assert blamed_step(values, 0.8, "lost", 0.125) == 3
    assert blamed_step(values, 0.8, "drop") == 3
    assert blamed_step(values, 1.5, "drop") == 0
    # Without a value before it the first turn is no fall.
    assert blamed_step(values, np.nan, "drop") == 3
    assert blamed_step(np.array([0.25, 0.9, 0.75]), np.nan, "drop") == 2
    assert blamed_step(values, 0.8, "lowest") == 4
    assert blamed_step(np.array([0.5, 0.75]), 0.5, "lost") == -1
    assert blamed_step(np.array([0.5, 0.75]), 0.5, "drop") == -1
    assert blamed_step(np.array([np.nan]), 0.5, "lowest") == -1


def test_what_agents_lost_adds_up_to_what_there_was() -> None:
    rows = [trace([0.5, np.nan, 0.25, 0.0], "a.ba", root_value=0.75), trace([1.0, 1.0], "ab", 1.0, root_value=0.75)]
    made = blame_agents(rows)
    # a: 1/4 at first and 1/4 at the end; b: 1/4.
    assert {name: one.lost.value for name, one in made.agents.items()} == {"a": 0.5, "b": 0.25}
    assert {name: one.turns for name, one in made.agents.items()} == {"a": 3, "b": 2}
    # Of one problem: a has 0.5, 0 and 1, from 0.75, 0.25 and 0.75.
    assert made.agents["a"].value.value == pytest.approx(0.5)
    assert made.agents["a"].advantage.value == pytest.approx((-0.25 - 0.25 + 0.25) / 3)
    assert [(one.step, one.agent) for one in made.blames] == [(3, "a")]
    assert (made.traces, made.failed, made.unmeasured) == (2, 1, 0)


def test_the_first_value_of_a_problem_is_the_mean_after_its_first_turns() -> None:
    rows = [trace([0.0, 0.0], "ab"), trace([1.0, 0.0], "ab"), trace([1.0, 1.0], "ab", 1.0, "other")]
    made = blame_agents(rows, rule="drop")
    assert [(one.row, one.step) for one in made.blames] == [(0, 0), (1, 1)]
    assert made.agents["a"].lost.value == pytest.approx(0.0)
    assert made.agents["b"].lost.value == pytest.approx(0.5)


def test_each_agent_is_blamed_as_often_as_its_turns_are() -> None:
    """a loses two traces, b one and c none; an outcome that is the threshold is no failure."""
    rows = [trace([0.0, 0.0, 0.0], "abc", problem=name) for name in "pq"]
    rows += [trace([0.5, 0.0, 0.0], "abc", problem="r"), trace([0.0], "a", 0.5, problem="s")]
    rows += [trace([np.nan, 0.5], "ab", np.nan, problem=name) for name in "tu"]
    made = blame_agents(rows)
    assert (made.failed, made.ungraded, made.unmeasured) == (3, 2, 0)
    assert {name: one.blamed for name, one in made.agents.items()} == {"a": 2, "b": 1, "c": 0}
    assert [(one.step, one.agent) for one in made.blames] == [(0, "a"), (0, "a"), (1, "b")]
    # What is not known of a turn is in no mean: a's values are 0, 0, 0.5 and 0.
    assert made.agents["a"].value.value == pytest.approx(0.125)
    assert made.agents["a"].value.n == 4


def test_a_turn_without_a_number_blames_nobody_and_is_counted() -> None:
    made = blame_agents([trace([np.nan, 0.0], "ab"), trace([0.5, 0.0], "ab")])
    assert (made.failed, made.unmeasured, len(made.blames)) == (2, 1, 1)
    with pytest.raises(InputError, match="there are value"):
        blame_agents([trace([0.5], "a")], column="score")


def test_what_is_not_known_of_a_trace_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [trace([0.5, 0.0], "ab"), trace([0.5, 0.0], "ab", float("nan")), replace(trace([0, 0], "ab"), columns={})]
    made = blame_agents(rows)
    assert (made.traces, made.ungraded, made.failed, made.unmeasured) == (3, 1, 2, 1)
    monkeypatch.chdir(tmp_path)
    stepreward.write("rows.parquet", rows)
    shown = invoke("blame rows.parquet")
    assert "1 traces have no outcome" in shown
    assert "1 failed traces lack a number" in shown
    stepreward.write("won.parquet", [trace([0.5, 1.0], "ab", 1.0)])
    line = "blame rows.parquet --truth won.parquet --out no.jsonl"
    assert "won.parquet: no failed trace with a number" in refused(line, capsys, monkeypatch)
    assert not Path("no.jsonl").exists()
    assert "cannot write rows.parquet/no" in refused("blame rows.parquet --out rows.parquet/no", capsys, monkeypatch)


def test_an_infinite_value_is_refused_by_its_place() -> None:
    rows = [trace([0.5], "a"), trace([0.5, -np.inf, np.inf], "a.b")]
    with pytest.raises(InputError, match="trace 2, of problem 'p': value of step 2 is inf; give a finite number"):
        blame_agents(rows)


def test_accuracy_by_hand() -> None:
    rows = [trace([0.5, 0.0, 0.0, 0.0], "abab"), trace([0.5, 0.5, 0.5, 0.0], "abab", problem="q")]
    gold = [replace(rows[0], first_error=1), replace(rows[1], first_error=0, facts={"mistake_agent": "b"})]
    made = {name: one.value for name, one in blame_agents(rows, gold).accuracy.items()}
    assert made == {
        "step": 0.5, "agent": 1.0, "step_of_last_turn": 0.0, "agent_of_last_turn": 1.0, "step_at_random": 0.25,
        "agent_at_random": 0.5,
    }  # fmt: skip
    assert not blame_agents(rows, [trace([0.1], "a")]).accuracy


def test_labels_by_rollouts_name_the_planted_error_far_above_chance() -> None:
    rows = sampled(12, n=10)
    gold = [replace(one, first_error=WORLD.decisive(one.problem, one.steps)) for one in rows]
    share = blame_agents(rows, gold).accuracy
    assert share["step"].low > max(share["step_of_last_turn"].high, share["step_at_random"].high)
    assert share["agent"].low > max(share["agent_of_last_turn"].high, share["agent_at_random"].high)


def test_the_command_measures_by_the_truth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [trace([0.5, 0.0, 0.0, 0.0], "abab"), trace([0.5, 0.5, 0.5, 0.0], "abab", problem="q")]
    stepreward.write("rows.parquet", rows)
    stepreward.write("gold.parquet", [replace(one, first_error=1) for one in rows])
    made = json.loads(invoke("blame rows.parquet --truth gold.parquet --json"))
    assert made["accuracy"]["step"]["value"] == 0.5
    assert made == json.loads(json.dumps(blame_agents(rows, [replace(r, first_error=1) for r in rows]).to_json()))
    shown = invoke("blame rows.parquet --truth gold.parquet --rule drop")
    assert "blamed rightly, step of last turn: 0.0%" in shown
