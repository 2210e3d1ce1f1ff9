"""Every file that a command writes is read by every command that takes data, and by Python."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stepreward import formats
from tests.cli.running import invoke

WRITTEN = {
    "labels": "labels",
    "labels/labels.parquet": "labels/labels.parquet",
    "found.jsonl": "found.jsonl",
    "convert": "again.jsonl",
    "convert to Parquet": "again.parquet",
    "score": "scored.jsonl",
}


@pytest.fixture(scope="module")
def written(folder: Path) -> Path:
    """A folder in which every command has written its files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        invoke("convert labels/labels.parquet again.jsonl")
        invoke("convert found.jsonl again.parquet")
        (folder / "scored.jsonl").write_text(invoke("score --model model --data found.jsonl"))
    return folder


@pytest.mark.parametrize("name", WRITTEN.values(), ids=WRITTEN)
def test_every_reader_reads_what_every_command_wrote(name: str, written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(written)
    items = list(formats.read(name))
    assert len(items) == len(list(formats.read(name, "stepreward", strict=True))) >= 12
    problems = {item.trajectory.problem.id for item in items}
    assert len(problems) == 12
    assert all(item.trajectory.problem.text and item.trajectory.problem.reference for item in items)
    assert {made.id for made in formats.read_problems(name)} == problems

    lines = [json.loads(line) for line in invoke(f"score --model tool --data {name}").splitlines()]
    assert [line["prompt"] for line in lines] == [item.trajectory.problem.text for item in items]
    assert [len(line["scores"]) for line in lines] == [len(item.trajectory) for item in items]

    invoke(f"convert {name} over.jsonl")
    assert [one.trajectory for one in formats.read("over.jsonl")] == [one.trajectory for one in items]
    if any(item.first_error is not None for item in items):
        told = json.loads(invoke(f"evaluate --data {name} --model tool --json --threshold 0.5"))
        assert told["solutions"] == len(items)
    found = json.loads(invoke(f"search --problems {name} --grader arithmetic --method majority --out f.jsonl --json"))
    assert found["problems"] == 12


def test_scores_and_answers_of_search_come_back(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(written)
    rows = [json.loads(line) for line in Path("found.jsonl").read_text().splitlines()]
    for row, item in zip(rows, formats.read("found.jsonl"), strict=True):
        assert item.answer == row["answer"]
        assert item.scores["score"].tolist() == row["scores"]
        assert item.trajectory.outcome == float(row["correct"])
        assert item.meta["candidates"] == row["candidates"]
