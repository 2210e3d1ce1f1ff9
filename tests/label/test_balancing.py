"""Filters over all solutions: equal numbers by counting, one copy, the most varied first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepreward.core.catalog import keep
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.label.balancing import balance, distinct, varied
from stepreward.label.filters import spread, uncertain

NAN = float("nan")


def row(problem: str, labels: Sequence[float], text: str = "", outcome: float = NAN, **columns: object) -> Trajectory:
    steps = tuple(Step(f"{text} {i}\n") for i in range(len(labels)))
    made = {name: np.array(values, np.float64) for name, values in columns.items()}
    return Trajectory(Problem(problem, "?"), steps, outcome, columns={"label": np.array(labels, np.float64), **made})


LABELS = st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=4)


@given(st.lists(LABELS, max_size=12), st.randoms())
def test_as_many_right_as_wrong_ones_stay_in_any_order(made: list[list[float]], order: object) -> None:
    rows = [row("p", one, str(i)) for i, one in enumerate(made)]
    wrong = [0.0 in one for one in made]
    kept = balance(rows)
    least = min(sum(wrong), len(wrong) - sum(wrong))
    assert Counter(w for w, k in zip(wrong, kept, strict=True) if k) == Counter({True: least, False: least})
    by_length = balance(rows, by="length")
    for size in range(1, 5):
        here = Counter(w for w, one, k in zip(wrong, made, by_length, strict=True) if k and len(one) == size)
        assert here[True] == here[False]
    turned = list(range(len(rows)))
    order.shuffle(turned)  # type: ignore[attr-defined]
    assert balance([rows[at] for at in turned]).tolist() == [bool(kept[at]) for at in turned]


def test_places_of_first_errors_have_at_most_the_median() -> None:
    rows = [row("p", [0, 1, 1], f"a{i}") for i in range(5)] + [row("p", [1, 0, 1], f"b{i}") for i in range(2)]
    rows += [row("p", [1, 1, 0], "c"), *(row("p", [1, 1, 1], f"d{i}") for i in range(4)), row("p", [NAN] * 3, "e")]
    kept = balance(rows, by="position")
    # Places 0, 1, 2 have 5, 2 and 1 solutions: the median is 2.
    assert [int(part.sum()) for part in np.split(kept, [5, 7, 8, 12])] == [2, 2, 1, 4, 0]
    assert balance(rows, by="position", times=2)[:5].sum() == 4
    assert balance(rows, seed=1).sum() == balance(rows, seed=2).sum() == 8
    assert any(balance(rows, seed=1) != balance(rows, seed=2))
    with pytest.raises(ValueError, match="times"):
        balance(rows, times=0.5)
    with pytest.raises(ValueError, match="'other'"):
        balance(rows, by="other")  # type: ignore[arg-type]


def said(problem: str, *texts: str, labels: Sequence[float] = ()) -> Trajectory:
    columns = {"label": np.array(labels, np.float64)} if labels else {}
    return Trajectory(Problem(problem, "?"), tuple(map(Step, texts)), columns=columns)


def test_one_of_several_solutions_that_say_the_same_stays() -> None:
    rows = [said("p", "1 + 1 = 2\n", "So 2."), said("p", "1 +  1 = 2", "so 2."), said("p", "1 + 1 = 2", "So 3."),
            said("q", "1 + 1 = 2", "So 2.")]  # fmt: skip
    kept = distinct(rows).tolist()
    assert kept in ([True, False, True, True], [False, True, True, True])
    assert distinct(rows[::-1]).tolist() == kept[::-1]
    # The second steps share one word of three, the first ones all: (1 + 1/3) / 2.
    assert distinct(rows, similar=0.67).sum() == 3
    assert distinct(rows, similar=0.66).sum() == 2
    early = [said("p", "a", "b", "c", labels=[1, 0, 0]), said("p", "a", "b", "d", labels=[1, 0, 1])]
    assert distinct(early).sum() == 2
    assert distinct(early, to_error=True).sum() == 1
    with pytest.raises(ValueError, match="similar"):
        distinct(rows, similar=0.0)


def test_the_most_varied_right_and_wrong_solutions_stay() -> None:
    rows = [
        row("p", [1, 1], "a", 1.0, value=[0.5, 1.0]),
        row("p", [1, 1], "b", 1.0, value=[0.1, 1.0]),
        row("p", [1, 0], "c", 0.0, value=[0.5, 0.0]),
        row("p", [1, 0], "d", 0.0, value=[0.5, NAN]),
        row("q", [1, 1], "e", 1.0, value=[1.0, 1.0]),
        row("q", [1, 1], "f", NAN, value=[0.0, 1.0]),
        row("q", [1, 1], "g", 1.0, value=[NAN, NAN]),
    ]
    assert varied(rows, most=1).tolist() == [False, True, True, False, True, False, False]
    assert varied(rows).tolist() == [True, True, True, True, True, False, False]


def test_outcomes_of_a_problem_must_differ() -> None:
    """Nine right of ten have a standard deviation of .3; rewards of .5 and .6 one of .05."""
    rows = [row("p", [1], f"{i}", float(i > 0)) for i in range(10)] + [row("q", [1], "a", 0.5), row("q", [1], "b", 0.6)]
    rows += [row("r", [1], "a", 1.0), row("r", [1], "b", 1.0), row("s", [1], "a", NAN)]
    assert spread(rows).tolist() == [True] * 12 + [False] * 3
    assert spread(rows, least=0.3).tolist() == [True] * 10 + [False] * 5
    assert spread(rows, least=0.31).sum() == 0


def test_doubt_is_an_unsure_mean_or_models_that_differ() -> None:
    rows = [row("p", [NAN] * 2, f"{i}", score=one) for i, one in enumerate([[0.99, 0.94], [0.99, 0.96], [0.01, 0.5],
            [NAN, NAN], [0.5, 0.0]])]  # fmt: skip
    # The third is surely wrong at once: that the second step is open says nothing.
    assert uncertain(rows).tolist() == [True, False, False, False, True]
    two = [one.with_columns({"score:a": one.column("score"), "score:b": np.array([0.79, 0.96])}) for one in rows]
    # 0.99 and 0.79 have a standard deviation of 0.1.
    assert uncertain(two, columns="score:*", sure=0.5).tolist() == [True, True, True, False, True]
    assert uncertain(two, columns="score:?", sure=0.5, apart=0.11).tolist() == [False, False, True, False, True]
    assert uncertain(rows, columns="none*").tolist() == [False] * 5


def test_the_window_of_the_root() -> None:
    """Root q within -0.7 and 0.7: success rates from .15 to .85."""
    rows = [
        Trajectory(Problem(f"{q}", "?"), (Step("a"),), facts={"root_value": (q + 1) / 2})
        for q in (-0.8, -0.7, 0, 0.7, 0.71)
    ]
    assert keep["root-window"].take({"trajectories": rows}).tolist() == [False, True, True, True, False]
