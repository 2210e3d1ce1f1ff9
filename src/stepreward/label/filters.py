"""Filters: the labelled trajectories to keep for training."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray

from stepreward.core.catalog import keep
from stepreward.core.measure.first_error import first_error
from stepreward.core.tree_arrays import mean_at
from stepreward.core.types import SCORE, Floats, Trajectory
from stepreward.core.vocabulary import Count

_ROUNDING = 1e-9


def _by_problem(trajectories: Sequence[Trajectory]) -> NDArray[np.int64]:
    """(B,) index of each trajectory's problem."""
    _, index = np.unique([one.problem.id for one in trajectories], return_inverse=True)
    return np.asarray(index, np.int64)


def _outcomes(trajectories: Sequence[Trajectory]) -> Floats:
    return np.array([one.outcome for one in trajectories], np.float64)


@keep.method(
    "informative",
    paper="arXiv:2406.06592",
    equation="appendix A, questions neither solved always nor never",
    note="by the rollouts at hand, where the paper takes 32",
)
def informative(trajectories: Sequence[Trajectory]) -> NDArray[np.bool_]:
    """Keeps trajectories of problems that the policy solves sometimes, as always and never are not informative.

    A problem is kept if among its solutions' outcomes and all rollouts counted for its prefixes at least one is right
    and at least one is wrong.

    Args:
        trajectories: labelled, of any problems.

    Returns:
        (B,) True to keep.
    """
    group, outcome = _by_problem(trajectories), _outcomes(trajectories)
    n = np.array([np.nansum(one.column("n_rollouts")) for one in trajectories])
    correct = np.array([np.nansum(one.column("n_correct")) for one in trajectories])
    root = np.array([one.facts.get("root_value", np.nan) for one in trajectories])
    # Comparisons with NaN are False: what was not measured is evidence of neither.
    right = np.bincount(group, weights=(outcome > 0.5) | (correct > 0) | (root > 0))
    wrong = np.bincount(group, weights=(outcome <= 0.5) | (correct < n) | (root < 1))
    return np.asarray((right[group] > 0) & (wrong[group] > 0))


@keep.method(
    "self-accuracy",
    paper="arXiv:2509.16548",
    equation="section 3, self-confidence",
    note="the share of right solutions among those given, or the measured value of the bare problem",
)
def self_accuracy(
    trajectories: Sequence[Trajectory], *, lowest: float = 0.75, highest: float = 1.0
) -> NDArray[np.bool_]:
    """Keeps trajectories of problems that the policy solves about as often as wanted: it labels best what it can do.

    The rate is the value of the bare problem where it was measured, else the mean outcome of the problem's solutions.

    Args:
        trajectories: labelled, of any problems.
        lowest, highest: window of the rate, both ends inside, 0 <= lowest <= highest <= 1.

    Returns:
        (B,) True to keep; False where the rate is not known.

    Raises:
        ValueError: the window is empty or leaves [0, 1].
    """
    if not 0 <= lowest <= highest <= 1:
        raise ValueError(f"expected 0 <= lowest <= highest <= 1, got {lowest} and {highest}")
    group = _by_problem(trajectories)
    roots = np.array([one.facts.get("root_value", np.nan) for one in trajectories], np.float64)
    problems = int(group.max(initial=-1)) + 1
    rate = mean_at(group, roots, problems)
    rate = np.where(np.isnan(rate), mean_at(group, _outcomes(trajectories), problems), rate)
    return np.asarray((rate[group] >= lowest) & (rate[group] <= highest))


keep.preset(
    "root-window",
    of="self-accuracy",
    note="the window of repository MASPRM, src/train/preprocess_data.py: root values from -0.7 to 0.7, which are "
    "success rates from 0.15 to 0.85",
    lowest=0.15,
    highest=0.85,
)


