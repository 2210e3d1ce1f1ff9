"""--like and --record: a model is scored as a row or a file says, wherever a command loads one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stepreward.cli.app import app
from stepreward.score.by_recipe import own_record
from stepreward.score.checkpoints.known_checkpoints import by_name
from stepreward.score.encode.record import EncoderRecord
from stepreward.score.load import load
from tests.cli.running import invoke, refused, solved, trl_model

ROW = {"question": "Kai has 10 nuts. Kai finds 1 more nuts. How many?", "steps": ["10 + 1 = 11", "Answer: 11"]}
LIKE = "--model trl --like trl-prm"


@pytest.fixture
def models(inside: Path) -> Path:
    """The user's folder, with a model in TRL's layout."""
    if not (inside / "trl").is_dir():
        trl_model(inside / "trl")
        (inside / "ask.jsonl").write_text(json.dumps(ROW) + "\n")
        (inside / "same.json").write_text("{}")
        (inside / "wrong.json").write_text('{"positive": 0}')
    return inside


def scores(line: str) -> list[float]:
    made: list[float] = json.loads(invoke(f"score --data ask.jsonl {line}"))["scores"]
    return made


def test_score_follows_a_row_and_a_file_changes_it(models: Path) -> None:
    like = scores(LIKE)
    assert like == load(models / "trl", like="trl-prm").score(ROW["question"], ROW["steps"]).tolist()
    assert scores(f"{LIKE} --record same.json") == like
    assert scores(f"{LIKE} --record wrong.json") == pytest.approx([1 - score for score in like], abs=1e-6)


def test_steps_past_the_limit_of_tokens_are_told(models: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (models / "short.json").write_text('{"max_length": 20}')
    whole = scores(LIKE)
    line = invoke(f"score --data ask.jsonl {LIKE} --record short.json").splitlines()
    row = json.loads(line[0])
    kept = [score for score in row["scores"] if score is not None]
    assert row["unscored"] == len(whole) - len(kept) > 0
    assert kept == pytest.approx(whole[: len(kept)], abs=1e-6)
    for out in ("", " --out short.parquet"):
        done = CliRunner().invoke(app, f"score --data ask.jsonl {LIKE} --record short.json{out}".split())
        assert f"{row['unscored']} steps have no score: " in done.stderr
    assert "unscored" not in json.loads(invoke(f"score --data ask.jsonl {LIKE}"))


def test_weights_in_fewer_bits_score_nearly_the_same_wherever_a_command_loads_them(models: Path) -> None:
    like, rounded = scores(LIKE), scores(f"{LIKE} --dtype bfloat16")
    assert rounded != like
    assert rounded == pytest.approx(like, abs=0.02)
    expected = load(models / "trl", like="trl-prm", dtype="bfloat16").score(ROW["question"], ROW["steps"]).tolist()
    assert rounded == expected
    invoke(f"evaluate --data labels/labels.parquet {LIKE} --dtype bfloat16 --json")
    invoke(f"search --problems problems.jsonl --out found.jsonl --method best-of-n --samples 2 {LIKE} --dtype float16")


def test_a_record_changes_what_a_checkpoint_says_of_itself(models: Path) -> None:
    (models / "value.json").write_text('{"readout": "value"}')
    own = scores("--model model")
    assert scores("--model model --record same.json") == own
    record = own_record(models / "model")[0]
    changed = load(models / "model", record=replace(record, readout=replace(record.readout, kind="value")))
    raw = scores("--model model --record value.json")
    assert raw == changed.score(ROW["question"], ROW["steps"]).tolist() != own


def test_other_scores_of_the_same_model(
    models: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRL's head has the labels wrong and right."""
    like = scores(LIKE)
    assert scores(f"{LIKE} --readout out0") == pytest.approx([1 - score for score in like], abs=1e-6)
    line = json.loads(invoke(f"score --data ask.jsonl {LIKE} --also wrong=out0 --also up=gain(score,0.5)"))
    assert line["scores"] == like
    assert line["score:wrong"] == pytest.approx([1 - score for score in like], abs=1e-6)
    assert line["score:up"] == pytest.approx([like[0] - 0.5, like[1] - like[0]], abs=1e-6)
    invoke(f"score --data ask.jsonl {LIKE} --also wrong=out0 --out several.jsonl")
    row = json.loads((models / "several.jsonl").read_text())
    assert row["score:wrong"] == line["score:wrong"]
    for broken in ("out0", "=out0", "a=", "a=out0 --also a=out1"):
        said = refused(f"score --data ask.jsonl {LIKE} --also {broken}", capsys, monkeypatch)
        assert "is no name=formula, or its name is taken" in said
    assert "also: 'b' is no name here" in refused(f"score --data ask.jsonl {LIKE} --also a=b", capsys, monkeypatch)


def test_the_record_to_begin_with(models: Path) -> None:
    assert own_record(models / "trl", "trl-prm") == (by_name("trl-prm").record, "trl-prm")
    assert own_record(models / "trl") == (EncoderRecord(), ""), "its architecture says too little"
    config = json.loads((models / "trl" / "config.json").read_text())
    (models / "named").mkdir(exist_ok=True)
    (models / "named" / "config.json").write_text(json.dumps({**config, "_name_or_path": "Windy0822/PQM"}))
    assert own_record(models / "named") == (by_name("Windy0822/PQM").record, "Windy0822/PQM")


def test_evaluate_and_search_take_them_too(models: Path) -> None:
    found = "evaluate --data labels/labels.parquet --threshold 0.5 --json"
    plain, other = (
        json.loads(invoke(f"{found} {LIKE} {more}"))["scorers"]["model"]["steps"]
        for more in ("", "--record wrong.json")
    )
    assert plain["auroc"] == pytest.approx(1 - other["auroc"])
    bench = "evaluate --data bench.json --benchmark process-bench --threshold 0.5 --scorer trl --like trl-prm --json"
    row = {"id": "g-0", "generator": "m", "problem": "2 + 3?", "steps": ["5", "6"], "final_answer_correct": False}
    (models / "bench.json").write_text(json.dumps([{**row, "label": 1}, {**row, "id": "g-1", "label": -1}]))
    assert json.loads(invoke(bench))["scorers"].keys() == {"trl", "position"}
    line = (
        "search --problems problems.jsonl --grader arithmetic --method best-of-n --samples 2 --out liked.jsonl --json"
    )
    invoke(f"{line} {LIKE}")
    first = [one["score"] for one in solved(models / "liked.jsonl")]
    invoke(f"{line} {LIKE} --record wrong.json")
    second = [one["score"] for one in solved(models / "liked.jsonl")]
    assert first != second, "what was kept of another recipe is not taken for this one's"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("score --model trl --data ask.jsonl", "pass like= (--like) a name of the table"),
        ("score --model trl --data ask.jsonl --like trl-prn", "did you mean trl-prm?"),
        (f"score {LIKE} --data ask.jsonl --record none.json", "none.json: no readable JSON"),
        ("evaluate --data labels/labels.parquet --like trl-prm", "pass --model, or drop them"),
        (
            "search --problems problems.jsonl --out x.jsonl --method majority --record same.json",
            "pass --model, or drop",
        ),
    ],
)
def test_mistakes_are_told(
    models: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, line: str, said: str
) -> None:
    assert said in refused(line, capsys, monkeypatch)
