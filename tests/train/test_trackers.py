"""What a training reports to TensorBoard, Trackio and MLflow is read back and is what its own log says."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from tests.train.toy import toy_labels, toy_model

from stepreward.core.errors import ModelError, UnknownNameError
from stepreward.train.data.labelled_trees import labelled_trees
from stepreward.train.settings import TrainSettings
from stepreward.train.trainer import train
from stepreward.train.training_result import TrainResult

Log = Mapping[tuple[str, int], float]
"""A number by its name in our log and its step."""
TRACKED = ("loss", "learning_rate", "grad_norm", "eval_loss", "eval_auroc")


def short_training(out: Path, tracker: str) -> TrainResult:
    settings = TrainSettings(epochs=2, evaluations=2, batch_tokens=512, row_tokens=256, report_to=(tracker,))
    held_out = labelled_trees(toy_labels(8, 1))
    return train(labelled_trees(toy_labels(30, 0)), toy_model(), out, settings, held_out=held_out)


def own_log(result: TrainResult) -> Log:
    return {(name, int(row["step"])): row[name] for row in result.history for name in TRACKED if name in row}


def own_name(theirs: str) -> str:
    """`train/loss` is `loss`, `eval/loss` is `eval_loss`."""
    return theirs.removeprefix("train/").replace("eval/", "eval_")


def in_tensorboard(out: Path) -> Log:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(out / "tensorboard")).Reload()
    return {(own_name(tag), one.step): one.value for tag in events.Tags()["scalars"] for one in events.Scalars(tag)}


def in_trackio(out: Path) -> Log:
    from trackio.sqlite_storage import SQLiteStorage

    assert SQLiteStorage.get_runs("stepreward") == [out.name]
    rows = [(int(row["train/global_step"]), row) for row in SQLiteStorage.get_logs("stepreward", out.name)]
    return {(own_name(tag), step): one for step, row in rows for tag, one in row.items() if isinstance(one, float)}


def in_mlflow(out: Path) -> Log:
    from mlflow import MlflowClient

    client = MlflowClient()
    (run,) = client.search_runs(["0"])
    assert (run.info.run_name, run.info.status) == (out.name, "FINISHED")
    logs = [client.get_metric_history(run.info.run_id, name) for name in run.data.metrics]
    return {(one.key, one.step): one.value for log in logs for one in log}


@pytest.mark.filterwarnings("ignore")  # of the trackers' own packages
@pytest.mark.parametrize("read", [in_tensorboard, in_trackio, in_mlflow], ids=lambda read: read.__name__[3:])
def test_what_is_reported_is_what_the_log_says(
    read: Callable[[Path], Log], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = read.__name__.removeprefix("in_")
    pytest.importorskip(tracker)
    if tracker == "trackio":
        monkeypatch.setattr("trackio.sqlite_storage.TRACKIO_DIR", tmp_path / "trackio")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", str(tmp_path / "mlflow"))
    monkeypatch.chdir(tmp_path)
    result = short_training(tmp_path / "model", tracker)
    own, theirs = own_log(result), read(tmp_path / "model")
    assert {name for name, _ in own} == {*TRACKED}
    for where, value in own.items():
        assert theirs[where] == pytest.approx(value, rel=1e-6), where
    assert all(math.isfinite(value) for value in theirs.values())


@pytest.mark.parametrize("tracker", ["tensorboard", "wandb", "mlflow", "trackio"])
def test_a_tracker_that_is_not_installed_is_one_clear_error(
    tracker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == tracker else find(name))
    with pytest.raises(ModelError, match=f"^{tracker} is not installed: pip install {tracker}$"):
        short_training(tmp_path / "model", tracker)
    assert not (tmp_path / "model").exists()


def test_an_unknown_tracker_is_named() -> None:
    with pytest.raises(UnknownNameError, match=r"tensorbord.*tensorboard"):
        TrainSettings(report_to=("tensorbord",))
