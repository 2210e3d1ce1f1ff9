"""Exported models: the card says what is known, its code prints the scores of the model, nothing is half written."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import chdir, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from tests.cli.running import invoke
from tests.docs import blocks
from tests.score.test_layouts import tiny
from tests.score.tiny_checkpoints import llama3, qwen
from tests.train.toy import toy_labels, toy_model

import stepreward
from stepreward.core.errors import InputError, UnknownNameError
from stepreward.core.types import Problem, Step
from stepreward.pipeline.card_code import ids_code, scores_code
from stepreward.score.calibrate.calibrated_scorer import CalibratedScorer
from stepreward.score.calibrate.calibrators import Platt
from stepreward.score.discriminative import DiscriminativeScorer
from stepreward.score.encode.per_step import StepEncoder
from stepreward.score.encode.readout import Readout
from stepreward.score.encode.record import EncoderRecord, PerStep
from stepreward.score.model.layouts import LAYOUTS
from stepreward.train.data.labelled_trees import labelled_trees
from stepreward.train.trainer import TrainSettings, train

QUESTION, STEPS = "1 + 1 = ?", ["1 + 1 = 2", "Answer: 2"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small trained model; its head has no bias, so that every layout can hold it."""
    out = tmp_path_factory.mktemp("trained") / "model"
    model = toy_model(record=EncoderRecord(PerStep(clean=("chomp",))))
    model.head = torch.nn.Linear(32, 1, bias=False)
    settings = TrainSettings(objective="bce", epochs=2, learning_rate=3e-3, batch_tokens=512, row_tokens=256)
    train(labelled_trees(toy_labels(12, 0)), model, out, settings, held_out=labelled_trees(toy_labels(6, 1)))
    return out


def printed(card: Path, *, without: str = "httpx") -> list[list[float]]:
    """What the Python blocks of a card print, run one after the other beside its folder."""
    names: dict[str, Any] = {}
    with chdir(card.parents[1]), redirect_stdout(StringIO()) as said:
        for code in blocks(card, "python"):
            if without not in code:
                exec(code, names)
    return [json.loads(line) for line in said.getvalue().splitlines()]


@pytest.mark.sampled(4)
@pytest.mark.parametrize("layout", [name for name, one in LAYOUTS.items() if not one.adapter])
def test_the_code_of_a_card_prints_the_scores_of_the_model(layout: str, trained: Path, tmp_path: Path) -> None:
    made = stepreward.export(trained, tmp_path / "out", layout=layout)
    assert made.folder == tmp_path / "out"
    wanted = stepreward.load(trained).score(QUESTION, STEPS)
    said = printed(tmp_path / "out" / "README.md")
    assert len(said) == 1 + bool(LAYOUTS[layout].task)
    for scores in said:
        np.testing.assert_allclose(scores, wanted, atol=1e-5)


def test_a_card_says_what_the_training_wrote_down(trained: Path, tmp_path: Path) -> None:
    stepreward.export(trained, tmp_path / "out")
    row, text = json.loads((trained / "training.json").read_text()), (tmp_path / "out" / "README.md").read_text()
    assert "48 solutions of 12 problems" in text
    assert "On 24 solutions of 6 problems" in text
    assert f"hash `{row['identity']['data']}`" in text
    assert "Objective: `bce` (arXiv:2312.08935)" in text
    assert "| `learning_rate` | `0.003` |" in text
    low, high = row["intervals"]["auroc"]
    assert f"| AUROC of the step scores | {row['metrics']['auroc']:.3f} | {low:.3f} to {high:.3f} |" in text
    assert "| loss of the objective |" in text
    assert str(trained.parent) not in text, "a path of the user's machine"
    data = ModelCard.load(tmp_path / "out" / "README.md").data
    assert (data.library_name, data.pipeline_tag, data.license) == ("transformers", "token-classification", None)
    assert {"stepreward", "process-reward-model", "bce"} <= {*data.tags}
    assert {one.metric_type: one.metric_value for one in data.eval_results}["auroc"] == round(
        row["metrics"]["auroc"], 4
    )


