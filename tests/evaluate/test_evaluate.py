"""Selection curves and step metrics: gold scores one, limits are exact, the expectation equals enumeration."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from stepreward.core.keys import Key
from stepreward.core.measure.selection import majority
from stepreward.evaluate.data.solution_arrays import Pool, filled_pool
from stepreward.evaluate.measures.selection_curves import curves, hits
from stepreward.evaluate.measures.step_scores import first_error_f1, found_f1, label_error, step_metrics

KEY = Key.seed(0)


def pool(problems: int = 30, size: int = 6) -> Pool:
    rng = np.random.default_rng(0)
    answers = rng.integers(0, 3, (problems, size)) + 10 * np.arange(problems)[:, None]
    outcome = (answers % 10 == 0).astype(float)
    return Pool(answers, outcome, {"gold": outcome, "noise": rng.random((problems, size))})


def test_gold_totals_select_like_the_oracle_and_one_sample_is_the_mean() -> None:
    made = pool()
    for n in (1, 3, 6):
        rates = hits(made, n, KEY)
        np.testing.assert_array_equal(rates["best-of-n:gold"], rates["oracle"])
        np.testing.assert_array_equal(rates["weighted-vote:gold"], rates["oracle"])
    single = hits(made, 1, KEY, draws=4000)
    for rate in single.values():
        np.testing.assert_allclose(rate, made.outcome.mean(axis=1), atol=0.04)


def test_subsets_estimate_the_enumerated_expectation() -> None:
    """Majority of 3 out of 6, all 20 subsets; 4,000 draws have a standard error below 0.008."""
    made = pool(problems=5)
    exact = []
    for g in range(5):
        right = []
        for rows in combinations(range(6), 3):
            chosen = majority(made.answers[g, list(rows)], np.zeros(3, np.int64))[0]
            right.append(made.outcome[g, rows[chosen]])
        exact.append(np.mean(right))
    np.testing.assert_allclose(hits(made, 3, KEY, draws=4000)["majority"], exact, atol=0.035)


def test_curves_have_an_interval_at_each_size() -> None:
    made = curves(pool(), [1, 2, 4], KEY)
    assert all(len(row) == 3 for row in made.values())
    assert all(e.low <= e.value <= e.high and e.n == 30 for row in made.values() for e in row)
    with pytest.raises(ValueError, match="between 1 and the 6"):
        hits(pool(), 7, KEY)


@pytest.mark.parametrize("gold", [[1, 0, 1], [-1, -1, -1]])
def test_solutions_of_one_kind_have_no_f1_and_no_interval_of_one(gold: list[int]) -> None:
    made = found_f1(np.array([1, 0, 1]), np.array(gold), KEY, 0.5, "given").f1
    assert np.isnan([made.value, made.low, made.high]).all()
    # Of both kinds, none found: 0.
    assert found_f1(np.array([0, 0]), np.array([1, -1]), KEY, 0.5, "given").f1.value == 0


def test_gold_step_scores_have_first_error_f1_one() -> None:
    rng = np.random.default_rng(0)
    gold = rng.integers(-1, 4, 300)
    scores = np.where(np.arange(4) == gold[:, None], 0.1, 0.9)
    result = first_error_f1(scores, gold, KEY, tune_on=(scores[:100], gold[:100]))
    # The rarer kind, right solutions, has n of 50 or so: Wilson's interval of n of n begins at n / (n + 1.96^2).
    right = int((gold < 0).sum())
    assert (result.f1.value, result.f1.high, result.f1.n) == (1.0, 1.0, 300)
    assert result.f1.low == pytest.approx(right / (right + 1.959964**2), abs=1e-6)
    assert result.threshold == 0.1
    assert "100 separate" in result.threshold_from
    assert first_error_f1(scores, gold, KEY, threshold=0.05).f1.value == 0.0
    assert step_metrics(scores, (scores > 0.5).astype(float))["auroc"] == 1.0


def test_label_error_is_hand_worked() -> None:
    """Labels .5 and 0 against 1 and 0: error 1/4; both first errors agree in row 0, not in row 1."""
    truth = np.array([[1.0, 0.0], [0.0, 0.0]])
    found = label_error(np.array([[0.5, 0.0], [0.25, np.nan]]), truth)
    assert found["mean_absolute_error"] == pytest.approx((0.5 + 0 + 0.25) / 3)
    assert found["first_error_accuracy"] == 0.5
    # A step of unknown label is no error.
    assert label_error(np.array([[np.nan, 1.0]]), np.ones((1, 2)))["first_error_accuracy"] == 1.0


def test_samples_that_could_not_be_graded_are_neither_right_nor_wrong() -> None:
    nan = np.nan
    answers = np.array([[0, 0, 1], [2, 2, 3], [4, 4, 5]])
    outcome = np.array([[nan, nan, 1.0], [0.0, 0.0, nan], [1.0, 1.0, 0.0]])
    made = hits(Pool(answers, outcome, {}), 3, Key.seed(0))
    np.testing.assert_array_equal(made["majority"], [nan, 0.0, 1.0])
    np.testing.assert_array_equal(made["oracle"], [1.0, nan, 1.0])
    ends = curves(Pool(answers, outcome, {}), [3], Key.seed(0))
    assert (ends["majority"][0].value, ends["majority"][0].n) == (0.5, 2)


def test_a_problem_with_too_few_samples_is_filled_with_empty_ones() -> None:
    # Problem 1 has no sample, problem 0 one of three, problem 2 two; the second one's only step has no score.
    scores = np.array([[0.5, 0.4], [np.nan, np.nan], [0.9, np.nan]])
    made = filled_pool([0, 2, 2], ["a", None, "a"], [1.0, 0.0, 1.0], scores, (3, 3))
    np.testing.assert_array_equal(made.outcome, [[1, 0, 0], [0, 0, 0], [0, 1, 0]])
    np.testing.assert_array_equal(made.answers >= 0, [[1, 0, 0], [0, 0, 0], [0, 1, 0]])
    assert made.answers[0, 0] != made.answers[2, 1], "answers of two problems are never equal"
    none = np.nan
    np.testing.assert_allclose(made.totals["product"], [[0.2, none, none], [none] * 3, [none, 0.9, none]])
    np.testing.assert_allclose(made.totals["last"], [[0.4, none, none], [none] * 3, [none, 0.9, none]])
