"""The main job, small: it ends in a report, resumes after a kill with equal numbers, and refuses bad input."""

from __future__ import annotations

import json
import re
import shlex
import time
from dataclasses import asdict, fields
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from tests.cli.running import invoke, refused
from tests.forked import COMMAND, begun, command
from typer.testing import CliRunner

from stepreward.cli.app import app
from stepreward.core.table import read_table
from stepreward.pipeline.run_settings import QUICK, RunSettings

pytestmark = pytest.mark.xdist_group("run")
SMALL = {
    "train-problems": 8,
    "validation-problems": 6,
    "held-out-problems": 8,
    "train-samples": 4,
    "held-out-samples": 4,
    "search-problems": 3,
    "rollouts": 3,
    "epochs": 1,
    "batch-tokens": 2048,
    "beams": 2,
    "width": 2,
}


def line(out: Path, **changes: Any) -> str:
    """The command."""
    flags = {**SMALL, **changes}
    return shlex.join(["run", "--out", str(out), *(str(part) for k, v in flags.items() for part in (f"--{k}", v))])


def numbers(path: Path) -> dict[str, Any]:
    """The summary without what depends on the clock or on what a log had already answered."""

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: clean(v) for k, v in value.items() if k not in ("seconds", "bill", "history")}
        if isinstance(value, list):
            return [clean(one) for one in value]
        return value

    return clean(json.loads((path / "summary.json").read_text()))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    done = command(f"{line(out)} --json", out.parent, seconds=280)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["schema"] == "stepreward/summary/1"
    return out


def test_a_run_ends_in_a_report_a_summary_labels_and_a_model(whole: Path) -> None:
    page = (whole / "report.html").read_text()
    summary = json.loads((whole / "summary.json").read_text())
    assert "<svg" in page
    assert "src=" not in page
    assert "://" not in page.replace("http://www.w3.org", "")
    assert 0 < summary["policy"]["solved"]["value"] < 1
    assert len(list(read_table(whole / "labels.parquet"))) == summary["label"]["trajectories"]
    assert set(summary["search"]) >= {"beam", "dvts"}
    assert (
        summary["search"]["beam"]["bill"]["scored_tokens"] < summary["search"]["beam"]["bill"]["scored_tokens_unshared"]
    )


