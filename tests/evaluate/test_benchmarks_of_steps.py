"""Benchmarks against literal readings of their official definitions, on random predictions and worked examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, matthews_corrcoef
from tests.effort import scaled

import stepreward
from stepreward.core.catalog import bench
from stepreward.core.errors import InputError
from stepreward.core.types import Comparison, Problem, Step, Trajectory
from stepreward.evaluate.data.scoring import RecordedScorer
from stepreward.score.baselines import constant

SCORE = st.sampled_from([0.0, 0.2, 0.5, 0.7, 1.0])
CLASSES = ["redundency", "circular", "counterfactual", "step_contradiction", "domain_inconsistency", "confidence",
           "missing_condition", "deception", "multi_solutions"]  # fmt: skip


def solution(i: int, steps: Sequence[tuple[float, bool]], facts: dict[str, str]) -> Trajectory:
    """Steps as (score, whether it is right)."""
    labels = np.array([float(right) for _, right in steps])
    wrong = np.flatnonzero(labels == 0)
    return Trajectory(
        Problem(f"p{i}", "?"), tuple(Step(f"{k}\n") for k in range(len(steps))),
        first_error=int(wrong[0]) if wrong.size else -1, facts=facts,
        columns={"label": labels, "score:v": np.array([score for score, _ in steps])},
    )  # fmt: skip


def sampled(i: int, steps: Sequence[tuple[float, bool]], outcome: float, answer: str) -> Trajectory:
    """One of two graded samples of a problem."""
    made = solution(i, steps, {})
    problem = Problem(f"p{i // 2}", "?")
    return replace(made, problem=problem, outcome=outcome, answer=answer)


STEPS = st.lists(st.tuples(SCORE, st.booleans()), min_size=1, max_size=5)
BOTH_KINDS = [[(0.2, False)], [(0.7, True)]]


@st.composite
def located(draw: st.DrawFn) -> list[Trajectory]:
    """Two subsets, each with right and wrong solutions."""
    made: list[Trajectory] = []
    for subset in ("gsm8k", "math"):
        for steps in [*draw(st.lists(STEPS, max_size=8)), *BOTH_KINDS]:
            made.append(solution(len(made), steps, {"subset": subset}))
    return made


def official_f1(data: Sequence[Trajectory], threshold: float, *, strict: bool = False) -> float:
    hits: dict[bool, list[bool]] = {True: [], False: []}
    for item in data:
        called = [score < threshold or (score == threshold and not strict) for score in item.scores["v"]]
        found = called.index(True) if any(called) else -1
        hits[item.first_error != -1].append(found == item.first_error)
    a, b = np.mean(hits[True]), np.mean(hits[False])
    return float(2 * a * b / (a + b)) if a + b else 0.0


@given(data=located())
@settings(max_examples=scaled(40), deadline=None)
def test_process_bench_chooses_on_gsm8k_and_averages_subsets(data: list[Trajectory]) -> None:
    made = bench["process-bench"].take({"scorer": RecordedScorer(data, "v"), "data": data})
    parts = {name: [item for item in data if item.facts["subset"] == name] for name in ("gsm8k", "math")}
    best = max(official_f1(parts["gsm8k"], t) for t in [-0.1, 0.1, 0.3, 0.6, 0.8, 1.1, 0.0])
    assert made.groups["gsm8k"]["f1"].value == pytest.approx(best, abs=1e-9)
    assert made.groups["math"]["f1"].value == pytest.approx(official_f1(parts["math"], made.threshold), abs=1e-9)
    average = (made.groups["gsm8k"]["f1"].value + made.groups["math"]["f1"].value) / 2
    assert made.metrics["average_f1"].value == pytest.approx(average, abs=1e-9)
    given_threshold = bench["process-bench"].take({"scorer": RecordedScorer(data, "v"), "data": data}, threshold=0.5)
    assert given_threshold.metrics["f1"].value == pytest.approx(official_f1(data, 0.5), abs=1e-9)
    assert given_threshold.threshold_from == "given"
    # 0.5 is one of the scores: the strict rule of public code calls it right.
    strict = bench["process-bench"].take(
        {"scorer": RecordedScorer(data, "v"), "data": data}, threshold=0.5, ties="right"
    )
    assert strict.metrics["f1"].value == pytest.approx(official_f1(data, 0.5, strict=True), abs=1e-9)


def test_whole_solutions_at_the_threshold_are_wrong_or_as_the_authors_have_it_missed() -> None:
    """A right and a wrong solution whose lowest score is the threshold, and one of each that is clear.

    Called wrong: the right one is missed, F1 of right 2/3 and of wrong 4/5. Missed: both are, F1 of each 1/2.
    """
    rows = [[(0.5, True)], [(0.9, True)], [(0.5, False)], [(0.1, False)]]
    data = [solution(i, steps, {}) for i, steps in enumerate(rows)]
    have = {"scorer": RecordedScorer(data, "v"), "data": data}
    found = bench["reason-eval"].take(have).metrics["solution_f1"].value
    assert found == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert bench["reason-eval"].take(have, ties="missed").metrics["solution_f1"].value == pytest.approx(0.5)


def test_process_bench_says_where_a_threshold_cannot_come_from() -> None:
    data = [solution(i, steps, {"subset": "math"}) for i, steps in enumerate(BOTH_KINDS)]
    with pytest.raises(InputError, match="'gsm8k' that the threshold is chosen on; there are math"):
        bench["process-bench"].take({"scorer": RecordedScorer(data, "v"), "data": data})


@given(data=located(), threshold=st.sampled_from([0.3, 0.5, 0.8]))
@settings(max_examples=scaled(40), deadline=None)
def test_mr_score_and_first_error_accuracy(data: list[Trajectory], threshold: float) -> None:
    have = {"scorer": RecordedScorer(data, "v"), "data": data}
    found = [next((k for k, s in enumerate(item.scores["v"]) if s <= threshold), -1) for item in data]
    gold = [item.first_error for item in data]
    mcc = matthews_corrcoef([g == -1 for g in gold], [f == -1 for f in found])
    wrong = [(f, g) for f, g in zip(found, gold, strict=True) if g != -1]
    step = np.mean([f == g for f, g in wrong])
    made = bench["mr-score"].take(have, threshold=threshold).metrics
    assert made["mcc"].value == pytest.approx(mcc, abs=1e-9)
    assert made["step_accuracy"].value == pytest.approx(step, abs=1e-9)
    assert made["mr_score"].value == pytest.approx(0.2 * max(0, mcc) + 0.3 * step, abs=1e-9)
    exact = bench["first-error-accuracy"].take(have, threshold=threshold)
    assert exact.metrics["accuracy"].value == pytest.approx(np.mean(np.equal(found, gold)), abs=1e-9)
    assert exact.groups["math"]["accuracy"].n == sum(item.facts["subset"] == "math" for item in data)


@st.composite
def classified(draw: st.DrawFn) -> list[Trajectory]:
    made: list[Trajectory] = []
    for name in CLASSES:
        for steps in draw(st.lists(STEPS, min_size=1, max_size=3)):
            kept = [(score, True) for score, _ in steps] if name == "multi_solutions" else steps
            made.append(solution(len(made), kept, {"classification": name}))
    made.append(solution(len(made), [(0.0, True)], {"classification": "circular", "side": "original"}))
    return made


def official_prm_score(data: Sequence[Trajectory], threshold: float) -> float:
    """The authors' arithmetic, cell by cell."""
    tp = fp = fn = tn = 0
    for item in data:
        for score, label in zip(item.scores["v"], item.labels, strict=True):
            valid = score > threshold
            tp, fp = tp + (valid and label == 1), fp + (valid and label == 0)
            fn, tn = fn + (not valid and label == 1), tn + (not valid and label == 0)

    def f1(precision_cells: tuple[int, int], recall_cells: tuple[int, int]) -> float:
        precision = precision_cells[0] / sum(precision_cells) if sum(precision_cells) else 0.0
        recall = recall_cells[0] / sum(recall_cells) if sum(recall_cells) else 0.0
        return 2 * precision * recall / (precision + recall) if precision + recall else 0.0

    positive, negative = f1((tp, fp), (tp, fn)), f1((tn, fn), (tn, fp))
    return 0.5 * positive + 0.5 * negative if fp + tn else positive


