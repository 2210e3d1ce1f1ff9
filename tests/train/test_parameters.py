"""What is trained, and in which numbers: adapters, frozen parts, casts, checkpoints of activations."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.forked import started
from tests.train.toy import toy_labels, toy_model
from transformers import AutoModel

from stepreward.core.errors import InputError
from stepreward.score.discriminative import DiscriminativeScorer
from stepreward.score.encode.per_step import EncoderRecord
from stepreward.score.model.step_reward_model import StepRewardModel
from stepreward.train.data.labelled_trees import labelled_trees
from stepreward.train.parameters import prepare
from stepreward.train.scratch import starting_model
from stepreward.train.settings import TrainSettings
from stepreward.train.trainer import train
from stepreward.train.training_result import TrainResult

TEXTS = ("Say something good", ["nice\n", "bad\n", "well\n"])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backbone in a folder, as people bring one."""
    folder = tmp_path_factory.mktemp("base")
    toy_model(seed=3).save_pretrained(folder)
    return folder


def trained(base: Path, out: Path, **settings: Any) -> tuple[TrainResult, StepRewardModel]:
    """A short training on the toy truth."""
    model = starting_model(base, record=EncoderRecord(), seed=1)
    chosen = {"epochs": 6, "learning_rate": 3e-3, "batch_tokens": 512, "row_tokens": 256, **settings}
    held_out = labelled_trees(toy_labels(10, 1))
    result = train(labelled_trees(toy_labels(40, 0)), model, out, TrainSettings(**chosen), held_out=held_out)
    assert isinstance(model, StepRewardModel)
    return result, model


def scores(of: StepRewardModel | Path) -> Any:
    scorer = DiscriminativeScorer(of) if isinstance(of, StepRewardModel) else DiscriminativeScorer.load(of)
    return scorer.score(*TEXTS)


@pytest.fixture(scope="module")
def adapted(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, StepRewardModel, TrainResult]:
    """A training of adapters."""
    out = tmp_path_factory.mktemp("adapted")
    result, model = trained(base, out, lora_rank=4)
    return out, model, result


def test_adapters_learn_and_leave_the_backbone_as_it_was(
    base: Path, adapted: tuple[Path, StepRewardModel, TrainResult]
) -> None:
    _, model, result = adapted
    assert result.metrics["auroc"] > 0.9
    before, after = load_file(base / "model.safetensors"), model.backbone.state_dict()
    for name, old in before.items():
        now = (
            name
            if name in after
            else name.replace(".weight", ".base_layer.weight").replace(".bias", ".base_layer.bias")
        )
        assert torch.equal(after[now], old), name


def test_a_checkpoint_of_adapters_is_small_and_scores_as_in_memory(
    base: Path, adapted: tuple[Path, StepRewardModel, TrainResult]
) -> None:
    out, model, _ = adapted
    assert {path.name for path in out.iterdir()} >= {"adapter_config.json", "adapter_model.safetensors"}
    assert not (out / "model.safetensors").exists()
    assert json.loads((out / "adapter_config.json").read_text())["base_model_name_or_path"] == str(base)
    np.testing.assert_allclose(scores(out), scores(model), atol=1e-6)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT calls a deprecated name of the newest transformers
def test_peft_reads_the_adapters(base: Path, adapted: tuple[Path, StepRewardModel, TrainResult]) -> None:
    peft = pytest.importorskip("peft")
    out, model, _ = adapted
    theirs = peft.PeftModel.from_pretrained(AutoModel.from_pretrained(base), out)
    ids = torch.arange(5, 25)[None]
    with torch.inference_mode():
        expected, got = (one(input_ids=ids).last_hidden_state for one in (model.backbone, theirs.eval()))
    torch.testing.assert_close(got, expected)


def test_merged_adapters_are_a_whole_model(
    base: Path, adapted: tuple[Path, StepRewardModel, TrainResult], tmp_path: Path
) -> None:
    trained(base, tmp_path, lora_rank=4, merge=True)
    assert not list(tmp_path.glob("adapter_*"))
    assert (tmp_path / "model.safetensors").is_file()
    np.testing.assert_allclose(scores(tmp_path), scores(adapted[0]), atol=1e-6)


def test_a_model_that_replaces_another_leaves_none_of_its_files(
    base: Path, adapted: tuple[Path, StepRewardModel, TrainResult], tmp_path: Path
) -> None:
    whole = StepRewardModel.from_backbone(base, EncoderRecord(), seed=5)
    for model in (whole, adapted[1], whole):
        model.save_pretrained(tmp_path)
        np.testing.assert_allclose(scores(tmp_path), scores(model), atol=1e-6)


def adapters_in(base: Path, out: Path) -> None:
    trained(base, out, lora_rank=4, epochs=20, evaluations=10)


