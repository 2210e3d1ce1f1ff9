"""Training end to end on a toy truth: a step that holds "bad" is wrong."""

from __future__ import annotations

import errno
import json
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.forked import started
from tests.train.toy import toy_labels, toy_model

from stepreward.core.errors import InputError, ModelError, StoreError, UnknownNameError
from stepreward.core.files.atomic_files import locked_folder
from stepreward.core.tree import StepTree
from stepreward.score.discriminative import DiscriminativeScorer
from stepreward.score.encode.per_step import EncoderRecord
from stepreward.score.encode.readout import Readout
from stepreward.score.model.step_reward_model import StepRewardModel
from stepreward.train.checkpoints import last_complete
from stepreward.train.data.labelled_trees import labelled_trees
from stepreward.train.settings import TrainSettings
from stepreward.train.trainer import train
from stepreward.train.training_result import TrainResult

SETTINGS = TrainSettings(epochs=12, learning_rate=3e-3, batch_tokens=512, row_tokens=256)
QUICK = replace(SETTINGS, epochs=2, evaluations=2)
LONG = TrainSettings(
    epochs=16, learning_rate=1e-3, batch_tokens=512, row_tokens=256, evaluations=10, patience=9, metric="loss"
)


def test_a_learnable_truth_is_learned_and_the_checkpoint_scores(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[tuple[int, int, str]] = []
    result = train(
        labelled_trees(toy_labels(60, 0)),
        toy_model(),
        tmp_path / "model",
        SETTINGS,
        held_out=labelled_trees(toy_labels(20, 1)),
        on_progress=lambda done, total, line: seen.append((done, total, line)),
    )
    assert result.metrics["f1"] > 0.95
    assert result.metrics["auroc"] > 0.98
    assert seen[-1][0] == seen[-1][1] == result.steps
    assert re.fullmatch(r"loss \d\.\d{3}, [\d,]+ tokens/s", seen[-1][2])
    assert capsys.readouterr() == ("", "")
    assert not (tmp_path / "model" / "unfinished").exists()
    kept = json.loads((result.folder / "training.json").read_text())
    assert kept["metrics"]["f1"] == result.metrics["f1"]
    assert kept["settings"]["objective"] == "bce"
    assert kept["sizes"] == {"data": {"problems": 60, "solutions": 240}, "held_out": {"problems": 20, "solutions": 80}}
    low, high = kept["intervals"]["auroc"]
    assert low < kept["metrics"]["auroc"] <= high <= 1
    assert result.history[-1]["epoch"] == pytest.approx(12)
    scores = DiscriminativeScorer.load(result.folder).score("Say something good fine", ["nice\n", "bad\n", "well\n"])
    assert scores[0] > 0.7 > 0.3 > scores[1]


def long_training(out: Path) -> None:
    train(labelled_trees(toy_labels(60, 0)), toy_model(), out, LONG, held_out=labelled_trees(toy_labels(10, 1)))


def test_a_training_killed_in_the_middle_ends_with_the_same_weights(tmp_path: Path) -> None:
    killed = started(long_training, tmp_path / "killed")
    deadline = time.monotonic() + 120
    while not list((tmp_path / "killed" / "unfinished").glob("checkpoint-*/trainer_state.json")):
        assert killed.is_alive(), "training ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    killed.kill()
    killed.join()
    assert not (tmp_path / "killed" / "stepreward.json").exists()
    done = max(int(path.name.split("-")[1]) for path in (tmp_path / "killed" / "unfinished").glob("checkpoint-*"))
    for name in ("killed", "whole"):
        long_training(tmp_path / name)
    kept = [json.loads((tmp_path / name / "training.json").read_text()) for name in ("killed", "whole")]
    # The weights compared, those of the best checkpoint, were made after the kill.
    assert min(kept[0]["history"], key=lambda row: row.get("eval_loss", 9))["step"] > done
    # The history is whole: that of the killed training has all steps and the mean loss of all of them.
    killed_rows, whole_rows = (
        [{k: v for k, v in row.items() if k != "train_runtime"} for row in one["history"]] for one in kept
    )
    assert [row["step"] for row in killed_rows] == [row["step"] for row in whole_rows]
    assert [row.get("train_loss", row.get("loss", 0)) for row in killed_rows] == pytest.approx(
        [row.get("train_loss", row.get("loss", 0)) for row in whole_rows], rel=1e-3
    )
    assert kept[0]["metrics"] == pytest.approx(kept[1]["metrics"], rel=1e-4)
    first, second = (StepRewardModel.from_pretrained(tmp_path / name).state_dict() for name in ("killed", "whole"))
    for name, weights in first.items():
        torch.testing.assert_close(weights, second[name], rtol=1e-5, atol=1e-6)


def learned(out: Path, settings: TrainSettings, record: EncoderRecord | None = None) -> TrainResult:
    trees, held_out = labelled_trees(toy_labels(40, 0)), labelled_trees(toy_labels(15, 1))
    return train(trees, toy_model(record=record), out, settings, held_out=held_out)


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    ("settings", "record"),
    [
        (replace(SETTINGS, objective="mse", learning_rate=1e-2), EncoderRecord()),
        (
            replace(SETTINGS, objective="pqm", epochs=30, objective_settings={"zeta": 2.0}),
            EncoderRecord(readout=Readout("value")),
        ),
        (
            SETTINGS,
            EncoderRecord(readout=Readout("softmax", n_labels=2, positive=1)),
        ),
        (replace(SETTINGS, weigh="node", accumulate=2, epochs=20), EncoderRecord()),
        (replace(SETTINGS, precision="bf16"), EncoderRecord()),
    ],
    ids=["mse", "pqm", "softmax", "nodes", "bf16"],
)
def test_every_way_of_training_learns(tmp_path: Path, settings: TrainSettings, record: EncoderRecord) -> None:
    assert learned(tmp_path, settings, record).metrics["f1"] > 0.95


