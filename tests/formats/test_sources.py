"""Where rows stand and how a format is found: saved data sets, objects around lists, packed files, near misses."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from stepreward import formats
from stepreward.core.errors import InputError
from stepreward.core.types import Trajectory
from stepreward.formats.files.rows_of_files import read_rows
from stepreward.formats.registry import by_name, detect, evidence, read
from tests.cli.running import invoke

from .examples import EXAMPLES

ROWS = [
    {"prompt": f"{i} + 1?", "completions": [f"{i} + 1 = {i + 1}", "Done."], "labels": [True, i % 2 == 0]}
    for i in range(700)
]


def saved(folder: Path, rows: list[dict[str, Any]], parts: int = 2) -> Path:
    """What `save_to_disk` writes: Arrow streams, and `state.json` with their order."""
    folder.mkdir()
    names = [f"data-{at:05d}-of-{parts:05d}.arrow" for at in range(parts)]
    size = -(-len(rows) // parts)
    for at, name in enumerate(names):
        table = pa.Table.from_pylist(rows[at * size : (at + 1) * size])
        with pa.OSFile(str(folder / name), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=300)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    (folder / "dataset_info.json").write_text("{}")
    return folder


def test_a_saved_data_set_is_read_in_its_order(tmp_path: Path) -> None:
    folder = saved(tmp_path / "set", ROWS)
    assert list(read_rows(folder)) == list(enumerate(ROWS, start=1))
    found = evidence(folder)
    assert (found.format.name, found.row) == ("trl", 1)
    assert len(list(read(folder, strict=True))) == 700
    assert "700 solutions" in invoke(f"convert {folder} {tmp_path / 'out.jsonl'} --to scan")
    made = json.loads(invoke(f"evaluate --benchmark calibration --data {folder} --scorer constant --json"))
    assert made["rows"] == 700


def test_what_datasets_itself_saves_is_read(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "set", num_shards=3)
    assert [row for _, row in read_rows(tmp_path / "set")] == ROWS
    datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS[:2])}).save_to_disk(tmp_path / "splits")
    with pytest.raises(InputError, match="holds several splits; name the folder of one: train"):
        list(read_rows(tmp_path / "splits"))
    assert len(list(read_rows(tmp_path / "splits" / "train"))) == 2


def test_folders_that_are_no_plain_data_set(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no parts, \.parquet, \.jsonl or \.json, and no events are in this folder"):
        list(read_rows(tmp_path))
    folder = saved(tmp_path / "set", ROWS[:4])
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps({**state, "_indices_data_files": [{"filename": "i.arrow"}]}))
    with pytest.raises(InputError, match="an order of its own; flatten_indices"):
        list(read_rows(folder))
    (folder / "state.json").write_text(json.dumps(state))
    (folder / state["_data_files"][1]["filename"]).write_bytes(b"nothing")
    with pytest.raises(InputError, match="not a readable Arrow stream"):
        list(read_rows(folder))


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("around", [{}, {"version": 1.5, "name": 'a "set" {', "final": True, "note": None}])
@pytest.mark.parametrize("behind", [{}, {"count": 700}])
def test_an_object_around_a_list_of_rows_is_that_list(
    tmp_path: Path, indent: int | None, around: dict[str, Any], behind: dict[str, Any]
) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps({**around, "data": ROWS, **behind}, indent=indent))
    assert list(read_rows(path)) == list(enumerate(ROWS, start=1))
    assert detect(path).name == "trl"


def test_more_behind_the_object_is_told(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(2 * (json.dumps({"rows": ROWS[:2]}) + "\n"))
    *rows, (number, error) = read_rows(path)
    assert [row for _, row in rows] == ROWS[:2]
    assert isinstance(error, InputError)
    assert (number, "more text after the end of the array" in str(error)) == (3, True)


def test_endings_may_be_large_and_other_packing_is_named(tmp_path: Path) -> None:
    (tmp_path / "ROWS.JSONL.GZ").write_bytes(gzip.compress((json.dumps(ROWS[0]) + "\n").encode()))
    assert [row for _, row in read_rows(tmp_path / "ROWS.JSONL.GZ")] == ROWS[:1]
    (tmp_path / "rows.jsonl.zst").write_bytes(b"\x28\xb5\x2f\xfd")
    with pytest.raises(InputError, match=r"packed as \.zst, of which only \.gz is read; unpack it first: zstd -d rows"):
        list(read_rows(tmp_path / "rows.jsonl.zst"))


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_one_negative_label_makes_a_file_masprms(tmp_path: Path) -> None:
    plain = {"prompt": "?", "completions": ["a"], "labels": [0.5]}
    path = write(tmp_path / "rows.jsonl", [plain, plain, {**plain, "labels": [-0.5]}])
    found = evidence(path)
    assert (found.format.name, found.agreeing, found.seen) == ("masprm", 3, 3)
    assert [item.labels.tolist() for item in read(path, strict=True)] == [[0.75], [0.75], [0.25]]


@pytest.mark.parametrize(
    ("classification", "name"),
    [
        ("circular", "prm-bench"), ("a class of our own", "prm-bench"), ("premise_redundancy", "socratic-prm-bench"),
        ("integration_unsoundness", "socratic-prm-bench"),
    ],
)  # fmt: skip
def test_classes_tell_prm_bench_from_socratic(classification: str, name: str, tmp_path: Path) -> None:
    row = {**EXAMPLES["prm-bench"][0], "classification": classification}
    assert detect(write(tmp_path / "rows.jsonl", [row])).name == name


def test_where_no_format_fits_the_nearest_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [{"question": "?", "steps": ["a"], "score": [1]}])
    with pytest.raises(InputError) as told:
        detect(path)
    text = str(told.value)
    assert "scan (has question, steps; lacks scores)" in text
    assert len(text.removeprefix(str(path))) < 450
    nothing = write(tmp_path / "none.jsonl", [{"colour": "red"}])
    with pytest.raises(InputError, match="fields colour; name the format"):
        detect(nothing)


@pytest.mark.parametrize("name", ["process-bench", "bigbench-mistake", "mr-gsm8k"])
def test_whole_numbers_may_come_as_floats(name: str) -> None:
    fields = {"process-bench": "label", "bigbench-mistake": "mistake_index"}
    field = fields.get(name, "model_output_solution_first_error_step")
    row = next(row for row in EXAMPLES[name] if isinstance(row[field], int))
    (item,), (again,) = (list(by_name(name).read(one, 1)) for one in (row, {**row, field: float(row[field])}))
    assert isinstance(item, Trajectory)
    assert isinstance(again, Trajectory)
    assert item.first_error == again.first_error
    with pytest.raises(InputError):
        list(by_name(name).read({**row, field: 0.5}, 1))


def test_a_right_solution_may_be_marked_minus_one_as_a_float() -> None:
    row = {**EXAMPLES["process-bench"][0], "label": -1.0}
    (item,) = by_name("process-bench").read(row, 1)
    assert isinstance(item, Trajectory)
    assert item.first_error == -1


def test_a_decisive_answer_of_a_program_survives_as_a_chat_log(tmp_path: Path) -> None:
    row = {**EXAMPLES["who-and-when"][0], "mistake_step": "2", "mistake_agent": "Computer_terminal"}
    (item,) = by_name("who-and-when").read(row, 1)
    assert isinstance(item, Trajectory)
    assert item.steps[2].kind == "observation"
    path = tmp_path / "chat.jsonl"
    assert formats.write(path, [item], "openai-chat", strict=True) == []
    (again,) = read(path, strict=True)
    marked = again.first_error
    assert marked is not None
    assert again.steps[marked].text.strip() == item.steps[2].text.strip()
    assert again.labels[marked] == 0
