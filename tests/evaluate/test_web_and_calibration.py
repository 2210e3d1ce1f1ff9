"""Next actions of agents, and calibration, against literal readings."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, roc_auc_score
from tests.effort import scaled

from stepreward.core.catalog import bench
from stepreward.core.errors import InputError
from stepreward.core.types import Comparison, Problem, Step, Trajectory
from stepreward.evaluate import calibration_bench as _calibration
from stepreward.evaluate.data.scoring import RecordedScorer
from stepreward.score.baselines import RuleScorer, constant

SCORE = st.sampled_from([0.0, 0.25, 0.5, 1.0])
TASKS = st.lists(
    st.lists(st.tuples(SCORE, st.lists(SCORE, min_size=1, max_size=3)), min_size=1, max_size=3), min_size=1, max_size=4
)


class Named:
    """A scorer whose scores are recorded."""

    name, batch_size = "v", 1


def steps_of(tasks: list[list[tuple[float, list[float]]]]) -> list[Comparison]:
    made = []
    for t, task in enumerate(tasks):
        for k, (good, bad) in enumerate(task):
            problem = Problem(f"{t}-{k}", "Click.")
            candidates = tuple(Trajectory(problem, (Step(str(i)),)) for i in range(1 + len(bad)))
            preferred = (1.0, *(0.0 for _ in bad))
            made.append(
                Comparison(problem, candidates, preferred, "mind2web", {"v": (good, *bad)}, {"task_id": f"t{t}"})
            )
    return made


@given(tasks=TASKS)
@settings(max_examples=scaled(40), deadline=None)
def test_ranks_steps_and_tasks(tasks: list[list[tuple[float, list[float]]]]) -> None:
    made = bench["web-reward-bench"].take({"scorer": Named(), "data": steps_of(tasks)})
    flat = [step for task in tasks for step in task]
    ranks = []
    for good, bad in flat:
        # The authors: place in descending order, plus the wrong ones with an equal score.
        order = sorted([good, *bad], reverse=True)
        ranks.append(1 + order.index(good) + sum(b == good for b in bad))
    assert made.metrics["mrr"].value == pytest.approx(np.mean([1 / r for r in ranks]), abs=1e-9)
    assert made.metrics["step_accuracy"].value == pytest.approx(np.mean([g > max(b) for g, b in flat]), abs=1e-9)
    whole = np.mean([all(g > max(b) for g, b in task) for task in tasks])
    assert made.metrics["trajectory_accuracy"].value == pytest.approx(whole, abs=1e-9)
    assert made.groups["mind2web"]["mrr"].value == made.metrics["mrr"].value


def test_a_step_with_two_right_actions_is_an_error() -> None:
    problem = Problem("p", "?")
    two = Comparison(problem, (Trajectory(problem, (Step("a"),)),) * 2, (1.0, 1.0), scores={"v": (1.0, 0.0)})
    with pytest.raises(InputError, match="prefers 2 candidates"):
        bench["web-reward-bench"].take({"scorer": Named(), "data": [two]})


def solution(i: int, scores: list[float], labels: list[float]) -> Trajectory:
    columns = {"label": np.array(labels), "score:v": np.array(scores)}
    return Trajectory(Problem(f"p{i}", "?"), tuple(Step(f"{k}\n") for k in range(len(scores))), columns=columns)


def test_calibration_is_that_of_the_libraries() -> None:
    rng = np.random.default_rng(0)
    data = [solution(i, list(rng.random(3)), list(rng.integers(0, 2, 3).astype(float))) for i in range(40)]
    made = bench["calibration"].take({"scorer": RecordedScorer(data, "v"), "data": data}).metrics
    s, y = (np.concatenate([part(item) for item in data]) for part in (lambda i: i.scores["v"], lambda i: i.labels))
    assert made["brier"].value == pytest.approx(brier_score_loss(y, s))
    assert made["auroc"].value == pytest.approx(roc_auc_score(y, s))
    assert made["positive_brier"].value == pytest.approx(
        np.mean([max(a - b, 0) ** 2 for a, b in zip(s, y, strict=True)])
    )
    bins = np.clip(np.ceil(s * 10) - 1, 0, 9)
    ece = sum(
        abs(s[bins == b].mean() - y[bins == b].mean()) * (bins == b).mean() for b in range(10) if (bins == b).any()
    )
    assert made["ece"].value == pytest.approx(ece)
    for one in made.values():
        assert one.low <= one.value <= one.high or one is made["ece"] or one is made["adaptive_ece"]


def test_over_estimation_counts_and_under_estimation_does_not() -> None:
    assert _calibration.positive_brier(np.array([0.0, 1.0]), np.array([1.0, 0.5])) == 0.125
    assert np.isnan(_calibration.positive_brier(np.array([np.nan]), np.array([1.0])))


def test_scores_that_are_no_probabilities_and_labels_that_are_absent() -> None:
    data = [solution(0, [0.5], [1.0])]
    wide = RuleScorer(lambda problem, prefix: 3.0, name="wide")
    with pytest.raises(InputError, match="scores of wide reach from 3 to 3"):
        bench["calibration"].take({"scorer": wide, "data": data})
    unlabelled = [solution(0, [0.5], [float("nan")])]
    with pytest.raises(InputError, match="no step is labelled"):
        bench["calibration"].take({"scorer": constant(), "data": unlabelled})
