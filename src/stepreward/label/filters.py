"""Filters: which labelled trajectories are worth training on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stepreward.core.catalog import keep
from stepreward.core.tree_arrays import mean_at
from stepreward.core.types import Labels, first_error

Floats = NDArray[np.float64]


def _by_problem(labels: Sequence[Labels]) -> NDArray[np.int64]:
    """(B,) index of each trajectory's problem."""
    _, index = np.unique([one.trajectory.problem.id for one in labels], return_inverse=True)
    return np.asarray(index, np.int64)


def _outcomes(labels: Sequence[Labels]) -> Floats:
    return np.array([one.trajectory.outcome for one in labels], np.float64)


@keep.method(
    "informative",
    paper="arXiv:2406.06592",
    equation="appendix A, questions neither solved always nor never",
    note="by the rollouts at hand, where the paper takes 32",
)
def informative(labels: Sequence[Labels]) -> NDArray[np.bool_]:
    """Keeps trajectories of problems that the policy solves sometimes: always and never teach nothing.

    A problem is kept if among its solutions' outcomes and all rollouts counted for its prefixes at least one is right
    and at least one is wrong.

    Args:
        labels: labelled trajectories, of any problems.

    Returns:
        (B,) True to keep.
    """
    group, outcome = _by_problem(labels), _outcomes(labels)
    n = np.array([one.n_rollouts.sum() for one in labels])
    correct = np.array([one.n_correct.sum() for one in labels])
    root = np.array([one.root_value for one in labels])
    right = np.bincount(group, weights=(outcome > 0.5) | (correct > 0) | (root > 0))
    wrong = np.bincount(group, weights=(outcome <= 0.5) | (correct < n) | (root < 1))
    return np.asarray((right[group] > 0) & (wrong[group] > 0))


@keep.method(
    "self-accuracy",
    paper="arXiv:2509.16548",
    equation="section 3, self-confidence",
    note="the share of right solutions among those given, or the measured value of the bare problem",
)
def self_accuracy(labels: Sequence[Labels], *, lowest: float = 0.75, highest: float = 1.0) -> NDArray[np.bool_]:
    """Keeps trajectories of problems that the policy solves about as often as wanted: it labels best what it can do.

    The rate is the value of the bare problem where it was measured, else the mean outcome of the problem's solutions.

    Args:
        labels: labelled trajectories, of any problems.
        lowest, highest: window of the rate, both ends inside, 0 <= lowest <= highest <= 1.

    Returns:
        (B,) True to keep; False where the rate is not known.

    Raises:
        ValueError: the window is empty or leaves [0, 1].
    """
    if not 0 <= lowest <= highest <= 1:
        raise ValueError(f"expected 0 <= lowest <= highest <= 1, got {lowest} and {highest}")
    group = _by_problem(labels)
    roots = np.array([one.root_value for one in labels], np.float64)
    problems = int(group.max(initial=-1)) + 1
    rate = mean_at(group, roots, problems)
    rate = np.where(np.isnan(rate), mean_at(group, _outcomes(labels), problems), rate)
    return np.asarray((rate[group] >= lowest) & (rate[group] <= highest))


@keep.method("consensus", paper="arXiv:2501.07301", equation="section 3.2")
def consensus(labels: Sequence[Labels], others: Sequence[Labels], *, threshold: float = 0.0) -> NDArray[np.bool_]:
    """Keeps trajectories whose first error two independent sources place at the same step.

    Args:
        labels, others: the two sources, of the same trajectories in the same order.
        threshold: a label at or below it is an error.

    Returns:
        (B,) True to keep.

    Raises:
        ValueError: the sources differ in length or in their trajectories.
    """
    if len(labels) != len(others):
        raise ValueError(f"two sources must label the same trajectories: got {len(labels)} and {len(others)}")
    for row, (a, b) in enumerate(zip(labels, others, strict=True)):
        if (a.trajectory.problem.id, a.trajectory.text) != (b.trajectory.problem.id, b.trajectory.text):
            raise ValueError(f"trajectory {row} differs between the two sources: sort both in the same order")
    return np.array(
        [
            first_error(a.label, threshold=threshold) == first_error(b.label, threshold=threshold)
            for a, b in zip(labels, others, strict=True)
        ],
        dtype=bool,
    )