@keep.method(
    "spread",
    note="the rule of repository ReST-RL, utils/sample_utils.py: rewards of a prompt with a standard deviation of 0.05",
)
def spread(trajectories: Sequence[Trajectory], *, least: float = 0.05) -> NDArray[np.bool_]:
    """Keeps trajectories of problems whose outcomes differ: equal ones give no advantage and no pair.

    Args:
        trajectories: graded, of any problems.
        least: standard deviation of a problem's outcomes, of all of them as the population, in [0, 0.5].

    Returns:
        (B,) True to keep; False where no outcome of the problem is known.
    """
    group, outcome = _by_problem(trajectories), _outcomes(trajectories)
    problems = int(group.max(initial=-1)) + 1
    mean = mean_at(group, outcome, problems)
    return np.asarray(np.sqrt(mean_at(group, (outcome - mean[group]) ** 2, problems))[group] >= least - _ROUNDING)


@keep.method("uncertain", note="ours: uncertainty sampling, by a model's scores or by several models' disagreement")
def uncertain(
    trajectories: Sequence[Trajectory], *, columns: str = SCORE, sure: float = 0.95, apart: float = 0.1
) -> NDArray[np.bool_]:
    """Keeps trajectories with a step of which the scores are not sure, which are worth a label most.

    A step is not sure if its mean score p has max(p, 1 - p) < `sure`, or if several scores of it have a standard
    deviation of at least `apart`. Steps behind the first one that is surely wrong do not count.

    Args:
        trajectories: scored, of any problems.
        columns: of the scores, with `*` for any letters: `score:*` for several models.
        sure: in [0.5, 1]; 0.5 leaves it to the disagreement.
        apart: least disagreement; above 0.5 it leaves it to the mean.

    Returns:
        (B,) True to keep; False where no step is scored.
    """
    made = []
    for one in trajectories:
        names = [name for name in one.columns if fnmatchcase(name, columns)]
        scores = np.array([one.columns[name] for name in names]).reshape(len(names), len(one))
        # Steps that a model leaves out are not sure of anything: any comparison with NaN is False.
        mean, deviation = (scores.mean(0), scores.std(0)) if names else (np.full(len(one), np.nan),) * 2
        doubtful = (np.maximum(mean, 1 - mean) < sure) | (deviation >= apart - _ROUNDING)
        end = first_error(np.where(doubtful, np.nan, mean))
        made.append(bool(doubtful[: end if end >= 0 else None].any()))
    return np.array(made, bool)


@keep.method("labelled", note="a solution without any label teaches nothing of its steps")
def with_labels(trajectories: Sequence[Trajectory], *, least: Count = 1) -> NDArray[np.bool_]:
    """Keeps trajectories with labels, such as those on which enough votes agree.

    Args:
        trajectories: of any problems.
        least: steps with a label, at least.

    Returns:
        (B,) True to keep.
    """
    return np.array([int((~np.isnan(one.labels)).sum()) >= least for one in trajectories], bool)


@keep.method("consensus", paper="arXiv:2501.07301", equation="section 3.2")
def consensus(
    trajectories: Sequence[Trajectory], others: Sequence[Trajectory], *, threshold: float = 0.0
) -> NDArray[np.bool_]:
    """Keeps trajectories whose first error two independent sources place at the same step.

    Args:
        trajectories, others: the two sources, of the same trajectories in the same order.
        threshold: a label at or below it is an error.

    Returns:
        (B,) True to keep.

    Raises:
        ValueError: the sources differ in length or in their trajectories.
    """
    if len(trajectories) != len(others):
        raise ValueError(f"two sources must label the same trajectories: got {len(trajectories)} and {len(others)}")
    for row, (a, b) in enumerate(zip(trajectories, others, strict=True)):
        if (a.problem.id, a.text) != (b.problem.id, b.text):
            raise ValueError(f"trajectory {row} differs between the two sources: sort both in the same order")
    return np.array(
        [
            first_error(a.labels, threshold) == first_error(b.labels, threshold)
            for a, b in zip(trajectories, others, strict=True)
        ],
        dtype=bool,
    )
