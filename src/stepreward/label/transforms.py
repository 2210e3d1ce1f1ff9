"""Transforms: training labels from measured values or scores, at any time and without further rollouts.

A transform reads `value` or a column of scores, never an earlier `label`, so the last one applied decides; `transforms`
keeps the history. Steps that were not measured, and observations, stay NaN.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from stepreward.core.catalog import transform
from stepreward.core.measure.first_error import first_error
from stepreward.core.types import LABEL, SCORE, Floats, Provenance, Trajectory
from stepreward.label.rollouts import stated_first_error

AfterError = Literal["keep", "zero", "mask"]
"""What to do with labels after the first step whose value is 0: keep them, set them to 0 (measured or not), or leave
those steps unsupervised (NaN)."""


def rewritten(
    trajectory: Trajectory, name: str, values: Floats, after_error: AfterError = "keep", measured: Floats | None = None
) -> Trajectory:
    """The labels with `values` where a step was measured, and those after the first error as `after_error` says.

    Args:
        trajectory: to label.
        name: of the transform.
        values: (S,) the labels.
        after_error: see `AfterError`.
        measured: (S,) 0 at an error, NaN where nothing was measured; the column `value` where None.
    """
    if after_error not in ("keep", "zero", "mask"):
        raise ValueError(f"after_error is 'keep', 'zero' or 'mask', got {after_error!r}")
    measured = trajectory.column("value") if measured is None else measured
    made = np.where(np.isnan(measured), np.nan, values)
    first = first_error(measured, 0.0)
    if first >= 0 and after_error != "keep":
        later = trajectory.action & (np.arange(len(trajectory)) > first)
        made[later] = 0.0 if after_error == "zero" else np.nan
    facts = {**trajectory.facts, "transforms": [*trajectory.facts.get("transforms", ()), name]}
    # The provenance of the values is that of the labels too; a transform adds its name to the facts.
    return replace(trajectory.with_columns({LABEL: made}), facts=facts, first_error=stated_first_error(made))


@transform.method("soft", paper="arXiv:2312.08935", equation="Eq. 4")
def soft(trajectory: Trajectory, *, after_error: AfterError = "keep") -> Trajectory:
    """Labels a step with its measured value.

    Args:
        trajectory: with the column `value`.
        after_error: see `AfterError`.
    """
    return rewritten(trajectory, "soft", trajectory.column("value").copy(), after_error)


@transform.method("hard", paper="arXiv:2312.08935", equation="Eq. 3")
def hard(trajectory: Trajectory, *, threshold: float = 0.0, after_error: AfterError = "keep") -> Trajectory:
    """Labels a step 1 if its value is above the threshold, else 0.

    Args:
        trajectory: with the column `value`.
        threshold: in [0, 1); at 0 one success is enough, at 0.5 it takes a majority.
        after_error: see `AfterError`.

    Raises:
        ValueError: `threshold` is outside [0, 1).
    """
    if not 0 <= threshold < 1:
        raise ValueError(f"threshold must lie in [0, 1), got {threshold}")
    return rewritten(trajectory, "hard", (trajectory.column("value") > threshold).astype(np.float64), after_error)


transform.preset("majority", of="hard", paper="arXiv:2501.07301", threshold=0.5)


@transform.method(
    "er-prm",
    paper="arXiv:2412.11006",
    equation="Eq. 8",
    note="any eta other than 0, where the authors' code takes positive integers and an absolute value",
)
def entropy_regularised(trajectory: Trajectory, *, eta: float = 1.0, after_error: AfterError = "keep") -> Trajectory:
    """Labels a step with the value that a policy kept near the sampled one could reach.

        label = (1 / eta) log(1 - p + p e^eta)

    As eta -> 0 it is p, as eta -> infinity 1 for any p > 0, as eta -> -infinity 0 for any p < 1.

    Args:
        trajectory: with the column `value`.
        eta: not 0; positive is hopeful, negative is cautious.
        after_error: see `AfterError`.

    Raises:
        ValueError: `eta` is 0.
    """
    if eta == 0:
        raise ValueError("eta must not be 0: use the transform 'soft', its limit")
    p = trajectory.column("value")
    with np.errstate(divide="ignore", invalid="ignore"):
        # The first form keeps its digits near 0, the second does not overflow far from it.
        log_mean = np.log1p(p * np.expm1(eta)) if abs(eta) < 1 else np.logaddexp(np.log1p(-p), np.log(p) + eta)
    return rewritten(trajectory, "er-prm", np.clip(log_mean / eta, 0.0, 1.0), after_error)


@transform.method(
    "genprm", paper="arXiv:2504.00891", equation="section 3.2, relative progress", note="epsilon 0.8 as in the paper"
)
def relative_progress(trajectory: Trajectory, *, epsilon: float = 0.8) -> Trajectory:
    """Labels a step 1 if the value did not fall by more than a factor.

        label_t = 1 if value_t / value_{t-1} >= epsilon, where value_0 is the bare problem's; 0 after a value of 0

    The predecessor is the action before; a step whose predecessor was not measured is left unsupervised, and so is the
    first step unless the estimator ran with root=True.

    Args:
        trajectory: with the column `value`.
        epsilon: smallest ratio that is no error, positive.

    Raises:
        ValueError: `epsilon` is not positive.
    """
    if epsilon <= 0:
        raise ValueError(f"epsilon must be positive, got {epsilon}")
    action = trajectory.action
    value = trajectory.column("value")[action]
    before = np.r_[trajectory.facts.get("root_value", np.nan), value][:-1]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratio = np.where(before > 0, value / before, 0.0)
    made = np.full(len(trajectory), np.nan)
    made[action] = np.where(np.isnan(before), np.nan, (ratio >= epsilon).astype(np.float64))
    return rewritten(trajectory, "genprm", made)


@transform.method(
    "scan-denoise",
    paper="arXiv:2509.16548",
    equation="section 4",
    note="needs the value of the bare problem: run the estimator with root=True",
)
def scan_denoise(trajectory: Trajectory, *, soft_steps: int = 2) -> Trajectory:
    """Trusts rollouts only near the error and only relative to what the policy can do at all.

        label = 0 at the first error t,  min(1, value_i / value_0) at the `soft_steps` actions before t,  1 before them

    value_0 is the bare problem's. Steps after t are left unsupervised.

    Args:
        trajectory: with the column `value`.
        soft_steps: actions before the error that keep a measured value, at least 0.

    Raises:
        ValueError: an error was found but the bare problem was not valued, or `soft_steps` is negative.
    """
    if soft_steps < 0:
        raise ValueError(f"soft_steps must not be negative, got {soft_steps}")
    first = first_error(trajectory.column("value"), 0.0)
    made = np.ones(len(trajectory))
    if first >= 0:
        if np.isnan(trajectory.facts.get("root_value", np.nan)):
            raise ValueError("scan-denoise needs the value of the bare problem: estimate with root=True")
        before = np.flatnonzero(trajectory.action[:first])
        near = before[max(0, len(before) - soft_steps) :]
        with np.errstate(
            divide="ignore", over="ignore"
        ):  # A problem of value 0 is no evidence against a step of positive value.
            made[near] = np.minimum(1.0, trajectory.column("value")[near] / trajectory.facts.get("root_value", np.nan))
        made[first] = 0.0
        made[first + 1 :] = np.nan
    return rewritten(trajectory, "scan-denoise", made)


@transform.method(
    "pseudo-label",
    paper="arXiv:2409.06903",
    note="its confidence max(p, 1 - p) > 0.8 at each step; the published code keeps the data set's label where the "
    "model is sure of the other one",
)
def pseudo_label(
    trajectory: Trajectory,
    *,
    column: str = SCORE,
    above: float = 0.8,
    below: float = 0.2,
    soft: bool = False,
    after_error: AfterError = "keep",
) -> Trajectory:
    """Labels a step by a model's own score where the model is sure, so that it can learn from unlabelled solutions.

        label = 1 if score > above,  0 if score < below,  not supervised in between

    With `above` and `below` at 1/2 all scores but exact ties are labels; with 1 and 0 no probability is one.

    Args:
        trajectory: with scores.
        column: of the scores, such as `score:NAME`; `value` for measured values.
        above, below: ends of the range in which the model is not sure, below <= above.
        soft: keep the score itself as the label where the model is sure.
        after_error: see `AfterError`; an error is a step that is labelled wrong.

    Raises:
        ValueError: `below` exceeds `above`.
    """
    if not below <= above:
        raise ValueError(f"below must not exceed above, got {below} and {above}")
    scores = trajectory.column(column)
    sure = np.where(scores > above, 1.0, np.where(scores < below, 0.0, np.nan))
    sure[~trajectory.action] = np.nan
    made = rewritten(trajectory, "pseudo-label", scores if soft else sure, after_error, sure)
    source = next((one.estimator for one in trajectory.provenance if column in one.what), "")
    settings = {"column": column, "above": above, "below": below, "soft": soft, "after_error": after_error}
    return made.with_columns({LABEL: made.labels}, Provenance("pseudo-label", policy=source, settings=settings))
