"""Calibration with guarantees that hold for any score, as long as the problems calibrated on are like those to come.

VennAbers().fit(scores, outcome).interval(other_scores)      probabilities that are calibrated by construction
Quantile(level=0.1).fit(scores, success_rates)               what a value is at least, nine times in ten
lower_bounds(scores, values, other_scores, error=0.1)        the same, exactly, by split conformal prediction
select(scores, right, other_scores, error=0.1)               solutions of which at most so many are wrong
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.isotonic import isotonic_regression
from sklearn.linear_model import QuantileRegressor

from stepreward.core.catalog import calibrate
from stepreward.core.errors import InputError
from stepreward.core.types import Floats
from stepreward.score.calibrate.calibrators import Calibrator


@calibrate.method(
    "venn-abers",
    paper="arXiv:1511.00213",
    equation="section 2: inductive Venn-Abers; section 4: the merged probability",
    note="outcomes may be soft and weighed",
)
class VennAbers(Calibrator):
    """Gives two probabilities, one of which is calibrated whatever the score is, and merges them for minimal regret.

        p_y(s) = isotonic fit at s of the data with (s, y) added,   y = 0, 1
        q = p_1 / (1 - p_0 + p_1)

    The wider [p_0, p_1], the less is known at that score. One isotonic fit for each distinct requested score and y.
    """

    learned = ("score_", "mass_", "won_")

    def _fit(self, s: Floats, y: Floats, w: Floats) -> None:
        distinct, at = np.unique(s, return_inverse=True)
        self.score_: Floats = distinct
        self.mass_: Floats = np.asarray(np.bincount(at, weights=w), np.float64)
        self.won_: Floats = np.asarray(np.bincount(at, weights=w * y), np.float64)

    def _predict(self, s: Floats) -> Floats:
        low, high = self._bounds(s)
        return high / (1 - low + high)

    def interval(self, scores: ArrayLike) -> tuple[Floats, Floats]:
        """The two probabilities of each score, both of its shape; NaN where the score is.

        Raises:
            InputError: a score is outside [0, 1].
            ModelError: the calibrator is not fitted.
        """
        self.predict(scores)
        s = np.asarray(scores, np.float64)
        real = ~np.isnan(s)
        low, high = np.full(s.shape, np.nan), np.full(s.shape, np.nan)
        low[real], high[real] = self._bounds(s[real])
        return low, high

    def _bounds(self, s: Floats) -> tuple[Floats, Floats]:
        distinct, at = np.unique(s, return_inverse=True)
        made = np.array([[self._fit_with(one, y) for y in (0.0, 1.0)] for one in distinct]).reshape(-1, 2)
        return made[at, 0], made[at, 1]

    def _fit_with(self, score: float, y: float) -> float:
        """The isotonic fit at a score, with one more pair there."""
        # The added pair weighs 1, as if it were one more solution of the calibration data.
        place = int(np.searchsorted(self.score_, score))
        mass, won = self.mass_, self.won_
        if place == len(self.score_) or self.score_[place] != score:
            mass, won = np.insert(mass, place, 0.0), np.insert(won, place, 0.0)
        one = np.arange(len(mass)) == place
        mass, won = mass + one, won + one * y
        return float(isotonic_regression(won / mass, sample_weight=mass, y_min=0, y_max=1)[place])


@calibrate.method("quantile", note="a lower bound of success rates, for budgets; no chance of success")
class Quantile(Calibrator):
    """Says what a success rate is at least with a given chance, as a rising line in the score.

        min_(a, b) sum_i w_i pinball_level(y_i - a s_i - b),   q = clip(a s + b, 0, 1)

    For budgets that must not be too small, such as those of `instance-adaptive`, which the paper (arXiv:2506.09338)
    reads at a lower quantile. It is no mean: a level of 1/2 is the median. A falling line is replaced by the quantile
    of all.

    Args:
        level: share of success rates that lie below, in (0, 1).
    """

    learned = ("slope_", "shift_")
    unbiased = False

    def __init__(self, *, level: float = 0.1) -> None:
        self.level = level

    def _fit(self, s: Floats, y: Floats, w: Floats) -> None:
        if not 0 < self.level < 1:
            raise ValueError(f"level must be in (0, 1), got {self.level}")
        found = QuantileRegressor(quantile=self.level, alpha=0.0).fit(s[:, None], y, sample_weight=w)
        self.slope_, self.shift_ = float(found.coef_[0]), float(found.intercept_)
        # A lower score must not promise more: the best line of slope 0 is the quantile of all.
        if self.slope_ < 0:
            flat = QuantileRegressor(quantile=self.level, alpha=0.0).fit(np.zeros((len(s), 1)), y, sample_weight=w)
            self.slope_, self.shift_ = 0.0, float(flat.intercept_)

    def _predict(self, s: Floats) -> Floats:
        return np.clip(self.slope_ * s + self.shift_, 0.0, 1.0)


def lower_bounds(scores: ArrayLike, values: ArrayLike, others: ArrayLike, *, error: float = 0.1) -> Floats:
    """Bounds that the values of other scores reach with a chance of at least 1 - error.

        bound = s - the ceil((n + 1)(1 - error))-th smallest of s_i - v_i

    Split conformal prediction (arXiv:1604.04173, section 2.2): exact over the draw of both, for any score.

    Args:
        scores: (N,) of solutions calibrated on, which the model has not learned from.
        values: (N,) what they were worth.
        others: any shape, scores to bound the values of.
        error: how often a bound may fail, in (0, 1).

    Returns:
        Bounds of the shape of `others`; -infinity where N is too small for the error.

    Raises:
        InputError: shapes differ, or nothing is there.
        ValueError: `error` is out of range.
    """
    # The others and the calibration data are exchangeable: a new excess has each rank among n + 1 equally often.
    s, v = _measured_pairs(scores, values, error)
    rank = int(np.ceil((len(s) + 1) * (1 - error)))
    excess = np.sort(s - v)[rank - 1] if rank <= len(s) else np.inf
    return np.asarray(others, np.float64) - excess


def select(scores: ArrayLike, right: ArrayLike, others: ArrayLike, *, error: float = 0.1) -> NDArray[np.bool_]:
    """Selects solutions so that, on average, at most a share `error` of those selected is wrong.

        p_j = (1 + #{i wrong: s_i >= s_j}) / (n + 1),   Benjamini and Hochberg at level `error`

    Conformal selection (arXiv:2210.01408, Algorithm 1 with the clipped score, ties counted against a selection).

    Args:
        scores: (N,) of solutions calibrated on, one a problem, which the model has not learned from.
        right: (N,) whether they are right, 0 or 1.
        others: (M,) scores of the solutions to select from.
        error: the false discovery rate, in (0, 1).

    Returns:
        (M,) True where a solution is selected; False where its score is NaN.

    Raises:
        InputError: shapes differ, or nothing is there.
        ValueError: `error` is out of range.
    """
    s, y = _measured_pairs(scores, right, error)
    requested = np.asarray(others, np.float64).ravel()
    wrong = np.sort(s[y < 1])
    # A solution without a score is never selected: NaN would sort as the highest.
    p = (1 + len(wrong) - np.searchsorted(wrong, requested, side="left")) / (len(s) + 1)
    p = np.where(np.isnan(requested), np.inf, p)
    order = np.argsort(p, kind="stable")
    # A p-value that equals its bound passes, whatever the last bit of either says.
    bound = error * np.arange(1, len(p) + 1) / max(len(p), 1)
    passing = np.flatnonzero(p[order] <= bound * (1 + 1e-12))
    made = np.zeros(len(p), np.bool_)
    made[order[: passing[-1] + 1 if passing.size else 0]] = True
    return made


def _measured_pairs(scores: ArrayLike, known: ArrayLike, error: float) -> tuple[Floats, Floats]:
    """Both as flat arrays without NaN."""
    if not 0 < error < 1:
        raise ValueError(f"error must be in (0, 1), got {error}")
    s, v = np.asarray(scores, np.float64).ravel(), np.asarray(known, np.float64).ravel()
    if s.shape != v.shape:
        raise InputError(f"expected one outcome a score, got {s.size} scores and {v.size} outcomes")
    real = ~(np.isnan(s) | np.isnan(v))
    if not real.any():
        raise InputError("there is nothing to calibrate on", remedy="pass solutions whose outcome is known")
    return s[real], v[real]
