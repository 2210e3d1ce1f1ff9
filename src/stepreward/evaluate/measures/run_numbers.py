"""What can be counted of one run of an agent: how it ended, what it scored, what it did, and what that took."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from stepreward.core.measure.first_error import first_error
from stepreward.core.measure.step_usage import cost, sum_of_run, tokens_of, tokens_read, tokens_written
from stepreward.core.types import LABEL, SCORE, Floats, Trajectory
from stepreward.score.monitor.turn_signals import agent_turns, is_failed


@dataclass(frozen=True)
class RunMeasure:
    """A number of a run."""

    about: str
    is_share: bool = False
    """Whether it is in [0, 1]."""


RUN_MEASURES: Mapping[str, RunMeasure] = {
    "outcome": RunMeasure("the run's outcome", True),
    "mean_score": RunMeasure("mean score of its actions"),
    "worst_score": RunMeasure("lowest score of its actions"),
    "actions": RunMeasure("its actions"),
    "tokens": RunMeasure("tokens that the agent wrote"),
    "tokens_read": RunMeasure("tokens of the prompts that it answered"),
    "cost": RunMeasure("US dollars that the log states"),
    "tool_errors": RunMeasure("actions answered by what is marked as an error or speaks of one; not by a user"),
    "right_share": RunMeasure("share of its actions before the first wrong one, 1 where none is wrong", True),
    "first_error": RunMeasure("number of its first wrong action, from 1, where it has one"),
}
"""The numbers of a run, in order."""


def run_numbers(run: Trajectory, column: str = SCORE) -> Floats:
    """(M,) the numbers of `RUN_MEASURES`, NaN where a run does not tell.

    A run with an action that has no score has neither a mean nor a lowest score: that one may be the lowest. Answers of
    users are no errors of tools, whatever they speak of; a run without any answer of a tool has no count.

    Args:
        run: one attempt.
        column: step column of its scores.
    """
    scores = run.column(column)[run.action]
    answers = [[one for one in turn.answers if one.role not in ("user", "system")] for turn in agent_turns(run.steps)]
    answered = [some for some in answers if some]
    right = _right_actions(run)
    number = int(run.action.sum())
    made = {
        "outcome": run.outcome,
        "mean_score": float(scores.mean()) if number else math.nan,
        "worst_score": float(scores.min()) if number else math.nan,
        "actions": float(number),
        "tokens": sum_of_run(run, tokens_written, tokens_of),
        "tokens_read": sum_of_run(run, tokens_read),
        "cost": sum_of_run(run, cost),
        "tool_errors": float(sum(map(is_failed, answered))) if answered else math.nan,
        "right_share": right / number if number else math.nan,
        "first_error": right + 1 if right < number else math.nan,
    }
    return np.array([made[name] for name in RUN_MEASURES], np.float64)


def _right_actions(run: Trajectory) -> float:
    """Actions before the first wrong step, all where none is wrong; NaN where that is not known."""
    at = run.first_error
    if at is None:
        labels = run.column(LABEL)
        at = int(first_error(labels)) if len(run) else -1
        # An action without a label up to there may be wrong itself.
        if np.isnan(labels[run.action][: None if at < 0 else int(run.action[:at].sum())]).any() or not len(run):
            return math.nan
    return float(run.action[: len(run) if at < 0 else at].sum())
