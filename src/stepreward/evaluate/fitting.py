"""Fitting a calibrator to a scorer's step scores, and what it is worth on problems that it was not fitted on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.measure.statistics import Estimate, bootstrap, paired_difference
from stepreward.core.method import Method
from stepreward.core.types import Steps
from stepreward.score.calibrate.calibrators import Calibrator


@dataclass(frozen=True, slots=True)
class Fitted:
    """A calibrator fitted on everything, and what fits on half of the problems did on the other half."""

    calibrator: Calibrator
    pairs: int
    """Steps with a score and a label."""
    problems: int
    before: Estimate
    """Mean squared difference of scores and labels, each problem weighing the same."""
    after: Estimate
    """The same of calibrated scores, out of sample."""
    change: Estimate
    """`after` minus `before`, paired; negative where calibration helps."""

    def to_json(self) -> dict[str, Any]:
        """Plain numbers."""
        parts = {"before": self.before, "after": self.after, "change": self.change}
        known = {"pairs": self.pairs, "problems": self.problems}
        return {**known, **{f"brier_{name}": part.to_json() for name, part in parts.items()}}


def fit_calibrator(
    method: Method[..., Calibrator], scores: Steps, labels: Steps, problems: ArrayLike, key: Key
) -> Fitted:
    """Fits a calibrator of step scores to labels.

    Its worth is measured by two-fold cross-fitting: problems are halved at random, each half is mapped by a fit on the
    other. The calibrator that is returned is fitted on all.

    Args:
        method: of the family calibrate.
        scores: (N,) of steps, in [0, 1], NaN where there is none.
        labels: (N,) in [0, 1], 0 or 1 or the share of rollouts that succeeded; NaN where not measured.
        problems: (N,) ids or numbers; steps of one problem stay in one half.
        key: randomness of the halves and of the intervals.

    Raises:
        InputError: a half has nothing to fit on, or a score is outside [0, 1].
    """
    known = ~(np.isnan(scores) | np.isnan(labels))
    names, of = np.unique(np.asarray(problems)[known], return_inverse=True)
    if len(names) < 2:
        what = f"{len(names)} problems have both step scores and labels"
        raise InputError(what, remedy="pass two at least: half of them measure")
    s, y = scores[known].astype(np.float64), labels[known].astype(np.float64)
    half = (key.fold("halves").rng().permutation(len(names)) % 2 == 0)[of]
    mapped = np.empty_like(s)
    for part in (half, ~half):
        mapped[part] = method().fit(s[~part], y[~part]).predict(s[part])
    before, after = (np.bincount(of, weights=(made - y) ** 2) / np.bincount(of) for made in (s, mapped))
    return Fitted(
        method().fit(s, y), len(s), len(names), bootstrap(before, key.fold("before")),
        bootstrap(after, key.fold("after")), paired_difference(after, before, key.fold("change")),
    )  # fmt: skip
