"""Values in relation to others: the numbers of the notes by hand, limits, and what was not measured."""

from __future__ import annotations

import numpy as np
import pytest
from tests.label.test_transforms import measured

from stepreward.core.catalog import transform
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.label.better_and_worse import pairs_of
from stepreward.label.relabelling import relabelled, transformed

NAN = float("nan")


def labels(name: str, one: Trajectory, **settings: object) -> np.ndarray:
    (made,) = transformed([one], transform[name], settings)
    return made.labels


def test_relative_to_the_bare_problem() -> None:
    """Lost below the value of the question: .5 loses .25 and 0, and .5 itself is not lost."""
    some = measured([0.5, 0.75, 0.25, NAN, 0.0], root=0.5)
    np.testing.assert_array_equal(labels("relative", some), [1, 1, 0, NAN, 0])
    np.testing.assert_array_equal(labels("relative", some, after_error="zero"), [1, 1, 0, 0, 0])
    np.testing.assert_array_equal(labels("relative", measured([0.5, 0.75])), [NAN, NAN])


def test_a_look_back_charges_what_fell() -> None:
    """f .5 on (.9, .8, .4, .6): (.9, .8, .2, .8); soft: (.9, .8, .3, .6)."""
    some = measured([0.9, 0.8, 0.4, 0.6])
    np.testing.assert_allclose(labels("look-back", some), [0.9, 0.8, 0.2, 0.8])
    np.testing.assert_allclose(labels("look-back", some, dips=True), [0.9, 0.8, 0.3, 0.6])
    np.testing.assert_array_equal(labels("look-back", some, factor=0.0), some.labels)
    np.testing.assert_allclose(labels("look-back", measured([0.9, 0.2, 0.3, 0.6]), dips=True), [0.9, 0.2, 0.3, 0.6])
    seen = measured([0.9, NAN, 0.8, 0.4, 0.6], observations=[1])
    np.testing.assert_allclose(labels("look-back", seen), [0.9, NAN, 0.8, 0.2, 0.8])
    # 0.1 - 0.5 (1 - 0.1) is below 0; a step next to one that was not measured stays.
    np.testing.assert_allclose(labels("look-back", measured([1, 1, 0.1, NAN, 0.3])), [1, 1, 0, NAN, 0.3])
    with pytest.raises(ValueError, match="factor"):
        labels("look-back", some, factor=-1.0)


def test_values_are_scaled_within_a_problem() -> None:
    """Leaves .4 and 1 under p, leaf .2 elsewhere, Q(p) = .9: p .875, .4 -> .25."""
    rows = [measured([0.9, 0.4]), measured([0.9, 1.0]), measured([0.2, NAN])]
    made = relabelled(rows, (transform["minmax"], {}))
    for one, expected in zip(made, [[0.875, 0.25], [0.875, 1], [0, NAN]], strict=True):
        np.testing.assert_allclose(one.labels, expected)
    np.testing.assert_array_equal(labels("minmax", measured([0.3, 0.3, NAN])), [0, 0, NAN])
    np.testing.assert_array_equal(labels("minmax", measured([NAN])), [NAN])


def test_signed_values_are_a_column_and_labels_stay_shares() -> None:
    """Rewards +1 -1 -1: q = -1/3, the share of right ones is 1/3."""
    (made,) = transformed([measured([1 / 3, NAN, 1.0])], transform["signed"], {})
    np.testing.assert_allclose(made.column("signed"), [-1 / 3, NAN, 1])
    np.testing.assert_allclose(made.labels, [1 / 3, NAN, 1])


def test_a_mean_with_another_source() -> None:
    some = measured([0.2, 0.4, NAN]).with_columns(
        {"score": np.array([0.6, NAN, 1.0]), "score:b": np.array([2.0, -1, 0])}
    )
    np.testing.assert_allclose(labels("mean-with", some), [0.4, NAN, NAN])
    np.testing.assert_allclose(labels("mean-with", some, column="score:b", weight=1.0), [1, 0, NAN])
    np.testing.assert_allclose(labels("mean-with", some, weight=0.0), [0.2, NAN, NAN])
    with pytest.raises(ValueError, match="weight"):
        labels("mean-with", some, weight=1.5)


def test_a_gate_on_scores() -> None:
    """8, 5, 6, 3 of 10 with a gate of 5: steps 1 and 3 are supervised."""
    some = measured([1.0] * 4).with_columns({"score": np.array([8, 5, 6, 3]) / 10})
    np.testing.assert_array_equal(labels("score-gate", some), [1, NAN, 1, NAN])


def test_places_among_siblings_by_hand() -> None:
    """After the root a 0.9 (the mean of 1 and 0.8), b 0.5, c 0.5, d 0.1, e unknown; after a: x alone, so no label."""
    problem = Problem("p", "?")

    def row(words: str, *values: float) -> Trajectory:
        return Trajectory(problem, tuple(map(Step, words)), columns={"value": np.array(values)})

    rows = [row("ax", 1.0, 0.3), row("a", 0.8), row("b", 0.5), row("c", 0.5), row("d", 0.1), row("e", NAN)]
    made = relabelled(rows, (transform["reciprocal-rank"], {}))
    wanted = [[1, NAN], [1], [1 / 2], [1 / 2], [1 / 4], [NAN]]
    for one, labels_ in zip(made, wanted, strict=True):
        np.testing.assert_array_equal(one.labels, labels_)
        assert one.first_error is None
    # RAG-Gym's pairs: the best against the third and below.
    kept = pairs_of(made, above=0.75, below=0.5)
    assert [[one.text for one in pair.candidates] for pair in kept] == [["a", "d"]]
