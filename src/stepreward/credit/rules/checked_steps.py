"""Step rewards of what programs find in steps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stepreward.core.catalog import reward
from stepreward.core.step_verdicts import numbers_of, verdicts
from stepreward.core.types import Floats, Problem, Step
from stepreward.credit.rules.text_rules import actions, at_actions


@reward.method("checked", note="ours: any checker of the family check")
def checked_steps(
    problem: Problem, steps: Sequence[Step], *, checker: str = "equations", right: float = 1.0, wrong: float = -1.0
) -> Floats:
    """Rewards steps that a program finds right, and charges those in which it finds an error; others get 0.

    Args:
        problem: as the checker needs it.
        steps: of one trajectory.
        checker: of the family check; several with a plus sign, such as `equations+algebra`.
        right, wrong: the two rewards.

    Raises:
        UnknownNameError: there is no such checker.
    """
    said = numbers_of(verdicts(checker, problem, steps))[actions(steps)]
    return at_actions(steps, np.select([said == 1, said == 0], [right, wrong], 0.0).tolist())
