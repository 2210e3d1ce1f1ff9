"""Transforms that put measured values in relation: to the bare problem, the step before, the tree, another source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from stepreward.core.catalog import transform
from stepreward.core.tree import StepTree
from stepreward.core.types import SCORE, Trajectory
from stepreward.label.transforms import AfterError, rewritten

_ROUNDING = 1e-9
"""Means of equal values may differ by so much."""


@transform.method(
    "relative",
    note="the rule of repository UnPRM, generate_train_data.py: a prefix is lost below the value of the bare question; "
    "needs it: run the estimator with root=True",
)
def relative(trajectory: Trajectory, *, after_error: AfterError = "keep") -> Trajectory:
    """Labels a step 1 if the problem is solved from there at least as often as from its beginning, else 0.

        label_t = 1 if value_t >= value_0 and value_t > 0, where value_0 is the bare problem's

    Args:
        trajectory: with the column `value` and the fact `root_value`; without the latter no step has a label.
        after_error: see `AfterError`; an error is a step of a lower value. The authors label all that follows 0.
    """
    value, root = trajectory.column("value"), float(trajectory.facts.get("root_value", np.nan))
    made = np.where(np.isnan(value) | np.isnan(root), np.nan, (value >= root) & (value > 0))
    return rewritten(trajectory, "relative", made, after_error, made)


@transform.method(
    "look-back",
    note="the view of repository MedSSS, training/prm_train.py; cut off at 0 and 1, which is ours",
)
def look_back(trajectory: Trajectory, *, factor: float = 0.5, dips: bool = False) -> Trajectory:
    """Charges a fall of the value to the step that fell, and a rise back to the step that rose.

        label_t = value_t - f (label_{t-1} - value_t)  from the third action on, one after the other

    With `dips` only a step whose value is below that of both neighbours changes, by f (label_{t-1} - value_{t+1}).

    Args:
        trajectory: with the column `value`; a step next to one that was not measured keeps its value.
        factor: f, not negative.
        dips: the soft form.

    Raises:
        ValueError: `factor` is negative.
    """
    if factor < 0:
        raise ValueError(f"factor must not be negative, got {factor}")
    at = np.flatnonzero(trajectory.action)
    value = trajectory.column("value")[at]
    made = value.copy()
    for t in range(2, len(made) - dips):
        change = made[t - 1] - (value[t + 1] if dips else value[t])
        # A comparison with NaN is False.
        if not np.isnan(change) and (not dips or value[t] < min(made[t - 1], value[t + 1])):
            made[t] -= factor * change
    labels = np.full(len(trajectory), np.nan)
    labels[at] = np.clip(made, 0.0, 1.0)
    return rewritten(trajectory, "look-back", labels)


@transform.method(
    "minmax",
    note="the scaling of repository QLASS, qlass/construct_q_data.py, over all solutions of a problem: the authors "
    "draw at most 300 nodes first, so that a label depends on the draw",
)
def minmax(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    """Scales the values of a problem's solutions to [0, 1], so that each problem has a best and a worst step.

        label = (value - least) / (greatest - least),  0 where all are equal

    The best step of a hopeless problem gets 1: filter `root-window` leaves such problems out, and `root_value` stays.

    Args:
        trajectories: all of one problem, with the column `value`.
    """
    known = np.concatenate([one.column("value") for one in trajectories])
    known = known[~np.isnan(known)]
    low, high = (known.min(), known.max()) if known.size else (0.0, 0.0)
    span = high - low or 1.0
    return [rewritten(one, "minmax", np.clip((one.column("value") - low) / span, 0.0, 1.0)) for one in trajectories]


@transform.method(
    "reciprocal-rank",
    note="the labels of RAG-Gym's released code (2abbdd4), where a strong model ranks ten candidate actions; here any "
    "column does, such as values of rollouts. Its pairs: pairs --by siblings --above 0.75 --below 0.5",
)
def reciprocal_rank(trajectories: Sequence[Trajectory], *, column: str = "value") -> list[Trajectory]:
    """Labels a step by its place among the steps that were tried after the same prefix.

        label = 1 / (1 + rank),    rank = number of siblings of a higher value: 0 for the best, equal ones share it

    Args:
        trajectories: all of one problem, with the column; a step without a measured sibling has no label.
        column: what ranks; steps that several trajectories share have the mean of what they say.
    """
    tree = StepTree.from_trajectories(trajectories)
    values = tree.scatter_mean(tree.step_column(column))
    labels = np.full(tree.n, np.nan)
    known = np.flatnonzero(tree.action & ~np.isnan(values))
    for parent in np.unique(tree.parent[known]):
        some = known[tree.parent[known] == parent]
        if len(some) > 1:
            labels[some] = 1 / (1 + (values[some] > values[some, None] + _ROUNDING).sum(1))
    made = [row[mask] for row, mask in zip(tree.gather(labels), tree.mask, strict=True)]
    named = [rewritten(one, "reciprocal-rank", own, measured=own) for one, own in zip(trajectories, made, strict=True)]
    # A place says nothing of errors.
    return [replace(one, first_error=None) for one in named]


@transform.method(
    "signed", note="values as MASPRM's code has them (repository MASPRM src/mcts.py): -1 is lost, 1 is won"
)
def signed(trajectory: Trajectory) -> Trajectory:
    """Adds the column `signed`, 2 value - 1 in [-1, 1], for objectives that read any number.

    So does `train --labels signed --objective agent-rm`. Labels are in [0, 1] everywhere: here they are the values.

    Args:
        trajectory: with the column `value`.
    """
    made = rewritten(trajectory, "signed", trajectory.column("value").copy())
    return made.with_columns({"signed": 2 * made.labels - 1})


@transform.method(
    "mean-with",
    note="the labels of repository MedSSS in later rounds: half the value model, half the rollouts",
)
def mean_with(trajectory: Trajectory, *, column: str = SCORE, weight: float = 0.5) -> Trajectory:
    """Mixes measured values with another source's, such as those of the last round's model.

        label = (1 - weight) value + weight other

    Args:
        trajectory: with the column `value`; a step that either source leaves out has no label.
        column: of the other source, in [0, 1]; other numbers are cut off there.
        weight: of the other source, in [0, 1].

    Raises:
        ValueError: `weight` is outside [0, 1].
    """
    if not 0 <= weight <= 1:
        raise ValueError(f"weight must lie in [0, 1], got {weight}")
    mixed = (1 - weight) * trajectory.column("value") + weight * np.clip(trajectory.column(column), 0.0, 1.0)
    return rewritten(trajectory, "mean-with", mixed)


transform.preset(
    "score-gate",
    of="pseudo-label",
    unverified="WebSTAR (arXiv:2512.10962): that steps above the gate are trained on and all others masked is a "
    "third party's account; the repository has the judge, but not the filter",
    note="scores in [0, 1], where the authors' are from 0 to 10 and the gate is at 5",
    above=0.5,
    below=0.0,
)
