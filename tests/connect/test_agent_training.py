"""The benchmark that trains an agent: its step rewards, and what it keeps of a training."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("trl")
from benchmarks import agent_training as trained_agents
from benchmarks.agent_training import ARMS, FAULTY, QUICK, answered_calls, call_fees, measure, none, read_run

from stepreward.core.types import Problem, Step, Trajectory

PLAYED = Trajectory(
    Problem("p", "What does Ana pay?"),
    (
        Step('{"name": "price", "arguments": {"item": "lamp"}}\n'), Step("12\n", "observation", "tool"),
        Step('{"name": "price", "arguments": {"item": "yacht"}}\n'),
        Step("there is no yacht in the shop\n", "observation", "tool"),
        Step('{"name": "calculate", "arguments": {"expression": "2 - 14"}}\n'), Step("-12\n", "observation", "tool"),
        Step("Answer: 12\n"),
    ),
)  # fmt: skip


def test_step_rewards_with_a_fault() -> None:
    assert answered_calls([PLAYED])[0].tolist() == [1, 0, 1, 0]
    assert call_fees([PLAYED])[0].tolist() == [-1, -1, -1, 0]
    assert none([PLAYED])[0].tolist() == [0, 0, 0, 0]


def test_a_training_is_kept_update_by_update() -> None:
    rows = [
        {"process/outcome": 0.5, "process/steps": 4.0, "completions/mean_length": 50.0, "process/process": 0.1},
        {"process/outcome": 0.75, "process/steps": 5.0, "completions/mean_length": 60.0, "process/process": 0.2},
        {"train_runtime": 3.0},
    ]
    made = read_run("pure", 3, [0.4, 0.6], {"padding": 2}, rows, QUICK, 9.0)
    assert (made.outcome, made.steps, made.process) == ([0.5, 0.75], [4.0, 5.0], [0.1, 0.2])
    # Two problems with four episodes each, of 50 and then 60 tokens.
    assert made.tokens == 8 * 110
    assert made.unscored == []
    rows = [{**row, "process/unscored_steps": 0.5} for row in rows[:2]]
    beside = read_run("forks", 3, [0.4], {}, rows, QUICK, 9.0, beside=7)
    assert (beside.tokens, beside.unscored) == (8 * 110 + 7, [0.5, 0.5])
    assert (made.alarms, made.held_out, made.seconds) == ({"padding": 2}, [0.4, 0.6], 9.0)


def test_what_was_trained_is_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []

    def train(name: str, arm: Any, seed: int, sizes: Any, updates: int, model: Path) -> Any:
        assert model == (tmp_path / "model" if name == "learned" else Path())
        asked.append((name, seed))
        rows = [{"process/outcome": 0.5, "process/steps": 4.0, "completions/mean_length": 5.0}] * updates
        return read_run(name, seed, [0.5, 0.5 + 0.1 * seed], {}, rows, sizes, 1.0)

    monkeypatch.setattr(trained_agents, "train", train)
    monkeypatch.setattr(trained_agents, "rewarded", lambda path, quick: tmp_path / "model")
    found = measure(QUICK, tmp_path)
    assert sorted(asked) == sorted([(name, seed) for name in ARMS for seed in (0, 1)] + [(name, 0) for name in FAULTY])
    assert measure(QUICK, tmp_path) == found
    assert len(asked) == 2 * len(ARMS) + len(FAULTY)
    assert [*measure(QUICK, tmp_path, arms=["forks", "outcome"])["arms"]] == ["outcome", "forks"]
    more = measure(replace(QUICK, seeds=3), tmp_path)
    assert asked[2 * len(ARMS) + len(FAULTY) :] == [(name, 2) for name in ARMS]
    np.testing.assert_allclose(more["arms"]["pure"]["curve"][-1]["value"], 0.6)
    assert json.loads((tmp_path / "pure-2.json").read_text())["seed"] == 2
    assert more["settings"] == asdict(replace(QUICK, seeds=3))
    with pytest.raises(SystemExit, match="trainings of other sizes"):
        measure(replace(QUICK, updates=5), tmp_path)
