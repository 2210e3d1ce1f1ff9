"""Monitors on real logs of agents: the bound holds, and a chat that is watched is the log that was fitted on."""

from __future__ import annotations

import gzip
import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

import stepreward
from stepreward import formats
from stepreward.evaluate.monitoring import measure_over_splits
from stepreward.score.monitor.turn_signals import agent_turns
from stepreward.score.monitor.watched_runs import watched_runs

DATA = Path(__file__).parents[2].parent / "shared" / "data"
pytestmark = [pytest.mark.real, pytest.mark.skipif(not DATA.exists(), reason="needs the real data")]
TAU = DATA / "tau_bench" / "gpt-4o-airline.jsonl.gz"


@pytest.mark.parametrize("path", ["fever_react/fever_react_500.jsonl.gz", "webshop_react/webshop_react_500.jsonl.gz"])
def test_the_bound_of_false_alarms_holds(path: str) -> None:
    runs = watched_runs([*formats.read(DATA / path)])
    made = measure_over_splits(runs, ["features"], alpha=0.2, splits=15)
    for name, row in made.measures.items():
        assert row["false_alarms"].low <= 0.2, name
        assert row["false_alarms"].value > 0.12, "the rate is used"


def test_the_environment_s_last_answer_tells_the_outcome_and_is_not_read() -> None:
    items = [*formats.read(DATA / "fever_react" / "fever_react_500.jsonl.gz")]
    told = [item.steps[-1].text for item in items]
    assert sum("reward = 1" in text for text in told) == sum(item.outcome == 1 for item in items)
    runs = watched_runs(items)
    assert len(runs.fine) == sum(int(item.action.sum()) - 1 for item in items)


def test_a_chat_with_tools_has_the_signals_of_its_log() -> None:
    items = [*formats.read(TAU)]
    monitor = stepreward.fit_monitor(items[: len(items) // 2], alpha=0.2)
    lines = gzip.decompress(TAU.read_bytes()).decode().splitlines()
    rows = [json.loads(line) for line in lines[len(items) // 2 :: 9]]
    for row, item in zip(rows, items[len(items) // 2 :: 9], strict=True):
        by_log, by_chat = monitor.watch(), monitor.watch()
        turns = agent_turns(item.steps)
        first = next(i for i, message in enumerate(row["traj"]) if message["role"] == "assistant")
        for turn in turns:
            messages = row["traj"][first + turn.place : first + turn.ends]
            assert by_chat.after_turn(*messages) == by_log.after_turn(turn.action, *turn.answers)


def test_scores_of_a_real_reward_model_stop_what_turns_do_not() -> None:
    path = DATA / "bon_pools" / "gsm8k_scores.jsonl.gz"
    items = [*islice(formats.read(path, strip_prompt=True, separator="\n"), 0, 6400, 8)]
    made = measure_over_splits(watched_runs(items, column="score:qwen_prm"), ["min-score"], splits=15)
    assert made.measures["min-score"]["false_alarms"].low <= 0.1
    assert made.versus_turn["min-score"]["recall"].low > 0
    assert np.isfinite(made.versus_turn["min-score"]["saved"].value)