def test_seeds_decide_the_weights(tmp_path: Path) -> None:
    short = replace(SETTINGS, epochs=2)
    runs = [learned(tmp_path / str(i), replace(short, seed=seed)).folder for i, seed in enumerate((0, 0, 1))]
    first, second, third = (StepRewardModel.from_pretrained(folder).head.weight for folder in runs)
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert not torch.equal(first, third)


def test_training_stops_early_and_keeps_the_best_checkpoint(tmp_path: Path) -> None:
    """Trajectory of a coin: the held-out loss soon rises, so the model kept is not the last."""
    rng = np.random.default_rng(0)
    coin = [one.with_columns({"label": rng.integers(0, 2, len(one)).astype(float)}) for one in toy_labels(40, 0)]
    settings = replace(SETTINGS, epochs=30, evaluations=30, metric="loss", patience=3)
    result = train(labelled_trees(coin[:80]), toy_model(), tmp_path, settings, held_out=labelled_trees(coin[80:]))
    losses = [row["eval_loss"] for row in result.history if "eval_loss" in row]
    assert len(losses) < 30
    assert losses.index(min(losses)) == len(losses) - 1 - 3
    assert result.metrics["loss"] == pytest.approx(min(losses), rel=1e-4)


def interrupted(out: Path, monkeypatch: pytest.MonkeyPatch, settings: TrainSettings = SETTINGS) -> Path:
    """Unfinished work: training ends in an error when the model is about to be written."""

    def full(*_: object) -> None:
        raise StoreError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(StepRewardModel, "save_pretrained", full)
        with pytest.raises(StoreError):
            learned(out, settings)
    return out / "unfinished"


