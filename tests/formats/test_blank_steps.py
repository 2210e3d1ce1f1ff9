"""Steps of white space: nothing in them can be right or wrong, and all that stands a step stays aligned."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from stepreward import formats
from stepreward.core.errors import InputError
from tests.cli.running import invoke

ROWS = [
    {"prompt": f"1 + {i}?", "completions": [f"1 + {i} = {1 + i}", blank, f"Answer: {1 + i}"],
     "labels": [True, False, True]}
    for i, blank in enumerate(["", " \n", "\t", "\u2003", "", "", "", ""])
]  # fmt: skip


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def test_a_blank_step_keeps_its_place_without_a_label(rows: Path) -> None:
    reading = formats.read(rows)
    made = list(reading)
    assert (reading.blank, reading.left_out) == (8, 0)
    for item in made:
        assert [step.kind for step in item.steps] == ["action", "observation", "action"]
        np.testing.assert_array_equal(item.labels, [1.0, np.nan, 1.0])


def test_a_first_error_in_a_blank_step_is_not_known(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"id": "a", "problem": "Q", "steps": ["x", " ", "y"], "label": 1, "generator": "m",
                                "final_answer_correct": False}))  # fmt: skip
    (item,) = formats.read(path, "process-bench")
    assert item.first_error is None
    np.testing.assert_array_equal(item.labels, [1.0, np.nan, np.nan])


def test_a_row_of_blank_steps_alone_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"prompt": "1 + 1?", "completions": ["", " "], "labels": [True, False]}))
    with pytest.raises(InputError, match="row 1: none of 2 steps holds text"):
        list(formats.read(path, "trl"))


def test_scores_stand_at_the_steps_of_the_row(rows: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lines = [json.loads(line) for line in invoke(f"score --data {rows} --model tool").splitlines()]
    assert len(lines) == 8
    assert all(line["scores"][0] == 1.0 and line["scores"][1] is None and len(line["scores"]) == 3 for line in lines)


def test_its_label_is_no_part_of_a_measurement(rows: Path) -> None:
    """Two labelled steps of each of eight rows, all right: without a wrong one there is no AUROC."""
    made = json.loads(invoke(f"evaluate --data {rows} --model random --threshold 0.5 --json"))["scorers"]["model"]
    assert sum(made["steps"]["reliability"]["count"]) == 16
    assert "auroc" not in made["steps"]


def test_a_format_without_unknown_labels_is_written_without_it(rows: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    invoke(f"convert {rows} {out} --to math-shepherd")
    first = json.loads(out.read_text().splitlines()[0])
    assert first["label"].count("+") == 4  # in the question, in the first step, and two labels
    assert "Answer: 1" in first["label"]
    assert "-" not in first["label"]
