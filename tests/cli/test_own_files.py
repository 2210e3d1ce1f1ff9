"""Every file that a command writes is read by every command that takes data, and by Python, or says what it is."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from stepreward import formats
from stepreward.cli.app import app
from stepreward.core.errors import InputError
from tests.cli.running import invoke, refused, solved

WRITTEN = {
    "labels": "labels",
    "labels/labels.parquet": "labels/labels.parquet",
    "a shard of labels": "shard.parquet",
    "a run": "run",
    "found.jsonl": "found.jsonl",
    "a comparison": "compared",
    "convert": "again.jsonl",
    "convert to Parquet": "again.parquet",
    "convert to packed JSON": "again.json.gz",
    "score": "scored.jsonl",
    "score of labels": "scored-labels.jsonl",
}
NUMBERS = {
    "an evaluation": ("evaluated.json", "no format fits", "a problem needs a text"),
    "a comparison's points": ("compared/compare.json", "no trajectories are in it", "holds no problem"),
    "a run's summary": ("run/summary.json", "no trajectories are in it", "holds no problem"),
    "samples": ("labels/samples.sqlite", "a log of paid answers", "a log of paid answers"),
    "answers of a search": ("found.jsonl.answers.sqlite", "a log of paid answers", "a log of paid answers"),
    "a model": ("model", "no labels.parquet", "no labels.parquet"),
}
"""What holds numbers or a log: which error says so to readers of solutions, and of problems."""
LABELLED = ("labels", "labels/labels.parquet", "shard.parquet", "run", "again.jsonl", "scored-labels.jsonl")


@pytest.fixture(scope="module")
def written(folder: Path) -> Path:
    """A folder in which every command has written its files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        invoke("convert labels/labels.parquet again.jsonl")
        invoke("convert found.jsonl again.parquet")
        invoke("convert found.jsonl again.json.gz")
        (folder / "scored.jsonl").write_text(invoke("score --model model --data found.jsonl"))
        (folder / "scored-labels.jsonl").write_text(invoke("score --model tool --data labels"))
        (folder / "evaluated.json").write_text(invoke("evaluate --data labels --model tool --threshold 0.5 --json"))
        (shard,) = (folder / "labels").glob("labels-*.parquet")
        (folder / "shard.parquet").write_bytes(shard.read_bytes())
        invoke("search --problems problems.jsonl --grader arithmetic --model tool --compare --only best-of-n "
               "--budget 2 --out compared --json")  # fmt: skip
        invoke("run --out run --problems problems.jsonl --train-problems 6 --validation-problems 3 "
               "--held-out-problems 3 --train-samples 2 --held-out-samples 2 --rollouts 2 "
               "--epochs 1 --beams 2 --width 2 --json")  # fmt: skip
    return folder


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", WRITTEN.values(), ids=WRITTEN)
def test_every_reader_reads_what_every_command_wrote(name: str, written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(written)
    items = list(formats.read(name))
    assert len(items) == len(list(formats.read(name, "stepreward", strict=True))) > 0
    problems = {item.problem.id for item in items}
    assert len(problems) == (6 if name == "run" else 12)
    assert all(item.problem.text and item.problem.reference for item in items)
    assert {made.id for made in formats.read_problems(name)} == problems

    lines = [json.loads(line) for line in invoke(f"score --model tool --data {name}").splitlines()]
    assert [line["prompt"] for line in lines] == [item.problem.text for item in items]
    assert [len(line["scores"]) for line in lines] == [len(item) for item in items]

    for over in ("over.jsonl", "over.parquet"):
        invoke(f"convert {name} {over}")
        assert list(formats.read(over)) == list(items)
    if name in LABELLED:
        told = json.loads(invoke(f"evaluate --data {name} --model tool --json --threshold 0.5"))
        assert told["solutions"] == len(items)
    found = json.loads(invoke(f"search --problems {name} --grader arithmetic --method majority --out f.jsonl --json"))
    assert found["problems"] == len(problems)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", WRITTEN.values(), ids=WRITTEN)
def test_what_was_written_is_labelled_and_trained_on(
    name: str, written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(written)
    items = list(formats.read(name))
    told = json.loads(invoke(f"label --data {name} --grader arithmetic --set n=1 --out {tmp_path / 'a'} --json"))
    assert (told["failed"], told["trajectories"]) == (0, len(items))
    fewer = f"label --problems {name} --grader arithmetic --samples 1 --set n=1 --out {tmp_path / 'b'} --json"
    assert json.loads(invoke(fewer))["failed"] == 0
    line = f"train --data {name} --out {tmp_path / 'model'} --epochs 0.1 --batch-tokens 512 --held-out 0 --json"
    if name in LABELLED:
        assert json.loads(invoke(line))["trees"] == len({item.problem.id for item in items})
    else:
        assert "no supervised step" in refused(line, capsys, monkeypatch)


@pytest.mark.parametrize("name", NUMBERS)
def test_what_holds_no_rows_says_what_it_is(
    name: str, written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(written)
    path, solutions, problems = NUMBERS[name]
    with pytest.raises(InputError, match=solutions):
        list(formats.read(path))
    with pytest.raises(InputError, match=problems):
        list(formats.read_problems(path))
    scored = CliRunner().invoke(app, shlex.split(f"score --model tool --data {path}"))  # a line for each bad row
    assert scored.exit_code == 1
    assert solutions in scored.output + str(scored.exception)
    for line in (f"convert {path} {tmp_path / 'x.jsonl'}", f"evaluate --data {path} --model tool",
                 f"train --data {path} --out {tmp_path / 'm'}",
                 f"label --data {path} --grader arithmetic --out {tmp_path / 'l'}"):  # fmt: skip
        assert solutions in refused(line, capsys, monkeypatch), line
    for line in (f"search --problems {path} --grader arithmetic --method majority --out {tmp_path / 'f.jsonl'}",
                 f"label --problems {path} --grader arithmetic --out {tmp_path / 'l'}"):  # fmt: skip
        assert problems in refused(line, capsys, monkeypatch), line


def test_scores_and_answers_of_search_come_back(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(written)
    rows = [one for row in solved(Path("found.jsonl")) for one in row["candidates"]]
    for row, item in zip(rows, formats.read("found.jsonl"), strict=True):
        assert item.answer == row.get("answer")
        assert item.scores["score"].tolist() == row["score"]
        assert np.isnan(item.outcome) if "outcome" not in row else item.outcome == row["outcome"]
        assert item.facts == json.loads(row["facts"])


def test_a_comparison_keeps_what_each_search_chose(written: Path) -> None:
    summary = json.loads((written / "compared" / "compare.json").read_text())
    items = list(formats.read(written / "compared"))
    for point in summary["points"]:
        mine = [item.outcome for item in items if item.facts["search"] == point["algorithm"]]
        assert len(mine) == 12
        assert sum(mine) / 12 == pytest.approx(point["accuracy"]["value"])
    assert all(len(item.scores["score"]) == len(item) for item in items)
