"""`stepreward score` on what users have: rows without labels, other names, Parquet, formats, a pipe."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import stepreward
from stepreward.cli.app import app
from stepreward.cli.flags.scorers import RecipeFlags
from stepreward.core.errors import IncompleteWarning, InputError, ModelError
from stepreward.core.files.row_files import write_rows
from stepreward.core.runtime.flows import Score, Scored
from stepreward.formats.registry import read
from tests.cli.running import invoke

STEPS = ["1 + 1 = 2", "2 + 2 = 5", "Answer: 5"]
SCORES = [1.0, 0.0]
"""What `tool` says of the first two; a step without an equation has its own score, not looked at here."""


def scores(line: str) -> list[list[float | None]]:
    return [json.loads(text)["scores"] for text in invoke(f"score --model tool {line}").splitlines()]


@pytest.mark.parametrize("question", ["question", "prompt", "problem"])
@pytest.mark.parametrize("steps", ["steps", "completions"])
def test_rows_need_no_labels(question: str, steps: str, tmp_path: Path) -> None:
    rows = [{question: "1 + 1 + 2?", steps: STEPS}, {question: "1 + 1?", steps: STEPS[:1]}]
    write_rows(tmp_path / "rows.jsonl", rows)
    first, second = scores(f"--data {tmp_path}/rows.jsonl")
    assert (first[:2], len(first), second) == (SCORES, 3, SCORES[:1])
    for name in ("rows.parquet", "rows.json", "rows.jsonl.gz"):
        write_rows(tmp_path / name, rows)
        assert scores(f"--data {tmp_path}/{name}") == [first, second]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "1 + 1 + 2?", "completions": STEPS, "labels": [True, False, False]},
        {"question": "1 + 1 + 2?", "steps": STEPS, "scores": [0.5, 0.25, 0.0]},
        {"id": "a", "problem": "1 + 1 + 2?", "steps": STEPS, "label": 1, "final_answer_correct": False},
        {
            "input": "1 + 1 + 2? " + "".join(f"Step {i}: {text} \u043a\u0438\n" for i, text in enumerate(STEPS, 1)),
            "value": ["+", "-", "-"],
        },
    ],
)
def test_labelled_rows_are_scored_as_if_they_had_none(row: dict[str, object], tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", [row])
    (made,) = scores(f"--data {tmp_path}/rows.jsonl")
    assert (made[:2], len(made)) == (SCORES, 3)


def test_what_label_and_convert_wrote_is_scored(tmp_path: Path) -> None:
    row = {"prompt": "1 + 1 + 2?", "completions": STEPS, "labels": [True, False, False]}
    write_rows(tmp_path / "rows.jsonl", [row, row])
    invoke(f"convert {tmp_path}/rows.jsonl {tmp_path}/labels.parquet")
    for data in (tmp_path / "labels.parquet", tmp_path):
        assert [made[:2] for made in scores(f"--data {data}")] == [SCORES, SCORES]


def test_a_named_format_reads_its_options(tmp_path: Path) -> None:
    row = {"prompt": "1?", "completions": STEPS, "labels": [1, 0, 0]}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "r.parquet")
    (made,) = scores(f"--data {tmp_path}/r.parquet --format trl --read separator=;")
    assert made[:2] == SCORES


def test_bad_rows_keep_their_places_in_a_batch(tmp_path: Path) -> None:
    good, bad = {"question": "1?", "steps": STEPS[:2]}, {"question": "1?", "steps": []}
    lines = [json.dumps(row) for row in (good, bad, good)] + ["{", json.dumps(good), json.dumps({"question": "1?"})]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    done = CliRunner().invoke(app, ["score", "--model", "tool", "--data", str(tmp_path / "rows.jsonl")])
    assert done.exit_code == 1
    made = [json.loads(text) for text in done.stdout.splitlines()]
    assert [one.get("scores") for one in made] == [SCORES, None, SCORES, None, SCORES, None]
    for number in (2, 4, 6):
        assert f"rows.jsonl, row {number}: " in made[number - 1]["error"]


def test_strict_prints_what_came_before_the_bad_row(tmp_path: Path) -> None:
    rows = [{"question": "1?", "steps": STEPS[:2]}, {"question": "1?", "steps": []}]
    write_rows(tmp_path / "rows.jsonl", rows)
    done = CliRunner().invoke(app, ["score", "--model", "tool", "--data", str(tmp_path / "rows.jsonl"), "--strict"])
    assert json.loads(done.stdout)["scores"] == SCORES
    assert "row 2: 'steps' must be a list of texts" in str(done.exception)


def test_a_pipe_is_answered_line_by_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "stepreward", "score", "--model", "tool"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for _ in range(2):
            process.stdin.write(json.dumps({"prompt": "1?", "completions": STEPS[:2]}) + "\n")
            process.stdin.flush()
            line = json.loads(process.stdout.readline())
            assert (line["scores"], line["prompt"]) == (SCORES, "1?")
        process.stdin.close()
        assert process.wait(timeout=30) == 0


def test_comparisons_are_refused(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", [{"prompt": "a", "chosen": "b", "rejected": "c", "subset": "d", "id": 1}])
    done = CliRunner().invoke(app, ["score", "--model", "tool", "--data", str(tmp_path / "rows.jsonl")])
    assert "holds comparisons, not solutions" in str(done.exception)


@pytest.mark.parametrize("name", ["scored.parquet", "scored.jsonl"])
def test_a_table_gets_a_column_more_and_keeps_the_others(name: str, tmp_path: Path) -> None:
    rows = [
        {"prompt": "1 + 1 + 2?", "completions": STEPS, "labels": [True, False, False]},
        {"prompt": "no steps"},
        {"prompt": "1 + 1?", "completions": STEPS[:1], "labels": [True]},
    ]
    write_rows(tmp_path / "rows.jsonl", rows)
    done = CliRunner().invoke(
        app, f"score --model tool --data {tmp_path}/rows.jsonl --out {tmp_path}/{name} --column score:tool".split()
    )
    assert (done.exit_code, done.stdout) == (1, "")
    assert "rows.jsonl, row 2:" in done.stderr
    assert f"2 solutions in {tmp_path}/{name}" in done.stderr
    invoke(f"score --model random --data {tmp_path}/{name} --out {tmp_path}/{name}")
    first, second = read(tmp_path / name)
    assert first.labels.tolist() == [1.0, 0.0, 0.0]
    assert [one.scores["tool"][0] for one in (first, second)] == SCORES[:1] * 2
    assert first.scores["tool"][:2].tolist() == SCORES
    assert first.scores["score"].shape == (3,)
    assert [one.what for one in first.provenance] == [("label",), ("score:tool",), ("score",)]


def test_a_column_that_holds_no_scores_is_refused(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", [{"prompt": "1 + 1?", "completions": STEPS[:1]}])
    line = f"score --model tool --data {tmp_path}/rows.jsonl --out {tmp_path}/out.parquet --column label"
    done = CliRunner().invoke(app, line.split())
    assert done.exit_code != 0
    assert "no column of scores" in str(done.exception)


def test_a_folder_of_parts_goes_on_after_a_kill(tmp_path: Path) -> None:
    """Five rows, one of them broken, in parts of two; the second part is lost and alone scored again."""
    rows = [json.dumps({"question": f"{n} + 1?", "steps": [f"{n} + 1 = {n + 1}"]}) for n in range(5)]
    (tmp_path / "rows.jsonl").write_text("\n".join([*rows[:1], "{", *rows[1:]]))
    line = f"score --model tool --data {tmp_path}/rows.jsonl --out {tmp_path}/out --rows-per-part 2"
    first = CliRunner().invoke(app, line.split())
    assert first.exit_code == 1
    assert "row 2: broken JSON" in first.stderr
    assert f"5 solutions in {tmp_path}/out" in first.stderr
    (tmp_path / "out" / "part-000001.parquet").unlink()
    again = CliRunner().invoke(app, line.split())
    assert "5 solutions in" in again.stderr
    assert "; 3 rows of parts that were there are not scored again" in again.stderr
    assert "row 2: broken JSON" in again.stderr
    assert [one.steps[0].text for one in read(tmp_path / "out")] == [f"{n} + 1 = {n + 1}" for n in range(5)]
    assert [one.column("score").tolist() for one in read(tmp_path / "out")] == [[1.0]] * 5
    other = CliRunner().invoke(app, [*line.split(), "--column", "score:x"])
    assert "the folder was begun for" in str(other.exception)


class Careful:
    """Refuses solutions of one problem, and gives up at another where it is told to."""

    name, batch_size = "careful", 8
    fails = ""

    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        for one in questions:
            if one.problem.text == "refused?":
                raise InputError("the solution is too long", remedy="raise max_length")
            if one.problem.text == self.fails:
                raise ModelError("out of memory")
        # The last step of every solution has no score.
        return [Scored(np.array([0.5] * (len(one.steps) - 1) + [np.nan])) for one in questions]


def test_a_run_that_goes_on_tells_of_all_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    scorer = Careful()
    monkeypatch.setattr(RecipeFlags, "scorer", lambda *_, **__: scorer)
    texts = ["a?", "refused?", "", "b?", "c?"]
    rows = [{"id": f"i{at}", "problem": text, "steps": STEPS, "label": -1} for at, text in enumerate(texts)]
    Path("rows.jsonl").write_text("".join(json.dumps(row if row["problem"] else {}) + "\n" for row in rows))
    line = ["score", "--model", "m", "--data", "rows.jsonl", "--out", "parts", "--rows-per-part", "2"]
    scorer.fails = "c?"
    assert isinstance(CliRunner().invoke(app, line).exception, ModelError)
    assert len(list(Path("parts").glob("*.parquet"))) == 1
    scorer.fails = ""
    for kept in (2, 4):
        done = CliRunner().invoke(app, line)
        assert done.exit_code == 1
        said = done.stderr.splitlines()
        assert said[0].startswith("stepreward: left out: rows.jsonl, row 3: ")
        assert "i1: the solution is too long; raise max_length" in said[1]
        assert said[2] == f"3 solutions in parts; {kept} rows of parts that were there are not scored again"
        assert said[3].startswith("3 steps have no score: ")
        assert len(said) == 4
    with pytest.warns(IncompleteWarning, match=r"2 could not be scored, row 3 first: rows.jsonl, row 3"):
        made = stepreward.score("rows.jsonl", Careful(), out="more")
    assert len([*made]) == 3
