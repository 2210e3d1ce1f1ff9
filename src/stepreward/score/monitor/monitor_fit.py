"""Fits a monitor: a statistic on the runs of some problems, the bound of its false alarms on those of others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepreward.core.errors import InputError, UnknownNameError
from stepreward.core.keys import Key
from stepreward.core.measure.false_alarms import AlarmBound, Guarantee, run_maxima
from stepreward.core.types import Floats, Trajectory
from stepreward.score.monitor.run_monitor import Monitor, digest_of
from stepreward.score.monitor.statistic import LEARNED, READS, Reads, Statistic, chosen, learned
from stepreward.score.monitor.watched_runs import Good, WatchedRuns, watched_runs


def fitted(
    runs: Sequence[Trajectory], *, reads: Reads = LEARNED, column: str = "", good: Good = "success",
    success: float = 1.0, alpha: float = 0.1, warn: float = 0.25, guarantee: Guarantee = "p-value",
    confidence: float = 0.9, strength: float = 0.1, calibrate: float = 0.5, seed: int = 0,
) -> Monitor:  # fmt: skip
    """Fits a monitor on the runs of past problems, good and bad.

    Args:
        runs: with outcomes, or first errors.
        reads: `features` fits a small model on all signals; `turn` watches the number of the turn alone, `last-score`,
            `min-score` and `mean-score` a scorer's scores.
        column: step column of these scores; `features` reads them too where it is given.
        good, success: which alarms are false (`watched_runs`).
        alpha: chance that a good run is ever stopped.
        warn: chance that a good run is ever warned of.
        guarantee: `p-value`, `confidence` or `e-value` (`core.measure.false_alarms.Guarantee`).
        confidence: of that guarantee alone.
        strength: inverse strength of the model's ridge penalty.
        calibrate: share of the problems that the model is not fitted on, for the bound.
        seed: of the split by problem.

    Raises:
        InputError: outcomes or scores are missing, or no good run is left to calibrate on.
        UnknownNameError: `reads` is none of these.
    """
    watched = watched_runs(runs, column=column, good=good, success=success)
    if reads in READS and reads.endswith("score") and not column:
        raise InputError(f"{reads} reads a step column", remedy="name the column, or pass a model")
    fit, held = sides(watched, reads, calibrate, Key.seed(seed).fold("monitor"))
    statistic = statistic_of(watched, reads, fit, strength)
    bound = bound_of(watched, statistic.values(watched.signals), held)
    about: dict[str, Any] = {
        "reads": reads, "good": good, "success": success, "runs": len(watched), "runs_left_out": watched.left_out,
        "problems": int(watched.problem.max()) + 1, "problems_calibrated_on": bound.problems,
        "good_runs_calibrated_on": len(bound.maxima), "seed": seed,
    }  # fmt: skip
    reads_scores = column if any("score" in name for name in statistic.names) else ""
    seen = frozenset(digest_of(run.problem) for run in runs)
    return Monitor(statistic, bound, alpha, warn, guarantee, confidence, reads_scores, about, seen)


def sides(
    runs: WatchedRuns, reads: Reads, calibrate: float, key: Key, among: NDArray[np.bool_] | None = None
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(B,) runs to fit on and to calibrate on, never of one problem; a statistic that is not fitted has none to fit on.

    Args:
        runs: all.
        reads: what the statistic reads.
        calibrate: share of the problems to calibrate on, in (0, 1).
        key: of the split.
        among: (B,) runs to take; all where None.

    Raises:
        UnknownNameError: no statistic is called so.
        ValueError: the share is out of range.
    """
    if reads not in READS:
        raise UnknownNameError("statistic", reads, READS)
    if not 0 < calibrate < 1:
        raise ValueError(f"the share to calibrate on must be in (0, 1), got {calibrate}")
    taken = np.ones(len(runs), bool) if among is None else among
    if reads != LEARNED:
        return np.zeros(len(runs), bool), taken
    problems = np.unique(runs.problem[taken])
    held = key.rng().permutation(problems)[: max(1, round(calibrate * len(problems)))]
    side = np.isin(runs.problem, held)
    return taken & ~side, taken & side


def statistic_of(runs: WatchedRuns, reads: Reads, fit: NDArray[np.bool_], strength: float) -> Statistic:
    """The statistic of a name, fitted where it has to be."""
    return learned(runs, fit, strength=strength) if reads == LEARNED else chosen(reads)


def bound_of(runs: WatchedRuns, values: Floats, held: NDArray[np.bool_]) -> AlarmBound:
    """The bound by the good parts of some runs.

    Args:
        runs: all.
        values: (N,) the statistic at their turns.
        held: (B,) runs to calibrate on.
    """
    maxima = run_maxima(np.where(runs.fine, values, np.nan), runs.offsets)
    used = held & runs.good
    return AlarmBound(maxima[used], runs.problem[used])
