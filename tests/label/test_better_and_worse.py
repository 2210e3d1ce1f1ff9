"""Pairs: every pair shares its prefix and is better by the margin, and none is missing."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepreward.core.errors import UnknownNameError
from stepreward.core.types import Comparison, Problem, Step, Trajectory
from stepreward.label.better_and_worse import PAIRS, pairs_of

PROBLEM = Problem("p", "Spell something", reference="z")
VALUES = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, math.nan])


def spelt(words: str, values: list[float], outcome: float = math.nan, **columns: list[float]) -> Trajectory:
    """A trajectory with one step a letter."""
    every = {"value": values, **columns}
    made = {name: np.array(column, float) for name, column in every.items()}
    return Trajectory(PROBLEM, tuple(Step(letter) for letter in words), outcome, columns=made)


@st.composite
def solutions(draw: st.DrawFn) -> list[Trajectory]:
    """Trajectories over two letters, with a value and a label of each prefix and an outcome of each whole word."""
    words = draw(st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=6))
    of: dict[str, float] = {}
    for word in words:
        for length in range(1, len(word) + 1):
            of.setdefault(word[:length], draw(VALUES))
    grades = {word: draw(st.sampled_from([0.0, 0.5, 1.0, math.nan])) for word in words}
    return [spelt(word, [of[word[: i + 1]] for i in range(len(word))], grades[word]) for word in words]


def texts(pair: Comparison) -> tuple[str, str]:
    first, second = pair.candidates
    return first.text, second.text


def known_values(rows: list[Trajectory]) -> dict[str, float]:
    """The value of each prefix by its letters."""
    return {row.text[: i + 1]: float(row.column("value")[i]) for row in rows for i in range(len(row))}


@given(solutions(), st.sampled_from([0.0, 0.25, 0.5]))
def test_siblings_are_all_next_steps_whose_values_differ_by_the_margin(rows: list[Trajectory], margin: float) -> None:
    value = known_values(rows)
    wanted = {
        (one, other)
        for one, other in itertools.permutations(value, 2)
        if one[:-1] == other[:-1] and value[one] > value[other] and value[one] - value[other] >= margin
    }
    found = pairs_of(rows, "siblings", column="value", margin=margin)
    assert {texts(pair) for pair in found} == wanted
    assert len(found) == len(wanted)
    for pair in found:
        better, worse = texts(pair)
        assert pair.meta["margin"] == value[better] - value[worse]
        assert pair.meta["strength"] == pair.meta["margin"]
        assert pair.meta["step"] == len(better) - 1
        assert pair.preferred == (1.0, 0.0)
        assert not any(one.terminal for one in pair.candidates)
        assert pair.problem is PROBLEM


@given(solutions(), st.sampled_from([0.0, 1.0]))
def test_whole_solutions_are_paired_by_their_outcomes(rows: list[Trajectory], margin: float) -> None:
    grades = {row.text: row.outcome for row in rows}
    wanted = {
        (one, other)
        for one, other in itertools.permutations(grades, 2)
        if grades[one] > grades[other] and grades[one] - grades[other] >= margin
    }
    found = pairs_of(rows, "outcomes", margin=margin)
    assert sorted(map(texts, found)) == sorted(wanted)
    assert all(pair.meta["step"] == -1 and pair.candidates[0].terminal for pair in found)


@given(solutions())
def test_a_degraded_solution_differs_in_one_step_for_the_worse(rows: list[Trajectory]) -> None:
    value, grades = known_values(rows), {row.text: row.outcome for row in rows}
    found = pairs_of(rows, "degraded", column="value")
    for pair in found:
        better, worse = texts(pair)
        at = pair.meta["step"]
        assert better in grades
        assert [i for i in range(len(better)) if better[i] != worse[i]] == [at]
        assert value[better[: at + 1]] - value[worse[: at + 1]] == pair.meta["margin"] > 0
        assert not grades.get(worse, -1.0) >= grades[better]
    # One for each pair of siblings, but where the result was sampled and is no worse.
    pairs = {(texts(one)[0], texts(one)[1]) for one in pairs_of(rows, "siblings", column="value")}
    assert {(texts(one)[0][: one.meta["step"] + 1], texts(one)[1][: one.meta["step"] + 1]) for one in found} <= pairs
    assert len(found) <= len(pairs)


def test_the_best_solution_through_a_step_is_degraded() -> None:
    """abx is better than aby; b (0.9) is better than c (0.2)."""
    rows = [spelt("aby", [1, 0.9, 0.1], 0.0), spelt("abx", [1, 0.9, 0.8], 1.0), spelt("ac", [1, 0.2], 0.0)]
    found = {texts(pair): pair.meta["margin"] for pair in pairs_of(rows, "degraded", column="value")}
    assert found == {("abx", "acx"): pytest.approx(0.7), ("abx", "aby"): pytest.approx(0.7)}


@given(solutions())
def test_step_dpo_has_a_right_and_a_wrong_step_after_right_ones(rows: list[Trajectory]) -> None:
    value = known_values(rows)
    wanted = {
        (one, other)
        for one, other in itertools.permutations(value, 2)
        if one[:-1] == other[:-1]
        and value[one] > 0.5 >= value[other]
        and all(value[one[:i]] > 0.5 for i in range(1, len(one)))
    }
    found = pairs_of(rows, "step-dpo", column="value")
    assert {texts(pair) for pair in found} == wanted
    for pair in found:
        for name, text in zip(("full_chosen", "full_rejected"), texts(pair), strict=True):
            assert pair.meta[name].startswith(text[-1])
            assert text[:-1] + pair.meta[name] in {row.text for row in rows}


def test_the_best_whole_solution_is_chosen_and_the_worst_rejected() -> None:
    rows = [
        spelt("abx", [1, 1, 0], 0.0), spelt("aby", [1, 1, 1], 1.0), spelt("acx", [1, 0, 0], 1.0),
        spelt("acy", [1, 0, 0], 0.0),
    ]  # fmt: skip
    (first, second) = pairs_of(rows, "step-dpo", column="value")
    assert (first.meta["full_chosen"], first.meta["full_rejected"]) == ("by", "cy")
    assert texts(second) == ("aby", "abx")


def test_strength_is_what_rollouts_say() -> None:
    """3 of 4 against 1 of 4: Beta(4, 2) and Beta(2, 4) differ by 1/3, each with variance 8 / (36 * 7) = 0.031746;
    z = (1/3) / 0.25198 = 1.32288, and 2 Phi(z) - 1 = 0.8141."""
    rows = [spelt("a", [0.75], n_rollouts=[4]), spelt("b", [0.25], n_rollouts=[4])]
    (pair,) = pairs_of(rows, column="value")
    assert pair.meta["strength"] == pytest.approx(0.8141, abs=1e-4)
    more = [spelt("a", [0.75], n_rollouts=[64]), spelt("b", [0.25], n_rollouts=[64])]
    assert pairs_of(more, column="value")[0].meta["strength"] > 0.9999


def test_ends_are_paired_by_the_mean_of_their_last_measured_step() -> None:
    """ab ends at the mean of 0.9 and 0.5, cd at its first step; equal ends are no pair."""
    rows = [
        spelt("ab", [0.1, 0.9]), spelt("ab", [0.1, 0.5]), spelt("cd", [0.2, math.nan]), spelt("ef", [0.9, 0.2]),
        spelt("g", [math.nan]),
    ]  # fmt: skip
    found = pairs_of(rows, "ends", column="value")
    assert {texts(pair): pair.meta["margin"] for pair in found} == {
        ("ab", "cd"): pytest.approx(0.5), ("ab", "ef"): pytest.approx(0.5),
    }  # fmt: skip
    assert all(one.terminal for pair in found for one in pair.candidates)


def test_the_clearest_pairs_are_kept_in_their_order() -> None:
    rows = [spelt(letter, [value]) for letter, value in (("a", 0.5), ("b", 1.0), ("c", 0.0))]
    assert [texts(pair) for pair in pairs_of(rows, column="value")] == [("a", "c"), ("b", "a"), ("b", "c")]
    assert [texts(pair) for pair in pairs_of(rows, column="value", most=2)] == [("a", "c"), ("b", "c")]


def test_observations_are_no_candidates_and_an_unknown_kind_is_refused() -> None:
    seen = [
        Trajectory(PROBLEM, (Step(letter, kind="observation"),), columns={"value": np.array([value])})
        for letter, value in (("a", 1.0), ("b", 0.0))
    ]
    assert pairs_of(seen, column="value") == []
    with pytest.raises(UnknownNameError, match="siblings"):
        pairs_of(seen, "sibling")
    assert set(PAIRS) == {"siblings", "extremes", "pareto", "outcomes", "ends", "degraded", "step-dpo"}


def test_extremes_are_the_pairs_of_masprm() -> None:
    rows = [spelt(word, [value]) for word, value in zip("abcde", (0.9, 0.5, 0.5, -0.2, -0.8), strict=True)]
    found = {texts(pair) for pair in pairs_of(rows, "extremes", column="value")}
    assert found == {(better, worse) for better in "abc" for worse in "de"}
    assert pairs_of([spelt("a", [0.5]), spelt("b", [0.5])], "extremes", column="value") == []
    many = [spelt(letter, [at / 12]) for at, letter in enumerate("abcdefghijkl")]
    assert {texts(pair) for pair in pairs_of(many, "extremes", column="value")} == {
        (better, worse) for better in "lkji" for worse in "abcd"
    }
    assert len(pairs_of(many, "extremes", column="value", most=8)) == 8


@given(
    solutions(), st.sampled_from([-1.0, 0.25, 0.5]), st.sampled_from([0.5, 0.75, 2.0]), st.sampled_from(sorted(PAIRS))
)
def test_bounds_leave_out_pairs_and_nothing_else(rows: list[Trajectory], above: float, below: float, by: str) -> None:
    every = pairs_of(rows, by, column="value")
    kept = [texts(pair) for pair in pairs_of(rows, by, column="value", above=above, below=below)]
    if by == "outcomes":
        grade = {row.text: row.outcome for row in rows}
    elif by == "ends":
        known = {row.text: row.column("value")[~np.isnan(row.column("value"))] for row in rows}
        grade = {text: float(some[-1]) for text, some in known.items() if some.size}
    elif by == "degraded":
        value = known_values(rows)
        at = {texts(pair): int(pair.meta["step"]) + 1 for pair in every}
        wanted = [t for t, n in at.items() if value[t[0][:n]] > above and value[t[1][:n]] < below]
        assert sorted(kept) == sorted(wanted)
        return
    else:
        grade = known_values(rows)
    wanted = [texts(pair) for pair in every if grade[texts(pair)[0]] > above and grade[texts(pair)[1]] < below]
    assert kept == wanted


def test_pareto_is_what_nothing_dominates_over_what_it_dominates() -> None:
    def rows(*points: tuple[float, float]) -> list[Trajectory]:
        return [spelt(letter, [a], other=[b]) for letter, (a, b) in zip("abcd", points, strict=False)]

    def found(some: list[Trajectory], **how: float) -> set[tuple[str, str]]:
        return {texts(pair) for pair in pairs_of(some, "pareto", column="value,other", **how)}  # type: ignore[arg-type]

    # DG-PRM's notes: (1, 2) is dominated by both others, which do not dominate each other.
    assert found(rows((2, 3), (3, 2), (1, 2))) == {("a", "c"), ("b", "c")}
    assert found(rows((2, 3), (4, 2), (1, 2)), margin=1.25) == {("b", "c")}
    assert found(rows((1, 1), (1, 1))) == set()
    # Of a chain only the top one is better: b is dominated itself.
    assert found(rows((3, 3), (2, 2), (1, 1))) == {("a", "b"), ("a", "c")}
    assert found(rows((3, 3), (math.nan, 2), (1, 1))) == {("a", "c")}
    (pair,) = pairs_of(rows((3, 1), (1, 0)), "pareto", column="value,other")
    assert (pair.meta["margin"], pair.meta["strength"]) == (1.5, 1.5)
