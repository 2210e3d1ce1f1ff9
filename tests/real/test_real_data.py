"""Numbers of docs/results/real-data.md, computed again from the raw files by slow loops that share no code with it."""

from __future__ import annotations

import gzip
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks import real_data

from stepreward import formats
from stepreward.core.catalog import aggregate, calibrate
from stepreward.core.keys import Key
from stepreward.core.measure.statistics import Estimate
from stepreward.core.measure.step_metrics import best_threshold, brier, expected_calibration_error
from stepreward.core.types import Trajectory
from stepreward.evaluate.data.solution_arrays import Pool, first_errors, pool_of_solutions, score_rows
from stepreward.evaluate.measures.selection_curves import hits
from stepreward.evaluate.measures.step_scores import first_error_f1
from stepreward.score.tools.equations import ToolScorer

DATA = Path(__file__).parents[2].parent / "shared" / "data"
pytestmark = [pytest.mark.real, pytest.mark.skipif(not DATA.exists(), reason="needs the real data")]


def raw(name: str) -> list[dict[str, Any]]:
    path = DATA / name
    text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()
    rows: list[dict[str, Any]] = json.loads(text) if text.startswith("[") else list(map(json.loads, text.splitlines()))
    return rows


def slow_f1(scores: list[list[float]], gold: list[int], threshold: float) -> float:
    hits: dict[bool, list[bool]] = {True: [], False: []}
    for row, label in zip(scores, gold, strict=True):
        predicted = next((i for i, score in enumerate(row) if score <= threshold), -1)
        hits[label >= 0].append(predicted == label)
    wrong, right = (sum(part) / len(part) for part in (hits[True], hits[False]))
    return 2 * wrong * right / (wrong + right) if wrong + right else 0.0


@pytest.mark.parametrize(
    ("subset", "name", "published_here"),
    [("gsm8k", "Qwen2.5-Math-PRM-7B", 83.7), ("math", "Qwen2.5-Math-PRM-7B", 74.5),
     ("gsm8k", "Qwen2.5-Math-7B-PRM800K", 66.8), ("math", "Llama3.1-8B-PRM-Deepseek-Data", 33.9)],
)  # fmt: skip
def test_first_error_f1_of_verifiers(subset: str, name: str, published_here: float) -> None:
    rows = raw(f"processbench_prm_scores/{subset}.jsonl.gz")
    slow = slow_f1([row["scores"][name] for row in rows], [row["label"] for row in rows], 0.5)
    items = list(formats.read(DATA / f"processbench_prm_scores/{subset}.jsonl.gz", strict=True))
    found = first_error_f1(score_rows(items, name), first_errors(items), Key.seed(0), draws=10)
    assert found.f1.value == pytest.approx(slow, abs=1e-12)
    assert round(100 * slow, 1) == published_here


def test_the_threshold_is_the_best_of_all() -> None:
    name = "Skywork-o1-Open-PRM-Qwen-2.5-7B"
    rows = raw("processbench_prm_scores/gsm8k.jsonl.gz")
    scores, gold = [row["scores"][name] for row in rows], [row["label"] for row in rows]
    tried = sorted({score for row in scores for score in row})
    slow = max(slow_f1(scores, gold, threshold) for threshold in tried)
    items = list(formats.read(DATA / "processbench_prm_scores/gsm8k.jsonl.gz", strict=True))
    found = best_threshold(score_rows(items, name), first_errors(items))
    assert found.f1 == pytest.approx(slow, abs=1e-12)
    assert round(100 * found.f1, 1) == 75.3


@pytest.fixture(scope="module")
def pool_rows() -> list[dict[str, Any]]:
    return raw("bon_pools/gsm8k_scores.jsonl.gz")


@pytest.fixture(scope="module")
def pool_items() -> list[Trajectory]:
    return list(formats.read(DATA / "bon_pools/gsm8k_scores.jsonl.gz", strict=True))


@pytest.fixture(scope="module")
def four() -> dict[str, Estimate]:
    return real_data.four_solutions(Key.seed(real_data.SEED))


@pytest.fixture(scope="module")
def tool_found() -> dict[str, dict[str, Any]]:
    return real_data.tool_first_error(Key.seed(0))


def slow_choice(row: dict[str, Any], weights: list[float]) -> int:
    mass: dict[str, float] = {}
    for answer, weight in zip(row["answers_reextracted"], weights, strict=True):
        mass[answer] = mass.get(answer, 0.0) + weight
    return max(range(len(weights)), key=lambda i: (mass[row["answers_reextracted"][i]], -i))


