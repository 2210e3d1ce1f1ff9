"""DeepSpeed on the CPU, as `accelerate launch` sets it up: the weights of one process, whole, also after a kill.

`make deepspeed` runs it, and `make nightly`. Accelerate knows DeepSpeed on accelerators alone, so that the processes
are told here that theirs is one; what DeepSpeed does, its parts, its optimizer and its files are its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.train.test_processes import FLAGS, run, weights
from tests.train.toy import toy_labels, toy_model

import stepreward

pytest.importorskip("deepspeed")
pytestmark = pytest.mark.timeout(600)
ON_AUTO = FLAGS.replace("--device cpu", "--device auto")
ADAPTERS = f"{ON_AUTO} --lora-rank 2".replace("scratch", "base")
AS_ACCELERATOR = """
import deepspeed.comm.torch
deepspeed.comm.torch.build_shm_op = lambda: None  # would be compiled, for minutes
import os, torch, transformers.training_args
from accelerate.state import DistributedType, PartialState
from transformers import TrainerCallback
def cpu(self):
    self.device = torch.device("cpu")
PartialState._prepare_backend = lambda *_: ("gloo", DistributedType.MULTI_GPU)
PartialState.set_device = cpu
transformers.training_args.is_torch_bf16_gpu_available = lambda: True
"""
DIES = """
import stepreward.train.trainer as trainer
class Dies(TrainerCallback):
    def on_save(self, args, state, control, **_):
        os._exit(9)
named = trainer.callbacks_of
trainer.callbacks_of = lambda *given: [*named(*given), Dies()]
"""
"""Ends a training right after its first checkpoint."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("deepspeed")
    stepreward.write(made / "rows.parquet", toy_labels(40, 0))
    toy_model(seed=3).save_pretrained(made / "base")
    return made


def launched(
    folder: Path, words: str, stage: int = 3, before: str = "", **config: Any
) -> subprocess.CompletedProcess[str]:
    """`accelerate launch` of a training in two processes, in which each weight is split and soon let go."""
    zero = {"stage": stage, "stage3_param_persistence_threshold": 0, "stage3_max_live_parameters": 0}
    zero |= {"stage3_max_reuse_distance": 0, "stage3_prefetch_bucket_size": 0}
    auto = ("train_micro_batch_size_per_gpu", "train_batch_size", "gradient_accumulation_steps", "gradient_clipping")
    made = {"zero_optimization": zero, "bf16": {"enabled": "auto"}, **dict.fromkeys(auto, "auto"), **config}
    (folder / "deepspeed.json").write_text(json.dumps(made))
    own = {"deepspeed_config_file": "deepspeed.json", "zero3_init_flag": False}
    several = {"num_machines": 1, "num_processes": 2, "machine_rank": 0, "main_process_port": 0, "use_cpu": False}
    # YAML holds JSON.
    (folder / "accelerate.yaml").write_text(
        json.dumps({"distributed_type": "DEEPSPEED", "deepspeed_config": own, **several})
    )
    (folder / "program.py").write_text(f"{AS_ACCELERATOR}{before}\nfrom stepreward.cli.app import main\nmain()\n")
    line = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", "accelerate.yaml", "program.py"]
    environment = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.run(
        [*line, *words.split()], cwd=folder, env=environment, capture_output=True, text=True, timeout=250, check=False
    )


@pytest.fixture(scope="module")
def alone(folder: Path) -> Path:
    # Plain gradient descent, which shows the scale of gradients, and clips them.
    (done,) = run(folder, f"{FLAGS} --optimizer sgd --learning-rate 0.1 --accumulate 4 --out alone", 1)
    assert done.returncode == 0, done.stderr
    return folder / "alone"


@pytest.mark.parametrize("stage", [2, 3])
def test_the_checkpoint_has_the_whole_weights_of_one_process(folder: Path, alone: Path, stage: int) -> None:
    out = folder / f"zero-{stage}"
    words = f"{ON_AUTO} --optimizer sgd --learning-rate 0.1 --accumulate 2 --json --out {out.name}"
    done = launched(folder, words, stage)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(weights(out), weights(alone), atol=1e-6)
    one, two = (json.loads((path / "training.json").read_text()) for path in (alone, out))
    assert two["metrics"] == pytest.approx(one["metrics"], abs=1e-4)
    norms = [[row["grad_norm"] for row in made["history"] if "grad_norm" in row] for made in (one, two)]
    assert norms[1] == pytest.approx(norms[0], rel=1e-3)
    assert stepreward.load(out).score("Say something", ["good"]).shape == (1,)


@pytest.mark.parametrize("flags", [ADAPTERS, f"{ON_AUTO} --surprise"], ids=["adapters", "surprise"])
def test_other_models_are_trained_as_by_one_process(folder: Path, flags: str) -> None:
    name = "adapters" if "lora" in flags else "surprise"
    (one,) = run(folder, f"{flags.replace('auto', 'cpu')} --accumulate 2 --out {name}-alone", 1)
    assert one.returncode == 0, one.stderr
    done = launched(folder, f"{flags} --out {name}")
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(weights(folder / name), weights(folder / f"{name}-alone"), atol=1e-5)


def test_what_bf16_trains_is_saved_in_float32(folder: Path) -> None:
    done = launched(folder, f"{ON_AUTO} --precision bf16 --out bf16")
    assert done.returncode == 0, done.stderr
    found = load_file(folder / "bf16" / "model.safetensors")
    assert {one.dtype for one in found.values()} == {torch.float32}
    assert any((one != one.bfloat16().float()).any() for one in found.values()), "these are the forward pass's numbers"


def test_a_training_goes_on_after_a_kill(folder: Path) -> None:
    words = f"{ON_AUTO} --save-seconds 0 --out"
    done = launched(folder, f"{words} whole")
    assert done.returncode == 0, done.stderr
    launched(folder, f"{words} killed", before=DIES)
    assert not (folder / "killed" / "training.json").exists()
    assert [*folder.glob("killed/unfinished/checkpoint-*/global_step*")]
    (refused,) = run(folder, f"{FLAGS} --save-seconds 0 --out killed", 1)
    assert "an unfinished training with another" in refused.stderr
    done = launched(folder, f"{words} killed")
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(weights(folder / "killed"), weights(folder / "whole"), atol=1e-6)


def test_what_is_not_trained_so_is_refused(folder: Path) -> None:
    done = launched(folder, f"{ON_AUTO} --accumulate 2 --out mismatch", gradient_accumulation_steps=1)
    assert done.returncode == 1
    assert "ds gradient_accumulation_steps=1 vs hf gradient_accumulation_steps=2; write auto for them" in done.stderr
    words = "train --data rows.parquet --objective dpo --batch-tokens 512 --device auto --out ratios"
    done = launched(folder, words)
    assert "dpo trains a language model's log-probabilities, which DeepSpeed splits too" in done.stderr
