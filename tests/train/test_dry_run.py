"""What a training will cost, said before it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.train.toy import toy_labels, toy_model
from transformers import AutoConfig, AutoModel
from typer.testing import CliRunner

from stepreward.cli.app import app
from stepreward.core.errors import InputError
from stepreward.formats.registry import write
from stepreward.formats.trajectories import OWN
from stepreward.score.encode.packing import PackedBatch
from stepreward.score.encode.readout import Readout
from stepreward.score.encode.record import EncoderRecord
from stepreward.score.model.step_reward_model import StepRewardModel
from stepreward.train.data.labelled_trees import labelled_trees
from stepreward.train.dry_run import costs
from stepreward.train.memory import Memory, predict
from stepreward.train.parameters import prepare
from stepreward.train.trainer import TrainSettings, train

SIZES = {
    "vocab_size": 500, "hidden_size": 96, "intermediate_size": 288, "num_hidden_layers": 4,
    "num_attention_heads": 6, "num_key_value_heads": 2, "tie_word_embeddings": True,
}  # fmt: skip
CONFIG = AutoConfig.for_model("qwen2", **SIZES)
WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "activation checkpoints": {"activation_checkpoints": True},
    "adapters": {"lora_rank": 8},
    "accumulated": {"accumulate": 2},
    "bf16": {"precision": "bf16"},
}


def batch(rows: int = 4, width: int = 256) -> PackedBatch:
    """Rows of one long node each, read at every sixteenth token."""
    column = torch.arange(width).expand(rows, width).clone()
    at = torch.arange(0, width, 16)
    read_row, read_column = torch.arange(rows).repeat_interleave(len(at)), at.repeat(rows)
    zero = torch.zeros_like(column)
    return PackedBatch(
        column % 250, column, zero, zero + 1, column, read_row, read_column, read_row, read_column, rows * width
    )


def predicted(settings: TrainSettings) -> Memory:
    return predict(CONFIG, toy_model().tokenizer, EncoderRecord(), settings, batch())


def measured(settings: TrainSettings) -> int:
    """The most bytes that PyTorch's allocator had in use in two steps of the optimizer, by its own count."""
    inputs, tokenizer = batch(), toy_model().tokenizer
    backbone = AutoModel.from_config(CONFIG, attn_implementation="sdpa")
    model = StepRewardModel(backbone, tokenizer, EncoderRecord())
    prepare(model, settings)
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], fused=True)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        for _ in range(2):
            for _ in range(settings.accumulate):
                with torch.autocast("cpu", torch.bfloat16, enabled=settings.precision == "bf16"):
                    logits = model(inputs)
                torch.autograd.backward(logits.float().sum())
                del logits
            optimizer.step()
            optimizer.zero_grad()
    assert profile.profiler is not None
    events = [one for one in profile.profiler.kineto_results.events() if one.name() == "[memory]"]
    changes = [one.nbytes() for one in sorted(events, key=lambda one: one.start_ns())]
    return int(np.cumsum(changes).max()) + sum(p.numel() * p.element_size() for p in model.parameters())


@pytest.mark.sampled(4)
@pytest.mark.parametrize("way", WAYS)
def test_the_predicted_memory_is_what_the_allocator_counts(way: str) -> None:
    settings = TrainSettings(**WAYS[way])
    assert predicted(settings).total == pytest.approx(measured(settings), rel=0.05)


