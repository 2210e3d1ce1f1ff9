"""Engines of vLLM in Ray's actors, on a CPU: the tables of one process with the same engine, whatever dies.

Runs by `make vllm` in an environment that has both; skipped elsewhere.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.connect.test_vllm_release import ENVIRONMENT, WIDE
from tests.score.tiny_checkpoints import build

from stepreward.policies.model_sources import resolve
from stepreward.tasks.arithmetic import generate

pytestmark = [
    pytest.mark.skipif(
        not all(importlib.util.find_spec(name) for name in ("vllm", "ray")), reason="needs vLLM and Ray: make vllm"
    ),
    pytest.mark.timeout(600),
]
ENGINE = 'engine={"dtype":"float32","enforce_eager":true,"max_num_batched_tokens":16384}'
TWO = ("--engine", "ray", "--workers", "2", "--part-size")


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The built-in policy, in an engine."""
    folder = tmp_path_factory.mktemp("vllm") / "policy"
    shutil.copytree(resolve("builtin:arithmetic"), folder)
    return f"vllm:{folder}?max_tokens=64&{ENGINE}"


@pytest.fixture(scope="module")
def reward_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Qwen2 of random weights with a head, in an engine."""
    folder = tmp_path_factory.mktemp("vllm") / "head"
    build(folder, "qwen", "token-classification-2", hidden=WIDE)
    return f"vllm:{folder}?{ENGINE}"


@pytest.fixture(scope="module")
def problems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vllm") / "problems.jsonl"
    rows = [{"id": one.id, "prompt": one.text, "reference": one.reference} for one in generate("held_out", 16)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def command(*words: object, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "stepreward", *map(str, words)], env={**ENVIRONMENT, **environment}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def done(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err[-3000:]
    return out


def test_labels_and_bill_are_those_of_one_engine_though_an_actor_is_killed(
    policy: str, problems: Path, tmp_path: Path
) -> None:
    words = ["label", "--problems", problems, "--grader", "arithmetic", "--policy", policy]
    words += ["--samples", "2", "--rollouts", "4", "--json"]
    told = json.loads(done(command(*words, "--out", tmp_path / "one")))
    process = command(*words, "--out", tmp_path / "two", *TWO, "2")
    end = time.monotonic() + 300
    while not list((tmp_path / "two").glob("labels-*.parquet")):
        assert process.poll() is None
        assert time.monotonic() < end, "no part comes"
        time.sleep(0.05)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "two").glob("labels-*.parquet")}
    family = psutil.Process(process.pid).children(recursive=True)
    actors = [one for one in family if "ray::_PartMaker" in " ".join(one.cmdline())]
    engines = [one for one in family if "EngineCore" in " ".join(one.cmdline())]
    assert (len(actors), len(engines)) == (2, 2), "each actor has an engine"
    actors[0].send_signal(signal.SIGKILL)
    found = json.loads(done(process))
    assert (tmp_path / "two" / "labels.parquet").read_bytes() == (tmp_path / "one" / "labels.parquet").read_bytes()
    assert {**found, "labels": ""} == {**told, "labels": ""}
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, "no finished part is made again"
    # Neither the killed actor nor those that ended leave an engine behind, which would keep its memory.
    _, alive = psutil.wait_procs(family, timeout=30)
    assert not alive


def test_scores_of_a_reward_model_are_those_of_one_engine(reward_model: str, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    steps = [[f"{i} * {j} = {i * j}" for j in range(1, 2 + i % 5)] for i in range(300)]
    rows.write_text("".join(json.dumps({"question": f"{i}?", "steps": own}) + "\n" for i, own in enumerate(steps)))
    words = ["score", "--data", rows, "--model", reward_model, "--like", "trl-prm"]
    done(command(*words, "--out", tmp_path / "one.parquet"))
    # The second part has an engine of its own; this one runs in the process of its actor.
    done(command(*words, "--out", tmp_path / "two.parquet", *TWO, "256", VLLM_ENABLE_V1_MULTIPROCESSING="0"))
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()


def test_a_search_with_two_engines_in_an_actor_is_that_of_one_process(
    policy: str, reward_model: str, problems: Path, tmp_path: Path
) -> None:
    words = ["search", "--problems", problems, "--grader", "arithmetic", "--method", "beam", "--budget", "4"]
    words += ["--policy", policy, "--model", reward_model, "--like", "trl-prm", "--json"]
    # Two engines of their own processes need more memory than a small machine has beside Ray.
    told = []
    for name, more in (("one", ()), ("two", ("--engine", "ray", "--workers", "1", "--part-size", "8"))):
        out = tmp_path / f"{name}.jsonl"
        told.append(json.loads(done(command(*words, "--out", out, *more, VLLM_ENABLE_V1_MULTIPROCESSING="0"))))
    assert {**told[0], "out": ""} == {**told[1], "out": ""}
    assert _found(tmp_path / "one.jsonl") == _found(tmp_path / "two.jsonl")


def _found(path: Path) -> list[dict[str, Any]]:
    """Rows without the seconds that they took."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{**row, "facts": {**json.loads(row["facts"]), "seconds": 0}} for row in rows]