@given(data=classified(), threshold=st.sampled_from([0.0, 0.5, 0.6]))
@settings(max_examples=scaled(40), deadline=None)
def test_prm_score_by_class_group_and_overall(data: list[Trajectory], threshold: float) -> None:
    have = {"scorer": RecordedScorer(data, "v"), "data": data}
    made = bench["prm-bench"].take(have, threshold=threshold)
    modified = [item for item in data if item.facts.get("side") != "original"]
    assert made.metrics["prm_score"].value == pytest.approx(official_prm_score(modified, threshold), abs=1e-9)
    by_class = {
        name: official_prm_score([i for i in modified if i.facts["classification"] == name], threshold)
        for name in CLASSES
    }
    for name, score in by_class.items():
        assert made.groups[name]["prm_score"].value == pytest.approx(score, abs=1e-9), name
    assert made.metrics["simplicity"].value == pytest.approx(np.mean([by_class[c] for c in CLASSES[:2]]), abs=1e-9)
    assert made.metrics["soundness"].value == pytest.approx(np.mean([by_class[c] for c in CLASSES[2:6]]), abs=1e-9)
    assert made.metrics["sensitivity"].value == pytest.approx(np.mean([by_class[c] for c in CLASSES[6:]]), abs=1e-9)
    gold = np.concatenate([item.labels for item in modified])
    said = np.concatenate([item.scores["v"] for item in modified]) > threshold
    macro = np.mean([f1_score(gold == kind, said == kind, zero_division=0) for kind in (True, False)])
    assert made.metrics["macro_f1"].value == pytest.approx(macro, abs=1e-9)


