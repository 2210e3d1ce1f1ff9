"""Damaged and hostile files: bad rows are named and left out, memory and time are bounded, no other file is read."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stepreward.core.errors import InputError
from stepreward.formats.files import row_limits as limits
from stepreward.formats.files import rows_of_files as files_module
from stepreward.formats.files.rows_of_files import read_rows
from stepreward.formats.registry import by_name

TEXTS = [b"good", b"\xff\xfe bad", b"fine"]


def bad_texts() -> pa.Array:
    """Strings of which the second is no UTF-8."""
    offsets = np.cumsum([0, *map(len, TEXTS)]).astype(np.int32)
    return pa.StringArray.from_buffers(3, pa.py_buffer(offsets.tobytes()), pa.py_buffer(b"".join(TEXTS)))


def told(path: Path) -> list[object]:
    return [row.problem if isinstance(row, InputError) else row for _, row in read_rows(path)]


def test_a_text_that_is_no_utf8_costs_its_row_alone(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": bad_texts(), "n": [1, 2, 3]}), tmp_path / "x.parquet")
    first, second, third = told(tmp_path / "x.parquet")
    assert (first, third) == ({"a": "good", "n": 1}, {"a": "fine", "n": 3})
    assert str(second).startswith("the row cannot be read: ")


def test_a_damaged_page_costs_its_group_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    texts = [f"{i} {np.random.default_rng(i).bytes(40).hex()}" for i in range(60)]
    how = {"use_dictionary": False, "write_page_checksum": True, "compression": "none"}
    pq.write_table(pa.table({"a": texts}), path, row_group_size=20, **how)
    content = bytearray(path.read_bytes())
    content[content.index(texts[30].encode()) + 5] ^= 1
    path.write_bytes(content)
    rows = told(path)
    assert [row for row in rows if isinstance(row, dict)] == [{"a": text} for text in (*texts[:20], *texts[40:])]
    assert next(row for row in rows if isinstance(row, str)).startswith("rows 21 to 40 cannot be read")


def saved(folder: Path, batch: pa.RecordBatch, name: str = "data.arrow") -> Path:
    folder.mkdir(exist_ok=True)
    with pa.OSFile(str(folder / "data.arrow"), "wb") as sink, pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
    return folder


@pytest.mark.parametrize("last", [4000, 1 << 30, -5])
def test_lying_offsets_are_refused(tmp_path: Path, last: int) -> None:
    folder = saved(tmp_path, pa.record_batch({"a": ["good", "bad"]}))
    content = (folder / "data.arrow").read_bytes()
    true, false = (np.array([0, 4, end], np.int32).tobytes() for end in (7, last))
    assert content.count(true) == 1
    (folder / "data.arrow").write_bytes(content.replace(true, false))
    with pytest.raises(InputError, match="not a readable Arrow stream"):
        told(folder)


@pytest.mark.parametrize("at", range(0, 400, 13))
def test_any_damage_to_a_saved_data_set_ends_in_rows_or_one_error(tmp_path: Path, at: int) -> None:
    folder = saved(tmp_path, pa.record_batch({"a": [f"text {i}" for i in range(9)], "b": [[i] for i in range(9)]}))
    content = bytearray((folder / "data.arrow").read_bytes())
    content[at : at + 8] = b"\xff\x7f" * 4
    (folder / "data.arrow").write_bytes(content)
    try:
        told(folder)
    except InputError as error:
        assert "data.arrow" in str(error)  # noqa: PT017


@pytest.mark.parametrize("name", ["../data.arrow", "/etc/passwd", "a/../../data.arrow", "..", ""])
def test_a_description_names_no_file_elsewhere(tmp_path: Path, name: str) -> None:
    folder = saved(tmp_path / "set", pa.record_batch({"a": ["x"]}), name)
    with pytest.raises(InputError, match="names a file outside the folder"):
        told(folder)


@pytest.mark.parametrize("packed", [True, False])
def test_a_line_that_is_too_large_costs_itself_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    for module in (limits, files_module):
        monkeypatch.setattr(module, "LARGEST_ROW", 1000)
    path = tmp_path / ("x.jsonl.gz" if packed else "x.jsonl")
    # What is left of the large one is no line of its own, be it as long as the limit or longer.
    lines = [
        '{"a": 1}',
        json.dumps({"a": "x" * 989}),
        json.dumps({"a": "x" * 992}),
        json.dumps({"a": "x" * 9000}),
        '{"a": 2}',
    ]
    with gzip.open(path, "wt") if packed else path.open("w") as file:
        file.write("\n".join(lines))
    assert told(path) == [{"a": 1}, {"a": "x" * 989}, *["not read: larger than 0 MiB"] * 2, {"a": 2}]


def test_values_are_counted_before_they_take_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_VALUES", 1000)
    (tmp_path / "x.jsonl").write_text(
        '{"a": 1}\n{"a": [' + "[]," * 2000 + "[]]}\n" + json.dumps({"a": "x" * 5000}) + "\n"
    )
    assert told(tmp_path / "x.jsonl") == [{"a": 1}, "not read: more than 1,000 values", {"a": "x" * 5000}]


def test_long_traces_take_linear_time(tmp_path: Path) -> None:
    """Quadratic readers took minutes for these."""
    levels = [{"x": "4 4 6 8", "new_ys": ["a\n", "a\nb\n"], "values": [1.0, 20.0]}]
    tot = {"idx": 1, "steps": levels, "ys": ["a\nb\n" + "\n" * 400_000], "infos": [{"r": 1}]}
    (item,) = by_name("tot").read(tot, 1)
    np.testing.assert_array_equal(item.scores["value"][:3], [1.0, 20.0, np.nan])
    roles = ["WebSurfer (thought)", "Orchestrator (-> WebSurfer)", "a" + " " * 400_000 + "b", "(" * 400_000, "human"]
    row = {
        "question": "?", "question_ID": "1", "history": [{"content": "x", "role": role} for role in roles],
        "mistake_step": "0", "mistake_agent": "WebSurfer",
    }  # fmt: skip
    (item,) = by_name("who-and-when").read(row, 1)
    assert [step.agent for step in item.steps][:2] == ["WebSurfer", "Orchestrator"]
    assert [step.kind for step in item.steps][-1] == "observation"


@pytest.mark.skipif(os.name != "posix", reason="needs a file of devices")
def test_an_empty_device_is_no_crash() -> None:
    assert told(Path("/dev/null")) == []
