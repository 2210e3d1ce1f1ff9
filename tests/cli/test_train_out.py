"""`stepreward train --out`: a finished checkpoint is kept, an unfinished training goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stepreward.core.errors import StoreError
from stepreward.train.settings import UNFINISHED
from stepreward.train.step_trainer import StepTrainer
from tests.cli.running import invoke, refused

LINE = "train --data rows.jsonl --out model --epochs 1 --held-out 0 --json"


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    row = {"prompt": "1 + 1?", "completions": ["1 + 1 = 2", "1 + 1 = 3"], "labels": [True, False]}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def full(*_: object) -> None:
    raise StoreError("the disk is full")


def test_a_finished_checkpoint_is_kept_unless_told(
    rows: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    invoke(LINE)
    weights = (rows / "model/model.safetensors").read_bytes()
    said = refused(f"{LINE} --learning-rate 0.01", capsys, monkeypatch)
    assert said == (
        "stepreward: model: holds a finished checkpoint; choose another --out, or pass --overwrite to replace it"
    )
    assert (rows / "model/model.safetensors").read_bytes() == weights
    invoke(f"{LINE} --learning-rate 0.01 --overwrite")
    assert (rows / "model/model.safetensors").read_bytes() != weights


def test_a_finished_training_is_told_and_not_run_again(rows: Path) -> None:
    first = json.loads(invoke(LINE))
    weights = (rows / "model/model.safetensors").stat().st_mtime_ns
    assert json.loads(invoke(LINE)) == first
    assert invoke(LINE.removesuffix(" --json")) == (
        "model: this training has finished already; pass --overwrite to train anew\n"
    )
    assert (rows / "model/model.safetensors").stat().st_mtime_ns == weights


def test_a_model_of_others_is_kept_too(
    rows: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (rows / "model").mkdir()
    (rows / "model/config.json").write_text("{}")
    assert "model: holds a finished checkpoint" in refused(LINE, capsys, monkeypatch)
    assert (rows / "model/config.json").read_text() == "{}"


def test_an_unfinished_training_goes_on_without_a_flag_and_only_as_the_same(
    rows: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    invoke(LINE)
    with monkeypatch.context() as patch:
        patch.setattr(StepTrainer, "run", full)
        assert refused(f"{LINE} --overwrite", capsys, patch) == "stepreward: the disk is full"
    assert (rows / "model" / UNFINISHED).is_dir()
    assert "unfinished training with another learning_rate" in refused(
        f"{LINE} --learning-rate 0.01", capsys, monkeypatch
    )
    assert json.loads(invoke(LINE))["steps"] > 0
    assert not (rows / "model" / UNFINISHED).exists()
