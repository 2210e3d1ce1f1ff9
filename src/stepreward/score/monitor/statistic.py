"""The number that a monitor watches: a weighted sum of a turn's signals, chosen or fitted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from stepreward.core.errors import InputError
from stepreward.core.types import Floats
from stepreward.score.monitor.turn_signals import SIGNALS
from stepreward.score.monitor.watched_runs import WatchedRuns

Reads = Literal["features", "turn", "last-score", "min-score", "mean-score"]
"""What is watched: a fitted sum of all signals, or one of them."""
LEARNED: Reads = "features"
CHOSEN: Mapping[Reads, tuple[str, float]] = {
    "turn": ("turn", 1.0),
    "last-score": ("score", -1.0),
    "min-score": ("min_score", -1.0),
    "mean-score": ("mean_score", -1.0),
}
"""Statistics that need no fit: a signal and its sign; a low score is what alarms."""
DECIMALS = 9
"""Of a statistic."""
READS = get_args(Reads)


@dataclass(frozen=True)
class Statistic:
    """A weighted sum of a turn's signals: A = shift + sum_j weight_j (x_j - centre_j) / scale_j."""

    names: tuple[str, ...]
    """Signals that are read."""
    centre: tuple[float, ...]
    scale: tuple[float, ...]
    weight: tuple[float, ...]
    shift: float = 0.0

    def __post_init__(self) -> None:
        parts = (self.centre, self.scale, self.weight)
        if not self.names or any(len(part) != len(self.names) for part in parts) or 0.0 in self.scale:
            raise InputError("a statistic needs a centre, a scale that is not 0 and a weight for each of its signals")
        if unknown := sorted(set(self.names) - set(SIGNALS)):
            raise InputError(f"no signal is called {unknown[0]!r}", remedy="fit the monitor again")

    def values(self, signals: Floats) -> Floats:
        """(N,) A at turns with signals (N, F). One that is not measured counts as its centre; NaN where none is."""
        at = [*SIGNALS]
        own = signals[:, [at.index(name) for name in self.names]]
        share = (own - np.array(self.centre)) / np.array(self.scale)
        # Rounded, so that equal turns are equal whether they are computed one by one or together: a tie that the last
        # bit decides would be an alarm that the bound does not count.
        sums = np.round(self.shift + np.nan_to_num(share) @ np.array(self.weight), DECIMALS)
        return np.where(np.isnan(own).all(axis=1), np.nan, sums)

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, for `from_json`."""
        return asdict(self)

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> Statistic:
        """The statistic that `to_json` wrote.

        Raises:
            InputError: the row is none.
        """
        try:
            lists = {name: tuple(row[name]) for name in ("names", "centre", "scale", "weight")}
            return Statistic(**lists, shift=float(row["shift"]))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"a saved statistic has wrong values: {error}", remedy="fit the monitor again") from error


def chosen(reads: Reads) -> Statistic:
    """The statistic of a name in `CHOSEN`."""
    name, sign = CHOSEN[reads]
    return Statistic((name,), (0.0,), (1.0,), (sign,))


def learned(runs: WatchedRuns, use: NDArray[np.bool_] | None = None, *, strength: float = 0.1) -> Statistic:
    """The log-odds that an alarm at this turn would be right, by logistic regression on the signals.

    Each run weighs 1, spread over its turns; signals are standardised, those that are never measured or never vary are
    left out.

    Args:
        runs: with good and bad ones.
        use: (B,) runs to fit on; all where None.
        strength: C, the inverse strength of the ridge penalty.

    Raises:
        InputError: an alarm is right at all turns, or at none.
    """
    picked = np.ones(len(runs), bool) if use is None else use
    rows = runs.turns_of(picked)
    x, wrong = runs.signals[rows], ~runs.fine[rows]
    if wrong.all() or not wrong.any():
        raise InputError(f"all of {len(wrong):,} turns to fit on are {'bad' if wrong.any() else 'good'}",
                         remedy="pass good and bad runs, of more problems")  # fmt: skip
    weight = np.repeat(1.0 / np.maximum(np.diff(runs.offsets), 1), np.diff(runs.offsets))[rows]
    known = ~np.isnan(x).all(axis=0)
    x = x[:, known]
    centre, scale = np.nanmean(x, axis=0), np.nanstd(x, axis=0)
    varies = np.flatnonzero(scale > 1e-9)
    shown = np.nan_to_num((x[:, varies] - centre[varies]) / scale[varies])
    names = np.array([*SIGNALS])[known][varies]
    fitted = LogisticRegression(C=strength, max_iter=1000).fit(shown, wrong, sample_weight=weight)
    return Statistic(
        tuple(names.tolist()), tuple(centre[varies].tolist()),
        tuple(scale[varies].tolist()), tuple(fitted.coef_[0].tolist()), float(fitted.intercept_[0]),
    )  # fmt: skip