def test_the_base_model_of_the_hub_is_named(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    stepreward.export(trained, folder, layout="stepreward")
    row = json.loads((trained / "training.json").read_text()) | {"backbone": "Qwen/Qwen2.5-0.5B"}
    (folder / "training.json").write_text(json.dumps(row))
    stepreward.export(folder, tmp_path / "out")
    assert ModelCard.load(tmp_path / "out" / "README.md").data.base_model == "Qwen/Qwen2.5-0.5B"


def test_a_card_of_unknown_training_says_so(tmp_path: Path) -> None:
    scorer = DiscriminativeScorer(tiny(Readout("value", n_labels=3, positive=1)))
    stepreward.export(scorer, tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    assert text.count("Not recorded: this model was not exported from the folder of its training.") == 2
    assert yaml.safe_load(text.split("---\n")[1])["tags"] == ["stepreward", "process-reward-model", "reward-model"]
    (own, other) = printed(tmp_path / "out" / "README.md")
    np.testing.assert_allclose(own, scorer.score(QUESTION, STEPS), atol=1e-5)
    np.testing.assert_allclose(other, own, atol=1e-5)


@pytest.mark.parametrize(
    ("encoding", "tokenizer"),
    [
        (PerStep(clean=("chomp",)), qwen),
        (PerStep(), qwen),
        (PerStep(template="chat", clean=("strip",), separator="<extra_0>"), qwen),
        (PerStep(template="chat", system='Say "yes".', prompt_format="Q: {prompt}"), qwen),
        (PerStep(step_format="Step {n}: {step}", between="\n\n", separator=" [PRM]", separator_token=False), qwen),
        (PerStep(step_format="First: {step}", later_format="{n}) {step}", read="before"), qwen),
        (PerStep(separator="", separator_token=False, between=" "), qwen),
        (PerStep(prompt_format="{bos}{prompt}\n"), llama3),
        (PerStep(special_tokens=True), llama3),
        (PerStep(prompt_format="{bos}{prompt} {reference}\n"), llama3),
        (PerStep(template="chat", prompt_format="{reference}: {prompt}"), qwen),
    ],
)
def test_ids_of_a_card_are_those_of_the_encoder(encoding: PerStep, tokenizer: Any, tmp_path: Path) -> None:
    tokenizer().save_pretrained(tmp_path / "out")
    names: dict[str, Any] = {}
    code = ids_code(EncoderRecord(encoding), LAYOUTS["qwen-reward"], str(tmp_path / "out"))
    steps = ["1 + 1 = {n}2\n", "So:\n\n", " Answer: 2 "]
    exec(code.replace('["1 + 1 = 2", "Answer: 2"]', repr(steps)), names)
    encoder = StepEncoder(EncoderRecord(encoding), tokenizer())
    problem = Problem("p", QUESTION, reference="2")
    ids, reads = encoder.prompt_ids(problem), []
    for n, text in enumerate(steps, 1):
        ids += encoder.step_ids(Step(text), problem, n)
        reads.append(len(ids) - 1 - encoder.back)
    assert (names["ids"], names["reads"]) == (ids, reads)


@pytest.mark.parametrize(
    "readout",
    [
        Readout(), Readout("value", n_labels=3, positive=1), Readout("tanh"), Readout("softmax", n_labels=2),
        Readout("softmax", n_labels=3, positive=2, also=(1,)), Readout("difference", n_labels=2, positive=1),
        Readout("mean-sigmoid", n_labels=3),
    ],
)  # fmt: skip
def test_scores_of_a_card_are_those_of_the_readout(readout: Readout) -> None:
    outputs = torch.randn(5, readout.n_labels)
    found = eval(scores_code(readout), {"outputs": outputs})
    torch.testing.assert_close(found, readout.scores(outputs))


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_is_there_is_replaced_on_demand_alone(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    stepreward.export(trained, out, layout="stepreward")
    before = files(out)
    with pytest.raises(InputError, match="is there already; choose another folder, or pass overwrite"):
        stepreward.export(trained, out)
    assert files(out) == before
    stepreward.export(trained, out, overwrite=True)
    assert "step_head.safetensors" not in files(out)
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "cat.jpg").write_bytes(b"cat")
    with pytest.raises(InputError, match="holds no exported model, and stays as it is"):
        stepreward.export(trained, photos, overwrite=True)
    assert files(photos) == {"cat.jpg": b"cat"}
    with pytest.raises(InputError, match="holds no exported model, and stays as it is"):
        stepreward.export(trained, trained, overwrite=True)


def test_a_refused_export_leaves_nothing(tmp_path: Path) -> None:
    scorer = DiscriminativeScorer(tiny(Readout(surprise=True)))
    with pytest.raises(InputError, match=r"layouts that can: stepreward$"):
        stepreward.export(scorer, tmp_path / "out")
    assert not list(tmp_path.iterdir())
    with pytest.raises(UnknownNameError, match="did you mean trl-prm"):
        stepreward.export("no such model", tmp_path / "out", layout="trl_prm")
    with pytest.raises(InputError, match="nowhere to write"):
        stepreward.export(scorer)
    with pytest.raises(InputError, match="is no model in this process"):
        stepreward.export(stepreward.load("tool"), tmp_path / "out")


def test_a_calibrator_goes_along(trained: Path, tmp_path: Path) -> None:
    """Calibrated by a map that is not the identity: the export's scores are calibrated too, and the card says so."""
    scorer = DiscriminativeScorer.load(trained)
    calibrator = Platt().fit(np.array([0.1, 0.3, 0.6, 0.9]), np.array([0.0, 1.0, 0.0, 1.0]))
    calibrated = CalibratedScorer(scorer, calibrator)
    stepreward.export(calibrated, tmp_path / "out")
    found = stepreward.load(tmp_path / "out").score(QUESTION, STEPS)
    np.testing.assert_allclose(found, calibrated.score(QUESTION, STEPS), atol=1e-5)
    assert np.abs(found - scorer.score(QUESTION, STEPS)).max() > 1e-3
    text = (tmp_path / "out" / "README.md").read_text()
    assert "calibrator.json" in text
    assert "48 solutions of 12 problems" in text, "the training of a calibrated model"


def test_weights_in_half_precision_stay_so(trained: Path, tmp_path: Path) -> None:
    model = DiscriminativeScorer.load(trained).model.to(torch.bfloat16)
    model.save_pretrained(tmp_path / "half")
    stepreward.export(tmp_path / "half", tmp_path / "out")
    assert {value.dtype for value in load_file(tmp_path / "out" / "model.safetensors").values()} == {torch.bfloat16}
    stepreward.export(tmp_path / "half", tmp_path / "whole", dtype="float32")
    assert {value.dtype for value in load_file(tmp_path / "whole" / "model.safetensors").values()} == {torch.float32}
    with pytest.raises(InputError, match="a loaded scorer is written in its own numbers"):
        stepreward.export(stepreward.load(tmp_path / "half"), tmp_path / "no", dtype="float32")


@pytest.fixture
def inside(trained: Path, tmp_path: Path) -> Iterator[Path]:
    with chdir(tmp_path):
        yield trained


def test_the_command_writes_and_says_where(inside: Path) -> None:
    assert invoke(f"export {inside} out --layout trl-prm") == "trl-prm in out\n"
    row = json.loads(invoke(f"export {inside} out --overwrite --json"))
    assert row == {"layout": "token-classification", "out": "out", "address": None}
    assert re.search(r'NAME = "out"', Path("out/README.md").read_text())


def test_training_for_a_layout_writes_it_too(tmp_path: Path) -> None:
    """For a sequence classifier the head is trained without a bias, which that layout has no place for."""
    settings = {"epochs": 1, "backbone": "scratch", "held_out": 0.2, "batch_tokens": 1024}
    layouts = ["sequence-classification", "qwen-reward"]
    scorer = stepreward.train(toy_labels(8, 0), tmp_path / "model", export=layouts, **settings)
    assert set(load_file(tmp_path / "model" / "step_head.safetensors")) == {"weight"}
    for layout in layouts:
        again = stepreward.load(tmp_path / "model" / "export" / layout)
        np.testing.assert_allclose(again.score(QUESTION, STEPS), scorer.score(QUESTION, STEPS), atol=1e-5)
    for scores in printed(tmp_path / "model" / "export" / layouts[0] / "README.md"):
        np.testing.assert_allclose(scores, scorer.score(QUESTION, STEPS), atol=1e-5)


def test_a_layout_that_cannot_hold_the_model_ends_a_training_before_it_begins(tmp_path: Path) -> None:
    settings = {"epochs": 1, "backbone": "scratch", "held_out": 0.0}
    with pytest.raises(InputError, match="the layout trl-prm cannot hold this model: its score is a value of 1"):
        stepreward.train(toy_labels(4, 0), tmp_path / "m", export=["trl-prm"], objective="agent-rm", **settings)
    with pytest.raises(UnknownNameError, match="layout"):
        stepreward.train(toy_labels(4, 0), tmp_path / "m", export=["vllm"], **settings)
    assert not (tmp_path / "m").exists()
