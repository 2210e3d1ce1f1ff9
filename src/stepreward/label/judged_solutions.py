"""Labels by a judge: a language model that is asked which steps are wrong, or anything else that votes on steps."""

from __future__ import annotations

import re

import numpy as np

from stepreward.core.catalog import estimate
from stepreward.core.errors import InputError
from stepreward.core.runtime.flows import Flow, Score, Scored
from stepreward.core.types import LABEL, SCORE, Provenance, Trajectory

_VOTE = re.compile(r"(\d+:)?vote\d+")
"""Names of a scorer's votes; those of several judges have a number before them."""


@estimate.method(
    "judge",
    note="ours: prompts, and how answers are read, are rows of the table of verifiers that write; the transforms of "
    "votes merge what is said",
    asks=("scorer",),
    transform="first-error-vote",
)
def judged(trajectory: Trajectory, *, column: str = SCORE) -> Flow[Trajectory]:
    """Labels steps by what a judge says of them, as often as it is asked; needs no outcome and no rollout.

        value_t = mean of the votes that say something of step t;  NaN where none does

    Args:
        trajectory: finished or not, graded or not.
        column: of the judge's scores; what else it says is in columns `COLUMN:NAME`, its answers in `COLUMN:vote1` and
            so on, as `score` writes them. The columns of judges under other names stay, and transforms of votes count
            those too.

    Returns:
        The trajectory with the columns value and label, and those of the judge.

    Raises:
        InputError: the trajectory has no step, the judge shows a reference that the problem does not have, or the
            scorer gives no votes.
    """
    if not len(trajectory):
        raise InputError(f"a trajectory of problem {trajectory.problem.id!r} has no step", remedy="drop it")
    said: Scored
    (said,) = yield [Score(trajectory.problem, trajectory.steps, whole=True)]
    votes = np.array([own for name, own in said.columns.items() if _VOTE.fullmatch(name)], np.float64)
    if not len(votes):
        what = "the reward model gives numbers of steps and no votes"
        raise InputError(what, remedy="name a verifier that writes, or the prompt of one: --like first-error")
    known = ~np.isnan(votes)
    value = np.where(known, votes, 0.0).sum(0) / np.maximum(known.sum(0), 1)
    value[~known.any(0)] = np.nan
    columns = {column: said.scores, **{f"{column}:{name}": own for name, own in said.columns.items()}}
    by = Provenance("judge", settings={"column": column})
    return trajectory.with_columns({**columns, "value": value, LABEL: value.copy()}, by)
