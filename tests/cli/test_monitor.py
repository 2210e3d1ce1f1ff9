"""`stepreward monitor` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import stepreward
from stepreward.core.types import Problem, Step, Trajectory
from tests.cli.running import invoke, refused
from tests.score.agent_runs import made_runs


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    stepreward.write("runs.jsonl", made_runs(60))
    return tmp_path


def test_fit_writes_a_monitor_that_python_reads(inside: Path) -> None:
    assert "good runs of" in invoke("monitor fit runs.jsonl --out monitor --alpha 0.2")
    made = stepreward.Monitor.load("monitor")
    assert (made.alpha, made.warn) == (0.2, 0.25)
    told = json.loads(invoke("monitor fit runs.jsonl --out again --alpha 0.2 --json"))
    assert (told["runs"], told["problems"], told["can_stop"]) == (120, 60, True)
    assert (inside / "again" / "monitor.json").read_bytes() == (inside / "monitor" / "monitor.json").read_bytes()
    same = stepreward.fit_monitor("runs.jsonl", alpha=0.2)
    assert same.statistic == made.statistic


def test_evaluate_measures_over_splits_and_what_was_fitted() -> None:
    shown = invoke("monitor evaluate runs.jsonl --splits 5 --alpha 0.2")
    assert all(name in shown for name in ("features", "turn", "random", "characters saved", "5 splits"))
    made = json.loads(invoke("monitor evaluate runs.jsonl --splits 5 --alpha 0.2 --json"))
    assert set(made["measures"]) == {"features", "turn", "random"}
    assert made == stepreward.evaluate_monitor("runs.jsonl", splits=5, alpha=0.2).to_json()
    invoke("monitor fit runs.jsonl --alpha 0.2 --out monitor")
    others = [Trajectory(Problem("new", "Other."), (Step("a"), Step("b")), 1.0), *made_runs(2)]
    stepreward.write("others.jsonl", others)
    shown = invoke("monitor evaluate others.jsonl --monitor monitor")
    assert "evidence that these good runs are unlike" in shown
    assert "4 runs of problems that it was fitted on were left out" in shown
    rates = [json.loads(invoke(f"monitor evaluate others.jsonl --monitor monitor --json {flag}"))["alpha"]
             for flag in ("", "--alpha 0.3")]  # fmt: skip
    assert rates == [0.2, 0.3]


def test_a_model_scores_what_is_watched() -> None:
    told = json.loads(invoke("monitor fit runs.jsonl --model length --reads mean-score --out monitor --json"))
    assert told["reads"] == "mean-score"
    assert stepreward.Monitor.load("monitor").column == "score"
    made = json.loads(invoke("monitor evaluate runs.jsonl --model length --reads last-score --splits 3 --json"))
    assert "last-score" in made["measures"]


def test_too_few_problems_are_told() -> None:
    stepreward.write("few.jsonl", [*made_runs(4), Trajectory(Problem("x", "x"), (Step("a"),))])
    shown = invoke("monitor fit few.jsonl --reads turn --out monitor")
    assert "it never stops a run: for --alpha 0.1 it needs more problems that succeeded" in shown
    assert "1 runs without an outcome were left out" in shown


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("monitor fit runs.jsonl", "pass --out"),
        ("monitor evaluate runs.jsonl --out x", "pass --out to fit alone"),
        ("monitor fit runs.jsonl --out x --monitor y", "drop it"),
        ("monitor fit runs.jsonl --out x --like trl-prm", "pass --model"),
        ("monitor fit runs.jsonl --out x --column nothing", "no run has the step column 'nothing'"),
        ("monitor fit runs.jsonl --out x --alpha 0.5", "alpha <= warn"),
        ("monitor evaluate runs.jsonl --monitor nowhere", "nowhere"),
    ],
)
def test_what_does_not_fit_is_told_with_a_remedy(
    line: str, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert said in refused(line, capsys, monkeypatch)
