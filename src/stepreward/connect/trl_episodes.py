"""Episodes that TRL's own loop ran, as an environment of this package has them.

TRL knows a prompt, and writes what a tool shows through a chat template. A fork of the episode, and a reward model that
learned of episodes, need the whole problem, and what the environment itself shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepreward.connect.trl import StepNumbers
from stepreward.core.errors import InputError
from stepreward.core.runtime.acts import Act, Episodes
from stepreward.core.types import Problem, Step, Trajectory

Floats = NDArray[np.float64]


def played(trajectories: Sequence[Trajectory], trainer: Any, environment: Episodes) -> list[Trajectory | None]:
    """The completions of a trainer's batch as episodes of an environment, by executing their actions there.

    Args:
        trajectories: one of each of the trainer's environments, in order.
        trainer: whose `environment_factory` is of `trl_environments`.
        environment: of the same settings.

    Returns:
        Each with its whole problem and what the environment shows; None where TRL showed something else.

    Raises:
        InputError: the trainer runs no environments of this package.
    """
    running = getattr(trainer, "environments", None) or ()
    found = [getattr(one, "problem", None) for one in running]
    problems = [one for one in found if isinstance(one, Problem)]
    if len(problems) != len(trajectories) or len(found) != len(problems):
        what = f"{len(trajectories)} completions need as many environments of this package, got {len(problems)}"
        raise InputError(what, remedy="pass environment_factory=trl_tools(problem) or trl_environment(make)")
    ends = {int(one) for one in trainer.eos_token_ids}
    return [
        _replayed(one, problem, environment, trainer.processing_class, ends)
        for one, problem in zip(trajectories, problems, strict=True)
    ]


def with_known(
    made: Sequence[Trajectory | None], trajectories: Sequence[Trajectory], source: StepNumbers
) -> list[Floats]:
    """(A,) numbers of each trajectory's actions, by a source that is asked of the known ones; NaN for the others."""
    there = [one for one in made if one is not None]
    numbers = iter(source(there) if there else ())
    return [
        np.full(int(one.action.sum()), np.nan) if known is None else _of_actions(known, next(numbers))
        for known, one in zip(made, trajectories, strict=True)
    ]


def _of_actions(trajectory: Trajectory, numbers: Floats) -> Floats:
    """Those of the actions, where there is one of each step."""
    return numbers[trajectory.action] if len(numbers) == len(trajectory) else numbers


def _replayed(
    trajectory: Trajectory, problem: Problem, environment: Episodes, tokenizer: Any, ends: set[int]
) -> Trajectory | None:
    (shown,) = environment.act_many([Act(problem, ())])
    steps: list[Step] = [*shown.steps]
    for step, after in pairwise([*trajectory.steps, None]):
        if step is None or step.kind == "observation":
            continue
        if shown.done:
            return None
        steps.append(_action(step, tokenizer, ends))
        (shown,) = environment.act_many([Act(problem, tuple(steps))])
        if after is not None:
            said = "\n".join(one.text for one in shown.steps)
            heard = after.text if after.kind == "observation" else ""
            if said.strip() != heard.strip():
                return None
            steps += shown.steps
    return replace(trajectory, problem=problem, steps=tuple(steps), columns={})


def _action(step: Step, tokenizer: Any, ends: set[int]) -> Step:
    """A turn without the token that ended it, as policies of this package write it."""
    ids = [*(step.tokens or ())]
    while ids and ids[-1] in ends:
        ids.pop()
    return replace(step, text=tokenizer.decode(ids, skip_special_tokens=True), tokens=tuple(ids))
