"""The verb label."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from stepreward.core.catalog import estimate
from stepreward.core.catalog import transform as transforms
from stepreward.core.errors import SteprewardError, UnknownNameError
from stepreward.core.runtime.flows import Budget, Grader, Policy
from stepreward.core.types import Problem, Trajectory
from stepreward.label.run import LabelPlan, label_many, load_labels
from stepreward.label.solutions import graded, known, sampled
from stepreward.verbs.names import grader as grader_of
from stepreward.verbs.names import policy as policy_of
from stepreward.verbs.rows import hold_problems, problems_of, rows_of


def label(
    rows: str | Path | Problem | Trajectory | Iterable[Problem | Trajectory],
    *,
    policy: str | Path | Policy,
    grader: str | Grader = "mathematics",
    method: str = "bisection",
    transform: str = "hard",
    samples: int = 8,
    seed: int = 0,
    budget: Budget | None = None,
    folder: str | Path | None = None,
    **settings: Any,
) -> list[Trajectory]:
    """Labels the steps of solutions by a policy's own rollouts.

    Args:
        rows: problems, of which solutions are sampled first, or solutions; a path holds either.
        policy: who rolls out, a name or an object.
        grader: who decides, a name or an object.
        method: of the family estimate.
        transform: of the family transform: what becomes of the values.
        samples: solutions of each problem.
        seed: of all samples and rollouts.
        budget: the most that one solution may cost.
        folder: where every rollout is kept as it arrives, so that a second call resumes; None keeps nothing.
        settings: of the method.

    Returns:
        Solutions with the columns `value` and `label` and those that the method measures besides.

    Raises:
        SteprewardError: some problem or solution failed.
        UnknownNameError: there is no such method, transform or setting.
    """
    chosen, rewrite = estimate[method], transforms[transform]
    for name in settings:
        if name not in chosen.settings:
            raise UnknownNameError(f"setting of {method}", name, chosen.settings)
    who, judge = policy_of(policy), grader_of(grader)
    plan = LabelPlan(method, settings, seed, budget or Budget())
    if folder is not None:
        return _labelled(rows, Path(folder), plan, who, judge, samples, rewrite)
    with TemporaryDirectory() as made:
        return _labelled(rows, Path(made), plan, who, judge, samples, rewrite)


def _labelled(
    rows: Any, folder: Path, plan: LabelPlan, policy: Policy, grader: Grader, samples: int, rewrite: Any
) -> list[Trajectory]:
    items: Any
    if isinstance(rows, str | Path):
        items = problems_of(rows) if hold_problems(Path(rows)) else list(rows_of(rows))
    else:
        items = [rows] if isinstance(rows, Problem | Trajectory) else list(rows)
    folder.mkdir(parents=True, exist_ok=True)
    failed: Iterable[tuple[str, Exception]] = ()
    if items and isinstance(items[0], Problem):
        items = problems_of(items)
        if "trajectory" in estimate[plan.estimator].data:
            items, failed, _ = sampled(items, samples, plan.seed, folder, policy, grader)
    else:
        items, _ = graded(items, folder, grader)
    if all(isinstance(one, Trajectory) for one in items):
        items = known(items)
    _, more = label_many(items, folder, plan, policy=policy, grader=grader)
    for name, error in (*failed, *more):
        raise SteprewardError(f"{name} could not be labelled: {error}") from error
    return [rewrite.take({"trajectory": one}) for one in load_labels(folder)]
