"""Adapters on a backbone in 8 or 4 bits, by bitsandbytes, which also computes on a CPU."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.train.test_dry_run import batch
from tests.train.test_parameters import TEXTS, scores
from tests.train.toy import toy_labels
from transformers import AutoConfig

from stepreward.core.errors import InputError, ModelError
from stepreward.pipeline.export_model import export
from stepreward.score.encode.record import EncoderRecord
from stepreward.score.load import load
from stepreward.score.model.quantized_weights import as_quantized, quantized_bytes
from stepreward.score.model.step_reward_model import StepRewardModel
from stepreward.score.model.tiny_models import fresh_backbone, train_tokenizer
from stepreward.train.data.labelled_trees import labelled_trees
from stepreward.train.memory import predict
from stepreward.train.parameters import loading, prepare, trained_names
from stepreward.train.scratch import starting_model
from stepreward.train.settings import TrainSettings
from stepreward.train.trainer import train
from stepreward.train.training_result import TrainResult

TINY = {"epochs": 4, "learning_rate": 3e-3, "batch_tokens": 512, "row_tokens": 256, "lora_rank": 4, "evaluations": 2}
installed = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed: the extra `quantized`"
)
pytestmark = pytest.mark.filterwarnings("ignore")  # of bitsandbytes


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    tokenizer = train_tokenizer(["Say something good fine bad nice well\n"] * 20, 300)
    StepRewardModel(fresh_backbone(tokenizer, hidden=64, layers=2, seed=3), tokenizer, EncoderRecord()).save_pretrained(
        folder
    )
    return folder


Trained = Mapping[str, tuple[Path, StepRewardModel, TrainResult]]


@pytest.fixture(scope="module")
def models(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A training in each number of bits."""
    made = {}
    for bits in ("4bit", "8bit"):
        settings, out = TrainSettings(load_in=bits, **TINY), tmp_path_factory.mktemp(bits)  # type: ignore[arg-type]
        model = starting_model(base, record=EncoderRecord(), seed=1, loading=loading(settings))
        held_out = labelled_trees(toy_labels(10, 1))
        result = train(labelled_trees(toy_labels(40, 0)), model, out, settings, held_out=held_out)
        assert isinstance(model, StepRewardModel)
        made[bits] = (out, model, result)
    return made


@installed
@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_adapters_learn_on_a_quantized_base_and_score_as_in_training(models: Trained, bits: str) -> None:
    out, model, result = models[bits]
    assert result.metrics["auroc"] > 0.7
    assert not (out / "model.safetensors").exists()
    kinds = {p.dtype for p in model.parameters() if not p.requires_grad and p.ndim == 2}
    assert {torch.uint8 if bits == "4bit" else torch.int8} < kinds
    note = json.loads((out / "adapter_base.json").read_text())
    assert note["load_in"] == bits
    assert note["layers"] == ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
    # LLM.int8 also rounds what a layer reads.
    np.testing.assert_allclose(scores(out), scores(model), atol=1e-5 if bits == "4bit" else 5e-3)


@installed
@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_the_loaded_base_is_the_rounded_one(models: Trained, base: Path, bits: str) -> None:
    """By hand: NF4 has 16 levels and a scale for each 64 numbers in a row of memory, LLM.int8 255 and one for a row."""
    out, _, _ = models[bits]
    before = load_file(base / "model.safetensors")["layers.0.mlp.up_proj.weight"]
    adapter = load_file(out / "adapter_model.safetensors")
    a, b = (adapter[f"base_model.model.layers.0.mlp.up_proj.lora_{one}.weight"] for one in "AB")
    loaded: Any = StepRewardModel.from_pretrained(out).backbone
    rounded = (loaded.layers[0].mlp.up_proj.weight - 2 * b @ a).detach()
    if bits == "8bit":
        scale = before.abs().amax(1, keepdim=True) / 127
        # The weights go through fp16, whose spacing is up to 1/16 of a step of the scale.
        torch.testing.assert_close(rounded / scale, before / scale, rtol=0, atol=0.5 + 1 / 16)
        torch.testing.assert_close(rounded / scale, (rounded / scale).round(), rtol=0, atol=2 / 16)
        return
    blocks, largest = rounded.reshape(-1, 64), before.reshape(-1, 64).abs().amax(1, keepdim=True)
    levels = (blocks / largest).round(decimals=2)
    assert all(len(one.unique()) <= 16 for one in levels)
    # The widest gap of the 16 levels is 0.304, below -0.6962.
    assert ((blocks - before.reshape(-1, 64)).abs() / largest).max() < 0.304 / 2 + 0.01


@installed
def test_an_unfinished_training_keeps_adapters_alone(base: Path) -> None:
    settings = TrainSettings(load_in="4bit", **TINY)  # type: ignore[arg-type]
    model = starting_model(base, record=EncoderRecord(), loading=loading(settings))
    prepare(model, settings)
    assert all(".lora_" in name or name.startswith("head.") for name in trained_names(model))


