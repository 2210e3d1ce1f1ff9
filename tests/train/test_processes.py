"""Several processes train as one does: the same batches, the same weights, and one of them writes."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from safetensors.numpy import load_file
from tests.effort import THOROUGH
from tests.forked import COMMAND, begun, ended
from tests.train.toy import toy_labels, toy_model

import stepreward

FLAGS = "train --data rows.parquet --backbone scratch --epochs 1 --batch-tokens 256 --row-tokens 128 --device cpu"
ADAPTERS = f"{FLAGS} --save-seconds 0 --lora-rank 2".replace("scratch", "base")
ON_CPU = """
from accelerate.state import AcceleratorState, DistributedType, PartialState
plain = AcceleratorState.__init__
def sharding(self, *args, **kwargs):
    # Accelerate shards over accelerators alone; torch over any process group.
    if kwargs.get("fsdp_plugin") is not None:
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    plain(self, *args, **kwargs)
AcceleratorState.__init__ = sharding
"""
"""Makes Accelerate shard over processes of the CPU."""
HUNG = 100
everything = pytest.mark.skipif(not THOROUGH, reason="STEPREWARD_TESTS=all runs it")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("processes")
    stepreward.write(made / "rows.parquet", toy_labels(40, 0))
    toy_model(seed=3).save_pretrained(made / "base")
    return made


def start(folder: Path, words: str, n: int, before: str = "") -> list[tuple[object, Path]]:
    """Begins `stepreward WORDS` as each rank of a group of n, as `torchrun` would."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    several = {
        "WORLD_SIZE": str(n), "LOCAL_WORLD_SIZE": str(n), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip
    made: list[tuple[object, Path]] = []
    for rank in range(n):
        log = folder / f"{words.rsplit(maxsplit=1)[-1]}-{n}-{rank}"
        log.mkdir(exist_ok=True)
        # Gloo may abort while it is torn down, after all is done.
        code = COMMAND.format(before=before).replace("\nmain()", "\ntry:\n    main()\nexcept SystemExit as end:\n"
            "    import os; sys.stdout.flush(); sys.stderr.flush(); os._exit(int(end.code or 0))")  # fmt: skip
        (log / "code.py").write_text(code, encoding="utf-8")
        own: Mapping[str, str] = {**several, "RANK": str(rank), "LOCAL_RANK": str(rank)} if n > 1 else {}
        environment = {"OMP_NUM_THREADS": "1", **own}
        made.append((begun(log / "code.py", folder, log, words=words.split(), environment=environment), log))
    return made


def run(folder: Path, words: str, n: int, before: str = "") -> list[CompletedProcess[str]]:
    done = [ended(process, log, HUNG) for process, log in start(folder, words, n, before)]  # type: ignore[arg-type]
    if n > 1 and any(one.returncode == -signal.SIGKILL for one in done):
        # Gloo itself hangs now and then on a loaded machine; what is there is gone on with.
        done = [ended(process, log, HUNG) for process, log in start(folder, words, n, before)]  # type: ignore[arg-type]
    return done


def weights(model: Path) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    names = ("model.safetensors", "adapter_model.safetensors", "step_head.safetensors")
    found = [load_file(model / name) for name in names if (model / name).is_file()]
    return np.concatenate([one[name].ravel().astype(float) for one in found for name in sorted(one)])


@pytest.fixture(scope="module")
def alone(folder: Path) -> Path:
    (done,) = run(folder, f"{FLAGS} --accumulate 2 --out alone", 1)
    assert done.returncode == 0, done.stderr
    return folder / "alone"


def test_two_processes_train_what_one_does(folder: Path, alone: Path) -> None:
    first, second = run(folder, f"{FLAGS} --accumulate 1 --json --out two", 2)
    assert first.returncode == 0, first.stderr
    assert second.returncode == 0, second.stderr
    np.testing.assert_allclose(weights(folder / "two"), weights(alone), atol=1e-5)
    assert json.loads(first.stdout)["model"] == "two"
    assert second.stdout == ""
    one, two = (json.loads((path / "training.json").read_text()) for path in (alone, folder / "two"))
    assert two["metrics"]["loss"] == pytest.approx(one["metrics"]["loss"], abs=1e-4)
    assert two["steps"] == one["steps"]
    # Adam hides the scale of a gradient; its norm and the loss do not.
    for name in ("loss", "grad_norm"):
        sizes = [[row[name] for row in made["history"] if name in row] for made in (one, two)]
        assert sizes[0]
        assert sizes[1] == pytest.approx(sizes[0], rel=1e-3)
    assert not (folder / "two" / "unfinished").exists()


