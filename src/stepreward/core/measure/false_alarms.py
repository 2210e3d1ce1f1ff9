"""Alarms that a good run raises with a bounded chance, however often it is looked at.

A run is watched turn by turn by a statistic A_1, A_2, ..., large where something seems wrong. Let M be its largest
value within a run. An alarm at the first A_t above a level is raised iff M is above it, so that a bound for M holds for
the whole run and at any time: there is nothing to correct for the number of looks.

Assumed is this and no more: the problems that have a good run, each with its good runs, are exchangeable, which means
that those calibrated on and the one to come might have come in any order. Runs of one problem may depend on each other
in any way. Of the statistic nothing is assumed but that it was not fitted on these problems; of the turns, nothing.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.special import logsumexp, rel_entr

from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.types import Floats

Guarantee = Literal["p-value", "confidence", "e-value"]
"""How alarms are bounded: by rank, on average over calibrations; for this calibration, with a confidence; or by
evidence, whose rate may be chosen afterwards."""
GUARANTEES = get_args(Guarantee)
Alarms = NDArray[np.bool_]
TILT = 8.0
"""Of e-values: below it a log-odds rarely becomes evidence, far above it only the very largest does."""
SLACK = 1 + 1e-12
"""A p-value that equals its bound passes, whatever the last bit of either says."""
_POWERS = np.array([0.1, 0.25, 0.5, 0.75, 1.0])
"""Bets on small p-values; 1 does not bet."""


def run_maxima(values: Floats, offsets: NDArray[np.int64]) -> Floats:
    """(B,) M, the largest value within each run; -infinity in a run without any.

    Args:
        values: (N,) statistic at each turn, one run after another; NaN is not measured and raises no alarm.
        offsets: (B + 1,) where runs begin and end.
    """
    made = np.full(len(offsets) - 1, -np.inf)
    runs = np.repeat(np.arange(len(made)), np.diff(offsets))
    np.maximum.at(made, runs, np.where(np.isnan(values), -np.inf, values))
    return made


class AlarmBound:
    """What the maxima of good runs say of the maximum of one more.

    Args:
        maxima: (N,) M of each good run; -infinity for one that was never looked at.
        problem: (N,) number of its problem.

    Raises:
        InputError: there is no good run, a maximum is NaN, or the shapes differ.
    """

    def __init__(self, maxima: ArrayLike, problem: ArrayLike) -> None:
        values, group = np.asarray(maxima, np.float64), np.asarray(problem)
        if values.shape != group.shape or values.ndim != 1:
            raise InputError(f"expected one problem a run, got shapes {values.shape} and {group.shape}")
        if not values.size:
            raise InputError("there is no good run to calibrate on", remedy="pass runs that succeeded")
        if np.isnan(values).any():
            raise InputError("the maximum of a run is NaN", remedy="leave out what was not measured")
        order = np.argsort(values, kind="stable")
        self.maxima: Floats = values[order]
        _, place, count = np.unique(group[order], return_inverse=True, return_counts=True)
        self.problem: NDArray[np.int64] = place.astype(np.int64)
        self.problems = len(count)
        """K, problems that have a good run."""
        self._weight = 1.0 / count[place]
        # Weight of the runs from each place on, and 0 behind the last.
        self._from = np.append(np.cumsum(self._weight[::-1])[::-1], 0.0)

    def p_values(self, maxima: ArrayLike) -> Floats:
        """How often a good run's maximum comes this high: P(p <= alpha) <= alpha for every alpha, over the draw of all.

            p = (1 + sum_k share of the good runs of problem k with M >= m) / (K + 1)

        With one run a problem this is the p-value of split conformal prediction. Proof: the level below is the smallest
        at which the mean over the problems, with the worst case 1 for the new one, is at most alpha; with the new
        problem's own share in place of 1 the level could only be lower, and that lower level treats all K + 1 problems
        alike, so that the new one's expected share is their mean, at most alpha. A p-value at most alpha is a maximum
        above the level.

        Args:
            maxima: m, any shape: the largest value so far. As m rises within a run, p falls.
        """
        at = np.searchsorted(self.maxima, np.asarray(maxima, np.float64), side="left")
        return np.minimum((1 + self._from[at]) / (self.problems + 1), 1.0)

    def rates(self, maxima: ArrayLike, guarantee: Guarantee = "p-value", confidence: float = 0.9) -> Floats:
        """The lowest alpha at which a run with this maximum is alarmed of: its p-value, its upper rate, or 1 / E.

        Args:
            maxima: m, any shape.
            guarantee: which of them.
            confidence: of upper rates alone.
        """
        if guarantee not in GUARANTEES:
            raise InputError(f"a guarantee is one of {', '.join(GUARANTEES)}, got {guarantee!r}")
        if guarantee == "p-value":
            return self.p_values(maxima)
        if guarantee == "confidence":
            return self.upper_rates(maxima, confidence)
        return 1 / np.maximum(self.e_values(maxima), 1.0)

    def alarming(
        self, maxima: ArrayLike, alpha: float, guarantee: Guarantee = "p-value", confidence: float = 0.9
    ) -> Alarms:
        """True where a run with this maximum is alarmed of; a good one ever is with a chance of at most alpha."""
        return np.asarray(self.rates(maxima, guarantee, confidence) <= alpha * SLACK, np.bool_)

    def upper_rates(self, maxima: ArrayLike, confidence: float = 0.9) -> Floats:
        """How often good runs come this high at most, with a confidence over the draw of the runs calibrated on.

            U = the p at which so few of K problems or fewer come this high with a chance of 1 - confidence

        An alarm where U <= alpha is one at which this calibration's own rate is at most alpha, with the confidence: it
        could be more only if U were too low at the one maximum that good runs reach with a chance of alpha. Assumed
        is more than for p-values: problems are drawn independently. U is exact (Clopper and Pearson) with one good run
        a problem, else by Chernoff's bound of means of independent shares s_k, sup of p with K kl(mean s, p) <=
        -log(1 - confidence).

        Args:
            maxima: m, any shape.
            confidence: in (0, 1).

        Raises:
            ValueError: the confidence is out of range.
        """
        if not 0 < confidence < 1:
            raise ValueError(f"confidence must be in (0, 1), got {confidence}")
        at = np.searchsorted(self.maxima, np.asarray(maxima, np.float64), side="left")
        reached, count = np.minimum(self._from[at], self.problems), self.problems
        if len(self.maxima) == count:
            return np.where(reached >= count, 1.0, stats.beta.ppf(confidence, reached + 1, count - reached))
        share, log_doubt = reached / count, -np.log1p(-confidence)
        low, high = share, np.ones_like(share)
        for _ in range(60):
            middle = (low + high) / 2
            far = count * (rel_entr(share, middle) + rel_entr(1 - share, 1 - middle)) > log_doubt
            low, high = np.where(far, low, middle), np.where(far, middle, high)
        return np.asarray(high, np.float64)

    def level(self, alpha: float) -> float:
        """The lowest level that a good run's statistic ever exceeds with a chance of at most alpha.

        Returns:
            One of the maxima; infinity where K < 1 / alpha - 1, as too few problems are known to ever raise an alarm.

        Raises:
            ValueError: alpha is not in (0, 1).
        """
        if not 0 < alpha < 1:
            raise ValueError(f"a rate of false alarms must be in (0, 1), got {alpha}")
        bound = alpha * (self.problems + 1) * SLACK - 1
        if bound < 0:
            return np.inf
        above = self._from[np.searchsorted(self.maxima, self.maxima, side="right")]
        return float(self.maxima[np.argmax(above <= bound)])

    def e_values(self, maxima: ArrayLike, tilt: float = TILT) -> Floats:
        """Evidence against a good run, at most 1 in expectation whenever one stops and whyever.

            E = (K + 1) w(m) / (w(m) + sum_k mean of w(M) over the good runs of problem k),   w(m) = exp(tilt m)

        E rises with m, so its largest value is the one at the run's end, where K + 1 exchangeable weights share K + 1:
        the expectation is 1 with one run a problem, and less with several, as x -> 1 / x is convex. So P(ever
        E >= 1 / alpha) <= alpha (Markov), and alpha may be chosen after the run, e-values of several monitors may be
        averaged, those of independent runs multiplied. The price is power: for one alpha p-values find more.

        Args:
            maxima: m, any shape; the largest value so far.
            tilt: > 0. The larger, the more E is the evidence of being the very largest.

        Raises:
            ValueError: `tilt` is not positive.
        """
        if not tilt > 0:
            raise ValueError(f"tilt must be positive, got {tilt}")
        mine = tilt * np.asarray(maxima, np.float64)
        with np.errstate(divide="ignore"):
            others = logsumexp(tilt * self.maxima, b=self._weight)
        # Where nothing was looked at so far there is no evidence, also beside runs that were never looked at.
        none = np.isneginf(mine)
        log_share = np.where(none, -np.inf, mine - np.logaddexp(np.where(none, 0.0, mine), others))
        return np.asarray((self.problems + 1) * np.exp(log_share), np.float64)


class ExchangeabilityTest:
    """Whether values that come one after another could have come in any order: a conformal test martingale.

        p_n = (#{i <= n: x_i > x_n} + U_n #{i <= n: x_i = x_n}) / n,   wealth_n = mean_e prod_i e p_i^(e - 1)

    Under exchangeability the p-values are independent and uniform, whatever the values, and the wealth a martingale
    that starts at 1: it ever reaches 1 / delta with a chance of at most delta (Ville). It grows where later values are
    larger than earlier ones, which is where a bound from the earlier ones fails.

    Args:
        key: of the U that break ties.
    """

    def __init__(self, key: Key) -> None:
        self._rng, self._seen = key.rng(), list[float]()
        self._log_wealth = np.zeros(len(_POWERS))
        self.wealth = self.largest = 1.0
        """Now, and the largest so far."""

    def after(self, value: float) -> float:
        """The wealth once one more value is known."""
        self._seen.append(value)
        seen = np.asarray(self._seen)
        above, same = int((seen > value).sum()), int((seen == value).sum())
        p = (above + (1 - self._rng.random()) * same) / len(seen)
        self._log_wealth += np.log(_POWERS) + (_POWERS - 1) * np.log(p)
        self.wealth = float(np.exp(logsumexp(self._log_wealth)) / len(_POWERS))
        self.largest = max(self.largest, self.wealth)
        return self.wealth
