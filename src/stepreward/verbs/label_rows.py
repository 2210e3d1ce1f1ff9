"""The verb label."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from stepreward.core.catalog import estimate
from stepreward.core.catalog import transform as transforms
from stepreward.core.errors import InputError, SteprewardError, UnknownNameError
from stepreward.core.method import Method
from stepreward.core.results import Failure, TrajectoryList, warn_of_failures
from stepreward.core.runtime.flows import Budget, Grader, Policy
from stepreward.core.types import Problem, Trajectory
from stepreward.label.many_problems import LabelPlan, label_many, load_labels
from stepreward.label.solutions import graded, known, sampled
from stepreward.verbs.names import grader as grader_of
from stepreward.verbs.names import policy as policy_of
from stepreward.verbs.read_rows import Problems, Rows, hold_problems, problems_of, rows_of

_NO_GRADE = "the grader gave its solution no grade"
_REMEDY = "give problems a reference, or pass another grader"


def label(
    rows: Rows | Problems,
    *,
    policy: str | Path | Policy,
    grader: str | Grader = "mathematics",
    method: str = "bisection",
    transform: str = "hard",
    samples: int = 8,
    seed: int = 0,
    budget: Budget | None = None,
    folder: str | Path | None = None,
    strict: bool = False,
    **settings: Any,
) -> TrajectoryList:
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
        strict: raise at the first failure, instead of warning and listing all of them in `.failed`.
        settings: of the method.

    Returns:
        Solutions with the columns `value` and `label` and those that the method measures besides.

    Raises:
        InputError: the rows cannot be read.
        SteprewardError: everything failed, or strict and something did.
        UnknownNameError: there is no such method, transform or setting.
    """
    chosen, rewrite = estimate[method], transforms[transform]
    for name in settings:
        if name not in chosen.settings:
            raise UnknownNameError(f"setting of {method}", name, chosen.settings)
    who, judge = policy_of(policy), grader_of(grader)
    plan = LabelPlan(method, settings, seed, budget or Budget())
    failed: list[Failure] = []
    items = _items(rows, failed, strict=strict)
    with TemporaryDirectory() as made:
        kept = Path(folder or made)
        kept.mkdir(parents=True, exist_ok=True)
        failed += _label_into(kept, items, plan, who, judge, samples)
        if failed and strict:
            name, error = failed[0]
            raise SteprewardError(f"{name} could not be labelled: {error}") from error
        found = TrajectoryList((rewrite.take({"trajectory": one}) for one in load_labels(kept)), failed)
    warn_of_failures(failed, "could not be labelled")
    return found


def _items(rows: Rows | Problems, failed: list[Failure], *, strict: bool) -> list[Problem] | list[Trajectory]:
    """Problems or solutions; rows of a file that cannot be read are added to `failed`."""
    if isinstance(rows, str | Path):
        return problems_of(rows) if hold_problems(Path(rows)) else [*rows_of(rows, failed, strict=strict)]
    found: list[Any] = [rows] if isinstance(rows, Problem | Trajectory) else [*rows]
    return problems_of(found) if found and isinstance(found[0], Problem) else found


def _label_into(
    folder: Path, items: list[Any], plan: LabelPlan, policy: Policy, grader: Grader, samples: int
) -> list[Failure]:
    """Samples or grades solutions where that is needed, labels them into shards, and returns what failed.

    Raises:
        InputError: there are solutions, and none could be graded.
    """
    method: Method[..., Any] = estimate[plan.estimator]
    failed: list[Failure] = []
    ungraded: list[Failure] = []
    if items and isinstance(items[0], Problem) and "trajectory" in method.data:
        items, failed, _ = sampled(items, samples, plan.seed, folder, policy, grader)
    elif items and isinstance(items[0], Trajectory):
        items, _ = graded(items, folder, grader)
    if items and isinstance(items[0], Trajectory):
        kept = known(items)
        ids = Counter(one.problem.id for one in items) - Counter(one.problem.id for one in kept)
        ungraded = [(name, InputError(_NO_GRADE)) for name in ids.elements()]
        if not kept:
            raise InputError(f"no solution could be graded, {items[0].problem.id!r} first", remedy=_REMEDY)
        items = kept
    _, more = label_many(items, folder, plan, policy=policy, grader=grader, more_later=bool(failed))
    return failed + ungraded + more
