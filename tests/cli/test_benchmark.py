"""`stepreward evaluate --benchmark`: subsets by file, scorers by name, and what cannot be measured."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from inspect import signature
from pathlib import Path

import pytest

from stepreward.cli.benchmark import Recorded
from stepreward.core.catalog import bench as benchmarks
from stepreward.core.runtime.flows import Score, Scored
from stepreward.evaluate.data.recipe_settings import by_recipe
from stepreward.evaluate.data.scoring import STEP_LEVEL
from stepreward.score.capabilities import ScoreUse
from tests.cli.running import invoke, refused


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    folder = tmp_path / "bench"
    folder.mkdir()
    for subset in ("gsm8k", "math"):
        rows = [
            {"id": f"{subset}-{i}", "generator": "m", "problem": "2 + 3, then twice?",
             "final_answer_correct": not wrong, "steps": ["2 + 3 = 5", f"2 * 5 = {12 if wrong else 10}"],
             "label": 1 if wrong else -1}
            for i, wrong in enumerate([True, False])
        ]  # fmt: skip
        (folder / f"{subset}.json").write_text(json.dumps(rows))
    (folder / "SOURCE.txt").write_text("not data")
    return folder


def test_files_of_a_folder_are_subsets_and_scorers_are_named(bench: Path) -> None:
    line = f"evaluate --benchmark process-bench --data {bench} --scorer tool"
    made = json.loads(invoke(f"{line} --json"))
    tool = made["scorers"]["tool"]
    assert tool["metrics"]["average_f1"]["value"] == 1
    assert tool["groups"].keys() == {"gsm8k", "math"}
    assert tool["threshold_from"] == "best F1 on gsm8k"
    assert list(made["scorers"]) == [
        "tool",
        "position",
    ]
    assert made["published"] == []  # four solutions are not the 3,400 that published numbers were measured on
    assert "best F1 on gsm8k" in invoke(f"{line} --scorer random")


def test_published_numbers_stand_beside_the_same_subsets_alone(tmp_path: Path) -> None:
    """400 solutions of gsm8k are what was published of gsm8k; 10 of math, and the average of two, are not."""
    folder = tmp_path / "bench"
    folder.mkdir()
    for subset, n in (("gsm8k", 400), ("math", 10)):
        rows = [
            {"id": f"{i}", "generator": "m", "problem": f"{i}?", "final_answer_correct": i % 2 > 0,
             "steps": ["2 + 3 = 5", f"2 * 5 = {10 + (i + 1) % 2}"], "label": -1 if i % 2 else 1}
            for i in range(n)
        ]  # fmt: skip
        (folder / f"{subset}.json").write_text(json.dumps(rows))
    line = f"evaluate --benchmark process-bench --data {folder} --scorer tool --threshold 0.5"
    made = json.loads(invoke(f"{line} --json"))["published"]
    assert {(row["group"], row["metric"]) for row in made} == {("gsm8k", "f1")}
    assert next(row["percent"] for row in made if row["model"] == "Qwen2.5-Math-PRM-7B") == 82.4
    text = invoke(line)
    assert "Published gsm8k f1 (arXiv:2501.07301, Table 7): Math-Shepherd-PRM-7B 47.9" in text
    assert "31.5" not in text


def test_every_benchmark_of_solutions_is_of_steps_or_of_wholes() -> None:
    of_wholes = {
        "agent-reward-bench", "best-of-n", "length-bias", "mast", "order", "outcome-calibration", "over-optimisation",
        "robustness", "token-attack",
    }  # fmt: skip
    solutions = {one.name for one in benchmarks if "Trajectory" in str(signature(one.function).parameters["data"])}
    assert solutions == STEP_LEVEL | of_wholes


def test_recorded_scores_are_measured_where_no_scorer_is_named(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl.gz"
    rows = [
        {
            "problem": "1 + 1?",
            "solution_reference": ["human_to_GPT-4", "a", "b"],
            "scores": {"v": [s, 0.5, 0.1], "w": [0, 1, 1]},
        }
        for s in (0.9, 0.5)
    ]
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    made = json.loads(invoke(f"evaluate --benchmark rewardmath --data {path} --json"))
    assert {name: one["metrics"]["accuracy"]["value"] for name, one in made["scorers"].items()} == {"v": 0.5, "w": 0}
    assert made["scorers"]["v"]["metrics"]["mrr"]["value"] == 0.75


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            "--benchmark rm-bench --scorer tool",
            "rm-bench needs comparisons of candidates, and solutions are among these rows",
        ),
        ("--benchmark process-bnch", "process-bench"),
        ("--benchmark mr-score", "hold no scores; pass --scorer"),
        ("--benchmark mr-score --scorer tool --set threshold=x", "finite number, got 'x'"),
        ("--benchmark mr-score --scorer tool --set threshhold=1", "threshold"),
        ("--benchmark process-bench --scorer tool --set tune_on=aime", "there are gsm8k, math"),
        ("--scorer tool", "--scorer and --set belong to --benchmark"),
    ],
)
def test_what_cannot_be_measured_is_one_clear_error(
    bench: Path, flags: str, message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert message in refused(f"evaluate --data {bench} {flags}", capsys, monkeypatch)


PUBLISHED = Path(__file__).parents[1] / "formats" / "examples"


@pytest.mark.parametrize(
    ("benchmark", "metric"),
    [
        ("web-reward-bench", "mrr"),
        ("web-prm-bench", "best_of_n_accuracy"),
        ("tool-comp", "accuracy"),
        ("mp-bench", "prm_score"),
    ],
)
def test_a_benchmark_reads_its_published_file(benchmark: str, metric: str) -> None:
    line = f"evaluate --benchmark {benchmark} --data {PUBLISHED / benchmark}.jsonl --scorer length --json"
    made = json.loads(invoke(line))
    assert made["rows"] == 2
    assert 0 <= made["scorers"]["length"]["metrics"][metric]["value"] <= 1


def test_recorded_step_scores_follow_the_flag_or_the_setting(tmp_path: Path) -> None:
    """Totals by product .25 and .25 against .5: a third place. By min .5 against .25 and .5: a tie, second place."""
    path = PUBLISHED / "rewardmath-scores.jsonl"
    line = f"evaluate --benchmark rewardmath --data {path} --scorer verifier --json"
    for flags, mrr in (("", 1 / 3), ("--aggregate min", 1 / 2), ("--set aggregate=min", 1 / 2)):
        made = json.loads(invoke(f"{line} {flags}"))["scorers"]["verifier"]["metrics"]
        assert made["mrr"]["value"] == pytest.approx(mrr)


def test_preferences_become_comparisons_and_give_the_same_numbers(tmp_path: Path) -> None:
    out = tmp_path / "mine.jsonl"
    invoke(f"convert {PUBLISHED / 'reward-bench.jsonl'} {out} --to comparisons")
    line = "evaluate --benchmark reward-bench --scorer length --json --data"
    first, second = (json.loads(invoke(f"{line} {path}")) for path in (PUBLISHED / "reward-bench.jsonl", out))
    assert first["scorers"] == second["scorers"]


def test_a_checkpoint_brings_its_own_aggregation_where_whole_solutions_are_compared() -> None:
    class Checkpoint:
        name, batch_size, use = "m", 1, ScoreUse(aggregate="mean", threshold=0.3)

        def score_many(self, questions: Sequence[Score]) -> list[Scored]:
            return []

    assert by_recipe(Checkpoint(), benchmarks["reward-bench"]) == {"aggregate": "mean"}
    assert by_recipe(Checkpoint(), benchmarks["web-reward-bench"]) == {}  # the last step alone tells candidates apart
    assert by_recipe(Checkpoint(), benchmarks["mr-score"]) == {"threshold": 0.3}
    assert by_recipe(Recorded("v"), benchmarks["reward-bench"]) == {}
