"""Labels by programs that check steps: no policy, no grader, no person.

Checkers are a family of their own, `check`, and neither rewards by rule nor scorers. A reward by rule has any scale,
and 0 says as much of a step as nothing at all; a scorer must give every step a number. A label needs to know right from
wrong from unknown, and a person wants to read why. One estimator makes labels of any checker, also of a plug-in.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from stepreward.core.catalog import estimate
from stepreward.core.errors import InputError
from stepreward.core.runtime.flows import Flow
from stepreward.core.step_verdicts import numbers_of, verdicts
from stepreward.core.types import LABEL, Provenance, Trajectory
from stepreward.label.rollouts import stated_first_error

Unchecked = Literal["unknown", "right"]
"""The label of a step of which no checker can say anything."""


@estimate.method("checker", note="ours: a step is wrong if a program finds an error in it", transform="hard")
def checked(
    trajectory: Trajectory, *, checker: str = "equations", unchecked: Unchecked = "unknown"
) -> Flow[Trajectory]:
    """Labels steps by what programs find in them; asks no model, and needs no outcome.

        value = 0 if a checker finds an error in the step,  1 if none does and one says that it is right,  else NaN

    Args:
        trajectory: finished or not, graded or not.
        checker: of the family check; several with a plus sign, such as `equations+algebra`.
        unchecked: what steps count as of which no checker can say anything.

    Returns:
        The trajectory with the columns value and label; the fact `step_errors` lists the wrong steps with kind, claim
        and checker, and `checked` is the share of actions of which a checker says something.

    Raises:
        InputError: the trajectory has no step, or a checker does not say one thing of each.
        UnknownNameError: there is no such checker.
        ValueError: `unchecked` is neither.
    """
    yield from ()  # a flow that asks nothing
    if unchecked not in ("unknown", "right"):
        raise ValueError(f"unchecked is 'unknown' or 'right', got {unchecked!r}")
    if not len(trajectory):
        raise InputError(f"a trajectory of problem {trajectory.problem.id!r} has no step", remedy="drop it")
    found = verdicts(checker, trajectory.problem, trajectory.steps)
    value = numbers_of(found)
    errors = [
        {"step": at, "kind": one.kind, "claim": one.claim, "checker": name}
        for at, (name, one) in enumerate(found)
        if one.right is False
    ]
    action = trajectory.action
    facts = {**trajectory.facts, "step_errors": errors}
    if action.any():
        facts["checked"] = float((~np.isnan(value[action])).mean())
    if unchecked == "right":
        value[action & np.isnan(value)] = 1.0
    by = Provenance("checker", settings={"checker": checker, "unchecked": unchecked})
    made = trajectory.with_columns({"value": value, LABEL: value.copy()}, by)
    return replace(made, facts=facts, first_error=stated_first_error(value))