def test_similarity_and_first_errors_of_prm_bench_by_hand() -> None:
    redundant = {"classification": "redundency"}
    data = [
        # Called valid: 2 of 4, in the original 3 of 3. The first wrong step is called wrong, at the threshold itself.
        solution(0, [(0.9, True), (0.5, False), (0.9, True), (0.4, True)], redundant | {"idx": "a"}),
        solution(1, [(0.9, True), (0.8, True), (0.6, True)], redundant | {"idx": "a", "side": "original"}),
        # 2 of 2, in the original 1 of 4. The first wrong step is called valid.
        solution(2, [(0.9, True), (0.6, False)], redundant | {"idx": "b"}),
        solution(3, [(0.9, True), (0.1, True), (0.1, True), (0.1, True)], redundant | {"idx": "b", "side": "original"}),
        # No step of its original is called valid: it takes no part.
        solution(4, [(0.9, True), (0.8, True)], redundant | {"idx": "c"}),
        solution(5, [(0.1, True), (0.2, True)], redundant | {"idx": "c", "side": "original"}),
    ]
    made = bench["prm-bench"].take({"scorer": RecordedScorer(data, "v"), "data": data}, threshold=0.5).metrics
    assert made["similarity"].value == pytest.approx((1 / 2 + 3 / 4) / 2)
    assert made["similarity"].n == 2
    assert (made["first_error_accuracy"].value, made["first_error_accuracy"].n) == (0.5, 2)


def test_steps_without_a_label_take_no_part_and_solutions_without_a_score_neither() -> None:
    item = solution(0, [(0.9, True), (0.1, False), (0.1, True)], {})
    neutral = item.with_columns({"label": np.array([1.0, 0.0, np.nan])})
    made = bench["visual-process-bench"].take({"scorer": RecordedScorer([neutral], "v"), "data": [neutral]})
    assert made.metrics["macro_f1"].value == made.metrics["balanced_f1"].value == 1
    unscored = item.with_columns({"score:v": np.array([0.9, np.nan, 0.1])})
    with pytest.raises(InputError, match="none of 1 rows has the scores"):
        bench["hard2verify"].take({"scorer": RecordedScorer([unscored], "v"), "data": [unscored]})


def compared(i: int, good: list[float], bad: list[float], subset: str = "") -> Comparison:
    problem = Problem(f"c{i}", "?")
    candidates = tuple(Trajectory(problem, (Step(str(k)),)) for k in range(len(good) + len(bad)))
    return Comparison(problem, candidates, (1.0,) * len(good) + (0.0,) * len(bad), subset, {"v": (*good, *bad)})


class Named:
    """A scorer whose scores are recorded."""

    name, batch_size = "v", 1


ONE_AGAINST_MANY = st.lists(st.tuples(SCORE, st.lists(SCORE, min_size=1, max_size=4)), min_size=1, max_size=8)


@given(rows=ONE_AGAINST_MANY)
@settings(max_examples=scaled(50), deadline=None)
def test_one_against_many(rows: list[tuple[float, list[float]]]) -> None:
    have = {"scorer": Named(), "data": [compared(i, [good], bad) for i, (good, bad) in enumerate(rows)]}
    ranked = bench["rewardmath"].take(have).metrics
    ranks = []
    for good, bad in rows:
        # The authors sort by score and then put "rejected" before "chosen".
        order = sorted([(good, "cho"), *((b, "rej") for b in bad)], reverse=True)
        ranks.append(1 + [kind for _, kind in order].index("cho"))
    assert ranked["accuracy"].value == pytest.approx(np.mean([good > max(bad) for good, bad in rows]), abs=1e-9)
    assert ranked["mrr"].value == pytest.approx(np.mean([1 / rank for rank in ranks]), abs=1e-9)
    assert ranked["accuracy_with_ties"].value == pytest.approx(np.mean([g >= max(b) for g, b in rows]), abs=1e-9)
    four = bench["reward-bench-2"].take(have).metrics["accuracy"].value
    shared = [(1 / [good, *bad].count(good)) if good == max([good, *bad]) else 0.0 for good, bad in rows]
    assert four == pytest.approx(np.mean(shared), abs=1e-9)
    assert bench["pairs"].take(have).metrics["accuracy"].value == ranked["accuracy"].value