def test_kinds_of_memory_are_what_they_are_by_hand() -> None:
    plain = predicted(TrainSettings())
    numbers = sum(p.numel() for p in AutoModel.from_config(CONFIG).parameters()) + SIZES["hidden_size"] + 1
    assert plain.parameters == plain.trained == numbers
    buffers = plain.weights - 4 * numbers
    assert buffers == 0
    assert plain.optimizer == 8 * numbers
    assert predicted(TrainSettings(accumulate=2)).gradients == 4 * numbers
    small = predicted(TrainSettings(lora_rank=8, precision="bf16"))
    # Rank 8 on each linear layer (out, in) has 8 (out + in) numbers.
    hidden, inner, narrow, layers = 96, 288, 32, 4
    adapters = 8 * layers * (2 * (hidden + hidden) + 2 * (hidden + narrow) + 3 * (hidden + inner))
    assert small.trained == adapters + hidden + 1
    assert small.weights == 4 * small.trained + 2 * (small.parameters - small.trained)
    assert small.optimizer == 8 * small.trained
    for polyak, copies in ((0.1, 1), (1.0, 0)):
        critics = predicted(TrainSettings(objective="archer", lora_rank=8, precision="bf16", polyak=polyak))
        assert critics.weights == small.weights + 4 * copies * small.trained
    checkpointed = predicted(TrainSettings(activation_checkpoints=True))
    assert checkpointed.activations < plain.activations / 2


def test_several_processes_share_or_copy() -> None:
    record, tokenizer, settings = EncoderRecord(), toy_model().tokenizer, TrainSettings()
    alone = predict(CONFIG, tokenizer, record, settings, batch())
    copied = predict(CONFIG, tokenizer, record, settings, batch(), processes=4)
    assert copied.total == alone.total + 4 * alone.trained
    assert alone.gradients <= 4 * alone.trained
    shared = alone.sharded(4, settings)
    # By hand: q, o (96, 96), k, v (96, 32), their biases, the network of three (96, 288), two norms.
    layer = 2 * 96 * 96 + 2 * 96 * 32 + 96 + 2 * 32 + 3 * 96 * 288 + 2 * 96
    assert shared.layer == layer
    assert shared.total == -(-4 * 4 * alone.trained // 4) + alone.activations + (2 * 4 + 4) * layer
    # In 16 bits each process has copies of all linear weights, but of a layer's alone where they share.
    short = TrainSettings(precision="bf16")
    half = predict(CONFIG, tokenizer, record, short, batch())
    assert half.copies == 2 * (4 * (2 * 96 * 96 + 2 * 96 * 32 + 3 * 96 * 288) + 96)
    assert half.sharded(4, short).activations == half.activations - half.copies + (2 * 2 + 4) * layer


def test_a_head_that_reads_surprise_is_refused() -> None:
    with pytest.raises(InputError, match="surprise"):
        predict(CONFIG, toy_model().tokenizer, EncoderRecord(readout=Readout(surprise=True)), TrainSettings(), batch())


def test_steps_and_tokens_are_those_of_the_training(tmp_path: Path) -> None:
    toy_model().save_pretrained(tmp_path / "base")
    trees, settings = labelled_trees(toy_labels(30, 0)), TrainSettings(epochs=2, batch_tokens=512, row_tokens=128)
    said = costs(tmp_path / "base", trees, EncoderRecord(), settings)
    result = train(trees, toy_model(), tmp_path / "model", settings)
    assert said.steps == result.steps
    assert said.tokens == 2 * result.tokens
    assert said.rows * said.width <= 512
    assert said.hours(100) == pytest.approx(said.tokens / 360_000)


def test_the_command_says_it_and_trains_nothing(tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", toy_labels(20, 0), OWN, strict=True)
    out = tmp_path / "model"
    line = ["train", "--data", str(tmp_path / "rows.jsonl"), "--out", str(out), "--epochs", "1", "--dry-run"]
    done = CliRunner().invoke(app, [*line, "--tokens-per-second", "50"])
    assert done.exit_code == 0, done.output
    assert not out.exists()
    parameters, memory, steps = done.stdout.splitlines()
    assert parameters.endswith("are trained")
    assert "largest batch" in memory
    assert "at 50 tokens/s" in steps
    found = json.loads(CliRunner().invoke(app, [*line, "--json"]).stdout)
    assert found["memory"]["total"] == sum(
        found["memory"][k] for k in ("weights", "gradients", "optimizer", "activations")
    )
    assert found["hours"] == pytest.approx(found["tokens"] / 3.6e6)
