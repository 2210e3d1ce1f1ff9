"""Gymnasium's environments as they come, on the command line and in Python."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import stepreward
from stepreward.cli.app import app
from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.runtime.acts import Act
from stepreward.core.runtime.driver import Driver
from stepreward.core.types import Problem, Step
from stepreward.environments.by_address import environment_at
from stepreward.label.samples import graded_samples
from stepreward.policies.tabular import TabularPolicy

gymnasium = pytest.importorskip("gymnasium")
LAKE = "gymnasium?env=FrozenLake-v1"


def walker(*, chances: dict[str, float]) -> TabularPolicy:
    return TabularPolicy(lambda *_: [(Step(f"{name}\n"), chance, True) for name, chance in chances.items()], "walker")


def test_the_share_of_won_episodes_is_the_exact_one() -> None:
    """FrozenLake is a Markov chain under a random walk: its value by the transition matrix of the package itself."""
    env = gymnasium.make("FrozenLake-v1")
    table, states = env.unwrapped.P, env.observation_space.n
    chance, won = np.zeros((states, states)), np.zeros(states)
    for state in range(states):
        for action in range(4):
            for p, after, reward, done in table[state][action]:
                won[state] += p * reward / 4
                chance[state, after] += 0 if done else p / 4
    # A walk of 100 actions at most.
    value = np.zeros(states)
    for _ in range(100):
        value = won + chance @ value
    agent = stepreward.policy(walker(chances=dict.fromkeys("0123", 0.25)), environment=LAKE)
    n = 1500
    problems = [Problem(f"lake-{i}", "Reach the goal.") for i in range(n)]
    flows = (graded_samples(one, Key.seed(0), n=1, temperature=None) for one in problems)
    outcomes = [one.result[0].outcome for one in Driver(policy=agent).run(flows)]
    assert abs(np.mean(outcomes) - value[0]) < 4 * np.sqrt(value[0] / n)


def test_an_action_that_cannot_be_read_is_told_so() -> None:
    episodes = environment_at(LAKE)
    problem = Problem("lake", "Reach the goal.", meta={"seed": 3})
    (first,) = episodes.act_many([Act(problem, ())])
    (shown,) = episodes.act_many([Act(problem, (*first.steps, Step("I go right.")))])
    assert shown.steps[0].text == "No action of Discrete(4) was read; write one."
    assert not shown.done


def test_a_policy_that_never_acts_comes_to_an_end() -> None:
    agent = stepreward.policy(walker(chances={"I think.": 1.0}), environment=f"{LAKE}&unread=3")
    (made,) = Driver(policy=agent).run([graded_samples(Problem("lake", "Reach it."), Key.seed(0), n=1)])
    (row,) = made.result
    assert (row.outcome, sum(step.kind == "action" for step in row.steps)) == (0.0, 3)


def test_an_unknown_environment_is_named() -> None:
    with pytest.raises(InputError, match=r"has no environment 'Lake-v0'.*write gymnasium\?env=NAME"):
        environment_at("gymnasium?env=Lake-v0")


def test_label_on_the_command_line(tmp_path: Path) -> None:
    rows = [
        {"id": f"lake-{i}", "prompt": "Reach the goal: 0 left, 1 down, 2 right, 3 up.", "seed": i} for i in range(3)
    ]
    (tmp_path / "lakes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [
        "label", "--problems", str(tmp_path / "lakes.jsonl"), "--environment", LAKE, "--samples", "2",
        "--rollouts", "2", "--out", str(tmp_path / "labels"), "--json", "--max-tokens", "60",
    ]  # fmt: skip
    made = CliRunner().invoke(app, command)
    assert made.exit_code == 0, made.output
    told = json.loads(made.stdout)
    assert told["trajectories"] >= 1
    assert told["labelled_steps"] >= 1
    read = [*stepreward.read(told["labels"])]
    assert all(one.steps[0].kind == "observation" for one in read)
    assert all(one.outcome == 0.0 for one in read), "the built-in policy knows no lakes"
    assert all("in gymnasium FrozenLake-v1" in one.provenance[-1].policy for one in read)