def test_a_killed_training_of_adapters_goes_on_from_its_small_checkpoint(base: Path, tmp_path: Path) -> None:
    killed, work = started(adapters_in, base, tmp_path / "killed"), tmp_path / "killed" / "unfinished"
    deadline = time.monotonic() + 120
    while not (states := sorted(work.glob("checkpoint-*/trainer_state.json"))):
        assert killed.is_alive(), "training ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    killed.kill()
    killed.join()
    kept = load_file(states[0].parent / "model.safetensors")
    assert all(".lora_" in name or name.startswith("head.") for name in kept)
    for name in ("killed", "whole"):
        adapters_in(base, tmp_path / name)
    for file in ("adapter_model.safetensors", "step_head.safetensors"):
        one, other = (load_file(tmp_path / name / file) for name in ("killed", "whole"))
        assert all(torch.equal(one[name], other[name]) for name in other)


def test_frozen_parameters_do_not_change(base: Path, tmp_path: Path) -> None:
    _, model = trained(base, tmp_path, freeze=("backbone.embed_tokens.*", "backbone.layers.0.*"), epochs=1)
    before, after = load_file(base / "model.safetensors"), model.backbone.state_dict()
    same = {name for name, old in before.items() if torch.equal(after[name], old)}
    frozen = {name for name in before if name.startswith(("embed_tokens.", "layers.0."))}
    assert frozen <= same
    assert {"layers.1.self_attn.q_proj.weight", "layers.1.mlp.up_proj.weight"} & same == set()
    np.testing.assert_allclose(scores(tmp_path), scores(model), atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"freeze": ("backbone.nothing.*",)}, "freeze 'backbone.nothing.*' fits no parameter of backbone"),
        ({"freeze": ("*",)}, "every parameter is frozen"),
        ({"lora_rank": 2, "lora_targets": ("nothing_proj",)}, "no adapter fits nothing_proj"),
    ],
)
def test_a_part_that_is_not_there_is_one_clear_error(base: Path, settings: dict[str, Any], said: str) -> None:
    model = starting_model(base, record=EncoderRecord())
    with pytest.raises(InputError, match=said.replace("*", r"\*")):
        prepare(model, TrainSettings(**settings))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"merge": True}, "merge is for adapters"),
        ({"optimizer": "adamm"}, "optimizer is one of adamw"),
        ({"schedule": "sine"}, "schedule is one of cosine"),
        ({"precision": "fp16"}, "fp16 needs a CUDA device"),
    ],
)
def test_settings_are_checked_first(settings: dict[str, Any], said: str) -> None:
    if settings == {"precision": "fp16"} and torch.cuda.is_available():
        pytest.skip("a CUDA device is here")
    with pytest.raises(ValueError, match=said):
        TrainSettings(**settings)


@pytest.mark.parametrize("settings", [{"precision": "fp16"}, {"attention": "flex"}])
def test_what_needs_cuda_is_refused_on_a_cpu_also_where_a_card_is(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the scaler of fp16 gradients never runs on a CPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(ValueError, match="CUDA device"):
        TrainSettings(device="cpu", **settings)
    TrainSettings(device="auto", **settings)


def test_what_is_trained_is_in_float32_and_what_is_frozen_in_16_bits(base: Path, tmp_path: Path) -> None:
    result, model = trained(base, tmp_path, lora_rank=4, precision="bf16")
    kinds = {(parameter.requires_grad, parameter.dtype) for parameter in model.parameters()}
    assert kinds == {(True, torch.float32), (False, torch.bfloat16)}
    assert result.metrics["auroc"] > 0.9
    # In memory the frozen weights have 8 bits of mantissa, loaded ones the base's 24.
    np.testing.assert_allclose(scores(tmp_path), scores(model), atol=5e-3)


def test_a_backbone_saved_in_16_bits_is_trained_in_float32(base: Path, tmp_path: Path) -> None:
    AutoModel.from_pretrained(base, dtype=torch.bfloat16).save_pretrained(tmp_path / "half")
    StepRewardModel.from_backbone(base, EncoderRecord()).tokenizer.save_pretrained(tmp_path / "half")
    model = starting_model(tmp_path / "half", record=EncoderRecord())
    assert {p.dtype for p in model.backbone.parameters()} == {torch.bfloat16}
    prepare(model, TrainSettings())
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_activation_checkpoints_change_no_weight(base: Path, tmp_path: Path) -> None:
    for name, kept in (("plain", False), ("kept", True)):
        trained(base, tmp_path / name, epochs=1, activation_checkpoints=kept)
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("plain", "kept"))
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=1e-6)


def test_schedule_warm_up_and_optimizer_reach_the_trainer(base: Path, tmp_path: Path) -> None:
    def rates(name: str, **settings: Any) -> list[float]:
        result, _ = trained(base, tmp_path / name, epochs=4, batch_tokens=256, **settings)
        return [row["learning_rate"] for row in result.history if "learning_rate" in row]

    constant = rates("constant", schedule="constant", warmup=0.0)
    assert constant == pytest.approx([3e-3] * len(constant))
    line = rates("line", schedule="linear", warmup=0.0, optimizer="adafactor")
    steps = np.diff(line)
    assert len(line) > 5
    assert steps == pytest.approx([steps[0]] * len(steps), rel=1e-3)
    assert steps[0] < 0
    rising = rates("rising", schedule="constant", warmup=1.0)
    assert np.all(np.diff(rising) > 0)