@everything
@pytest.mark.parametrize("shard", ["", "--shard"])
def test_log_ratios_are_trained_by_two_processes_as_by_one(folder: Path, shard: str) -> None:
    flags = "train --data rows.parquet --objective dpo --epochs 0.3 --batch-tokens 512 --device cpu"
    (one,) = run(folder, f"{flags} --accumulate 2 --out dpo-alone", 1)
    assert one.returncode == 0, one.stderr
    out = f"dpo-two{shard}"
    for done in run(folder, f"{flags} {shard} --accumulate 1 --out {out}", 2, ON_CPU):
        assert done.returncode == 0, done.stderr
    whole, parts = (load_file(folder / name / "model.safetensors") for name in ("dpo-alone", out))
    assert whole.keys() == parts.keys()
    for name, weight in whole.items():
        np.testing.assert_allclose(parts[name], weight, atol=1e-4)


@everything
def test_a_lagging_copy_is_the_same_in_two_processes(folder: Path) -> None:
    """Its targets are in the weights; the training of one process had both batches of each step."""
    words = f"{FLAGS} --objective archer --polyak 0.3 --epochs 3"
    (done,) = run(folder, f"{words} --accumulate 2 --out critic-alone", 1)
    assert done.returncode == 0, done.stderr
    for done in run(folder, f"{words} --accumulate 1 --out critic-two", 2):
        assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(weights(folder / "critic-two"), weights(folder / "critic-alone"), atol=1e-5)


@everything
@pytest.mark.parametrize("shard", ["", "--shard"])
def test_a_language_model_and_its_values_are_trained_by_two_processes_as_by_one(folder: Path, shard: str) -> None:
    words = f"{FLAGS} --objective b-coder --optimizer sgd --learning-rate 0.01"
    (one,) = run(folder, f"{words} --accumulate 2 --out coder-alone", 1)
    assert one.returncode == 0, one.stderr
    out = f"coder-two{shard}"
    for done in run(folder, f"{words} {shard} --accumulate 1 --out {out}", 2, ON_CPU):
        assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(weights(folder / out), weights(folder / "coder-alone"), atol=1e-4)


@everything
@pytest.mark.parametrize("shard", ["", "--shard"])
@pytest.mark.parametrize("objective", ["saffron --teacher base", "palbert --set exits=2"])
def test_heads_of_more_than_one_layer_or_token_are_trained_by_two_processes(
    folder: Path, objective: str, shard: str
) -> None:
    name = objective.split(maxsplit=1)[0]
    words = f"{FLAGS.replace('scratch', 'base')} --objective {objective}"
    (one,) = run(folder, f"{words} --accumulate 2 --out {name}-alone{shard}", 1)
    assert one.returncode == 0, one.stderr
    for done in run(folder, f"{words} {shard} --accumulate 1 --out {name}-two{shard}", 2, ON_CPU):
        assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(
        weights(folder / f"{name}-two{shard}"), weights(folder / f"{name}-alone{shard}"), atol=1e-5
    )


@everything
def test_shards_train_what_whole_copies_do(folder: Path, alone: Path) -> None:
    for done in run(folder, f"{FLAGS} --accumulate 1 --shard --out shards", 2, ON_CPU):
        assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(weights(folder / "shards"), weights(alone), atol=1e-4)


