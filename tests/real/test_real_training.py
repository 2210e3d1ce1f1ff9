"""Training on a real teacher: the measures by slow loops, the split, and a short training on real solutions."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from benchmarks import real_data, real_training, real_training_page
from benchmarks.real_training import Sizes
from scipy.stats import pearsonr, spearmanr

from stepreward.core.keys import Key
from stepreward.core.measure.step_metrics import auroc
from stepreward.core.tree import StepTree
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.formats.rows import annotated
from stepreward.score.discriminative import DiscriminativeScorer

DATA = Path(__file__).parents[2].parent / "shared" / "data"
NAN = float("nan")


def solution(problem: str, sample: int, scores: list[float]) -> Trajectory:
    steps = tuple(Step(f"{problem} {sample} {i}\n") for i in range(len(scores)))
    made = {real_training.TEACHER: np.array(scores)}
    return annotated(Problem(problem, problem), steps, np.full(len(scores), NAN), "test", scores=made)


def test_problems_are_split_and_never_solutions() -> None:
    groups = real_training.by_problem([solution(f"p{i}", s, [0.5]) for i in range(9) for s in range(3)])
    sizes = Sizes(train=4, valid=2, test=3)
    parts = real_training.split(groups, sizes, Key.seed(0))
    ids = {name: {one.problem.id for group in part for one in group} for name, part in parts.items()}
    assert [len(ids[name]) for name in ("train", "valid", "test")] == [4, 2, 3]
    assert set.union(*ids.values()) == {f"p{i}" for i in range(9)}
    assert all(len(group) == 3 for part in parts.values() for group in part)
    again = real_training.split(groups, sizes, Key.seed(0))
    assert [g[0].problem.id for g in again["train"]] == [g[0].problem.id for g in parts["train"]]
    other = real_training.split(groups, sizes, Key.seed(1))
    assert any([g[0].problem.id for g in other[name]] != [g[0].problem.id for g in parts[name]] for name in parts)


def test_labels_are_the_teachers_scores_of_the_first_samples() -> None:
    groups = real_training.by_problem([solution("p", s, [0.1 * s, 0.9]) for s in range(3)])
    (tree,) = real_training.trees_of(groups, 2)
    np.testing.assert_allclose(tree.step_column("label"), [[0.0, 0.9], [0.1, 0.9]])


def test_the_control_knows_the_index_alone() -> None:
    def tree(labels: list[list[float]]) -> StepTree:
        steps = [tuple(Step(f"{i} {j}\n") for j in range(len(row))) for i, row in enumerate(labels)]
        made = StepTree.from_trajectories([Trajectory(Problem("p", "p"), row) for row in steps])
        width = max(map(len, labels))
        return made.with_step_column("label", [row + [NAN] * (width - len(row)) for row in labels])

    learn = [tree([[0.2, 0.4], [0.6]]), tree([[1.0, 0.0, 0.9]])]
    like = np.array([[0.5, 0.5, 0.5, 0.5], [0.5, NAN, NAN, NAN]])
    # Means by index: (0.2 + 0.6 + 1)/3, (0.4 + 0)/2, 0.9; an index never seen gets the mean of all six, 3.1/6.
    np.testing.assert_allclose(
        real_training.position_control(learn, like), [[0.6, 0.2, 0.9, 3.1 / 6], [0.6, NAN, NAN, NAN]]
    )


def test_agreement_by_slow_loops() -> None:
    rng = Key.seed(3).rng()
    group = np.repeat(np.arange(5), 4)
    teacher = rng.random((20, 3))
    student = np.clip(teacher + 0.3 * rng.standard_normal((20, 3)), 0, 1)
    teacher[rng.random((20, 3)) < 0.2], student[rng.random((20, 3)) < 0.1] = NAN, NAN
    found = real_training.agreement(student, teacher, group, Key.seed(0))
    pairs = [
        (g, s, t)
        for row, row_t, g in zip(student, teacher, group, strict=True)
        for s, t in zip(row, row_t, strict=True)
        if not math.isnan(s + t)
    ]
    a, b = np.array([s for _, s, _ in pairs]), np.array([t for _, _, t in pairs])
    assert found["pearson"].value == pytest.approx(pearsonr(a, b)[0])
    assert found["spearman"].value == pytest.approx(spearmanr(a, b)[0])
    assert found["auroc"].value == pytest.approx(auroc(a, b))
    inside = [spearmanr(*np.array([(s, t) for h, s, t in pairs if h == g]).T)[0] for g in range(5)]
    assert found["spearman within problems"].value == pytest.approx(np.mean(inside))
    for one in found.values():
        assert one.low <= one.value <= one.high
        assert one.n == 5


def test_the_bootstrap_resamples_problems_and_not_steps() -> None:
    # Every problem repeats one pair of numbers 50 times: steps are many, problems are four, and a mean over problems
    # resampled has a standard deviation of sqrt(mean square deviation / 4).
    values = np.array([0.0, 0.2, 0.6, 1.0])
    rows, group = np.repeat(values, 50)[:, None], np.repeat(np.arange(4), 50)
    found = real_training.over_problems(lambda a, b: float(a.mean()), rows, rows, group, Key.seed(0))
    spread = values.std() / 2
    assert found.value == pytest.approx(0.45)
    assert found.high - found.low > 2 * spread


def test_turns_take_one_solution_of_a_problem_at_a_time() -> None:
    items = [solution(problem, s, [0.5]) for problem, n in (("p", 3), ("q", 1), ("r", 2)) for s in range(n)]
    assert real_training._turns(items) == [[0, 3, 4], [1, 5], [2]]


@pytest.mark.real
@pytest.mark.skipif(not DATA.exists(), reason="needs the real data")
@pytest.mark.parametrize("start", real_training.STARTS.values())
def test_a_short_training_on_real_solutions_lowers_the_loss(start: str, tmp_path: Path) -> None:
    items = real_data.read("bon_pools/gsm8k_scores.jsonl.gz", strip_prompt=True, separator="\n")[: 32 * 8]
    groups = real_training.by_problem(items)
    sizes = Sizes(samples=2, tokens=3000, vocabulary=400, row_tokens=512)
    learn, choose = real_training.trees_of(groups[:6], 2), real_training.trees_of(groups[6:], 1)
    model, result = real_training.fit(start, learn, choose, sizes, tmp_path / "student")
    labels = np.concatenate([tree.step_column("label")[~np.isnan(tree.step_column("label"))] for tree in choose])
    # A fresh head says 1/2 at every step: a loss of ln 2.
    assert result.metrics["loss"] < math.log(2) < 0.7
    assert 0 < labels.mean() < 1
    asked = [groups[6][0], groups[6][1], groups[7][0]]
    scorer = DiscriminativeScorer(model)
    scores = real_training.scores_by(scorer, asked)
    assert [int((~np.isnan(row)).sum()) for row in scores] == [len(one) for one in asked]
    alone = np.concatenate([real_training.scores_by(scorer, [one])[0] for one in asked])
    np.testing.assert_allclose(scores[~np.isnan(scores)], alone, atol=1e-5)


@pytest.mark.skipif(not real_data.TRAINING.exists(), reason="the results are not recorded yet")
def test_the_page_shows_the_recorded_results() -> None:
    results = json.loads(real_data.TRAINING.read_text())
    assert real_training_page.section(results) in real_data.PAGE.read_text()
    assert results["sizes"] == asdict(Sizes())


@pytest.mark.skipif(not real_data.TRAINING.exists(), reason="the results are not recorded yet")
def test_what_the_page_says_in_words_is_what_was_recorded() -> None:
    results = json.loads(real_data.TRAINING.read_text())
    students = list(real_training.STARTS)
    agreed, chosen, found = results["agreement"], results["selection"], results["process bench"]
    for measure, control in agreed[real_training.CONTROL].items():
        assert all(agreed[name][measure]["value"] > control["value"] for name in students)
    ahead = {max(students, key=lambda name: agreed[name][measure]["value"]) for measure in agreed[students[0]]}
    assert ahead == set(students)
    gaps = {name: one["minus majority"] for name, one in chosen.items()}
    assert not [name for name, gap in gaps.items() if gap["low"] > 0 and name != "oracle"]
    worse = [f"best-of-n:{students[1]}: {how}" for how in real_training.HOWS]
    assert sum(gaps[name]["high"] < 0 for name in worse) == 3
    f1 = {name: one["f1"] for name, one in found.items()}
    for name in students:
        assert f1["a step at random"]["value"] < f1[name]["value"]
        assert f1[name]["low"] < f1["a step at random"]["high"]
        assert f1[name]["high"] < f1["teacher, where recorded"]["low"]
