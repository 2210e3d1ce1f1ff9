"""Checkpoints of adapters: exported merged into their base, or as adapters that PEFT loads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file
from tests.pipeline.test_export import QUESTION, STEPS, printed
from tests.train.toy import toy_labels

import stepreward
from stepreward.core.errors import InputError
from stepreward.score.model.layouts import LAYOUTS

pytest.importorskip("peft")


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("adapted") / "model"
    settings = {"epochs": 3, "held_out": 0.0, "batch_tokens": 1024, "learning_rate": 1e-2, "lora_rank": 4}
    stepreward.train(toy_labels(8, 0), out, **settings)
    state = load_file(out / "adapter_model.safetensors")
    assert all(np.abs(value.numpy()).max() > 1e-3 for key, value in state.items() if "lora_B" in key), "nothing learned"
    return out


@pytest.mark.sampled(4)
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("layout", ["adapter", "token-classification", "trl-prm", "qwen-prm", "stepreward"])
def test_scores_of_an_exported_adapter_are_those_of_the_checkpoint(layout: str, adapted: Path, tmp_path: Path) -> None:
    wanted = stepreward.load(adapted).score(QUESTION, STEPS)
    # The base is saved in half precision, the adapters and the head are not.
    stepreward.export(adapted, tmp_path / "out", layout=layout, dtype="float32")
    np.testing.assert_allclose(stepreward.load(tmp_path / "out").score(QUESTION, STEPS), wanted, atol=1e-5)
    said = printed(tmp_path / "out" / "README.md")
    assert len(said) == 1 + bool(LAYOUTS[layout].task)
    # PEFT adds what the adapters say to what the base says; ours rounds the sum of weights to the base's 16 bits.
    for scores in said:
        np.testing.assert_allclose(scores, wanted, atol=1e-3 if layout == "adapter" else 1e-5)
    assert (tmp_path / "out" / "config.json").is_file() == (layout != "adapter"), "the base was written too"


def test_adapters_name_their_head_and_their_base(adapted: Path, tmp_path: Path) -> None:
    stepreward.export(adapted, tmp_path / "out", layout="adapter")
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (config["task_type"], config["modules_to_save"]) == ("TOKEN_CLS", ["score"])
    names = set(load_file(tmp_path / "out" / "adapter_model.safetensors"))
    assert {"base_model.model.score.weight", "base_model.model.score.bias"} < names
    assert "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight" in names
    assert (tmp_path / "out" / "README.md").read_text().startswith("---\nlibrary_name: peft\n")


def test_adapters_of_a_local_base_are_not_uploaded(adapted: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a folder of this machine, which others do not have; push it merged"):
        stepreward.export(adapted, tmp_path / "out", layout="adapter", push="mia/prm")
    assert not list(tmp_path.iterdir())


def test_a_training_of_adapters_writes_them_for_peft_too(tmp_path: Path) -> None:
    settings = {"epochs": 1, "held_out": 0.0, "lora_rank": 2}
    with pytest.raises(InputError, match="has no adapters apart from their base"):
        stepreward.train(toy_labels(4, 0), tmp_path / "no", export=["adapter"], merge=True, **settings)
    scorer = stepreward.train(toy_labels(4, 0), tmp_path / "model", export=["adapter"], **settings)
    again = stepreward.load(tmp_path / "model" / "export" / "adapter")
    np.testing.assert_allclose(again.score(QUESTION, STEPS), scorer.score(QUESTION, STEPS), atol=1e-3)


def test_a_whole_checkpoint_has_no_adapters_to_write(adapted: Path, tmp_path: Path) -> None:
    stepreward.export(adapted, tmp_path / "whole", layout="stepreward")
    with pytest.raises(InputError, match="has no adapters apart from their base; layouts that can: stepreward, tok"):
        stepreward.export(tmp_path / "whole", tmp_path / "out", layout="adapter")
