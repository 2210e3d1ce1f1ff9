"""Rows into files and folders of parts: types over all rows, what a kill leaves, and what a second run does."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stepreward import formats
from stepreward.core.errors import InputError
from stepreward.core.failures import Failure, Failures
from stepreward.core.files.row_files import names_a_folder, write_parts, write_rows
from stepreward.core.types import Problem, Step, Trajectory


def numbered(numbers: Iterable[int]) -> Iterator[dict[str, Any]]:
    """A row of each number but of multiples of 4."""
    for number in numbers:
        if number % 4:
            yield {"n": number}


def test_a_folder_has_parts_of_so_many_items_and_a_note(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    # Of 1 to 7 in parts of three items, 4 makes no row.
    assert write_parts(folder, range(1, 8), numbered, rows_per_part=3, plan={"of": "seven"}) == 6
    parts = [pq.read_table(path)["n"].to_pylist() for path in sorted(folder.glob("*.parquet"))]
    assert parts == [[1, 2, 3], [5, 6], [7]]
    assert json.loads((folder / "_parts.json").read_text()) == {
        "plan": {"of": "seven"}, "rows_per_part": 3, "parts": 3, "rows": 6, "complete": True,
    }  # fmt: skip


def test_a_run_that_was_cut_goes_on_at_its_first_missing_part(tmp_path: Path) -> None:
    folder, worked = tmp_path / "out", list[int]()

    def work(numbers: Iterable[int]) -> Iterator[dict[str, Any]]:
        for number in numbers:
            worked.append(number)
            if number == 5 and worked.count(5) == 1:
                raise RuntimeError("cut")
            yield {"n": number}

    with pytest.raises(RuntimeError, match="cut"):
        write_parts(folder, range(1, 8), work, rows_per_part=2, plan={})
    with pytest.raises(InputError, match=r"has not ended.*run the same command again"):
        list(formats.read(folder))
    assert write_parts(folder, range(1, 8), work, rows_per_part=2, plan={}) == 7
    assert worked == [1, 2, 3, 4, 5, 5, 6, 7], "1 to 4 were in whole parts, 5 in none"
    assert pq.ParquetDataset(folder).read()["n"].to_pylist() == [1, 2, 3, 4, 5, 6, 7]
    # A third run works on nothing.
    assert write_parts(folder, range(1, 8), work, rows_per_part=2, plan={}) == 7
    assert len(worked) == 8


def test_a_run_that_goes_on_knows_what_its_kept_parts_lack(tmp_path: Path) -> None:
    folder, counts, worked = tmp_path / "out", Counter[str](), list[int]()

    def work(numbers: Iterable[int]) -> Iterator[dict[str, Any] | Failure]:
        for number in numbers:
            worked.append(number)
            if number == 7 and worked.count(7) == 1:
                raise RuntimeError("cut")
            counts["odd"] += number % 2
            yield {"n": number} if number % 3 else (f"n{number}", InputError(f"{number} is a multiple", remedy="add 1"))

    with pytest.raises(RuntimeError, match="cut"):
        write_parts(folder, range(1, 8), work, rows_per_part=2, plan={}, counts=counts)
    # The second run works on 7 alone, and tells of 3 and 6 as the first did; 1, 3, 5 and 7 are odd.
    for tries in (1, 2):
        counts.clear()
        failed = Failures()
        assert write_parts(folder, range(1, 8), work, rows_per_part=2, plan={}, failed=failed, counts=counts) == 5
        assert worked[7:] == [7], tries
        assert [(name, str(error)) for name, error in failed] == [
            ("n3", "3 is a multiple; add 1"), ("n6", "6 is a multiple; add 1")
        ]  # fmt: skip
        assert counts == {"odd": 4}
    # A part that is made anew has a new note.
    (folder / "part-000001.parquet").unlink()
    failed = Failures()
    write_parts(folder, range(1, 8), lambda some: ({"n": one} for one in some), rows_per_part=2, plan={}, failed=failed)
    assert [name for name, _ in failed] == ["n6"]


def test_of_very_many_missing_rows_the_first_are_named_and_all_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stepreward.core.failures.MOST_KEPT", 2)

    def work(numbers: Iterable[int]) -> Iterator[dict[str, Any] | Failure]:
        yield from ((f"n{number}", InputError("odd")) if number % 2 else {"n": number} for number in numbers)

    for tries in (1, 2):
        failed = Failures()
        assert write_parts(tmp_path / "out", range(1, 11), work, rows_per_part=4, plan={}, failed=failed) == 5
        assert ([name for name, _ in failed], failed.total) == (["n1", "n3"], 5), tries


def test_rows_that_a_kept_part_lacks_without_a_note_are_counted(tmp_path: Path) -> None:
    folder, failed = tmp_path / "out", Failures()
    write_parts(folder, range(1, 9), numbered, rows_per_part=4, plan={})
    assert write_parts(folder, range(1, 9), numbered, rows_per_part=4, plan={}, failed=failed) == 6
    assert [str(error) for _, error in failed] == [
        f"{folder}/part-00000{at}.parquet: an earlier run left 1 rows out of this part; delete it to try them again"
        for at in (0, 1)
    ]


def test_a_part_that_is_not_whole_is_written_again(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    write_parts(folder, [1, 2, 3], numbered, rows_per_part=1, plan={})
    torn = folder / "part-000001.parquet"
    torn.write_bytes(torn.read_bytes()[:50])
    assert write_parts(folder, [1, 2, 3], numbered, rows_per_part=1, plan={}) == 3
    assert pq.read_table(torn)["n"].to_pylist() == [2]


def test_parts_beyond_the_last_item_are_removed(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    write_parts(folder, [1, 2, 3], numbered, rows_per_part=1, plan={})
    assert write_parts(folder, [1], numbered, rows_per_part=1, plan={}) == 1
    assert [path.name for path in folder.glob("*.parquet")] == ["part-000000.parquet"]


def test_other_plans_and_other_files_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    write_parts(folder, [1], numbered, plan={"model": "a"})
    with pytest.raises(InputError, match=r"begun for \{'plan': \{'model': 'a'\}\}, this run is for .*'b'"):
        write_parts(folder, [1], numbered, plan={"model": "b"})
    (tmp_path / "others").mkdir()
    pq.write_table(pa.table({"n": [1]}), tmp_path / "others" / "data.parquet")
    with pytest.raises(InputError, match="no parts of this command; name another folder"):
        write_parts(tmp_path / "others", [1], numbered)
    with pytest.raises(InputError, match="rows_per_part=0"):
        write_parts(tmp_path / "none", [1], numbered, rows_per_part=0)


def test_without_a_plan_everything_is_written_anew(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    write_parts(folder, range(1, 4), numbered, rows_per_part=1)
    write_parts(folder, [9], numbered, rows_per_part=1)
    assert [pq.read_table(path)["n"].to_pylist() for path in folder.glob("*.parquet")] == [[9]]


@pytest.mark.parametrize(("path", "folder"), [("a/", True), ("a", True), ("a.v2/", True), ("a.jsonl.gz", False)])
def test_a_path_without_a_suffix_is_a_folder(path: str, folder: bool) -> None:
    assert names_a_folder(path) is folder


def test_types_widen_over_segments_and_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stepreward.core.files.row_files._ROWS_AT_ONCE", 2)
    monkeypatch.setattr("stepreward.core.files.row_files._ROWS_PER_GROUP", 3)
    path = tmp_path / "x.parquet"
    rows: list[dict[str, Any]] = [{"a": None, "s": {"k": 1}}] * 5 + [{"a": 1, "s": {"l": "x"}}] * 2 + [{"a": 0.5}] * 2
    assert write_rows(path, iter(rows)) == 9
    table = pq.read_table(path)
    assert table["a"].to_pylist() == [None] * 5 + [1.0, 1.0, 0.5, 0.5]
    assert table["s"].to_pylist() == [{"k": 1, "l": None}] * 5 + [{"k": None, "l": "x"}] * 2 + [None] * 2
    assert [one.name for one in tmp_path.iterdir()] == ["x.parquet"]


def test_a_value_that_does_not_fit_is_refused_wherever_it_comes(tmp_path: Path) -> None:
    for late in ("text", [1]):
        with pytest.raises(InputError, match=r"columns of one type.*write \.jsonl instead"):
            write_rows(tmp_path / "x.parquet", [{"a": 0.5}] * 600 + [{"a": late}])
    assert list(tmp_path.iterdir()) == []


def test_a_step_column_that_nothing_measured_is_one_of_numbers(tmp_path: Path) -> None:
    row = Trajectory(Problem("p", "?"), (Step("a"),), columns={"score:x": [float("nan")]})  # type: ignore[dict-item]
    formats.write(tmp_path / "x.parquet", [row], "stepreward")
    assert pq.read_schema(tmp_path / "x.parquet").field("score:x").type == pa.list_(pa.float64())
    formats.write(tmp_path / "parts", [row] * 3, "stepreward", rows_per_part=2)
    assert len(list(formats.read(tmp_path / "parts"))) == 3
