"""The one rule of the first wrong step."""

import numpy as np
import pytest
from numpy.typing import NDArray

from stepreward.core.measure.first_error import first_error

NAN = float("nan")


def by_loop(row: NDArray[np.float64], threshold: float) -> int:
    """The definition, one step after another."""
    for step, value in enumerate(row):
        if not np.isnan(value) and value <= threshold:
            return step
    return -1


@pytest.mark.parametrize(
    ("row", "threshold", "expected"),
    [
        ([0.9, 0.2, 0.1], 0.5, 1),
        ([0.9, 0.5, 0.1], 0.5, 1),  # equal to the threshold is wrong
        ([0.9, np.nextafter(0.5, 1), 0.1], 0.5, 2),
        ([0.9, 0.8], 0.5, -1),
        ([NAN, 0.9, NAN, 0.3], 0.5, 3),  # not measured is skipped
        ([NAN, NAN], 0.5, -1),
        ([], 0.5, -1),
        ([1.0, 0.0], 0.0, 1),
        ([3.0, -2.0], -1.0, 1),  # any unit
    ],
)
def test_a_row(row: list[float], threshold: float, expected: int) -> None:
    assert first_error(row, threshold) == expected


def test_rows_at_once_are_what_each_is_alone() -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 6, (4, 50, 7)) / 5
    values[rng.random(values.shape) < 0.3] = NAN
    for threshold in (-0.1, 0.0, 0.2, 0.5, 1.0):
        found = first_error(values, threshold)
        assert found.shape == (4, 50)
        assert found.tolist() == [[by_loop(row, threshold) for row in rows] for rows in values]
    assert first_error(np.zeros((3, 0))).tolist() == [-1, -1, -1]
