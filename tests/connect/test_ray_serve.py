"""A reward model and a vLLM policy behind Ray Serve, asked by workers of Ray, on a CPU: the tables of one process.

Runs by `make vllm` in an environment that has both; skipped elsewhere.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from tests.connect.test_vllm_release import ENVIRONMENT
from tests.docs import ROOT
from tests.score.tiny_checkpoints import build

from stepreward.core.errors import InputError, UnknownNameError
from stepreward.core.runtime.flows import Score
from stepreward.core.types import Problem, Step
from stepreward.policies.model_sources import resolve
from stepreward.score.load import load
from stepreward.tasks.arithmetic import generate
from stepreward.verbs.serve_on_ray import application

NEEDED = ("vllm", "ray", "grpc_reflection")
on_serve = pytest.mark.skipif(not all(map(importlib.util.find_spec, NEEDED)), reason="needs Ray Serve: make vllm")
# What Serve imports warns of its own.
pytestmark = [pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore")]
LIKE = "trl-prm"


def test_an_application_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="there is nothing to serve"):
        application({"replicas": "2"})
    with pytest.raises(UnknownNameError, match="did you mean replicas"):
        application({"model": "tool", "replica": "2"})
    with pytest.raises(InputError, match="replicas, cpus and gpus are numbers"):
        application({"model": "tool", "replicas": "two"})


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster of this machine that runs Serve, as `URL of its door|address of Ray`."""
    import ray
    from ray import serve

    os.environ.update({**ENVIRONMENT, "RAY_USAGE_STATS_ENABLED": "0"})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ray.init(address="local", num_cpus=8, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    yield f"http://127.0.0.1:{port}|{ray.get_runtime_context().gcs_address}"
    serve.shutdown()
    ray.shutdown()


def replicas(application: str) -> list[psutil.Process]:
    named = f"ray::ServeReplica:{application}:"
    return [one for one in psutil.process_iter() if named in " ".join(one.cmdline() if one.is_running() else [])]


def done(*words: object) -> str:
    ran = subprocess.run(
        [sys.executable, "-m", "stepreward", *map(str, words)], env={**os.environ}, text=True, timeout=300,
        capture_output=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-3000:]
    return ran.stdout


@on_serve
def test_scores_of_two_replicas_are_those_of_the_model_though_one_is_killed(cluster: str, tmp_path: Path) -> None:
    from ray import serve

    door, ray = cluster.split("|")
    build(tmp_path / "head", "qwen", "token-classification-2")
    given = {"model": str(tmp_path / "head"), "like": LIKE, "replicas": "2", "cpus": "0.5"}
    serve.run(application(given), name="scoring", route_prefix="/")
    address, local = f"{door}#{tmp_path / 'head'}?served_as=scorer", load(tmp_path / "head", like=LIKE)
    rows = tmp_path / "rows.jsonl"
    steps = [[f"{i} * {j} = {i * j}" for j in range(1, 2 + i % 5)] for i in range(300)]
    rows.write_text("".join(json.dumps({"question": f"{i}?", "steps": own}) + "\n" for i, own in enumerate(steps)))
    words = ["score", "--data", rows, "--model", address, "--like", LIKE, "--out"]
    done(*words, tmp_path / "one.parquet")
    done(*words, tmp_path / "two.parquet", "--engine", "ray", "--address", ray, "--part-size", 256)
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
    questions = [Score(Problem(f"{i}", f"{i}?"), tuple(map(Step, own))) for i, own in enumerate(steps)]
    first, second = replicas("scoring")
    first.send_signal(signal.SIGKILL)
    for here, there in zip(local.score_many(questions), load(address, like=LIKE).score_many(questions), strict=True):
        np.testing.assert_allclose(there.scores, here.scores, atol=1e-6)
    assert second.is_running()
    serve.delete("scoring")


@on_serve
def test_labels_of_a_policy_of_the_guide_are_those_of_one_process(cluster: str, tmp_path: Path) -> None:
    from ray import serve

    door, ray = cluster.split("|")
    model = tmp_path / "policy"
    shutil.copytree(resolve("builtin:arithmetic"), model)
    guide = (ROOT / "docs" / "guides" / "clusters.md").read_text()
    (code,) = (part.partition("```\n")[0] for part in guide.split('```python title="door.py"\n')[1:])
    (tmp_path / "door.py").write_text(code)
    sys.path.insert(0, str(tmp_path))
    import door as ours  # type: ignore[import-not-found]
    import ray as package

    package.cloudpickle.register_pickle_by_value(ours)
    flags = "--enforce-eager --dtype float32 --max-num-batched-tokens 16384"
    serve.run(ours.application({"model": str(model), "flags": flags}), name="policy", route_prefix="/")
    problems = tmp_path / "problems.jsonl"
    few = [{"id": one.id, "prompt": one.text, "reference": one.reference} for one in generate("held_out", 8)]
    problems.write_text("".join(json.dumps(row) + "\n" for row in few))
    address = f"{door}/v1#{model}?max_tokens=64&endpoint=completions&template={{prompt}}\\n"
    words = ["label", "--problems", problems, "--grader", "arithmetic", "--policy", address, "--samples", 2]
    words += ["--rollouts", 4, "--json", "--out"]
    told = json.loads(done(*words, tmp_path / "one"))
    found = json.loads(done(*words, tmp_path / "two", "--engine", "ray", "--address", ray, "--part-size", 2))
    assert (tmp_path / "two" / "labels.parquet").read_bytes() == (tmp_path / "one" / "labels.parquet").read_bytes()
    assert found["trajectories"] == told["trajectories"]
    assert min(told["bill"]["proposals"], found["bill"]["proposals"]) > 50
    serve.delete("policy")
