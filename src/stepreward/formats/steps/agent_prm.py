"""AgentPRM's rows (arXiv:2502.10325): a state of an episode, the action taken there, and its Q estimate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from stepreward.core.errors import InputError
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.formats.format import Format, has
from stepreward.formats.labels import label_array, relabel
from stepreward.formats.rows import Row, annotated, need, shown


def read(row: Row, number: int, *, threshold: float | None = None) -> Iterator[Trajectory]:
    """Reads `state`, `reason_action` and `qestimate` in [0, 1]: only the last action has a label.

    Observations are steps that are not scored. The last action's `meta["reason"]` is the reason given for it.

    Args:
        number: its 1-based number; the problem's id.
        threshold: estimates above it become 1; None keeps them soft.

    Raises:
        InputError: a field is missing, or the estimate is outside [0, 1].
    """
    state, taken = need(row, "state", Mapping), need(row, "reason_action", Mapping)
    steps: list[Step] = []
    # The state is the turn that is going on: its observation is the last, and the action taken answers it.
    for i, turn in enumerate([*(state.get("history") or ()), {**state, "action": taken.get("action")}]):
        if not isinstance(turn, Mapping):
            raise InputError(f"turn {i} of 'history' must be an object, got {shown(turn)}")
        steps.append(Step(need(turn, "observation") + "\n", kind="observation", role="user"))
        steps.append(Step(need(turn, "action") + "\n"))
    reason = taken.get("reason")
    if isinstance(reason, str):
        steps[-1] = replace(steps[-1], meta={"reason": reason})
    labels = np.full(len(steps), np.nan)
    labels[-1:] = relabel(label_array([row.get("qestimate")], 1, name="qestimate"), threshold=threshold)
    choices = state.get("candidate_actions")
    yield annotated(
        Problem(f"agent-prm-{number}", need(state, "task")), tuple(steps), labels, "agent-prm rollouts",
        facts={"candidate_actions": choices} if isinstance(choices, list) else {},
    )  # fmt: skip


FORMATS: tuple[Format, ...] = (
    Format("agent-prm", "a state, an action and its Q estimate", has("state", "reason_action", "qestimate"), read),
)
