"""Real logs of agents and real preferences, against what the raw files say."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stepreward
from stepreward import formats

DATA = Path(__file__).parents[2].parent / "shared" / "data"
pytestmark = [pytest.mark.real, pytest.mark.skipif(not DATA.exists(), reason="needs the real data")]


def raw(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).decode().splitlines()]


def test_tau_bench_has_every_message_and_reward() -> None:
    path = DATA / "tau_bench" / "gpt-4o-airline.jsonl.gz"
    rows, items = raw(path), list(formats.read(path, strict=True))
    assert [item.outcome for item in items] == [row["reward"] for row in rows]
    assert len({item.problem.id for item in items}) == 50
    for row, item in zip(rows, items, strict=True):
        assert len(item.problem.messages) + len(item) == len(row["traj"])
        said = [m for m in row["traj"] if m["role"] == "assistant"]
        acted = [step for step in item.steps if step.kind == "action"]
        assert len(acted) == len(said)
        called = [c["function"]["name"] for m in said for c in m.get("tool_calls") or []]
        assert [c["name"] for step in acted for c in step.meta.get("tool_calls", [])] == called


@pytest.mark.parametrize("name", ["webshop_react/webshop_react_500.jsonl.gz", "fever_react/fever_react_500.jsonl.gz"])
def test_react_has_every_action(name: str) -> None:
    rows, items = raw(DATA / name), list(formats.read(DATA / name, strict=True))
    assert np.mean([i.outcome for i in items]) == pytest.approx(np.mean([r["reward"] for r in rows]))
    for row, item in zip(rows, items, strict=True):
        reset = row["steps"][0]["action"] == "reset"
        assert sum(step.kind == "action" for step in item.steps) == len(row["steps"]) - reset


@pytest.mark.parametrize("path", sorted((DATA / "hotpotqa_react").glob("*.gz")), ids=lambda p: p.name[-40:])
def test_fire_act_reads_chats_and_transcripts(path: Path) -> None:
    reading = formats.read(path)
    items = list(reading)
    assert len(items) + reading.left_out == len(raw(path))
    assert reading.left_out <= 1
    assert {item.outcome for item in items} == {0.0, 1.0}
    assert all(item.steps[0].kind == "action" for item in items)


@pytest.mark.parametrize("path", sorted((DATA / "inspect_logs").glob("*.*[lz]")), ids=lambda p: p.name)
def test_every_inspect_log_is_read(path: Path) -> None:
    items = list(formats.read(path, strict=True))
    assert items
    assert all(any(step.kind == "action" for step in item.steps) for item in items)


@pytest.mark.parametrize("path", sorted((DATA / "swe_agent").glob("*.traj.gz")), ids=lambda p: p.name[:30])
def test_swe_agent_s_trajectories(path: Path) -> None:
    row = json.loads(gzip.decompress(path.read_bytes()))
    if "trajectory" not in row:
        pytest.skip("holds a history alone")
    (item,) = formats.read(path, strict=True)
    observed = [turn["observation"] for turn in row["trajectory"] if turn["observation"]]
    assert [s.text[:-1] for s in item.steps if s.kind == "observation"] == observed


@pytest.mark.parametrize("folder", ["llmbar", "plan_rewardbench"])
def test_preferences_have_one_better_side(folder: str) -> None:
    for path in sorted((DATA / folder).glob("*.gz")):
        items = list(formats.read_comparisons(path, strict=True))
        assert len(items) == len(raw(path))
        assert all(sorted(item.preferred) == [0, 1] for item in items)


def test_two_agents_on_hotpotqa_compared_as_the_raw_rewards_say() -> None:
    large, small = (next((DATA / "hotpotqa_react").glob(f"*llama-2-{size}*")) for size in ("13b", "7b"))
    made = stepreward.compare_agents(large, small)
    rewards = [{row["id"]: float(row["reward"]) for row in raw(path)} for path in (large, small)]
    ids = [name.removeprefix("fire-act-") for name in made.problems]
    differences = np.array([rewards[0][name] - rewards[1][name] for name in ids])
    outcome = made.measures["outcome"]
    assert outcome.difference.value == pytest.approx(differences.mean())
    assert (outcome.higher, outcome.lower) == ((differences > 0).sum(), (differences < 0).sum())
    # The same interval by the normal approximation of the paired differences.
    half = 1.96 * differences.std(ddof=1) / len(ids) ** 0.5
    assert outcome.difference.high - outcome.difference.low == pytest.approx(2 * half, rel=0.08)


def test_trials_of_tau_bench_are_one_problem_each() -> None:
    path = DATA / "tau_bench" / "gpt-4o-airline.jsonl.gz"
    items = list(formats.read(path, strict=True))
    halves = [[one for one in items if one.facts["trial"] % 2 == odd] for odd in (0, 1)]
    made = stepreward.compare_agents(*halves)
    assert (len(made.problems), made.runs) == (50, (100, 100))
    # The simulated user's words differ from trial to trial, so the text is another, and the task is the same.
    assert made.other_text > 40
    outcome = made.measures["outcome"].difference
    assert outcome.low < 0 < outcome.high
    seeded = stepreward.compare_agents(items, [*reversed(items)], seeds="trial")
    assert len(seeded.seeds) == 4
    assert seeded.measures["outcome"].difference.value == 0


@pytest.mark.parametrize("name", ["swe_agent", "inspect_logs", "webshop_react"])
def test_any_log_is_compared_with_itself(name: str) -> None:
    for path in sorted((DATA / name).glob("*[lz]"))[:6]:
        made = stepreward.compare_agents(path, path)
        assert all(one.difference.value == 0 for one in made.measures.values())
        assert made.measures["actions"].a.value > 0
