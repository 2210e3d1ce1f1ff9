"""Benchmarks on the public data: golden numbers computed elsewhere, and the tables of the page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks.real_benchmarks import DATA, PAGE

from stepreward import formats
from stepreward.cli.benchmark import measure
from stepreward.cli.flags.read_flags import ReadFlags
from stepreward.core.catalog import bench
from stepreward.score.baselines import PositionScorer

STRICT = ReadFlags(strict=True)
pytestmark = [pytest.mark.real, pytest.mark.skipif(not DATA.exists(), reason="needs the real data")]


@pytest.mark.parametrize(
    ("name", "accuracy", "mrr"),
    # RewardMATH's own evaluation of the scores it publishes, in percent.
    [("Math_Shepherd", 17.18, 34.68), ("internlm2", 37.27, 55.17), ("gpt4o", 25.88, 46.58)],
)
def test_rewardmath_is_what_its_authors_compute(name: str, accuracy: float, mrr: float) -> None:
    path = DATA / "rewardmath" / "rewardmath_scores.jsonl.gz"
    made = measure("rewardmath", path, [name], {}, reading=STRICT)["scorers"][name]["metrics"]
    assert round(100 * made["accuracy"]["value"], 2) == accuracy
    assert round(100 * made["mrr"]["value"], 2) == mrr
    if name == "gpt4o":
        assert round(100 * made["accuracy_with_ties"]["value"], 2) == 51.55


@pytest.mark.parametrize(("subset", "f1"), [("gsm8k", 83.7), ("math", 74.5)])
def test_process_bench_of_a_recorded_verifier(subset: str, f1: float) -> None:
    name = "Qwen2.5-Math-PRM-7B"
    made = measure("process-bench", DATA / "processbench_prm_scores", [name], {"threshold": 0.5}, reading=STRICT)
    assert round(100 * made["scorers"][name]["groups"][subset]["f1"]["value"], 1) == f1


def test_the_page_holds_these_numbers() -> None:
    text = PAGE.read_text(encoding="utf-8")
    made = measure("mr-score", DATA / "mr_gsm8k", ["tool"], {})
    number = made["scorers"]["tool"]["metrics"]["mr_score"]
    assert f"| `tool` | {100 * number['value']:.1f} [" in text
    assert json.dumps(made, allow_nan=False)
    assert Path(PAGE).name == "benchmarks.md"


def test_the_place_of_a_step_alone_reaches_the_prm_score_of_published_models() -> None:
    """54.0 without reading a word, by a loop in place of arrays; Math-Shepherd is published with 47.0."""
    rows = list(formats.read(DATA / "prmbench/prmbench.jsonl.gz"))
    once = {(row.facts["classification"], row.facts["idx"]): row for row in reversed(rows)}  # the first of each
    counts = [[0, 0], [0, 0]]
    for row in once.values():
        judged = [label for label in row.labels.tolist() if label == label]  # blank steps are none
        for at, label in enumerate(judged):
            counts[int(label > 0.5)][(at + 0.5) / len(judged) < 0.75] += 1
    (tn, fp), (fn, tp) = counts
    slow = (2 * tp / (2 * tp + fp + fn) + 2 * tn / (2 * tn + fp + fn)) / 2
    made = bench["prm-bench"].take({"scorer": PositionScorer(), "data": rows})
    assert made.metrics["prm_score"].value == pytest.approx(slow, abs=1e-12)
    assert round(100 * slow, 1) == 54.0
