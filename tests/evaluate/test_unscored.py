"""NaN is not measured: what lacks a score is counted apart by every benchmark, never as right."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from stepreward.core.catalog import bench
from stepreward.core.errors import InputError
from stepreward.core.types import Comparison, Problem, Step, Trajectory
from stepreward.evaluate.data.result import BenchResult
from stepreward.evaluate.data.scoring import RecordedScorer

NAN = float("nan")


class Named:
    """A scorer whose scores are recorded."""

    name, batch_size = "v", 1


def solution(name: str, first: int, scores: Sequence[float], kinds: str = "", text: str = "") -> Trajectory:
    steps = tuple(
        Step(f"{name}{text}{i}\n", kind="observation" if kinds[i : i + 1] == "o" else "action")
        for i in range(len(scores))
    )
    labels = np.array([1.0 if first < 0 or i < first else 0.0 if i == first else NAN for i in range(len(scores))])
    return Trajectory(
        Problem(name, "?"), steps, float(first < 0), first_error=first, facts={"subset": "gsm8k"},
        columns={"label": labels, "score:v": np.array(scores)},
    )  # fmt: skip


DATA = [
    solution("a", -1, [0.9, 0.9]),  # right, and held so
    solution("b", -1, [NAN, NAN]),  # silence is no verdict
    solution("c", -1, [0.9, NAN]),  # the end may be held wrong
    solution("d", 1, [0.9, 0.1, NAN]),  # found; what follows does not matter
    solution("e", 1, [NAN, 0.1]),  # an earlier step may be held wrong
    solution("f", 1, [0.9, 0.9, NAN]),  # not found at the first error, whatever follows
    solution("g", 1, [NAN, 0.1], "o"),  # an observation needs no score
]


def measured(name: str, data: Sequence[Trajectory] = DATA, **settings: object) -> BenchResult:
    made: BenchResult = bench[name].take({"scorer": RecordedScorer(data, "v"), "data": data}, **settings)
    return made


def test_process_bench_leaves_out_what_was_not_measured() -> None:
    """a, d, f and g are left: the right one is held right, two of three wrong ones are found."""
    made = measured("process-bench", threshold=0.5)
    assert made.unscored == made.to_json()["unscored"] == 3
    assert made.metrics["correct"].value == 1
    assert made.metrics["correct"].n == 1
    assert made.metrics["erroneous"].value == pytest.approx(2 / 3)
    assert made.metrics["erroneous"].n == 3
    assert measured("process-bench", threshold=0.95).unscored == 3  # the same solutions at any threshold


def test_first_error_accuracy_leaves_out_what_was_not_measured() -> None:
    made = measured("first-error-accuracy")
    assert (made.unscored, made.metrics["accuracy"].value) == (3, 0.75)


def test_mr_score_goes_by_what_was_found() -> None:
    """Besides b, c and e, nothing is known of f: no step up to the hole is held wrong. a, d, g are left, all found."""
    made = measured("mr-score")
    assert made.unscored == 4
    assert made.metrics["step_accuracy"].value == 1
    assert made.metrics["mcc"].value == 1


def test_silence_alone_is_no_measurement() -> None:
    with pytest.raises(InputError, match="none of 2 rows has the scores"):
        measured("process-bench", DATA[1:3], threshold=0.5)


@pytest.mark.parametrize("name", ["hard2verify", "visual-process-bench", "mp-bench", "prm-bench", "reason-eval"])
def test_benchmarks_of_labels_leave_out_solutions_with_an_unscored_label(name: str) -> None:
    made = measured(name)
    assert made.unscored == 4  # g as well: its observation is labelled here
    assert made.metrics[made.main].n == 3


def test_best_of_n_leaves_out_the_problem_of_a_sample_that_was_cut() -> None:
    data = [
        *(solution("p", first, scores, text=str(first)) for first, scores in ((-1, [0.1, 0.2]), (0, [0.9, NAN]))),
        *(solution("q", first, scores, text=str(first)) for first, scores in ((-1, [NAN, 0.8]), (0, [NAN, 0.3]))),
    ]
    made = measured("best-of-n", data, aggregate="min")
    assert (made.unscored, made.metrics["best_of_n"].n) == (1, 1)
    assert made.metrics["best_of_n"].value == 1


def compared(name: str, scores: Sequence[float], task: str = "t", right: int = 0) -> Comparison:
    problem = Problem(name, "?")
    candidates = tuple(Trajectory(problem, (Step(str(i)),)) for i in range(len(scores)))
    worth = tuple(float(i == right) for i in range(len(scores)))
    return Comparison(problem, candidates, worth, "hep-cpp", {"v": tuple(scores)}, {"task_id": task})


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("pairs", "accuracy"), ("reward-bench", "accuracy"), ("m-reward-bench", "accuracy"), ("rewardmath", "accuracy"),
        ("tool-comp", "accuracy"), ("web-prm-bench", "pairwise_accuracy"), ("reward-bench-2", "accuracy"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("scores", [(NAN, 0.1), (0.9, NAN)])
def test_a_comparison_with_an_unscored_candidate_is_neither_won_nor_lost(
    name: str, metric: str, scores: tuple[float, float]
) -> None:
    data = [compared("a", (0.9, 0.1)), compared("b", (0.2, 0.3)), compared("c", scores)]
    made: BenchResult = bench[name].take({"scorer": Named(), "data": data})
    assert (made.unscored, made.metrics[metric].value, made.metrics[metric].n) == (1, 0.5, 2)


def test_a_task_with_an_unscored_step_is_left_out_whole() -> None:
    data = [compared("a", (0.9, 0.1), "t"), compared("b", (0.9, NAN), "t"), compared("c", (0.1, 0.2), "u")]
    made: BenchResult = bench["web-reward-bench"].take({"scorer": Named(), "data": data})
    assert (made.unscored, made.metrics["mrr"].value, made.metrics["trajectory_accuracy"].n) == (1, 0.5, 1)
