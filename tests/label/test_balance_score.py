"""The balance score: its numbers by hand, and the best threshold by trying all of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepreward.core.types import Problem, Step, Trajectory
from stepreward.label.balance_score import balance_of, balance_score, best_balance

NAN = float("nan")


@pytest.mark.parametrize(
    ("right", "kept", "expected"), [(4, 5, 0.4), (10, 12, 10 / 12), (8, 8, 1), (0, 3, 0), (0, 0, 0), (8, 16, 0.5)]
)
def test_balance_of_one_problem(right: int, kept: int, expected: float) -> None:
    """4 right of 5: .4; 10 of 12: .83333; 8 of 8: 1; 0 of 3: 0."""
    assert balance_of(right, kept) == pytest.approx(expected)


def sample(problem: str, outcome: float, score: float) -> Trajectory:
    made = Trajectory(Problem(problem, "?"), (Step("a"), Step("b")), outcome)
    return made.with_columns({"score": np.array([0.9, score])})


def test_the_threshold_leaves_out_what_the_model_doubts() -> None:
    """Totals 1.02, 0.1, -0.06: without the last two one of one is right, (1/2) 1; with all (1/2) (1/3)."""
    rows = [sample("p", 1.0, 0.1), sample("p", 0.0, 0.5), sample("p", 0.0, -0.3)]
    best = best_balance(rows, enough=2)
    assert (best.score, best.threshold, best.kept.tolist()) == (0.5, 0.1, [True, False, False])
    assert balance_score(rows, enough=2).tolist() == [True, False, False]
    # Of a problem that is never solved all thresholds are as good, and the least counts.
    assert best_balance([sample("q", 0.0, 0.5)]).threshold == -1
    assert np.isnan(best_balance([]).score)


def test_samples_that_are_not_scored_or_not_graded() -> None:
    rows = [sample("p", 1.0, NAN), sample("p", NAN, 0.41), Trajectory(Problem("p", "?"), (Step("a"),), 1.0)]
    best = best_balance(rows, enough=1)
    # Totals 1 + 0.2 * 0.9, 0.082 and 1.
    assert best.kept.tolist() == [True, False, True]
    assert best.threshold == 0.09
    assert best_balance(rows, enough=1, most=1).kept.tolist() == [True, False, False]
    # Half right is wrong.
    assert best_balance([sample("p", 0.5, 0.0)]).score == 0


SAMPLES = st.lists(
    st.tuples(st.sampled_from("pq"), st.sampled_from([0.0, 1.0]), st.integers(-50, 50)), min_size=1, max_size=8
)


@given(SAMPLES, st.integers(1, 3), st.integers(1, 3))
def test_no_threshold_is_better(drawn: list[tuple[str, float, int]], enough: int, most: int) -> None:
    rows = [sample(name, outcome, score / 10) for name, outcome, score in drawn]
    best = best_balance(rows, enough=enough, most=most)
    totals = [outcome + 0.2 * min(0.9, score / 10) for _, outcome, score in drawn]
    names = sorted({name for name, *_ in drawn})
    for cut in range(-100, 101):
        parts = []
        for name in names:
            above = [(-t, i) for i, t in enumerate(totals) if drawn[i][0] == name and t > cut / 100]
            kept = [i for _, i in sorted(above)[:most]]
            right = sum(drawn[i][1] for i in kept)
            parts.append(min(1, right / enough) * right / len(kept) if kept else 0.0)
        assert np.mean(parts) <= best.score + 1e-12