def killed(folder: Path, words: str, n: int, before: str = "") -> list[CompletedProcess[str]]:
    """Kills rank 0 after its first checkpoint; what the ranks said."""
    (unfinished,) = (folder / words.rsplit(maxsplit=1)[-1] / "unfinished",)
    ranks = start(folder, f"{words}", n, before)
    deadline = time.monotonic() + HUNG
    while not list(unfinished.glob("checkpoint-*/trainer_state.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(ranks[0][0].pid, signal.SIGKILL)  # type: ignore[attr-defined]
    return [ended(process, log, HUNG) for process, log in ranks]  # type: ignore[arg-type]


@everything
def test_a_training_goes_on_with_another_number_of_processes(folder: Path, alone: Path) -> None:
    _, second = killed(folder, f"{FLAGS} --save-seconds 0 --accumulate 1 --out moved", 2)
    assert second.returncode == 1
    assert second.stderr.splitlines()[-1].startswith("stepreward: another process of this training has ended")
    assert not (folder / "moved" / "training.json").exists()
    (done,) = run(folder, f"{FLAGS} --save-seconds 0 --accumulate 2 --out moved", 1)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(weights(folder / "moved"), weights(alone), atol=1e-4)


@everything
def test_shards_go_on_in_another_number_of_processes(folder: Path) -> None:
    (done,) = run(folder, f"{FLAGS} --accumulate 6 --out six", 1)
    assert done.returncode == 0, done.stderr
    killed(folder, f"{FLAGS} --shard --save-seconds 0 --accumulate 3 --out split", 2, ON_CPU)
    (refused,) = run(folder, f"{FLAGS} --save-seconds 0 --accumulate 6 --out split", 1)
    assert "an unfinished training with another shard" in refused.stderr
    for done in run(folder, f"{FLAGS} --shard --save-seconds 0 --accumulate 2 --out split", 3, ON_CPU):
        assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(weights(folder / "split"), weights(folder / "six"), atol=1e-4)


@pytest.fixture(scope="module")
def adapted(folder: Path) -> Path:
    (done,) = run(folder, f"{ADAPTERS} --accumulate 6 --out adapted", 1)
    assert done.returncode == 0, done.stderr
    return folder / "adapted"


@pytest.mark.sampled(2)
@pytest.mark.parametrize("shard", ["", "--shard"])
def test_adapters_of_two_processes_are_those_of_one(folder: Path, adapted: Path, shard: str) -> None:
    for done in run(folder, f"{ADAPTERS} {shard} --accumulate 3 --out adapted-two{shard}", 2, ON_CPU):
        assert done.returncode == 0, done.stderr
        assert "deprecated" not in done.stderr
    out = folder / f"adapted-two{shard}"
    assert {path.name for path in out.glob("*model*")} == {"adapter_model.safetensors"}
    moved = load_file(out / "adapter_model.safetensors")
    assert all(np.abs(moved[name]).max() > 1e-4 for name in moved if ".lora_B." in name)
    np.testing.assert_allclose(weights(out), weights(adapted), atol=1e-5)


@everything
@pytest.mark.parametrize(("shard", "then"), [("", 1), ("--shard", 3)])
def test_adapters_go_on_after_a_kill_in_another_number_of_processes(
    folder: Path, adapted: Path, shard: str, then: int
) -> None:
    out = folder / f"adapted-moved{shard}"
    _, second = killed(folder, f"{ADAPTERS} {shard} --accumulate 3 --out {out.name}", 2, ON_CPU)
    assert second.returncode == 1
    assert second.stderr.splitlines()[-1].startswith("stepreward: another process of this training has ended")
    assert not (out / "training.json").exists()
    kept = [load_file(path) for path in out.glob("unfinished/checkpoint-*/model.safetensors")]
    assert kept
    assert all(".lora_" in name or name.startswith("head.") for one in kept for name in one)
    for done in run(folder, f"{ADAPTERS} {shard} --accumulate {6 // then} --out {out.name}", then, ON_CPU):
        assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(weights(out), weights(adapted), atol=1e-4)


@everything
def test_a_mixture_that_was_killed_in_two_processes_goes_on_in_one(folder: Path) -> None:
    stepreward.write(folder / "more.jsonl", toy_labels(12, 1))
    mix = f"{FLAGS} --data more.jsonl --mix rows=1 --mix more=2 --save-seconds 0"
    (done,) = run(folder, f"{mix} --accumulate 2 --out whole-mix", 1)
    assert done.returncode == 0, done.stderr
    killed(folder, f"{mix} --accumulate 1 --out killed-mix", 2)
    assert not (folder / "killed-mix" / "training.json").exists()
    (done,) = run(folder, f"{mix} --accumulate 2 --out killed-mix", 1)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(weights(folder / "killed-mix"), weights(folder / "whole-mix"), atol=1e-4)
    kept = [json.loads((folder / name / "training.json").read_text()) for name in ("killed-mix", "whole-mix")]
    assert kept[0]["domains"]["more"]["tokens"] == kept[1]["domains"]["more"]["tokens"]
    # Twice the tokens of a data set of three times as many.
    assert kept[0]["domains"]["more"]["tokens"] == pytest.approx(2 * kept[0]["domains"]["rows"]["tokens"], rel=0.1)
