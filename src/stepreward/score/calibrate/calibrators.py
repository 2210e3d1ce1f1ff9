"""Calibrators: maps from step scores to probabilities that agree with observed frequencies.

    calibrator = Temperature().fit(scores, outcome)
    probability = calibrator.predict(other_scores)

Each follows scikit-learn's contract: the constructor only stores settings, `fit` learns attributes that end in `_`, and
`get_params`, `set_params` and `sklearn.base.clone` work. Arrays may have any shape; NaN is not measured: left out by
`fit`, kept by `predict`. Outcomes may be soft, such as the share of rollouts that succeed.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize
from scipy.special import expit, logit
from sklearn.base import BaseEstimator
from sklearn.isotonic import IsotonicRegression

from stepreward.core.catalog import calibrate
from stepreward.core.errors import InputError, ModelError
from stepreward.core.types import Floats

_VERSION = 1
_LIMIT = 100.0
"""Temperatures lie in [1 / _LIMIT, _LIMIT]: outcomes that the scores separate perfectly would have T -> 0."""
_REMEDY = "calibrate probabilities; pass raw model outputs through a sigmoid first"


class Calibrator(BaseEstimator):  # type: ignore[misc]
    """Checks, leaves NaN out, and saves as JSON; a subclass fits and maps flat arrays in [0, 1] without NaN."""

    learned: ClassVar[tuple[str, ...]]
    """Names of the attributes that `fit` sets."""
    monotone: ClassVar[bool] = True
    """A higher score never gets a lower probability."""
    unbiased: ClassVar[bool] = True
    """It aims at the chance of success itself; a cautious one aims below it."""

    def fit(self, scores: ArrayLike, outcome: ArrayLike, weights: ArrayLike | None = None) -> Self:
        """Learns the map from scores to the chance of success.

        Args:
            scores: s in [0, 1], any shape; NaN is not measured.
            outcome: y in [0, 1], same shape; NaN is not measured.
            weights: w >= 0, same shape; a weight of 2 counts a pair twice. None weighs all the same.

        Returns:
            The calibrator itself.

        Raises:
            InputError: shapes differ, a value is out of range, or nothing is measured.
            ValueError: a setting is out of range.
        """
        s, y = _in_unit(scores, "score"), _in_unit(outcome, "outcome", "outcomes are 0, 1 or a success rate")
        w = np.ones(s.shape) if weights is None else np.asarray(weights, np.float64)
        if not s.shape == y.shape == w.shape:
            raise InputError(
                f"scores, outcome and weights must match, got shapes {s.shape}, {y.shape} and {w.shape}",
                remedy="give one outcome a score",
            )
        if not (np.isfinite(w) & (w >= 0)).all():
            raise InputError(f"weights must be finite and not negative, got {w[~(w >= 0) | np.isinf(w)][0]:g}")
        real = ~(np.isnan(s) | np.isnan(y)) & (w > 0)
        if not real.any():
            raise InputError(
                f"there is nothing to calibrate on: {s.size} pairs, none with a score, an outcome and a weight",
                remedy="pass solutions whose outcome is known",
            )
        self._fit(s[real], y[real], w[real])
        return self

    def predict(self, scores: ArrayLike) -> Floats:
        """The calibrated probabilities, same shape as `scores`; NaN stays NaN.

        Raises:
            InputError: a score is outside [0, 1].
            ModelError: the calibrator is not fitted.
        """
        if any(not hasattr(self, name) for name in self.learned):
            raise ModelError(f"{type(self).__name__} is not fitted: call fit(scores, outcome) first")
        s = _in_unit(scores, "score")
        real = ~np.isnan(s)
        made = np.full(s.shape, np.nan)
        made[real] = self._predict(s[real])
        return made

    def to_json(self) -> dict[str, Any]:
        """The fitted calibrator as plain JSON values, for `from_json`.

        Raises:
            ModelError: it is not fitted, or its class is not in the catalog.
        """
        names = [method.name for method in calibrate if method.function is type(self)]
        missing = [name for name in self.learned if not hasattr(self, name)]
        if missing or not names:
            raise ModelError(
                f"{type(self).__name__} cannot be saved: "
                + ("call fit(scores, outcome) first" if missing else "register it with calibrate.method first")
            )
        learned = {name: np.asarray(getattr(self, name)).tolist() for name in self.learned}
        return {"version": _VERSION, "method": names[0], "settings": self.get_params(), "learned": learned}

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> Calibrator:
        """The calibrator that `to_json` wrote, of whichever method it is.

        Raises:
            InputError: the row is none that `to_json` writes.
            UnknownNameError: no such method.
        """
        parts = ("version", "method", "settings", "learned")
        if not isinstance(row, Mapping) or any(part not in row for part in parts):
            raise InputError(f"a saved calibrator has {', '.join(parts)}; got {row!r:.80}", remedy="save it again")
        if row["version"] != _VERSION:
            raise InputError(f"a calibrator of version {row['version']!r} was expected to be {_VERSION}")
        method = calibrate[row["method"]]
        try:
            made: Calibrator = method(**row["settings"])
            learned = {
                name: np.array(value, np.float64) if isinstance(value, list) else float(value)
                for name, value in row["learned"].items()
            }
        except (TypeError, ValueError, AttributeError) as error:
            raise InputError(f"a saved {method.name} has wrong values: {error}", remedy="save it again") from error
        if set(learned) != set(made.learned):
            raise InputError(f"{method.name} learns {', '.join(made.learned)}; got {', '.join(learned)}")
        for name, value in learned.items():
            setattr(made, name, value)
        return made

    @abstractmethod
    def _fit(self, s: Floats, y: Floats, w: Floats) -> None:
        """Learns from flat arrays without NaN."""

    @abstractmethod
    def _predict(self, s: Floats) -> Floats:
        """Maps flat scores without NaN."""


def _in_unit(values: ArrayLike, name: str, remedy: str = _REMEDY) -> Floats:
    array = np.asarray(values, np.float64)
    # Comparisons with NaN are false: what is not measured passes.
    bad = array[(array < 0) | (array > 1)]
    if bad.size:
        raise InputError(f"every {name} must be in [0, 1] or NaN, got {bad[0]:g}", remedy=remedy)
    return array


def _logits(s: Floats, floor: float) -> Floats:
    if not 0 < floor < 0.5:
        raise ValueError(f"floor must be in (0, 1/2), got {floor}")
    return np.asarray(logit(np.clip(s, floor, 1 - floor)), np.float64)


def _least_nll(
    features: Floats, y: Floats, w: Floats, start: Sequence[float], bounds: Sequence[tuple[float | None, float | None]]
) -> Floats:
    """The theta within bounds that minimises sum w (log(1 + e^z) - y z) with z = features @ theta: a convex problem."""
    # Shares, so that the tolerances below mean the same for any number of pairs.
    share = w / w.sum()

    def loss(theta: Floats) -> tuple[float, Floats]:
        z = features @ theta
        return float(share @ (np.logaddexp(0, z) - y * z)), features.T @ (share * (expit(z) - y))

    found = minimize(
        loss, np.array(start), jac=True, method="L-BFGS-B", bounds=bounds,
        options={"ftol": 1e-15, "gtol": 1e-10, "maxiter": 2000, "maxfun": 10_000},
    )  # fmt: skip
    return np.asarray(found.x, np.float64)


def _fit_line(features: Floats, z: Floats, y: Floats, w: Floats) -> list[float]:
    """The slopes of (N, k) features, at least 0, and the shift that fit Platt's targets best; z are the logits.

    The targets are (N+ + 1) / (N+ + 2) for a success and 1 / (N- + 2) for a failure, so that no optimum is infinite.
    """
    right, wrong = float(w @ y), float(w @ (1 - y))
    target = y * (right + 1) / (right + 2) + (1 - y) / (wrong + 2)
    ones = [1.0] * features.shape[1]
    # One distinct score teaches the base rate alone.
    if np.ptp(z) == 0:
        return [*ones, float(logit(w @ target / w.sum()) - z[0])]
    # Slopes of at least 0: a calibrator may flatten a ranking, never turn it round.
    bounds = [*((0.0, None) for _ in ones), (None, None)]
    return [float(one) for one in _least_nll(np.c_[features, np.ones(z.size)], target, w, [*ones, 0.0], bounds)]


@calibrate.method("identity", note="no calibration: the control that every calibrator is measured against")
class Identity(Calibrator):
    """Leaves scores as they are."""

    learned = ()

    def _fit(self, s: Floats, y: Floats, w: Floats) -> None:
        """There is nothing to learn."""

    def _predict(self, s: Floats) -> Floats:
        return s


@calibrate.method("temperature", paper="arXiv:1706.04599", equation="section 4.2", note="its binary case")
class Temperature(Calibrator):
    """Divides logits by one number, which cures over- and under-confidence and moves no score across 1/2.

        q = sigmoid(logit(s) / T),     T minimises the negative log-likelihood

    T = 1 is the identity, T -> infinity gives 1/2. T is kept in [0.01, 100]; scores that separate outcomes perfectly
    get the smallest T, scores that are all 1/2 teach nothing and get 1.

    Args:
        floor: scores are kept in [floor, 1 - floor] for their logits, in (0, 1/2).
    """

    learned = ("temperature_",)

    def __init__(self, *, floor: float = 1e-6) -> None:
        self.floor = floor

    def _fit(self, s: Floats, y: Floats, w: Floats) -> None:
        z = _logits(s, self.floor)
        (slope,) = _least_nll(z[:, None], y, w, [1.0], [(1 / _LIMIT, _LIMIT)])
        self.temperature_ = float(1 / slope)

    def _predict(self, s: Floats) -> Floats:
        return np.asarray(expit(_logits(s, self.floor) / self.temperature_), np.float64)


@calibrate.method(
    "platt", paper="doi:10.1007/s10994-007-5018-6", equation="section 1", note="on logits, with a slope >= 0"
)
class Platt(Calibrator):
    """Fits a line to logits: temperature and a shift of the base rate.

        q = sigmoid(a logit(s) + b),   a >= 0

    (a, b) minimise the negative log-likelihood of Platt's smoothed targets, which are finite even where the scores
    separate outcomes perfectly. One distinct score says nothing about a, which then stays 1. Scores that rank
    outcomes the wrong way round get a = 0: the base rate.

    Args:
        floor: scores are kept in [floor, 1 - floor] for their logits, in (0, 1/2).
    """

    learned = ("slope_", "shift_")

    def __init__(self, *, floor: float = 1e-6) -> None:
        self.floor = floor

    def _fit(self, s: Floats, y: Floats, w: Floats) -> None:
        z = _logits(s, self.floor)
        self.slope_, self.shift_ = _fit_line(z[:, None], z, y, w)

    def _predict(self, s: Floats) -> Floats:
        return np.asarray(expit(self.slope_ * _logits(s, self.floor) + self.shift_), np.float64)


@calibrate.method(
    "beta", paper="proceedings.mlr.press/v54/kull17a", equation="section 3", note="with Platt's smoothed targets"
)
class Beta(Calibrator):
    """Bends the two ends of the scale each by itself, as if scores of either outcome were Beta distributed.

        q = sigmoid(a ln s - b ln(1 - s) + c),   a, b >= 0

    a = b is `platt`, a = b = 1 and c = 0 the identity. (a, b, c) minimise the negative log-likelihood of Platt's
    smoothed targets. One distinct score says nothing about a and b, which then stay 1.

    Args:
        floor: scores are kept in [floor, 1 - floor] for their logarithms, in (0, 1/2).
    """

    learned = ("low_", "high_", "shift_")

    def __init__(self, *, floor: float = 1e-6) -> None:
        self.floor = floor

    def _fit(self, s: Floats, y: Floats, w: Floats) -> None:
        self.low_, self.high_, self.shift_ = _fit_line(_logs(s, self.floor), _logits(s, self.floor), y, w)

    def _predict(self, s: Floats) -> Floats:
        z = _logs(s, self.floor) @ np.array([self.low_, self.high_]) + self.shift_
        return np.asarray(expit(z), np.float64)


def _logs(s: Floats, floor: float) -> Floats:
    """(N, 2) ln s and -ln(1 - s)."""
    p = np.clip(s, floor, 1 - floor)
    return np.stack([np.log(p), -np.log1p(-p)], axis=1)


@calibrate.method("isotonic", paper="doi:10.1145/775047.775151", equation="section 3.2")
class Isotonic(Calibrator):
    """Fits the monotone function with the least squared error, which can be of any shape but needs more data.

    Between the scores it has seen it is linear, outside it is constant.
    """

    learned = ("score_", "probability_")

    def _fit(self, s: Floats, y: Floats, w: Floats) -> None:
        found = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(s, y, sample_weight=w)
        self.score_: Floats = np.asarray(found.X_thresholds_, np.float64)
        self.probability_: Floats = np.asarray(found.y_thresholds_, np.float64)

    def _predict(self, s: Floats) -> Floats:
        return np.asarray(np.interp(s, self.score_, self.probability_), np.float64)


@calibrate.method(
    "histogram", paper="arXiv:1706.04599", equation="section 4.1, after Zadrozny and Elkan 2001", note="equal counts"
)
class Histogram(Calibrator):
    """Answers with the share of successes among scores of the same bin: no shape is assumed, not even a rising one.

    Bins have equal counts, as far as equal scores, which are never separated, allow.

    Args:
        bins: at most so many bins, at least 1; one bin is the base rate.
    """

    learned = ("edge_", "probability_")
    monotone = False

    def __init__(self, *, bins: int = 10) -> None:
        self.bins = bins

    def _fit(self, s: Floats, y: Floats, w: Floats) -> None:
        if self.bins < 1:
            raise ValueError(f"bins must be at least 1, got {self.bins}")
        distinct, at = np.unique(s, return_inverse=True)
        mass, won = np.bincount(at, weights=w), np.bincount(at, weights=w * y)
        # A score's bin is where the middle of its mass falls, so that equal scores are never separated.
        bin_of = np.floor(self.bins * (np.cumsum(mass) - mass / 2) / mass.sum())
        starts = np.flatnonzero(np.r_[True, np.diff(bin_of) > 0])
        self.edge_: Floats = distinct[starts[1:]]
        self.probability_: Floats = np.add.reduceat(won, starts) / np.add.reduceat(mass, starts)

    def _predict(self, s: Floats) -> Floats:
        return self.probability_[np.searchsorted(self.edge_, s, side="right")]