def test_the_summary_fits_its_schema_and_holds_every_setting(whole: Path) -> None:
    schema = json.loads((resources.files("stepreward.pipeline") / "summary_schema.json").read_text(encoding="utf-8"))
    summary = json.loads((whole / "summary.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(summary)
    assert list(summary["settings"]) == [field.name for field in fields(RunSettings)]
    # The built-in world knows the truth, so nothing of the schema is absent.
    parts = {**schema["properties"]["evaluate"]["properties"], **schema["properties"]["label"]["properties"]}
    assert set(parts) == summary["evaluate"].keys() | summary["label"].keys()
    assert set(parts["against_truth"]["properties"]) == summary["label"]["against_truth"].keys()


def test_the_headline_holds_every_training_seed(whole: Path) -> None:
    summary = json.loads((whole / "summary.json").read_text())
    headline, majority = summary["evaluate"]["headline"], summary["evaluate"]["curves"]["majority"][-1]["value"]
    assert [one["seed"] for one in headline["seeds"]] == [0, 1]
    assert headline["seeds"][0]["versus_majority"] == summary["evaluate"]["versus_majority"]["weighted-vote:min"]
    for one in (*headline["seeds"], headline):
        assert one["accuracy"]["value"] == pytest.approx(majority + one["versus_majority"]["value"])
    mean = sum(one["accuracy"]["value"] for one in headline["seeds"]) / 2
    assert headline["accuracy"]["value"] == pytest.approx(mean)
    weights = [(whole / name / "model.safetensors").read_bytes() for name in ("model", "model-seed-1")]
    assert weights[0] != weights[1]
    assert len(summary["retrained"]) == 1
    assert "by reward models trained on the same labels" in (whole / "report.html").read_text()


def test_quick_takes_fewer_problems_where_no_flag_sets_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    taken: list[RunSettings] = []

    def stop(_: Path, settings: RunSettings, **__: Any) -> None:
        taken.append(settings)
        raise InterruptedError

    monkeypatch.setattr("stepreward.cli.on_demand.Run", stop)
    for flags in ("", "--quick", "--quick --held-out-problems 7"):
        with pytest.raises(InterruptedError):
            CliRunner().invoke(app, shlex.split(f"run --out {tmp_path / 'run'} {flags}"), catch_exceptions=False)
    whole, quick, own = (asdict(settings) for settings in taken)
    assert whole == asdict(RunSettings())
    assert quick == whole | QUICK
    assert own == quick | {"held_out_problems": 7}
    assert all(QUICK[name] < whole[name] for name in QUICK)


def test_a_run_killed_while_labelling_ends_with_equal_numbers(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    (tmp_path / "program.py").write_text(COMMAND.format(before=""))
    process = begun(tmp_path / "program.py", tmp_path, tmp_path / "log", words=shlex.split(line(out)))
    said = tmp_path / "log" / "err"
    end = time.monotonic() + 200
    while not (said.exists() and re.search("^label", said.read_text(), re.MULTILINE)) and time.monotonic() < end:
        assert process.is_alive(), said.read_text()
        time.sleep(0.01)
    process.kill()
    process.join()
    assert not (out / "summary.json").exists()
    assert (out / "answers.sqlite-wal").stat().st_size > 0
    invoke(line(out))
    assert numbers(out) == numbers(whole)
    assert [str(a) for a in read_table(out / "labels.parquet")] == [
        str(b) for b in read_table(whole / "labels.parquet")
    ]


def test_a_finished_run_is_not_run_again(whole: Path) -> None:
    made = [whole / "model" / "model.safetensors", whole / "answers.sqlite", whole / "labels.parquet"]
    before = [path.stat().st_mtime_ns for path in made]
    invoke(line(whole))
    assert [path.stat().st_mtime_ns for path in made] == before


def test_other_settings_in_the_same_folder_are_one_clear_error(
    whole: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = refused(line(whole, rollouts=5), capsys, monkeypatch)
    assert said.startswith("stepreward: ")
    assert "rollouts was 3 and is now 5" in said


def test_the_trained_model_scores_rows_and_names_bad_ones(whole: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    good = {"question": "Mia has 12 apples. Mia buys 5 more.", "steps": ["12 + 5 = 17\n", "Answer: 17\n"]}
    rows.write_text(
        "\n".join([json.dumps(good), "{broken", json.dumps({"steps": ["x"]}), json.dumps({**good, "steps": []})])
    )
    done = CliRunner().invoke(app, ["score", "--model", str(whole / "model"), "--data", str(rows)])
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines[0]["scores"]) == 2
    assert ["row 2: broken JSON" in lines[1]["error"], "row 3: field 'question'" in lines[2]["error"]] == [True, True]
    assert "row 4: 'steps' must be" in lines[3]["error"]
    assert done.exit_code == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"policy": "builtin:nothing"}, "no built-in policy is called"),
        ({"estimator": "bisecton"}, "did you mean bisection"),
        ({"objective": "mae"}, "no loss method is called 'mae'"),
        ({"problems": "/nowhere.jsonl"}, "cannot be read"),
    ],
)
def test_bad_flags_are_one_line(
    tmp_path: Path,
    flags: dict[str, str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert message in refused(line(tmp_path / "run", **flags), capsys, monkeypatch)
    assert not (tmp_path / "run").exists(), "a refused run took the folder"


def test_a_run_in_the_shop_compares_a_guided_agent_with_the_plain_one(tmp_path: Path) -> None:
    done = command(f"{line(tmp_path / 'shop', world='tools', **{'train-samples': 2})} --json", tmp_path, seconds=280)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    schema = json.loads((resources.files("stepreward.pipeline") / "summary_schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(summary)
    assert summary["settings"]["policy"] == "builtin:shop"
    assert summary["label"]["bill"]["actions"] > 0
    acting = summary["acting"]
    assert acting["gain"]["value"] == pytest.approx(
        acting["guided"]["accuracy"]["value"] - acting["plain"]["accuracy"]["value"]
    )
    assert 2 <= acting["plain"]["actions"] <= 12
    assert "Agents" in (tmp_path / "shop" / "report.html").read_text()
    labels = [*read_table(tmp_path / "shop" / "labels.parquet")]
    assert {step.role for one in labels for step in one.steps} == {"assistant", "tool"}
    other = command(f"run --world tools --problems x.jsonl --out {tmp_path / 'other'}", tmp_path, seconds=60)
    assert "drop --problems" in other.stderr
