"""What a monitor of runs is worth: false alarms held against their bound, failures stopped, and how early."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.measure.false_alarms import ExchangeabilityTest, Guarantee, run_maxima
from stepreward.core.measure.statistics import Estimate, percentile_interval
from stepreward.core.types import Floats
from stepreward.evaluate.measures.counts import bootstrap_sums, ratio
from stepreward.score.monitor.monitor_fit import bound_of, sides, statistic_of
from stepreward.score.monitor.run_monitor import Monitor
from stepreward.score.monitor.statistic import Reads
from stepreward.score.monitor.watched_runs import WatchedRuns

RANDOM: Literal["random"] = "random"
TURN: Reads = "turn"
"""Baselines: a number drawn at one random turn of each run; and the number of the turn alone, ties broken by chance."""
MEASURES: Mapping[str, tuple[int, int]] = {
    "false_alarms": (0, 1), "recall": (2, 3), "lead_turns": (4, 2), "lead_share": (5, 2), "saved": (6, 7),
}  # fmt: skip
"""Each measure is a ratio of two of the sums that `_units` counts."""
_BOUNDS: Mapping[str, tuple[float, float] | None] = {"lead_turns": None}


@dataclass(frozen=True)
class MonitorResult:
    """Measures of monitors on the same runs, by what they read."""

    measures: dict[str, dict[str, Estimate]]
    """By monitor: `false_alarms`, the mean over problems of the share of good runs stopped; `recall`, the share of bad
    runs stopped; `lead_turns` and `lead_share`, how many turns and what share of the run were left where one was
    stopped; `saved`, the share of what bad runs wrote that would not have been written."""
    versus_turn: dict[str, dict[str, Estimate]]
    """By monitor, the difference to the one that reads the number of the turn alone, on the same problems."""
    alpha: float
    unit: str
    """Of `saved`: tokens or characters."""
    runs: int
    good: int
    bad: int
    problems: int
    left_out: int
    """Runs whose outcome, or first error, is not known."""
    known: int = 0
    """Runs left out as the monitor was fitted on their problems."""
    splits: int = 1
    above: Mapping[str, float] | None = None
    """By monitor, the share of the splits in which its rate of false alarms was above alpha: the bound holds over the
    draw of the runs calibrated on, not for each draw."""
    drift: float | None = None
    """Largest wealth of `ExchangeabilityTest` as it reads the maxima of the good runs calibrated on, then of these."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        tables = {
            name: {who: {what: one.to_json() for what, one in row.items()} for who, row in getattr(self, name).items()}
            for name in ("measures", "versus_turn")
        }
        names = ("alpha", "unit", "runs", "good", "bad", "problems", "left_out", "known", "splits")
        more = {"above": None if self.above is None else dict(self.above), "drift": self.drift}
        return {**{name: getattr(self, name) for name in names}, **tables, **more}