def test_selection_from_all_32_samples(pool_rows: list[dict[str, Any]], pool_items: list[Trajectory]) -> None:
    samples = pool_of_solutions(pool_items)
    scores = score_rows(pool_items, "qwen_prm")
    totals = {how: samples.shaped(aggregate[how](scores, ~np.isnan(scores))) for how in ("product", "last", "min")}
    rates = {k: v.mean() for k, v in hits(Pool(samples.answers, samples.outcome, totals), 32, Key.seed(0)).items()}
    slow: Counter[str] = Counter()
    shrink = {"product": math.prod, "last": lambda steps: steps[-1], "min": min}
    for row in pool_rows:
        right, size = row["is_correct_regraded"], len(row["is_correct_regraded"])
        slow["majority"] += right[slow_choice(row, [1.0] * size)]
        slow["oracle"] += max(right)
        for how, function in shrink.items():
            total = [function(steps) for steps in row["scores"]["qwen_prm"]]
            slow[f"best-of-n:{how}"] += right[max(range(size), key=lambda i: (total[i], -i))]
            slow[f"weighted-vote:{how}"] += right[slow_choice(row, total)]
    assert rates == pytest.approx({name: count / len(pool_rows) for name, count in slow.items()}, abs=1e-12)
    assert [round(100 * rates[k], 1) for k in ("majority", "oracle", "best-of-n:product")] == [88.8, 97.4, 92.4]


def test_calibration_before_a_fit(pool_rows: list[dict[str, Any]]) -> None:
    last = [steps[-1] for row in pool_rows for steps in row["scores"]["qwen_prm"]]
    right = [float(flag) for row in pool_rows for flag in row["is_correct_regraded"]]
    slow_brier = sum((p - y) ** 2 for p, y in zip(last, right, strict=True)) / len(last)
    bins: dict[int, list[tuple[float, float]]] = {}
    for p, y in zip(last, right, strict=True):
        bins.setdefault(max(math.ceil(p * 10) - 1, 0), []).append((p, y))
    slow_ece = sum(abs(sum(p - y for p, y in part)) for part in bins.values()) / len(last)
    assert brier(last, right) == pytest.approx(slow_brier, abs=1e-12)
    assert expected_calibration_error(last, right, bins=10) == pytest.approx(slow_ece, abs=1e-9)
    assert (round(slow_brier, 4), round(slow_ece, 4)) == (0.1017, 0.0932)


def test_calibration_before_and_after_a_held_out_fit(
    pool_rows: list[dict[str, Any]], pool_items: list[Trajectory]
) -> None:
    found = real_data.calibration(pool_items, pool_of_solutions(pool_items), Key.seed(real_data.SEED))
    order = Key.seed(real_data.SEED).fold("split").rng().permutation(len(pool_rows)).tolist()
    fit, held = (
        [
            (steps[-1], float(flag))
            for i in order_part
            for steps, flag in zip(pool_rows[i]["scores"]["qwen_prm"], pool_rows[i]["is_correct_regraded"], strict=True)
        ]
        for order_part in (order[:250], order[250:])
    )

    def logit(p: float) -> float:
        p = min(max(p, 1e-6), 1 - 1e-6)
        return math.log(p / (1 - p))

    logits, labels = np.array([logit(p) for p, _ in fit]), np.array([y for _, y in fit])

    def loss(temperature: float) -> float:
        z = logits / temperature
        return float(np.mean(np.logaddexp(0, z) - labels * z))

    best = min(np.geomspace(1, 10, 400), key=loss)
    base_rate = sum(y for _, y in fit) / len(fit)
    slow = {
        "identity": sum((p - y) ** 2 for p, y in held) / len(held),
        "temperature": sum((1 / (1 + math.exp(-logit(p) / best)) - y) ** 2 for p, y in held) / len(held),
        "base rate": sum((base_rate - y) ** 2 for _, y in held) / len(held),
    }
    made = found["qwen_prm"]
    assert {how: made[how]["brier"].value for how in slow} == pytest.approx(slow, abs=2e-5)
    assert made["temperature"]["change"].value == pytest.approx(slow["temperature"] - slow["identity"], abs=2e-5)
    assert made["identity"]["change"].value == 0
    assert {"identity", "base rate", *(method.name for method in calibrate if method().unbiased)} == set(made)
    page = real_data.PAGE.read_text()
    for name, rows in found.items():
        for how, one in rows.items():
            shown = "before" if how == "identity" else how
            assert f"| `{name}` | {shown} | {one['brier'].value:.3f} [" in page


def test_the_four_models_of_gsm8k(four: dict[str, Estimate]) -> None:
    rows = raw("gsm8k/example_model_solutions.jsonl.gz")
    for name in ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification"):
        slow = sum(row[name]["is_correct"] for row in rows) / len(rows)
        assert four[f"always {name}"].value == pytest.approx(slow, abs=1e-12)
    assert four["a solution at random"].value < four["weighted-vote tool:min"].value < four["oracle"].value


@pytest.mark.parametrize("subset", ["gsm8k", "math"])
def test_the_tool_scorer_on_process_bench(subset: str, tool_found: dict[str, dict[str, Any]]) -> None:
    rows, scorer = raw(f"processbench/{subset}.json"), ToolScorer()
    scores = [[scorer.score_text(text) for text in row["steps"]] for row in rows]
    found = tool_found[subset]["tool"]
    assert found.f1.value == pytest.approx(slow_f1(scores, [row["label"] for row in rows], 0.5), abs=1e-12)
    assert found.correct.value > 0.97  # it hardly ever accuses a right solution


def test_the_page_is_what_the_benchmark_writes(four: dict[str, Estimate]) -> None:
    page = real_data.PAGE.read_text()
    for name, estimate in four.items():
        if " minus " not in name:
            assert f"| {name} | {100 * estimate.value:.1f} [" in page
