"""`evaluate --calibrate`, and the commands that score by what it wrote."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import stepreward
from stepreward.score.calibrate.calibrated_scorer import CalibratedScorer, read_calibrator
from stepreward.score.encode.record_file import CALIBRATOR_FILE
from stepreward.score.model.step_reward_model import StepRewardModel
from tests.cli.running import invoke, refused

ROW = {"question": "Kai has 10 nuts. Kai finds 1 more nuts. How many?", "steps": ["10 + 1 = 11", "Answer: 11"]}
LABELS = "evaluate --data labels/labels.parquet"


@pytest.fixture
def user(inside: Path) -> Path:
    """The user's folder, with a copy of its model that keeps a calibrator."""
    if not (inside / "sure").is_dir():
        shutil.copytree(inside / "model", inside / "sure")
        (inside / "ask.jsonl").write_text(json.dumps(ROW) + "\n")
        told = json.loads(invoke(f"{LABELS} --model sure --calibrate isotonic --json"))
        (inside / "told.json").write_text(json.dumps(told))
    return inside


def scores(line: str) -> list[float]:
    made: list[float] = json.loads(invoke(f"score --data ask.jsonl {line}"))["scores"]
    return made


def test_a_calibrator_stays_with_its_model(user: Path) -> None:
    told = json.loads((user / "told.json").read_text())
    assert told["calibrator"] == str(Path("sure") / CALIBRATOR_FILE)
    assert told["pairs"] > 0
    assert told["brier_change"]["value"] == pytest.approx(told["brier_after"]["value"] - told["brier_before"]["value"])
    kept, plain = read_calibrator(user / "sure" / CALIBRATOR_FILE), scores("--model model")
    np.testing.assert_allclose(scores("--model sure"), kept.predict(plain), atol=1e-6)
    loaded = stepreward.load(user / "sure")
    assert isinstance(loaded, CalibratedScorer)
    np.testing.assert_allclose(loaded.score(ROW["question"], ROW["steps"]), kept.predict(plain), atol=1e-6)
    bare = stepreward.load(user / "sure", calibrated=False)
    np.testing.assert_array_equal(bare.score(ROW["question"], ROW["steps"]), plain)


def test_fitting_again_reads_the_scores_as_they_were(user: Path) -> None:
    before = (user / "sure" / CALIBRATOR_FILE).read_bytes()
    assert "isotonic on" in invoke(f"{LABELS} --model sure --calibrate isotonic")
    assert (user / "sure" / CALIBRATOR_FILE).read_bytes() == before


def test_a_file_of_ones_own_comes_before_the_models(user: Path) -> None:
    invoke(f"{LABELS} --model model --calibrate temperature --calibrator warm.json")
    assert not (user / "model" / CALIBRATOR_FILE).exists()
    warm = read_calibrator(user / "warm.json").predict(scores("--model model"))
    for model in ("model", "sure"):
        np.testing.assert_allclose(scores(f"--model {model} --calibrator warm.json"), warm, atol=1e-6)
    plain, mapped = (
        json.loads(invoke(f"{LABELS} --threshold 0.5 --json --model model {more}"))["scorers"]["model"]["steps"]
        for more in ("", "--calibrator warm.json")
    )
    assert plain["auroc"] == pytest.approx(mapped["auroc"]), "a temperature keeps the order"
    assert plain["brier"] != mapped["brier"]


def test_new_weights_do_not_keep_an_old_calibrator(user: Path, tmp_path: Path) -> None:
    shutil.copytree(user / "sure", tmp_path / "again")
    StepRewardModel.from_pretrained(user / "model").save_pretrained(tmp_path / "again")
    assert not (tmp_path / "again" / CALIBRATOR_FILE).exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"{LABELS} --calibrate isotonic", "--calibrate is about --model and labels; pass --model"),
        (f"{LABELS} --model model --calibrate isotonc --calibrator x.json", "did you mean isotonic"),
        ("score --data ask.jsonl --model model --calibrator ask.jsonl", "ask.jsonl: a saved calibrator has version"),
        ("score --data ask.jsonl --model model --calibrator none.json", "none.json: cannot read a calibrator"),
        (f"{LABELS} --calibrator warm.json", "--readout, --user-pairs and --calibrator say how a model is scored"),
    ],
)
def test_what_cannot_be_calibrated(
    user: Path, line: str, message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert message in refused(line, capsys, monkeypatch)
