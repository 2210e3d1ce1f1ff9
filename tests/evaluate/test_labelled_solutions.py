"""What labelled solutions say of recorded scores: against plain loops over padded rows, and however they are read."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepreward.core.keys import Key
from stepreward.core.measure.aggregation import totals_of
from stepreward.core.measure.first_error import first_error
from stepreward.core.measure.statistics import resampled_means
from stepreward.core.measure.step_metrics import ragged
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.evaluate.data.scoring import unmeasured
from stepreward.evaluate.data.solution_arrays import Pool, first_errors, pool_of_solutions, score_rows
from stepreward.evaluate.data.solution_numbers import UNSTATED, SolutionNumbers
from stepreward.evaluate.labelled_solutions import LabelledSolutions
from stepreward.evaluate.measures.selection_curves import curves
from stepreward.evaluate.measures.step_scores import first_error_f1

KEY = Key.seed(7)


def solutions(seed: int, problems: int, samples: int, *, gaps: float = 0.1) -> list[Trajectory]:
    """Solutions of up to nine steps under two verifiers, `b` of two solutions in three, in no order of problems."""
    rng = np.random.default_rng(seed)
    made = []
    for row in rng.permutation(problems * samples).tolist():
        size = int(rng.integers(0, 10))
        steps = tuple(Step("-", "observation" if rng.random() < 0.1 else "action") for _ in range(size))
        action = np.array([step.kind == "action" for step in steps], bool)
        # Digits of `a` fit in 4 bytes, those of `b` do not; ties are frequent in both.
        columns = {"score:a": np.where(action, rng.integers(0, 9, size) / 8, np.nan)}
        if rng.random() < 2 / 3:
            columns["score:b"] = np.where(action & (rng.random(size) > gaps), rng.integers(0, 11, size) / 10, np.nan)
        if rng.random() < 0.8:
            columns["label"] = np.where(action, rng.integers(0, 5, size) / 4, np.nan)
        made.append(
            Trajectory(
                Problem(f"é{row // samples}", "", "" if row % 2 else None), steps, columns=columns,
                outcome=float(rng.random() < 0.4), answer=str(rng.integers(3)) if rng.random() < 0.9 else None,
                first_error=None if rng.random() < 0.1 else int(rng.integers(-size, size + 1).clip(-1, size - 1)),
            )
        )  # fmt: skip
    return made


def parts(items: Sequence[Trajectory], size: int) -> Iterator[Sequence[Trajectory]]:
    return (items[at : at + size] for at in range(0, len(items), size))


def report(items: Sequence[Trajectory], size: int, threshold: float | None, aggregate: str = "mean") -> dict[str, Any]:
    data = SolutionNumbers(parts(items, size))
    made = LabelledSolutions(data, KEY, threshold, aggregate=aggregate)
    return {name: made.measured(name) for name in [*data.names, "position"]}


@settings(deadline=None)
@given(seed=st.integers(0, 10_000), size=st.integers(1, 40), threshold=st.sampled_from([None, 0.4]))
def test_parts_do_not_show_in_the_report(seed: int, size: int, threshold: float | None) -> None:
    items = solutions(seed, 10, 4)
    assert report(items, size, threshold) == report(items, len(items), threshold)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("block", [1, 64])
def test_the_report_is_that_of_padded_rows(seed: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """First errors, labels and selection as arrays over all solutions have them, each by its own definition."""
    monkeypatch.setattr("stepreward.evaluate.data.solution_numbers._CELLS", block)
    monkeypatch.setattr("stepreward.core.measure.step_metrics._AT_ONCE", 7)
    monkeypatch.setattr("stepreward.evaluate.measures.selection_curves._CELLS", block)
    items = solutions(seed, 16, 4)
    made = report(items, 5, None)
    assert list(made) == list(dict.fromkeys([*(name for item in items for name in item.scores), "position"]))
    for name in ("a", "b"):
        mine = [item for item in items if name in item.scores]
        located = [item for item in mine if item.first_error is not None]
        lost = unmeasured(score_rows(located, name), located, first_errors(located))
        assert made[name].get("unscored", 0) == lost.sum()
        kept = [item for item, bad in zip(located, lost.tolist(), strict=True) if not bad]
        tuned = np.array([KEY.fold("tune", item.problem.id).rng().random() < 0.5 for item in kept])
        scores, gold = score_rows(kept, name), first_errors(kept)
        expected = first_error_f1(scores[~tuned], gold[~tuned], KEY, tune_on=(scores[tuned], gold[tuned]))
        assert made[name]["first_error"] == expected.to_json()
        pairs = [
            (s, round(y))
            for item in mine
            for s, y in zip(item.scores[name].tolist(), item.labels.tolist(), strict=True)
            if s == s and y == y
        ]
        won = [float(a > b) + (a == b) / 2 for a, right in pairs if right for b, wrong in pairs if not wrong]
        assert made[name]["steps"]["auroc"] == pytest.approx(np.mean(won), abs=1e-12)
        assert made[name]["steps"]["brier"] == pytest.approx(np.mean([(s - y) ** 2 for s, y in pairs]), abs=1e-12)
        assert sum(made[name]["steps"]["reliability"]["count"]) == len(pairs)
    ordered = sorted(items, key=lambda item: item.problem.id)
    pool = pool_of_solutions(ordered)
    totals = pool.shaped(totals_of(score_rows(ordered, "a"), "mean"))
    expected_curves = curves(Pool(pool.answers, pool.outcome, {"mean": totals}), [1, 2, 4], KEY)
    assert made["a"]["selection"]["accuracy"] == {
        name: [one.to_json() for one in row] for name, row in expected_curves.items()
    }
    sizes = Counter(Counter(item.problem.id for item in items if "b" in item.scores).values())
    assert made["b"]["no_selection"].startswith(f"problems have {min(sizes)} to {max(sizes)} solutions")


def test_a_long_solution_pads_no_total_of_equal_scores_apart() -> None:
    """Two samples of equal scores, read with and without a long one: the earlier is chosen, whatever rounding does."""
    steps, long = np.full(11, 0.1), np.full(300, 0.1)
    rows = [("p", 1.0, steps), ("q", 1.0, long), ("q", 0.0, long), ("p", 0.0, steps)]
    items = [
        Trajectory(Problem(p, ""), (Step("-"),) * len(s), outcome, answer=str(outcome), columns={"score": s})
        for p, outcome, s in rows
    ]
    for size in (1, 2, 4):
        chosen = report(items, size, 0.5)["score"]["selection"]["accuracy"]["best-of-n:mean"][-1]
        assert chosen["value"] == 1.0


def test_predicted_first_errors_tell_gaps_from_none() -> None:
    items = solutions(3, 30, 2)
    made = LabelledSolutions(SolutionNumbers(parts(items, 7)), KEY, 0.3)
    mine = [item for item in items if "b" in item.scores]
    first = first_error(score_rows(mine, "b"), 0.3)
    expected = np.where(unmeasured(score_rows(mine, "b"), mine, first), UNSTATED, first)
    assert made.predicted("b", 0.3)[made.data.recorded("b")].tolist() == expected.tolist()
    assert set(made.predicted("b", 0.3)[~made.data.recorded("b")].tolist()) == {UNSTATED}
    assert {UNSTATED, -1} < set(expected.tolist())


def test_numbers_come_back_as_they_were_read() -> None:
    items = solutions(5, 9, 3)
    data = SolutionNumbers(parts(items, 4))
    for name in ("a", "b"):
        back = ragged([*data.each(name)])
        np.testing.assert_array_equal(back, ragged([item.column(f"score:{name}") for item in items]))
    assert [*data.answers()] == [item.answer for item in items]
    assert [[*data.problem_ids][at] for at in data.problem.tolist()] == [item.problem.id for item in items]
    assert [*data.problem_ids] == sorted({item.problem.id for item in items})
    assert data.gradable.tolist() == [item.problem.reference is not None for item in items]


def test_memory_grows_by_the_numbers_of_a_step_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept, and the peak of measuring: both far below the 250 bytes a step of trajectories without texts."""
    steps, label, score = (Step("-"),) * 10, np.arange(10), np.full(10, 0.5)

    def some(rows: int) -> Iterator[list[Trajectory]]:
        for row in range(0, rows, 500):
            yield [
                Trajectory(
                    Problem(f"p{at}", ""), steps, first_error=at % 20 if at % 20 < 10 else -1,
                    columns={"label": (label < at % 20) * 1.0, "score": score + at / 1e6},
                )
                for at in range(row, row + 500)
            ]  # fmt: skip

    def used(rows: int) -> tuple[int, int]:
        tracemalloc.start()
        try:
            data = SolutionNumbers(some(rows))
            kept = tracemalloc.get_traced_memory()[0]
            LabelledSolutions(data, KEY, 0.5).measured("score")
            return kept, tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    monkeypatch.setattr("stepreward.core.measure.step_metrics._AT_ONCE", 10_000)
    monkeypatch.setitem(resampled_means.__kwdefaults__, "cells", 1 << 16)
    used(500)  # what a first call imports and keeps
    kept, peak = (np.array(used(15_000)) - np.array(used(3_000))) / (12_000 * 10)
    assert 5 < kept < 25
    assert kept < peak < 60


def test_attempts_are_counted_over_graded_solutions() -> None:
    outcomes = {"a": [1.0, 0.0, 0.0], "b": [0.0, 0.0], "c": [1.0, np.nan, 1.0], "d": [np.nan]}
    items = [Trajectory(Problem(name, "q"), (Step("s"),), one) for name, row in outcomes.items() for one in row]
    made = LabelledSolutions(SolutionNumbers(parts(items, 2)), Key.seed(1)).attempts()
    assert made is not None
    assert (made["problems"], made["unknown"]) == (3, 1)
    # Of a, two of three pairs have the right solution.
    assert {k: one["value"] for k, one in made["pass_at"].items()} == pytest.approx(
        {"1": (1 / 3 + 0 + 1) / 3, "2": (2 / 3 + 0 + 1) / 3}
    )
    assert LabelledSolutions(SolutionNumbers([items[-1:]]), Key.seed(1)).attempts() is None