def test_a_half_written_checkpoint_is_not_resumed_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = interrupted(tmp_path / "model", monkeypatch)
    whole = sorted(work.glob("checkpoint-*"), key=lambda path: int(path.name[11:]))
    (whole[-1] / "trainer_state.json").write_text('{"epoch": 0.')
    (work / "checkpoint-99999").mkdir()
    first, second = learned(tmp_path / "model", SETTINGS), learned(tmp_path / "fresh", SETTINGS)
    assert first.steps == second.steps
    weights = [StepRewardModel.from_pretrained(one.folder).state_dict() for one in (first, second)]
    for name, weight in weights[0].items():
        torch.testing.assert_close(weight, weights[1][name], rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folder of an interrupted training, and a copy from which a test restores it."""
    out, copy = (tmp_path_factory.mktemp("unfinished") / name for name in ("model", "copy"))
    interrupted(out, pytest.MonkeyPatch(), QUICK)
    shutil.copytree(out, copy)
    return out, copy


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", ["optimizer.pt", "model.safetensors", "scheduler.pt", "rng_state.pth"])
@pytest.mark.parametrize("damage", ["half", "empty", "zeros", "gone"])
def test_a_damaged_file_costs_that_checkpoint_alone(
    unfinished: tuple[Path, Path], caplog: pytest.LogCaptureFixture, name: str, damage: str
) -> None:
    out, copy = unfinished
    shutil.rmtree(out)
    shutil.copytree(copy, out)
    work = out / "unfinished"
    older, newest = sorted(work.glob("checkpoint-*"), key=lambda path: int(path.name[11:]))
    content = (newest / name).read_bytes()
    kept = {"half": content[: len(content) // 2], "empty": b"", "zeros": bytes(len(content))}
    (newest / name).unlink()
    if damage in kept:
        (newest / name).write_bytes(kept[damage])
    # The held-out loss falls: the newest is the best, and the older one knows nothing of it.
    assert last_complete(work) == str(older)
    what = f"{name} cannot be read" if damage in kept else f"it has no {name.partition('.')[0]}"
    said = caplog.text.replace("no *.safetensors", "no model")
    assert f"{newest} is damaged ({what}" in said
    assert learned(out, QUICK).steps == int(newest.name[11:])


def test_a_second_training_in_a_folder_is_refused(tmp_path: Path) -> None:
    with locked_folder(tmp_path), pytest.raises(StoreError, match="in use by another process: wait for its end"):
        learned(tmp_path, QUICK)
    assert learned(tmp_path, QUICK).steps > 0


def test_unfinished_work_of_another_training_is_not_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted(tmp_path, monkeypatch)
    with pytest.raises(InputError, match="another learning_rate; delete that folder"):
        learned(tmp_path, replace(SETTINGS, learning_rate=1e-4))
    with pytest.raises(InputError, match="another data, held_out"):
        train(labelled_trees(toy_labels(3, 7)), toy_model(), tmp_path, SETTINGS)


def test_a_full_disk_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(StoreError, match="No space left on device; free some space and run again to resume"):
        learned(tmp_path, SETTINGS)


def test_a_training_that_diverges_ends(tmp_path: Path) -> None:
    model = toy_model()
    with torch.no_grad():
        model.head.weight.fill_(float("inf"))
    with pytest.raises(ModelError, match=r"diverged: the loss is .* at step 1; lower learning_rate"):
        train(labelled_trees(toy_labels(5, 0)), model, tmp_path, SETTINGS)


def test_metrics_that_are_not_defined_are_left_out(tmp_path: Path) -> None:
    """Held-out steps that are all right have no AUROC: the last model is kept, and every number is one."""
    right = [one for one in toy_labels(30, 1) if one.labels.min() == 1]
    trees = labelled_trees(toy_labels(5, 0))
    result = train(trees, toy_model(), tmp_path, replace(SETTINGS, epochs=4), held_out=labelled_trees(right))
    assert set(result.metrics) == {"brier", "ece", "loss"}
    assert all(np.isfinite(list(row.values())).all() for row in result.history)


def test_without_held_out_trees_the_last_model_is_kept(tmp_path: Path) -> None:
    result = train(labelled_trees(toy_labels(5, 0)), toy_model(), tmp_path, replace(SETTINGS, epochs=1))
    assert result.metrics == {}
    assert DiscriminativeScorer.load(result.folder).score("Say", ["good\n"]).shape == (1,)


class Counted(list[StepTree]):
    """Trees, and how often all of them were read."""

    passes = 0

    def __iter__(self) -> Iterator[StepTree]:
        self.passes += 1
        return super().__iter__()


def test_every_tree_is_read_once_and_counted(tmp_path: Path) -> None:
    trees, held_out = Counted(labelled_trees(toy_labels(3, 1))), Counted(labelled_trees(toy_labels(2, 2)))
    train(trees, toy_model(), tmp_path / "model", replace(SETTINGS, epochs=0.1), held_out=held_out)
    assert (trees.passes, held_out.passes) == (1, 1)
    sizes = json.loads((tmp_path / "model" / "training.json").read_text())["sizes"]
    assert sizes == {"data": {"problems": 3, "solutions": 12}, "held_out": {"problems": 2, "solutions": 8}}


def test_settings_out_of_range_are_named() -> None:
    with pytest.raises(UnknownNameError, match="did you mean auroc"):
        TrainSettings(metric="accuracy")
    with pytest.raises(ValueError, match="device must be cpu, cuda or auto, got 'banana'"):
        TrainSettings(device="banana")
    with pytest.raises(ValueError, match="epochs must be positive, got 0"):
        TrainSettings(epochs=0)
    with pytest.raises(ValueError, match="cannot weigh nodes"):
        TrainSettings(objective="pqm", weigh="node")
    with pytest.raises(UnknownNameError, match="did you mean zeta"):
        TrainSettings(objective="pqm", objective_settings={"zeeta": 1}).loss()


def test_bad_training_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no labelled tree"):
        train([], toy_model(), tmp_path)
    labels = toy_labels(1, 0)
    labels[0].labels[0] = 1.5
    with pytest.raises(InputError, match=r"label of 1\.5; labels must be in \[0, 1\]"):
        labelled_trees(labels)
    for one in labels:
        one.labels[:] = np.nan
    with pytest.raises(InputError, match="no supervised step"):
        labelled_trees(labels)
    trees = labelled_trees(toy_labels(1, 0))
    with pytest.raises(UnknownNameError, match="did you mean bce"):
        train(trees, toy_model(), tmp_path, TrainSettings(objective="bcee"))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="choose a writable folder"):
        train(trees, toy_model(), tmp_path / "file" / "model")
