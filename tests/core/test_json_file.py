"""Files in one move, and folders that remember what they were begun for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stepreward.core.errors import InputError, StoreError
from stepreward.core.files.atomic_files import claim, in_one_move, write_json, write_text


def fails_halfway(path: Path, error: Exception) -> None:
    with in_one_move(path) as at:
        at.write_text("half")
        raise error


def test_a_write_that_fails_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    write_text(path, "old")
    for error, seen in ((OSError("full"), StoreError), (ZeroDivisionError(), ZeroDivisionError)):
        with pytest.raises(seen) as told:
            fails_halfway(path, error)
        assert seen is not StoreError or "file.txt: full; choose a writable" in str(told.value)
    assert [one.name for one in path.parent.iterdir()] == ["file.txt"]
    assert path.read_text() == "old"


def test_files_that_differ_in_their_ending_alone_do_not_meet(tmp_path: Path) -> None:
    with in_one_move(tmp_path / "a.json") as one, in_one_move(tmp_path / "a.html") as other:
        one.write_text("1")
        other.write_text("2")
    assert [(tmp_path / name).read_text() for name in ("a.json", "a.html")] == ["1", "2"]


def test_an_error_that_says_what_to_do_is_not_said_again(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"^the shard is torn$"):
        fails_halfway(tmp_path / "a", StoreError("the shard is torn"))


def test_a_folder_is_claimed_once_and_differences_are_told(tmp_path: Path) -> None:
    path = tmp_path / "run" / "settings.json"
    assert claim(path, {"seed": 0, "sizes": (1, 2)}) == {}
    assert claim(path, {"sizes": [1, 2], "seed": 0}) == {}
    assert claim(path, {"seed": 1, "more": True}) == {"more": (None, True), "seed": (0, 1), "sizes": ([1, 2], None)}
    assert json.loads(path.read_text()) == {"seed": 0, "sizes": [1, 2]}


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_a_broken_note_is_told(text: str, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(InputError, match=r"plan\.json: .*delete this one file"):
        claim(tmp_path / "plan.json", {})


def test_what_is_not_measured_becomes_null(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": [float("nan"), 1.5]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": [None, 1.5]}
