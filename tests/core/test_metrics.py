"""Metrics against hand-worked numbers and brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepreward.core.measure.first_error import first_error
from stepreward.core.measure.step_metrics import (
    auroc,
    best_threshold,
    brier,
    expected_calibration_error,
    first_error_scores,
    ragged,
    reliability,
)

NAN = float("nan")
SCORES = ragged([[0.9, 0.2, 0.8], [0.7, 0.6], [0.4, 0.9, 0.1], [0.9]])
GOLD = [1, -1, 2, -1]


def test_hand_worked_first_errors() -> None:
    """At 0.5: row 0 finds step 1 (right), row 1 none (right), row 2 finds step 0 (wrong, gold is 2), row 3 none."""
    assert first_error(SCORES, 0.5).tolist() == [1, -1, 0, -1]
    result = first_error_scores(SCORES, GOLD)
    assert (result.erroneous, result.correct) == (0.5, 1.0)
    assert result.f1 == pytest.approx(2 * 0.5 / 1.5)
    assert first_error_scores(SCORES, GOLD, threshold=0.3).f1 == 1.0
    # At the lowest score of a right solution, .6, that one is wrong too: 1 of 2 right ones is left.
    assert first_error_scores(SCORES, GOLD, threshold=0.6).correct == 0.5
    assert first_error_scores(SCORES, GOLD, threshold=0.0).f1 == 0.0


def test_the_best_threshold_is_the_score_of_a_step_that_it_calls_wrong() -> None:
    """Wrong at .2, right down to .6: every threshold in [.2, .6) is perfect, and the lowest is chosen."""
    best = best_threshold(ragged([[0.9, 0.2], [0.7, 0.6]]), [1, -1])
    assert (best.f1, best.threshold) == (1.0, 0.2)


def test_no_threshold_serves_where_the_wrong_step_scores_highest() -> None:
    best = best_threshold(ragged([[0.1, 0.9], [0.1]]), [1, -1])
    assert (best.f1, best.erroneous, best.correct) == (0.0, 0.0, 1.0)
    assert best.threshold < 0.1


@given(st.integers(0, 100_000))
def test_the_best_threshold_is_the_best_of_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = ragged([rng.integers(0, 6, rng.integers(1, 5)) / 5 for _ in range(8)])
    lengths = (~np.isnan(scores)).sum(axis=1)
    gold = np.array([rng.integers(-1, n) for n in lengths])
    gold[:2] = 0, -1
    best = best_threshold(scores, gold)
    every = [
        first_error_scores(scores, gold, threshold=t).f1
        for t in [-0.1, *np.arange(6) / 5, 0.1, 0.3, 0.5, 0.7, 0.9, 1.1]
    ]
    assert best.f1 == pytest.approx(max(every))
    assert first_error_scores(scores, gold, threshold=best.threshold) == best


def test_hand_worked_calibration() -> None:
    """Two bins of [0, 1]: scores .2 and .4 (labels 0, 1), and .9 (label 1): (2 |.3 - .5| + |.9 - 1|) / 3."""
    p, y = [0.2, 0.4, 0.9, NAN], [0, 1, 1, 1]
    assert brier(p, y) == pytest.approx((0.04 + 0.36 + 0.01) / 3)
    assert expected_calibration_error(p, y, bins=2) == pytest.approx((2 * 0.2 + 0.1) / 3)
    assert reliability(p, y, bins=2).count.tolist() == [2, 1]
    assert reliability([0.1, 0.11, 0.12, 0.9], [0, 0, 1, 1], bins=2, adaptive=True).count.tolist() == [2, 2]
    assert expected_calibration_error([0.0, 1.0], [0, 1]) == 0


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=20))
def test_auroc_counts_pairs(rows: list[tuple[int, bool]]) -> None:
    good, bad = ([s for s, y in rows if y is side] for side in (True, False))
    value = auroc([s for s, _ in rows], [float(y) for _, y in rows])
    if not good or not bad:
        assert np.isnan(value)
    else:
        assert value == pytest.approx(np.mean([(g > b) + 0.5 * (g == b) for g in good for b in bad]))


def test_gold_labels_score_one_and_shuffled_ones_score_chance() -> None:
    rng = np.random.default_rng(0)
    gold = rng.integers(-1, 5, 4000)
    perfect = np.where(np.arange(5) == gold[:, None], 0.0, 1.0)
    assert first_error_scores(perfect, gold).f1 == 1.0
    shuffled = first_error_scores(rng.permutation(perfect), gold)
    assert shuffled.erroneous == pytest.approx(1 / 6, abs=0.03)
    assert shuffled.correct == pytest.approx(1 / 6, abs=0.06)


def test_one_kind_of_solution_has_no_f1_and_mismatches_are_named() -> None:
    assert np.isnan(first_error_scores(SCORES[:1], [1]).f1)
    with pytest.raises(ValueError, match="only one kind"):
        best_threshold(SCORES[:1], [1])
    with pytest.raises(ValueError, match="got 2 and 1"):
        brier([0.1, 0.2], [1])


@given(seed=st.integers(0, 1000))
def test_the_order_of_rows_does_not_move_adaptive_calibration_error(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, labels = rng.choice([0.2, 0.5, 0.9], 20), rng.integers(0, 2, 20).astype(float)
    order = rng.permutation(20)
    here = expected_calibration_error(scores, labels, bins=4, adaptive=True)
    assert expected_calibration_error(scores[order], labels[order], bins=4, adaptive=True) == pytest.approx(here)
