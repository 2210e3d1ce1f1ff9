"""Ensembles, experts, calibrators, sampling and budgets as flags, on the command line and in a file of flags."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import stepreward
from stepreward.formats.problems import read_problems
from stepreward.policies.local import LocalPolicy
from stepreward.tasks.arithmetic_truth import ArithmeticGrader
from tests.cli.running import invoke, refused, solved, trl_model

SEARCH = "search --problems problems.jsonl --grader arithmetic"


@pytest.fixture
def models(inside: Path) -> Path:
    """The user's folder with a second model."""
    if not (inside / "trl-prm").is_dir():
        trl_model(inside / "trl-prm")
        invoke("train --data labels/labels.parquet --out other --epochs 1 --batch-tokens 1024 --held-out 0.3 --seed 1")
    return inside


def test_a_file_of_flags_composes_a_search_as_python_does(models: Path) -> None:
    (models / "composed.toml").write_text(
        '[search]\npolicy = "builtin:arithmetic"\ntemperature = 0.8\nmodel = ["model", "other"]\ncombine = "lower"\n'
        'doubt = 0.5\naggregate = "last"\nmethod = "weighted-vote"\nset = ["n=3"]\nmax-tokens = 5000\n'
    )
    invoke(f"--config composed.toml {SEARCH} --out composed.jsonl --json")
    solver = stepreward.compose(
        LocalPolicy.load("builtin:arithmetic"),
        [stepreward.load(models / name) for name in ("model", "other")],
        combine="lower", doubt=0.5, aggregate="last", search="weighted-vote", temperature=0.8,
        grader=ArithmeticGrader(), n=3,
    )  # fmt: skip
    expected = solver.solve(list(read_problems(models / "problems.jsonl")))
    found = solved(models / "composed.jsonl")
    assert [row["answer"] for row in found] == [one.answer for one in expected]
    for row, one in zip(found, expected, strict=True):
        np.testing.assert_allclose([c["total"] for c in row["candidates"]], one.found.totals, atol=1e-5)


def test_an_ensemble_scores_between_its_members(models: Path) -> None:
    total = {}
    for name, flags in {
        "first": "--model model", "second": "--model other", "mean": "--model model --model other",
        "least": "--model model --model other --combine min",
    }.items():  # fmt: skip
        invoke(f"{SEARCH} --method best-of-n --samples 2 --aggregate last {flags} --out {name}.jsonl")
        total[name] = np.array([c["total"] for row in solved(models / f"{name}.jsonl") for c in row["candidates"]])
    np.testing.assert_allclose(total["mean"], (total["first"] + total["second"]) / 2, atol=1e-5)
    np.testing.assert_allclose(total["least"], np.minimum(total["first"], total["second"]), atol=1e-5)
    assert not np.allclose(total["first"], total["second"])


def test_an_expert_is_asked_where_the_search_asks_one(models: Path) -> None:
    line = f"{SEARCH} --model model --method intervention --expert builtin:arithmetic --out helped.jsonl --json"
    assert json.loads(invoke(line))["bill"]["generated_tokens"] > 0


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ("--max-samples 3", "rollouts"),
        ("--max-scored-tokens 10", "scored_tokens"),
        ("--max-money 0.000001 --price-generated 1", "money"),
    ],
)
def test_what_a_problem_may_cost(models: Path, flags: str, reason: str) -> None:
    invoke(f"{SEARCH} --model model --method beam {flags} --out cheap.jsonl")
    assert {row["stopped"] for row in solved(models / "cheap.jsonl")} == {reason}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"{SEARCH} --model model --max-money 1 --out x.jsonl", "--max-money needs prices"),
        (f"{SEARCH} --compare --out x", "a comparison needs a reward model"),
        (f"{SEARCH} --compare --model model --beams 3 --out x", "--set SEARCH.NAME=VALUE"),
        (
            f"{SEARCH} --compare --model model --only beam --only dvts --set width=2 --out x",
            "write beam.width or dvts.width",
        ),
        (f"{SEARCH} --method beam --out x.jsonl", "beam needs a reward model"),
        (f"{SEARCH} --model model --model other --calibrator x.json --out x.jsonl", "--calibrator is of one model"),
        ("serve --policy builtin:arithmetic --like trl-prm", "say how a model is scored"),
        ("serve --policy builtin:arithmetic --method beam", "needs scorer, which this server does not have"),
        ("serve --policy builtin:arithmetic --model tool --method elo", "needs judge, which this server does not have"),
        ("serve --policy builtin:arithmetic --judge score", "--judge score compares by a reward model"),
        ("serve --model tool --judge score", "a judge compares solutions of a policy, and there is none"),
    ],
)
def test_what_does_not_fit_together(
    models: Path, line: str, message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert message in refused(line, capsys, monkeypatch)


def test_a_server_takes_the_same_parts(models: Path) -> None:
    said = invoke("serve --model trl-prm --like trl-prm --port 0")
    assert "stepreward serves at" in said
    said = invoke("serve --model tool --policy builtin:arithmetic --judge score --method knockout --port 0")
    assert "stepreward serves at" in said
    said = invoke("serve --model model --model other --combine min --policy builtin:arithmetic --port 0")
    assert "stepreward serves at" in said