def test_a_gradient_is_clipped(base: Path, tmp_path: Path) -> None:
    """With plain gradient descent a step is the learning rate times the clipped gradient."""
    moves = {}
    for clip in (1e-3, 2e-3):
        settings = {"optimizer": "sgd", "schedule": "constant", "warmup": 0.0, "weight_decay": 0.0, "epochs": 1e-6}
        _, model = trained(base, tmp_path / str(clip), clip=clip, **settings)
        start = StepRewardModel.from_backbone(base, EncoderRecord(), seed=1)
        pairs = zip(model.parameters(), start.parameters(), strict=True)
        moves[clip] = float(sum((a - b).detach().square().sum() for a, b in pairs).sqrt())
    assert moves[1e-3] == pytest.approx(3e-3 * 1e-3, rel=0.02)
    assert moves[2e-3] == pytest.approx(2 * moves[1e-3], rel=0.02)


@pytest.mark.parametrize(
    "change", [{}, {"shard": True}, {"load_in": "4bit", "lora_rank": 2}, {"domain_rate": 0.1}], ids=str
)
def test_what_deepspeed_would_leave_aside_is_refused(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")  # as `accelerate launch` sets it
    monkeypatch.setenv("WORLD_SIZE", "2")
    named = {"shard": "shard", "load_in": "load_in=4bit", "domain_rate": "domain_rate"}
    device = {"device": "auto"} if change else {}
    said = next((named[name] for name in change), "device=cpu")
    with pytest.raises(ValueError, match=f"a training under DeepSpeed takes no {said}: change it"):
        trained(base, tmp_path / "out", **device, **change)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


ONE_STEP: dict[str, Any] = {"schedule": "constant", "warmup": 0.0, "epochs": 1e-6}


@pytest.mark.parametrize("settings", [{}, {"lora_rank": 2}], ids=["whole", "adapters"])
def test_weight_decay_shrinks_matrices_alone(base: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    """A step of AdamW takes (learning rate) x (weight decay) x (weight) off beside its update, and no norm or bias."""
    plain, decayed = (
        dict(trained(base, tmp_path / str(decay), weight_decay=decay, **ONE_STEP, **settings)[1].named_parameters())
        for decay in (0.0, 10.0)
    )
    start = starting_model(base, record=EncoderRecord(), seed=1)
    prepare(start, TrainSettings(**settings))
    checked = {True: 0, False: 0}
    for name, before in start.named_parameters():
        shrinks = before.requires_grad and before.ndim == 2
        expected = -3e-3 * 10.0 * before.detach() if shrinks else torch.zeros_like(before)
        torch.testing.assert_close((decayed[name] - plain[name]).detach(), expected, rtol=1e-4, atol=1e-6, msg=name)
        checked[shrinks] += bool(before.detach().any())
    assert min(checked.values()) > 3


def test_dropout_hides_a_share_of_the_inputs_of_adapters_and_of_nothing_else(base: Path) -> None:
    share, model = 0.25, starting_model(base, record=EncoderRecord(), seed=1)
    prepare(model, TrainSettings(lora_rank=4, lora_alpha=4.0, lora_dropout=share))
    layer: Any = model.backbone.layers[0].self_attn.o_proj
    with torch.no_grad():
        # These adapters copy the first four inputs to the first four outputs.
        for part in (layer.lora_A["default"], layer.lora_B["default"]):
            part.weight.copy_(torch.eye(*part.weight.shape))
    torch.manual_seed(0)
    inputs, n = torch.ones(5000, 32), 5000 * 4
    added = (layer.train()(inputs) - layer.base_layer(inputs)).detach()
    assert not added[:, 4:].any()
    kept = added[:, :4].abs() > 0.5
    torch.testing.assert_close(added[:, :4][kept], torch.full([int(kept.sum())], 1 / (1 - share)), atol=1e-4, rtol=0)
    # Five standard errors of a share of n draws.
    assert float(kept.double().mean()) == pytest.approx(1 - share, abs=5 * (share * (1 - share) / n) ** 0.5)
    torch.testing.assert_close(layer.eval()(inputs)[:, :4] - layer.base_layer(inputs)[:, :4], torch.ones(5000, 4))


def test_a_training_without_progress_stops_early_and_keeps_its_first_model(base: Path, tmp_path: Path) -> None:
    """A learning rate that changes no float32 weight: the first evaluation stays the best."""
    still = {"learning_rate": 1e-30, "weight_decay": 0.0, "evaluations": 6, "metric": "loss"}
    every = trained(base, tmp_path / "whole", **still)[0].steps // 6
    result, _ = trained(base, tmp_path / "stopped", patience=2, **still)
    evaluated = [row["step"] for row in result.history if "eval_loss" in row]
    assert evaluated == [every, 2 * every, 3 * every]
    assert result.steps == 3 * every
    assert json.loads((tmp_path / "stopped" / "training.json").read_text())["steps"] == result.steps
