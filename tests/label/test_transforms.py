"""Transforms of measured values: hand-worked numbers, limits, and what stays unsupervised."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepreward.core.catalog import transform
from stepreward.core.types import Problem, Provenance, Step, Trajectory
from stepreward.label.relabelling import label_counts, transformed
from stepreward.label.rollouts import labelled
from stepreward.label.transforms import entropy_regularised, hard, relative_progress, scan_denoise, soft

NAN = float("nan")


def measured(value: Sequence[float], root: float = NAN, observations: Sequence[int] = ()) -> Trajectory:
    steps = tuple(Step(f"{i}\n", "observation" if i in observations else "action") for i in range(len(value)))
    values = np.array(value, np.float64)
    counts = np.zeros(len(value), np.int64)
    trajectory = Trajectory(Problem("p", ""), steps, 0.0)
    return labelled(trajectory, values, counts, counts, root, Provenance("test"))


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ("keep", [0.5, 0, NAN, 0.25, NAN, 0]),
        ("zero", [0.5, 0, NAN, 0, 0, 0]),
        ("mask", [0.5, 0, NAN, NAN, NAN, NAN]),
    ],
)
def test_what_comes_after_the_first_error_is_said_and_observations_stay_unsupervised(
    after: str, expected: list[float]
) -> None:
    labels = measured([0.5, 0, NAN, 0.25, NAN, 0], observations=[2])
    for name, cut in [("soft", lambda x: x), ("hard", np.ceil)]:
        made = transform[name].take({"trajectory": labels}, after_error=after)
        np.testing.assert_array_equal(made.labels, cut(np.array(expected)))
        assert made.facts["transforms"] == [name]
    np.testing.assert_array_equal(labels.labels, labels.column("value"))


def test_hard_labels_lie_above_the_threshold_strictly() -> None:
    labels = measured([0.0, 0.125, 0.5, 0.51, 1.0, NAN])
    np.testing.assert_array_equal(hard(labels).labels, [0, 1, 1, 1, 1, NAN])
    np.testing.assert_array_equal(transform["majority"].take({"trajectory": labels}).labels, [0, 0, 0, 1, 1, NAN])
    with pytest.raises(ValueError, match="threshold"):
        hard(labels, threshold=1.0)
    with pytest.raises(ValueError, match="after_error"):
        hard(labels, after_error="drop")  # type: ignore[arg-type]


def test_transforms_read_the_measurement_not_the_last_label() -> None:
    labels = measured([0.25, 0.75])
    made = soft(hard(labels))
    np.testing.assert_array_equal(made.labels, labels.column("value"))
    assert made.facts["transforms"] == ["hard", "soft"]


def test_entropy_regularised_numbers_and_limits() -> None:
    labels = measured([0.0, 0.5, 1.0, NAN])
    # (1 / 2) log(0.5 + 0.5 e^2) = 0.5 log 4.194528 = 0.716890
    np.testing.assert_allclose(entropy_regularised(labels, eta=2).labels, [0, 0.716890, 1, NAN], atol=1e-6)
    # -log(0.5 + 0.5 / e) = -log 0.683940 = 0.379885
    np.testing.assert_allclose(entropy_regularised(labels, eta=-1).labels, [0, 0.379885, 1, NAN], atol=1e-6)
    np.testing.assert_allclose(entropy_regularised(labels, eta=1e-13).labels, labels.column("value"), rtol=1e-12)
    # At eta = +-2000: 1 - log(2) / 2000 and its mirror image.
    edge = np.log(2) / 2000
    np.testing.assert_allclose(entropy_regularised(labels, eta=2000).labels, [0, 1 - edge, 1, NAN], rtol=1e-12)
    np.testing.assert_allclose(entropy_regularised(labels, eta=-2000).labels, [0, edge, 1, NAN], rtol=1e-9)
    with pytest.raises(ValueError, match="eta"):
        entropy_regularised(labels, eta=0)


@given(p=st.integers(0, 1024), eta=st.floats(-50, 50).filter(lambda eta: abs(eta) > 1e-9))
def test_entropy_regularised_stays_in_range_and_mirrors(p: float, eta: float) -> None:
    p = p / 1024  # Dyadic, so that 1 - p is exact: the label is steep at 0 and 1.
    (hopeful,), (cautious,) = (entropy_regularised(measured([q]), eta=e).labels for q, e in [(p, eta), (1 - p, -eta)])
    assert 0 <= hopeful <= 1
    assert hopeful == pytest.approx(1 - cautious, abs=1e-9)
    assert (hopeful - p) * eta >= -1e-9


def test_relative_progress_compares_with_the_action_before() -> None:
    # ratios: 0.5 / 0.5 = 1, then 0.4 / 0.5 = 0.8, (observation), 0.25 / 0.4 = 0.625, 0 / 0.25 = 0, 0.5 after 0
    labels = measured([0.5, 0.4, NAN, 0.25, 0.0, 0.5], root=0.5, observations=[2])
    np.testing.assert_array_equal(relative_progress(labels).labels, [1, 1, NAN, 0, 0, 0])
    np.testing.assert_array_equal(relative_progress(labels, epsilon=0.6).labels, [1, 1, NAN, 1, 0, 0])
    unmeasured = measured([0.5, NAN, 0.5, 0.5])
    np.testing.assert_array_equal(relative_progress(unmeasured).labels, [NAN, NAN, NAN, 1])
    with pytest.raises(ValueError, match="epsilon"):
        relative_progress(labels, epsilon=0)


def test_scan_denoise_by_hand() -> None:
    # t = 4; the two actions before it are 1 and 3: 0.25 / 0.5 and 0.75 / 0.5 -> 1; step 0 is trusted to be right.
    labels = measured([0.25, 0.25, NAN, 0.75, 0.0, 0.5], root=0.5, observations=[2])
    np.testing.assert_array_equal(scan_denoise(labels).labels, [1, 0.5, NAN, 1, 0, NAN])
    np.testing.assert_array_equal(scan_denoise(labels, soft_steps=0).labels, [1, 1, NAN, 1, 0, NAN])
    np.testing.assert_array_equal(scan_denoise(labels, soft_steps=9).labels, [0.5, 0.5, NAN, 1, 0, NAN])
    np.testing.assert_array_equal(scan_denoise(measured([0.0, 1.0], root=0.5)).labels, [0, NAN])
    np.testing.assert_array_equal(scan_denoise(measured([0.5, 0.0], root=0.0)).labels, [1, 0])
    np.testing.assert_array_equal(scan_denoise(measured([0.3, 1.0])).labels, [1, 1])
    with pytest.raises(ValueError, match="root=True"):
        scan_denoise(measured([0.5, 0.0]))
    with pytest.raises(ValueError, match="soft_steps"):
        scan_denoise(labels, soft_steps=-1)


values = st.lists(st.one_of(st.just(NAN), st.floats(0, 1), st.just(0.0)), min_size=1, max_size=8)


@given(value=values, root=st.floats(0, 1))
def test_every_transform_keeps_the_contract(value: list[float], root: float) -> None:
    labels = measured(value, root)
    before = labels.column("value").copy()
    for method in transform:
        (made,) = transformed([labels], method, {})
        assert made.labels.shape == labels.column("value").shape
        known = made.labels[~np.isnan(made.labels)]
        assert ((known >= 0) & (known <= 1)).all()
        assert np.isnan(made.labels[np.isnan(labels.column("value"))]).all()
        np.testing.assert_array_equal(made.column("value"), before)
        np.testing.assert_array_equal(labels.labels, before)
        (again,) = transformed([made], method, {})
        np.testing.assert_array_equal(again.labels, made.labels)


def test_pseudo_labels_end_at_the_first_step_that_is_surely_wrong() -> None:
    scores = measured([0.9, 0.5, 0.1, 0.95, NAN, 0.3], observations=[4])
    for after, expected in [
        ("keep", [1, NAN, 0, 1, NAN, NAN]),
        ("zero", [1, NAN, 0, 0, NAN, 0]),
        ("mask", [1, NAN, 0, NAN, NAN, NAN]),
    ]:
        made = transform["pseudo-label"].take({"trajectory": scores}, column="value", after_error=after)
        np.testing.assert_array_equal(made.labels, expected)
    # With a confidence of 1/2 all but ties are labels, with one of 1 none.
    every = transform["pseudo-label"].take({"trajectory": scores}, column="value", above=0.5, below=0.5)
    np.testing.assert_array_equal(every.labels, [1, NAN, 0, 1, NAN, 0])
    none = transform["pseudo-label"].take({"trajectory": scores}, column="value", above=1.0, below=0.0)
    assert np.isnan(none.labels).all()
    soft_ones = transform["pseudo-label"].take({"trajectory": scores}, column="value", soft=True)
    np.testing.assert_array_equal(soft_ones.labels, [0.9, NAN, 0.1, 0.95, NAN, NAN])


def test_pseudo_labels_skip_observations_and_end_at_a_first_step_that_is_wrong() -> None:
    steps = (Step("a"), Step("b", kind="observation"), Step("c"))
    scores = Trajectory(Problem("p", ""), steps, columns={"score": np.array([0.1, 0.9, 0.9])})
    for after, expected in [("keep", [0, NAN, 1]), ("zero", [0, NAN, 0]), ("mask", [0, NAN, NAN])]:
        made = transform["pseudo-label"].take({"trajectory": scores}, after_error=after)
        np.testing.assert_array_equal(made.labels, expected)


def test_a_label_of_one_half_counts_as_wrong() -> None:
    counts = label_counts(np.array([NAN, 0.0, 0.5, 0.51, 1.0, 1.0]))
    assert counts == {"steps": 6, "labelled": 5, "right": 3, "wrong": 2}
