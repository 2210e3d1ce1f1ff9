"""The small commands: score, view, methods, and flags out of a file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import stepreward
from stepreward.cli.app import app
from stepreward.cli.flags.config_file import read_config
from stepreward.core.catalog import families
from tests.cli.running import invoke, solved

pytestmark = pytest.mark.xdist_group("commands")


def test_score_prints_what_the_library_returns(inside: Path) -> None:
    rows = [("1 + 1?", ["1 + 1 = 2\n", "Answer: 2\n"]), ("2 + 3?", ["Answer: 5\n"])]
    (inside / "scored.jsonl").write_text("".join(json.dumps({"question": q, "steps": s}) + "\n\n" for q, s in rows))
    made = [json.loads(line)["scores"] for line in invoke("score --model model --data scored.jsonl").splitlines()]
    scorer = stepreward.load(inside / "model")
    for scores, (question, steps) in zip(made, rows, strict=True):
        np.testing.assert_allclose(scores, scorer.score(question, steps), rtol=1e-5)


def test_score_goes_on_after_a_bad_row(inside: Path) -> None:
    (inside / "bad.jsonl").write_text('{"question": "1?"}\n{"question": "1?", "steps": ["1"]}\n')
    done = CliRunner().invoke(app, ["score", "--model", "model", "--data", "bad.jsonl"])
    assert done.exit_code == 1
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert first["error"].startswith("bad.jsonl, row 1: 'steps' must be a list of texts")
    assert len(second["scores"]) == 1


def test_view_prints_the_address_of_the_report(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("<html></html>")
    assert invoke(f"view {tmp_path}").strip() == (tmp_path / "report.html").as_uri()
    made = json.loads(invoke(f"view {tmp_path} --json"))
    assert made == {"report": (tmp_path / "report.html").as_uri(), "summary": str(tmp_path / "summary.json")}


def test_methods_lists_the_whole_registry() -> None:
    rows = json.loads(invoke("methods --json"))
    listed = {(row["family"], row["name"]) for row in rows}
    assert listed == {(family.name, method.name) for family in families.values() for method in family}
    assert {"estimate", "transform", "loss", "search", "aggregate", "calibrate"} <= {family for family, _ in listed}
    assert all(row["summary"] and (row["paper"] or row["note"] or row["unverified"]) for row in rows)
    assert "weighted-vote" in invoke("methods search")
    assert "bisection" not in invoke("methods search")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("f.toml", '[search]\nmethod = "majority"\nset = ["n=2"]\nmax-steps = 3\n'),
        ("f.yaml", "search:\n  method: majority\n  set: [n=2]\n  max_steps: 3\n"),
        ("f.yml", 'search: {"method": "majority", "set": ["n=2"], "max-steps": 3}\n'),
    ],
)
def test_files_of_flags_say_the_same_in_toml_and_yaml(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert read_config(tmp_path / name) == {"search": {"method": "majority", "set": ["n=2"], "max_steps": 3}}


def test_flags_may_stand_in_a_file(inside: Path) -> None:
    table = 'problems = "problems.jsonl"\nmethod = "majority"\nset = ["n=2"]\ngrader = "arithmetic"\n'
    (inside / "flags.toml").write_text("[search]\n" + table)
    made = json.loads(invoke("--config flags.toml search --out flagged.jsonl --json"))
    assert made["bill"]["scored_tokens"] == 0
    assert max(len(row["candidates"]) for row in solved(inside / "flagged.jsonl")) == 2


def test_the_installed_command_ends_with_one_line_and_status_1(inside: Path) -> None:
    command = [str(Path(sys.executable).with_name("stepreward")), "view", "nowhere"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == ("stepreward: nowhere: this run has no report yet; finish it: stepreward run --out FOLDER\n")