@installed
def test_a_merged_model_and_an_export_are_whole_and_score_the_same(models: Trained, base: Path, tmp_path: Path) -> None:
    out, _, _ = models["4bit"]
    export(out, tmp_path / "whole", layout="token-classification")
    export(out, tmp_path / "adapter", layout="adapter")
    assert (tmp_path / "adapter" / "adapter_base.json").read_bytes() == (out / "adapter_base.json").read_bytes()
    settings = TrainSettings(load_in="4bit", merge=True, **TINY)  # type: ignore[arg-type]
    model = starting_model(base, record=EncoderRecord(), seed=1, loading=loading(settings))
    held_out = labelled_trees(toy_labels(10, 1))
    train(labelled_trees(toy_labels(40, 0)), model, tmp_path / "merged", settings, held_out=held_out)
    assert not list((tmp_path / "merged").glob("adapter*"))
    for name in ("whole", "adapter", "merged"):
        np.testing.assert_allclose(load(tmp_path / name).score(*TEXTS), scores(out), atol=1e-5)


@installed
@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_the_predicted_weights_are_those_that_are_loaded(base: Path, bits: str) -> None:
    settings = TrainSettings(load_in=bits, lora_rank=4)  # type: ignore[arg-type]
    model = starting_model(base, record=EncoderRecord(), loading=loading(settings))
    prepare(model, settings)
    real = 0
    for part in model.modules():
        own = [*part.parameters(recurse=False)]
        scales = [getattr(one, "SCB", None) for one in own]
        for state in [one for one in (getattr(one, "quant_state", None) for one in own) if one is not None]:
            scales += [state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code]
        real += sum(one.numel() * one.element_size() for one in [*own, *scales] if one is not None)
    made = predict(AutoConfig.from_pretrained(base), model.tokenizer, EncoderRecord(), settings, batch())
    assert made.weights == real
    assert made.trained == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_what_cannot_be_quantized_is_one_clear_error(base: Path, tmp_path: Path, monkeypatch: Any) -> None:
    with pytest.raises(ValueError, match="load_in is for adapters: pass lora_rank too"):
        TrainSettings(load_in="4bit")
    with pytest.raises(ValueError, match="load_in is one of full, 8bit, 4bit"):
        TrainSettings(load_in="3bit", lora_rank=2)  # type: ignore[arg-type]
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="4bit is not split over processes"):
        TrainSettings(load_in="4bit", lora_rank=2, shard=True)
    monkeypatch.delenv("WORLD_SIZE")
    with pytest.raises(InputError, match="only a pretrained backbone with a fresh head is quantized"):
        starting_model("scratch", record=EncoderRecord(), loading={"quantization_config": None})
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "bitsandbytes" else find(name))
    settings = TrainSettings(load_in="4bit", **TINY)  # type: ignore[arg-type]
    model = starting_model(base, record=EncoderRecord())
    with pytest.raises(ModelError, match=r"bitsandbytes is not installed: pip install 'stepreward\[quantized\]'"):
        train(labelled_trees(toy_labels(4, 0)), model, tmp_path / "out", settings)


def test_a_note_of_another_kind_is_refused(base: Path, tmp_path: Path) -> None:
    shutil.copytree(base, tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    (tmp_path / "adapter" / "adapter_base.json").write_text('{"load_in": "3bit"}')
    with pytest.raises(ModelError, match="must name their base's load_in"):
        StepRewardModel.from_pretrained(tmp_path / "adapter")


@installed
@pytest.mark.parametrize("optimizer", ["adamw-8bit", "paged-adamw-8bit"])
def test_a_first_step_of_an_8_bit_optimizer_is_that_of_adamw(base: Path, tmp_path: Path, optimizer: str) -> None:
    """It divides a gradient by its own size, whatever rounds the averages for the later steps."""
    if optimizer.startswith("paged") and not torch.cuda.is_available():
        pytest.skip("pages are memory of a CUDA device")
    after = []
    for name in ("adamw", optimizer):
        model = starting_model(base, record=EncoderRecord(), seed=1)
        settings = TrainSettings(optimizer=name, schedule="constant", warmup=0.0, epochs=1e-6, batch_tokens=512)
        train(labelled_trees(toy_labels(4, 0)), model, tmp_path / name, settings)
        after.append({name: p.detach().clone() for name, p in model.named_parameters()})
    plain, rounded = after
    for name, before in starting_model(base, record=EncoderRecord(), seed=1).named_parameters():
        moves = plain[name] - before.detach(), rounded[name] - before.detach()
        assert (moves[0] - moves[1]).abs().max() < 0.05 * 1e-3, name
        # Adam's first step is the learning rate, wherever there is a gradient.
        assert moves[1].abs().max() > 0.9e-3 or not name.endswith("head.weight")


@pytest.mark.parametrize(
    "note", [{"load_in": "3bit", "layers": ["q_proj"]}, {"load_in": "4bit"}, {"load_in": "8bit", "layers": "q_proj"}]
)
def test_a_note_without_bits_or_layers_is_refused(note: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="must name their base's load_in, 8bit or 4bit, and its layers"):
        as_quantized({}, note)


def test_bytes_of_a_matrix_by_hand() -> None:
    """(300, 64): 8 bits and 4 bytes a row; 4 bits, 300 blocks of 64, two groups of these, codes of 16 and 256."""
    weight = torch.empty(300, 64)
    assert quantized_bytes(weight, "8bit") == 300 * 64 + 300 * 4
    assert quantized_bytes(weight, "4bit") == 300 * 32 + 300 + 2 * 4 + 4 * (16 + 256 + 1)
