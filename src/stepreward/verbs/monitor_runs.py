"""The verbs fit_monitor and evaluate_monitor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stepreward.core.errors import InputError
from stepreward.core.runtime.flows import Scorer
from stepreward.core.types import SCORE, Trajectory
from stepreward.evaluate.monitoring import MonitorResult, measure_monitor, measure_over_splits
from stepreward.score.monitor.monitor_fit import fitted
from stepreward.score.monitor.run_monitor import Monitor
from stepreward.score.monitor.statistic import LEARNED, Reads
from stepreward.score.monitor.watched_runs import Good, watched_runs
from stepreward.verbs.read_rows import Rows, rows_of
from stepreward.verbs.score_rows import score


def fit_monitor(
    rows: Rows, scorer: str | Path | Scorer | None = None, *, column: str = "", reads: Reads = LEARNED, **settings: Any
) -> Monitor:
    """Fits a monitor on the runs of past problems: after each turn of another run it says continue, warn or stop.

    Args:
        rows: a file of any format, or trajectories, with outcomes.
        scorer: scores their steps first, into `column`; it must not read what comes later in a run.
        column: step column of scores to watch; `score` where a scorer is given.
        reads: `features` for a small model on length, repetition, errors, surprise and scores where there are any;
            `turn`, `min-score`, `mean-score` or `last-score` for that alone.
        settings: of `stepreward.score.monitor.monitor_fit.fitted`: `alpha`, `warn`, `good`, `success`, `guarantee`, ...

    Raises:
        InputError: rows cannot be read, outcomes or scores are missing, or too few problems are good or bad.
    """
    runs, column = _scored(rows, scorer, column)
    return fitted(runs, reads=reads, column=column, **settings)


def evaluate_monitor(
    rows: Rows,
    monitor: str | Path | Monitor | None = None,
    scorer: str | Path | Scorer | None = None,
    *,
    column: str = "",
    reads: Reads = LEARNED,
    good: Good = "success",
    success: float = 1.0,
    seed: int = 0,
    **settings: Any,
) -> MonitorResult:
    """Measures false alarms, recall, lead time and what is saved, with intervals.

    Args:
        rows: a file of any format, or trajectories, with outcomes.
        monitor: a fitted one, or its folder: it is measured on those of these rows whose problems it was not
            fitted on. None fits and measures monitors on many splits by problem, beside the number of the turn alone
            and chance.
        scorer, column, reads: as in `fit_monitor`.
        good, success: which alarms are false; of a fitted monitor its own.
        seed: of splits and intervals.
        settings: of `stepreward.evaluate.monitoring.measure_over_splits`: `alpha`, `splits`, `test`, ...

    Raises:
        InputError: rows cannot be read, or outcomes or scores are missing.
    """
    if monitor is None:
        runs, column = _scored(rows, scorer, column)
        watched = watched_runs(runs, column=column, good=good, success=success)
        return measure_over_splits(watched, [reads], seed=seed, **settings)
    made = monitor if isinstance(monitor, Monitor) else Monitor.load(monitor)
    made = made.at(settings.pop("alpha", made.alpha))
    if settings:
        what = f"{', '.join(settings)} of a fitted monitor cannot be chosen anew"
        raise InputError(what, remedy="leave it out, or leave the monitor out")
    runs, _ = _scored(rows, scorer, made.column)
    other = [run for run in runs if not made.knows(run.problem)]
    if not other:
        raise InputError("the monitor was fitted on all of these problems", remedy="pass runs of others, or no monitor")
    own = {name: made.about[name] for name in ("good", "success") if name in made.about}
    watched = watched_runs(other, column=made.column, **{"good": good, "success": success, **own})
    return measure_monitor(made, watched, known=len(runs) - len(other), seed=seed)


def _scored(rows: Rows, scorer: str | Path | Scorer | None, column: str) -> tuple[list[Trajectory], str]:
    """The runs, with scores where there is a scorer, and the name of their column."""
    if scorer is None:
        return list(rows_of(rows)), column
    name = column or SCORE
    return list(score(rows, scorer, column=name)), name
