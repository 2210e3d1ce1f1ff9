"""Where a solution goes wrong first: the one rule by which scores and labels name a wrong step."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def first_error(values: ArrayLike, threshold: float = 0.5) -> NDArray[np.int64]:
    """Finds the first wrong step of each row: the first whose value is at or below the threshold.

        t = min { s : value_s <= threshold },    -1 where there is none

    NaN is not measured: padding, an observation, a step without a label. It is skipped, never wrong, so a step before
    the one returned may be wrong without it showing; where that matters, look for NaN up to there. -1 says that no
    measured step is wrong, also of a row in which nothing is measured.

    Args:
        values: (..., S) labels or scores, in any unit.
        threshold: in the same unit; a value equal to it is wrong.

    Returns:
        (...) index of the step, counted from 0; of a single row one number.
    """
    wrong = np.asarray(values, np.float64) <= threshold
    size = wrong.shape[-1]
    # A column that is always True stands for "no error": argmax needs one, and a row without steps has no other.
    first = np.concatenate([wrong, np.ones((*wrong.shape[:-1], 1), bool)], axis=-1).argmax(axis=-1)
    return np.where(first < size, first, -1)[()]