def test_reward_bench_weighs_mathematics_as_984_rows() -> None:
    data = [
        *(compared(i, [1.0], [0.0], "math-prm") for i in range(2)),
        *(compared(10 + i, [float(i < 1)], [0.5], "hep-python") for i in range(4)),
        *(compared(20 + i, [0.5], [0.5], "mt-bench-easy") for i in range(2)),
    ]
    made = bench["reward-bench"].take({"scorer": Named(), "data": data})
    reasoning = (984 * 1.0 + 4 * 0.25) / 988
    assert made.metrics["reasoning"].value == pytest.approx(reasoning)
    assert made.metrics["chat"].value == 0
    assert made.metrics["score"].value == pytest.approx(reasoning / 2)
    assert "safety" not in made.metrics


def test_rm_bench_tells_hard_from_easy() -> None:
    # A scorer that likes decoration: scores rise with style, whatever is right.
    data = [compared(i, [1.0, 2.0, 3.0], [1.5, 2.5, 3.5], domain) for i, domain in enumerate(["chat", "code"])]
    made = bench["rm-bench"].take({"scorer": Named(), "data": data}).metrics
    assert (made["hard"].value, made["normal"].value, made["easy"].value) == (0, 0, 1)
    assert made["average"].value == pytest.approx(1 / 3)
    with pytest.raises(InputError, match="three chosen, then three rejected"):
        bench["rm-bench"].take({"scorer": Named(), "data": [compared(0, [1.0], [0.0])]})


@pytest.mark.parametrize("name", [method.name for method in bench])
def test_results_are_json_with_an_interval_and_a_protocol(name: str) -> None:
    solutions = [solution(i, steps, {"subset": "gsm8k"}) for i, steps in enumerate(BOTH_KINDS * 2)]
    six = [compared(i, [0.9, 0.8, 0.7], [0.1, 0.2, 0.3], "chat") for i in range(3)]
    take = {"scorer": RecordedScorer(solutions, "v"), "data": solutions}
    if name in ("web-reward-bench", "web-prm-bench"):
        take = {"scorer": Named(), "data": [compared(i, [0.9], [0.1, 0.95]) for i in range(3)]}
    if name in ("pairs", "reward-bench", "rm-bench", "rewardmath", "reward-bench-2", "tool-comp"):
        take = {"scorer": Named(), "data": six}
    if name in ("best-of-n", "outcome-calibration", "over-optimisation", "reward-distance"):
        graded = [sampled(i, steps, float(i % 2), f"{i % 2}") for i, steps in enumerate(BOTH_KINDS * 2)]
        take = {"scorer": RecordedScorer(graded, "v"), "data": graded}
    if name == "m-reward-bench":
        tongues = [replace(compared(i, [0.9], [0.1], "hep-go"), meta={"language": f"l{i % 2}"}) for i in range(4)]
        take = {"scorer": Named(), "data": tongues}
    if name == "both-orders":
        orders = [replace(one, meta={"better_first": first}) for one in six for first in (True, False)]
        take = {"scorer": Named(), "data": orders}
    if name in ("agent-reward-bench", "trail", "mast"):
        example = Path(__file__).parents[1] / "formats" / "examples" / f"{name}.jsonl"
        take = {"scorer": constant(), "data": [*stepreward.read(example)]}
    if name in ("order", "length-bias", "reward-distance"):
        steps = [tuple(Step(f"{k}{at}\n" * (k + 1)) for at in range(2)) for k in range(6)]
        parted = [
            Trajectory(Problem(f"p{k % 2}", "?"), one, outcome=1.0, columns={"label": np.ones(2)})
            for k, one in enumerate(steps)
        ]
        take = {"scorer": constant(), "data": parted}
    if name in ("robustness", "token-attack"):
        take["scorer"] = constant()
    made = bench[name].take(take)
    row = made.to_json()
    assert row["benchmark"] == name
    assert row["main"] in row["metrics"]
    assert len(row["protocol"]) > 40
    for one in made.metrics.values():
        assert np.isnan(one.value) or one.low - 1e-9 <= one.value <= one.high + 1e-9
