"""Runs as arrays: their numbers after each turn at which they could have been stopped, and which of them were good."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from stepreward.core.errors import InputError
from stepreward.core.measure.step_usage import tokens_of
from stepreward.core.types import Floats, Trajectory
from stepreward.score.monitor.turn_signals import AgentTurn, agent_turns, signals_of

Good = Literal["success", "before-error"]
"""Which alarms are false: any in a run that succeeded, or those before the first wrong step of a run."""
GOODS = get_args(Good)


@dataclass(frozen=True)
class WatchedRuns:
    """B runs with N turns after which they went on; the last turn of a run is none of these, as it ends by itself."""

    signals: Floats
    """(N, F) `SIGNALS`, one run after another."""
    offsets: NDArray[np.int64]
    """(B + 1,) where runs begin and end."""
    fine: NDArray[np.bool_]
    """(N,) True where an alarm would be false."""
    good: NDArray[np.bool_]
    """(B,) runs with a part in which alarms are false."""
    bad: NDArray[np.bool_]
    """(B,) runs that an alarm should stop."""
    problem: NDArray[np.int64]
    """(B,) number of the problem."""
    length: NDArray[np.int64]
    """(B,) turns of the whole run."""
    spent: Floats
    """(N,) what the policy has written up to each turn's end."""
    total: Floats
    """(B,) what it wrote in all."""
    unit: str
    """Of what was written: tokens, or characters where tokens are not recorded."""
    left_out: int = 0
    """Runs whose outcome, or first error, is not known."""

    def __len__(self) -> int:
        return len(self.good)

    def turns_of(self, runs: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(N,) True at the turns of some runs."""
        return np.repeat(runs, np.diff(self.offsets))


def watched_runs(
    runs: Sequence[Trajectory], *, column: str = "", good: Good = "success", success: float = 1.0
) -> WatchedRuns:
    """The arrays of runs.

    Args:
        runs: of any problems; runs of one problem share its id.
        column: step column of a scorer's scores of actions; without one, scores are NaN.
        good: `success`: a run with an outcome of at least `success` is good, any other bad. `before-error`: the turns
            before the one of `first_error` are good, and a run that has one is bad.
        success: lowest outcome of a success.

    Raises:
        InputError: no run says whether it was good; or no run has the column.
    """
    if good not in GOODS:
        raise InputError(f"good must be one of {', '.join(GOODS)}, got {good!r}")
    if column and not any(column in run.columns for run in runs):
        have = sorted({name for run in runs for name in run.columns})
        raise InputError(f"no run has the step column {column!r}; there is {', '.join(have) or 'none'}",
                         remedy="score the rows first")  # fmt: skip
    known = [not np.isnan(run.outcome) if good == "success" else run.first_error is not None for run in runs]
    kept = [run for run, told in zip(runs, known, strict=True) if told and run.action.any()]
    if not kept:
        what = "outcome" if good == "success" else "first error"
        raise InputError(f"no run has {'an' if what == 'outcome' else 'a'} {what}",
                         remedy="grade the runs first" if good == "success" else "label first errors")  # fmt: skip
    numbers: dict[str, int] = {}
    turns = [agent_turns(run.steps) for run in kept]
    scores = [_scores(run, own, column) for run, own in zip(kept, turns, strict=True)]
    onset = [_onset(run, own, good, success) for run, own in zip(kept, turns, strict=True)]
    length = np.array([len(own) for own in turns], np.int64)
    tokens = [np.array([tokens_of(turn.action) for turn in own]) for own in turns]
    # Lengths in two units do not add up: where one action has no count of tokens, all are counted in characters.
    unit = "characters" if any(np.isnan(one).any() for one in tokens) else "tokens"
    if unit == "characters":
        tokens = [np.array([len(turn.action.text) for turn in own], np.float64) for own in turns]
    spent = [np.cumsum(one) for one in tokens]
    return WatchedRuns(
        signals=np.concatenate([signals_of(own[:-1], some[:-1]) for own, some in zip(turns, scores, strict=True)]),
        offsets=np.concatenate([[0], np.cumsum(length - 1)]).astype(np.int64),
        fine=np.concatenate([np.arange(n - 1) < first for n, first in zip(length, onset, strict=True)]),
        good=np.array([good == "before-error" or first > 0 for first in onset], bool),
        bad=np.array([first < n for n, first in zip(length, onset, strict=True)], bool),
        problem=np.array([numbers.setdefault(run.problem.id, len(numbers)) for run in kept], np.int64),
        length=length,
        spent=np.concatenate([one[:-1] for one in spent]),
        total=np.array([one[-1] for one in spent], np.float64),
        unit=unit,
        left_out=len(runs) - len(kept),
    )


def _scores(run: Trajectory, turns: Sequence[AgentTurn], column: str) -> list[float]:
    """A score for each turn's action; NaN without a column."""
    values = run.column(column) if column else np.full(len(run), np.nan)
    return [float(values[turn.place]) for turn in turns]


def _onset(run: Trajectory, turns: Sequence[AgentTurn], good: Good, success: float) -> int:
    """The first turn at which an alarm is right; the number of turns where none is."""
    if good == "success":
        return len(turns) if run.outcome >= success else 0
    at = -1 if run.first_error is None else run.first_error
    return len(turns) if at < 0 else sum(turn.ends <= at for turn in turns)