def first_alarms(runs: WatchedRuns, alarming: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(B,) turn, from 0, of the first alarm of each run; -1 where there is none.

    Args:
        runs: the runs.
        alarming: (N,) True where a turn's statistic is beyond the level.
    """
    made = np.full(len(runs), -1, np.int64)
    at = np.flatnonzero(alarming)
    owner = np.searchsorted(runs.offsets, at, side="right") - 1
    found, first = np.unique(owner, return_index=True)
    made[found] = at[first] - runs.offsets[found]
    return made


def _units(runs: WatchedRuns, first: NDArray[np.int64], among: NDArray[np.bool_]) -> Floats:
    """(P, 8) sums of each problem: false alarms, whether it has good runs, and of its bad runs those stopped, all,
    turns left, shares left, what was left to write, and what was written.

    Args:
        runs: all.
        first: (B,) as `first_alarms` returns them.
        among: (B,) runs to count.
    """
    rows = np.flatnonzero(among)
    place = runs.offsets[:-1] + np.maximum(first, 0)
    # A run of one turn has no turn to look at; its place would be another run's, or none.
    place = np.minimum(place, max(len(runs.fine) - 1, 0))
    alarmed = first >= 0
    false = alarmed & (runs.fine[place] if len(runs.fine) else False)
    stopped = alarmed & ~false & runs.bad
    left = np.where(stopped, runs.length - 1 - first, 0)
    unwritten = np.where(stopped, runs.total - (runs.spent[place] if len(runs.spent) else 0.0), 0.0)
    columns = [
        false & runs.good, runs.good, stopped, runs.bad, left, left / runs.length, unwritten,
        np.where(runs.bad, runs.total, 0.0),
    ]  # fmt: skip
    made = np.zeros((int(runs.problem.max()) + 1, len(columns)))
    np.add.at(made, runs.problem[rows], np.stack(columns, axis=1).astype(np.float64)[rows])
    # The bound is for the mean over problems: each counts once, by the share of its good runs.
    made[:, 0] = ratio(made[:, 0], made[:, 1])
    made[:, 1] = made[:, 1] > 0
    return made


def _estimates(units: Mapping[str, Floats], key: Key) -> tuple[dict[str, Any], dict[str, Any]]:
    """Measures of each monitor, and their differences to the turn's, by one bootstrap over problems for all."""
    there = np.any([one.any(axis=1) for one in units.values()], axis=0)
    sums = bootstrap_sums(np.stack([one[there] for one in units.values()], axis=1), key)
    names = [*units]
    values = {
        who: {what: ratio(sums[:, at, a], sums[:, at, b], empty=np.nan) for what, (a, b) in MEASURES.items()}
        for at, who in enumerate(names)
    }
    # Problems are the independent units: of each measure, those in which its denominator can be anything.
    count = {what: int((units[names[0]][:, 3 if b == 2 else b] > 0).sum()) for what, (_, b) in MEASURES.items()}
    measures = {
        who: {
            what: percentile_interval(float(drawn[0]), drawn[1:], count[what], bounds=_BOUNDS.get(what, (0.0, 1.0)))
            for what, drawn in row.items()
        }
        for who, row in values.items()
    }
    versus = {
        who: {
            what: percentile_interval(float((drawn - values[TURN][what])[0]), (drawn - values[TURN][what])[1:],
                                      count[what], bounds=None)
            for what, drawn in row.items()
        }
        for who, row in values.items()
        if who != TURN
    } if TURN in values else {}  # fmt: skip
    return measures, versus


def _result(units: Mapping[str, Floats], runs: WatchedRuns, alpha: float, key: Key, **more: Any) -> MonitorResult:
    measures, versus = _estimates(units, key)
    return MonitorResult(
        measures, versus, alpha, runs.unit, len(runs), int(runs.good.sum()), int(runs.bad.sum()),
        len(np.unique(runs.problem)), runs.left_out, **more,
    )  # fmt: skip


def measure_monitor(monitor: Monitor, runs: WatchedRuns, *, known: int = 0, seed: int = 0) -> MonitorResult:
    """Measures a fitted monitor on runs of other problems than it was fitted on.

    Args:
        monitor: at its own rate.
        runs: of other problems; in the order in which they came, for `drift`.
        known: runs that were left out as it was fitted on their problems.
        seed: of the bootstrap over problems.
    """
    key = Key.seed(seed).fold("monitor", "evaluate")
    values = monitor.statistic.values(runs.signals)
    alarming = monitor.bound.alarming(_looked(values), monitor.alpha, monitor.guarantee, monitor.confidence)
    first = first_alarms(runs, alarming)
    units = {"monitor": _units(runs, first, np.ones(len(runs), bool))}
    # Runs of one problem depend on each other: the test reads one of each.
    maxima = run_maxima(np.where(runs.fine, values, np.nan), runs.offsets)[runs.good]
    _, new = np.unique(runs.problem[runs.good], return_index=True)
    _, old = np.unique(monitor.bound.problem, return_index=True)
    before = key.fold("order").rng().permutation(monitor.bound.maxima[old])
    test = ExchangeabilityTest(key.fold("drift"))
    for value in [*before.tolist(), *maxima[np.sort(new)].tolist()]:
        test.after(value)
    return _result(units, runs, monitor.alpha, key, drift=test.largest, known=known)


def measure_over_splits(
    runs: WatchedRuns, reads: Sequence[Reads], *, alpha: float = 0.1, guarantee: Guarantee = "p-value",
    confidence: float = 0.9, strength: float = 0.1, calibrate: float = 0.5, test: float = 1 / 3, splits: int = 200,
    seed: int = 0,
) -> MonitorResult:  # fmt: skip
    """Fits monitors on some problems and measures them on others, many times, beside the turn's number and chance.

    Each split tests on a share of the problems; of the others, a fitted statistic takes some to fit on, and all
    statistics the rest for the bound. No problem is ever on two sides. Intervals: bootstrap over problems, of
    the sums of each problem over the splits that tested on it.

    Args:
        runs: with good and bad ones.
        reads: what the statistics read, as in `score.monitor.monitor_fit.fitted`.
        alpha: the stated rate of false alarms.
        guarantee, confidence, strength, calibrate: as in `score.monitor.monitor_fit.fitted`.
        test: share of the problems that each split tests on, in (0, 1).
        splits: how many.
        seed: of splits and bootstrap.

    Raises:
        InputError: a split leaves no good run to calibrate on, or nothing to fit on.
        ValueError: a share is out of range.
    """
    if not 0 < test < 1:
        raise ValueError(f"the share to test on must be in (0, 1), got {test}")
    root = Key.seed(seed).fold("monitor", "splits")
    names: list[Reads | Literal["random"]] = [*dict.fromkeys([*reads, TURN]), RANDOM]
    problems = np.unique(runs.problem)
    if len(problems) < 3:
        raise InputError(f"{len(problems)} problems cannot be split in three", remedy="pass runs of more problems")
    units: dict[str, Floats] = {name: np.zeros((len(problems), 8)) for name in names}
    above: dict[str, float] = dict.fromkeys(names, 0.0)
    for split in range(splits):
        key = root.fold(split)
        order = key.rng().permutation(problems)
        tested = np.isin(runs.problem, order[: max(1, round(test * len(problems)))])
        rng, size = key.fold("baselines").rng(), np.diff(runs.offsets)
        drawn, broken = _at_one_turn(runs, rng), np.repeat(rng.random(len(runs)), size)
        for name in names:
            fit, held = sides(runs, TURN if name == RANDOM else name, calibrate, key.fold("sides"), ~tested)
            values = drawn if name == RANDOM else statistic_of(runs, name, fit, strength).values(runs.signals)
            # Runs stopped at the same turn are told apart by chance, so that the baseline uses all of its rate.
            values = values + broken if name == TURN else values
            alarming = bound_of(runs, values, held).alarming(_looked(values), alpha, guarantee, confidence)
            made = _units(runs, first_alarms(runs, alarming), tested)
            units[name] += made
            above[name] += float(ratio(made[:, 0].sum(), made[:, 1].sum()) > alpha) / splits
    return _result(units, runs, alpha, root.fold("bootstrap"), splits=splits, above=above)


def _looked(values: Floats) -> Floats:
    """A statistic that is not measured raises no alarm."""
    return np.where(np.isnan(values), -np.inf, values)


def _at_one_turn(runs: WatchedRuns, rng: np.random.Generator) -> Floats:
    """(N,) a number in [0, 1) at one random turn of each run, and NaN at the others."""
    size = np.diff(runs.offsets)
    numbers, at = rng.random(len(runs)), np.floor(rng.random(len(runs)) * size).astype(np.int64)
    made = np.full(len(runs.signals), np.nan)
    made[(runs.offsets[:-1] + at)[size > 0]] = numbers[size > 0]
    return made
