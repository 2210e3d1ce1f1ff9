"""The run folder: finished stages are read, unfinished ones run again, other settings are refused."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from stepreward.core.errors import InputError, StoreError
from stepreward.core.files.atomic_files import write_json
from stepreward.pipeline.folder import RunFolder


def test_a_finished_stage_is_not_run_again(tmp_path: Path) -> None:
    runs: list[int] = []

    def compute() -> dict[str, Any]:
        runs.append(1)
        return {"value": 3}

    first = RunFolder(tmp_path, {"seed": 0}).stage("sample", compute)
    second = RunFolder(tmp_path, {"seed": 0}).stage("sample", compute)
    assert first == second
    assert first["value"] == 3
    assert first["seconds"] >= 0
    assert runs == [1]


def test_a_stage_that_fails_is_run_again(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, {})
    with pytest.raises(ZeroDivisionError):
        folder.stage("label", lambda: {"value": 1 // 0})
    assert not folder.finished("label")
    assert folder.stage("label", lambda: {"value": 1})["value"] == 1


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    RunFolder(tmp_path, {"seed": 0, "samples": 4})
    with pytest.raises(InputError, match="samples was 4 and is now 8; run with the old settings"):
        RunFolder(tmp_path, {"seed": 0, "samples": 8})


def test_a_file_in_the_way_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="choose a writable folder"):
        RunFolder(tmp_path / "file" / "run", {})


def test_a_full_disk_leaves_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "numbers.json"
    write_json(path, {"a": 1})

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("stepreward.core.files.atomic_files.os.fsync", full)
    with pytest.raises(StoreError, match="No space left"):
        write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1}
