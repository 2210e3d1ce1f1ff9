"""Formats: what a row means, round trips, and one clear error for each kind of bad row."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepreward import formats
from stepreward.core.errors import InputError, StoreError, UnknownNameError
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.formats.benchmarks import process_bench
from stepreward.formats.labels import Neutral, label_array, relabel
from stepreward.formats.steps import math_shepherd, prm800k, stepwise

DATA = Path(__file__).parents[2].parent / "shared" / "data"
BENCH: dict[str, Any] = {
    "id": "b-1", "generator": "m", "problem": "1 + 1?", "steps": ["One.", "Two.\n\n", "Three."],
    "final_answer_correct": False, "label": 1,
}  # fmt: skip
TRL: dict[str, Any] = {"prompt": "1 + 1?", "completions": ["It is 2.", "Done."], "labels": [True, False]}
SCAN: dict[str, Any] = {"question": "1 + 1?", "steps": ["a", "b"], "scores": [1, 0.25]}
SHEPHERD: dict[str, Any] = {
    "input": "How many? Step 1: 1 + 1 = 2. ки\nStep 2: The answer is: 2 ки",
    "label": "How many? Step 1: 1 + 1 = 2. +\nStep 2: The answer is: 2 -",
    "task": "GSM8K",
}


def rated(text: str, rating: int | None) -> dict[str, Any]:
    return {"text": text, "rating": rating, "flagged": False}


PRM: dict[str, Any] = {
    "question": {"problem": "1 + 1?", "ground_truth_answer": "2"},
    "label": {
        "steps": [
            {"completions": [rated("good", 1), rated("bad", -1)], "human_completion": None, "chosen_completion": 0},
            {"completions": [rated("wrong", -1)], "human_completion": rated("human", None), "chosen_completion": None},
            {"completions": [rated("so-so", 0)], "human_completion": None, "chosen_completion": 0},
        ],
        "finish_reason": "solution",
    },
}


def lines(path: Path, *rows: object) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def texts(item: Trajectory) -> list[str]:
    return [step.text for step in item.steps]


def same(a: Trajectory, b: Trajectory) -> None:
    assert texts(a) == texts(b)
    assert a.problem.text == b.problem.text
    np.testing.assert_array_equal(a.labels, b.labels)


def test_process_bench_marks_one_step_and_leaves_later_ones_open() -> None:
    (item,) = process_bench.read(BENCH, 1)
    np.testing.assert_array_equal(item.labels, [1, 0, np.nan])
    assert (item.first_error, item.outcome, item.provenance[0].policy) == (1, 0.0, "m")
    assert texts(item)[1] == "Two.\n\n\n\n"
    (item,) = process_bench.read(BENCH, 1, after_first_error="wrong")
    np.testing.assert_array_equal(item.labels, [1, 0, 0])


def test_prm800k_conditions_candidates_on_the_chosen_prefix() -> None:
    path, bad, wrong = prm800k.read(PRM, 1)
    assert texts(path) == ["good\n", "human\n", "so-so\n"]
    np.testing.assert_array_equal(path.labels, [1, np.nan, 1])  # nobody rated the human's step; neutral is right
    assert texts(bad) == ["bad\n"]
    assert texts(wrong) == ["good\n", "wrong\n"]
    assert (bad.first_error, wrong.first_error, path.first_error) == (0, 1, None)
    assert path.terminal
    assert not wrong.terminal
    assert path.problem.reference == "2"


@pytest.mark.parametrize(("neutral", "label"), [("right", 1.0), ("wrong", 0.0), ("half", 0.5), ("mask", np.nan)])
def test_neutral_is_an_option(neutral: Neutral, label: float) -> None:
    (path,) = prm800k.read(PRM, 1, neutral=neutral, alternatives=False)
    np.testing.assert_array_equal(path.labels[-1], label)


def test_math_shepherd_reads_signs_and_keeps_its_text() -> None:
    (item,) = math_shepherd.read(SHEPHERD, 1)
    assert texts(item) == ["Step 1: 1 + 1 = 2.\n", "Step 2: The answer is: 2\n"]
    assert item.problem.text == "How many?"
    assert (item.labels.tolist(), item.first_error) == ([1.0, 0.0], 1)
    assert math_shepherd.write(item) == SHEPHERD


def test_scan_labels_stay_soft_until_a_threshold_is_named() -> None:
    (item,) = stepwise.read_scan(SCAN, 1)
    assert (item.labels.tolist(), item.first_error) == ([1.0, 0.25], None)
    (item,) = stepwise.read_scan(SCAN, 1, threshold=0.5)
    assert (item.labels.tolist(), item.first_error) == ([1.0, 0.0], 1)


def test_after_first_error() -> None:
    labels = np.array([0.5, 0.0, 1.0])
    np.testing.assert_array_equal(relabel(labels), [0.5, 0, 1])
    np.testing.assert_array_equal(relabel(labels, after_first_error="mask"), [0.5, 0, np.nan])
    np.testing.assert_array_equal(relabel(labels, after_first_error="wrong"), [0.5, 0, 0])
    np.testing.assert_array_equal(relabel(labels, threshold=0.5, after_first_error="mask"), [0, np.nan, np.nan])


def test_a_format_without_null_is_cut_before_the_first_unknown_label() -> None:
    (item,) = process_bench.read(BENCH, 1)
    row = stepwise.write_trl(item, separator="\n\n")
    assert row == {"prompt": "1 + 1?", "completions": ["One.", "Two.\n\n"], "labels": [True, False]}
    assert stepwise.write_trl(item, unknown="wrong")["labels"] == [True, False, False]
    assert stepwise.write_trl(item, unknown="right")["labels"] == [True, False, True]
    with pytest.raises(InputError, match="step 2 of problem b-1 has no label"):
        stepwise.write_trl(item, unknown="error")


def test_labels_of_data_carry_their_annotators() -> None:
    (item,) = process_bench.read(BENCH, 1)
    assert item.provenance[0].estimator == "processbench annotators"


@pytest.mark.parametrize(
    ("row", "name"),
    [(BENCH, "process-bench"), (PRM, "prm800k"), (TRL, "trl"), (SCAN, "scan"), (SHEPHERD, "math-shepherd"),
     ({"question": "q", "answer": "a\n#### 1"}, "gsm8k")],
)  # fmt: skip
@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz", ".json", ".parquet"])
def test_formats_are_found_by_their_fields_in_every_container(
    row: dict[str, Any], name: str, ending: str, tmp_path: Path
) -> None:
    path = tmp_path / f"rows{ending}"
    if ending == ".parquet":
        pq.write_table(pa.Table.from_pylist([row]), path)
    elif ending == ".json":
        path.write_text(json.dumps([row]))
    else:
        data = (json.dumps(row) + "\n").encode()
        path.write_bytes(gzip.compress(data) if ending.endswith("gz") else data)
    reading = formats.read(path, strict=True)
    assert reading.format.name == name
    assert len(list(reading)) >= 1


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"prompt": "q", "completi', "broken JSON"),
        ("[1, 2]", "expected an object, got list"),
        ({"prompt": "q", "completions": ["a"]}, "field 'labels' is missing"),
        ({"completions": ["a"], "labels": [1]}, "field 'prompt' is missing"),
        ({"prompt": 3, "completions": ["a"], "labels": [1]}, "field 'prompt' has the wrong type: 3"),
        ({"prompt": "q", "completions": ["a"], "labels": [1.5]}, r"entry 0 must be in \[0, 1\], got 1.5"),
        ({"prompt": "q", "completions": ["a"], "labels": ["yes"]}, "got 'yes'"),
        ({"prompt": "q", "completions": ["a", "b"], "labels": [1]}, "1 entries for 2 steps"),
        ({"prompt": "q", "completions": [], "labels": []}, "at least one step"),
        ({"prompt": "q", "completions": "a", "labels": [1]}, "list of at least one step, got 'a'"),
        ({"prompt": "q", "completions": ["a", None], "labels": [1, 1]}, "step 1 of 'completions' must be text"),
    ],
)
def test_a_bad_row_is_named_and_the_good_ones_survive(row: object, message: str, tmp_path: Path) -> None:
    path = lines(tmp_path / "rows.jsonl", TRL, row, TRL)
    reading = formats.read(path)
    assert len(list(reading)) == 2
    (bad,) = reading.bad
    assert bad.row == 2
    assert str(bad).startswith(f"{path}, row 2: ")
    assert bad.remedy
    assert len(list(reading)) == 2  # reading again starts again
    assert len(reading.bad) == 1
    with pytest.raises(InputError, match=message):
        list(formats.read(path, strict=True))


@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet"])
@pytest.mark.parametrize("rows", [0, 2])
def test_every_container_can_be_written_and_read_again(ending: str, rows: int, tmp_path: Path) -> None:
    items = list(stepwise.read_trl(TRL, 1)) * rows
    path = tmp_path / f"out{ending}"
    assert formats.write(path, items, "trl") == []
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    again = list(formats.read(path, "trl", strict=True))
    assert len(again) == rows
    for before, after in zip(items, again, strict=True):
        same(before, after)


@pytest.mark.parametrize(
    ("form", "row", "message"),
    [
        ("process-bench", {**BENCH, "label": 3}, "label.*below 3, got 3"),
        ("process-bench", {**BENCH, "label": -2}, "below 3, got -2"),
        ("process-bench", {**BENCH, "label": True}, "wrong type"),
        ("process-bench", {**BENCH, "steps": []}, "at least one step"),
        ("math-shepherd", {**SHEPHERD, "label": SHEPHERD["input"]}, "must repeat 'input'"),
        ("math-shepherd", {**SHEPHERD, "label": SHEPHERD["label"].replace("many", "much")}, "must repeat 'input'"),
        ("math-shepherd", {**SHEPHERD, "input": "no tag"}, "no step"),
        ("math-shepherd", {"input": "q ки", "label": "q +"}, "must part the question"),
        ("prm800k", {"question": {"problem": "q"}, "label": {"steps": []}}, "no step of the row is rated"),
        ("prm800k", {"question": {"problem": "q"}, "label": {"steps": [
            {"completions": [rated("a", 2)], "chosen_completion": 0}]}}, "must be rated -1, 0 or 1"),
        ("prm800k", {"question": {"problem": "q"}, "label": {"steps": [
            {"completions": [rated("a", 1)], "chosen_completion": 4}]}}, "is 4 of 1 candidates"),
        ("scan", {**SCAN, "scores": [1, -0.1]}, "got -0.1"),
        ("gsm8k", {"question": "q", "answer": " \n"}, "solution is empty"),
        ("react", {"steps": [{"action": "look", "observation": "o"}, {"thought": "t"}], "claim": "c", "reward": 1},
         "step 1 must have an 'action'"),
        ("react", {"steps": [{"action": 3, "observation": "o"}], "claim": "c", "reward": 1}, "step 0 must have"),
        ("react", {"steps": ["look"], "claim": "c", "reward": 1}, "step 0 must have"),
        ("react", {"steps": [{"action": "look", "observation": "o"}], "reward": 1}, "no claim, question or first"),
        ("react", {"steps": [{"action": "reset", "observation": "buy"}], "reward": 1}, "no claim, question or first"),
    ],
)  # fmt: skip
def test_each_format_explains_its_own_bad_rows(form: str, row: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        list(formats.read(lines(tmp_path / "rows.jsonl", row), form, strict=True))


def test_files_that_cannot_be_read_or_recognised(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        formats.read(tmp_path / "absent.jsonl")
    with pytest.raises(InputError, match=r"no format fits; the first row has the fields a.*name the format"):
        formats.read(lines(tmp_path / "odd.jsonl", {"a": 1}))
    (tmp_path / "broken.jsonl.gz").write_bytes(b"no gzip")
    with pytest.raises(InputError, match=r"broken \.gz"):
        formats.read(tmp_path / "broken.jsonl.gz")
    (tmp_path / "broken.parquet").write_bytes(b"no parquet")
    with pytest.raises(InputError, match="not a readable Parquet"):
        formats.read(tmp_path / "broken.parquet")
    (tmp_path / "broken.json").write_text('[{"a": 1},')
    with pytest.raises(InputError, match="row 2: broken JSON array"):
        formats.read(tmp_path / "broken.json")


def test_unknown_names_suggest_known_ones(tmp_path: Path) -> None:
    path = lines(tmp_path / "rows.jsonl", TRL)
    with pytest.raises(UnknownNameError, match="did you mean trl"):
        formats.read(path, "trll")
    with pytest.raises(UnknownNameError, match="did you mean threshold"):
        formats.read(path, "trl", treshold=0.5)
    with pytest.raises(InputError, match="can only be read"):
        formats.write(tmp_path / "o.jsonl", [], "gsm8k")
    with pytest.raises(InputError, match="no format for the ending"):
        formats.write(tmp_path / "o.csv", [], "trl")


def test_an_unwritable_folder_is_one_store_error_and_leaves_no_half_file(tmp_path: Path) -> None:
    (item,) = stepwise.read_trl(TRL, 1)
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match=r"cannot write .*o\.jsonl"):
        formats.write(tmp_path / "file" / "o.jsonl", [item], "trl")
    assert [one.name for one in tmp_path.iterdir()] == ["file"]
    formats.write(tmp_path / "new" / "o.jsonl", [item], "trl")
    assert [one.name for one in (tmp_path / "new").iterdir()] == ["o.jsonl"]


def test_writing_reports_what_a_format_cannot_hold(tmp_path: Path) -> None:
    (item,) = stepwise.read_scan(SCAN, 1)
    path = tmp_path / "o.jsonl"
    (refused,) = formats.write(path, [item], "prm800k")
    assert "label 0.25" in str(refused)
    with pytest.raises(InputError, match=r"label 0\.25"):
        formats.write(path, [item], "prm800k", strict=True)


@given(
    st.lists(st.tuples(st.text(max_size=30), st.sampled_from([0.0, 1.0])), min_size=1, max_size=6),
    st.text(max_size=30),
)
def test_any_step_text_survives_a_round_trip(pairs: list[tuple[str, float]], question: str) -> None:
    steps = tuple(Step(text + "\n\n") for text, _ in pairs)
    labels = np.array([label for _, label in pairs])
    item = Trajectory(Problem("p", question), steps, columns={"label": labels})
    writers: list[tuple[Any, Any]] = [
        (stepwise.write_trl, stepwise.read_trl),
        (stepwise.write_scan, stepwise.read_scan),
        (prm800k.write, prm800k.read),
    ]
    for write, read in writers:
        row = json.loads(json.dumps(write(item, separator="\n\n")))
        same(item, next(read(row, 1, separator="\n\n")))


def test_null_labels_are_not_measured() -> None:
    np.testing.assert_array_equal(label_array([None, 1, float("nan")], 3), [np.nan, 1, np.nan])


REAL = [
    ("processbench/gsm8k.json", "process-bench"),
    ("processbench/math.json", "process-bench"),
    ("scan/base_100.jsonl", "scan"),
    ("scan/pro_100.jsonl", "scan"),
    ("auto_label_formats/samples_math-shepherd.jsonl", "math-shepherd"),
    ("prm800k/phase1_test.jsonl", "prm800k"),
]


@pytest.mark.sampled(4)
@pytest.mark.real
@pytest.mark.skipif(not DATA.exists(), reason="needs the real data")
@pytest.mark.parametrize(("name", "form"), REAL)
def test_real_rows_survive_a_round_trip(name: str, form: str, tmp_path: Path) -> None:
    items = list(formats.read(DATA / name, strict=True))
    path = tmp_path / "again.jsonl"
    assert formats.write(path, items, form) == []
    again = formats.read(path, strict=True)
    assert again.format.name == form
    for before, after in zip(items, again, strict=True):
        same(before, after)
    if form != "prm800k":  # its rows hold all candidates, ours one solution each
        text = (DATA / name).read_text()
        source = json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines()]
        assert [json.loads(line) for line in path.read_text().splitlines()] == source


@pytest.mark.real
@pytest.mark.skipif(not DATA.exists(), reason="needs the real data")
def test_real_solutions_convert_between_formats(tmp_path: Path) -> None:
    items = list(formats.read(DATA / "processbench/gsm8k.json"))
    assert formats.write(tmp_path / "t.parquet", items, "trl", separator="\n\n") == []
    made = list(formats.read(tmp_path / "t.parquet", "trl", separator="\n\n", strict=True))
    assert [item.first_error for item in made] == [item.first_error for item in items]
