"""Step rewards in OpenEnv: a rubric that rewards steps by a scorer.

    class Environment(openenv.Environment):
        def __init__(self):
            super().__init__(rubric=ScorerRubric(stepreward.load("runs/demo/model"), "Find the key."))

OpenEnv (0.10) calls `compute_step_rewards` nowhere: call it at the end of an episode and send the list in the last
observation's `metadata`, or read `record()`, a record of the step-reward contract. Needs OpenEnv.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from openenv.core.rubrics.trajectory import TrajectoryRubric  # type: ignore[import-not-found]

from stepreward.core.measure.aggregation import totals_of
from stepreward.core.runtime.flows import Score, Scorer
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.formats.samples.step_rewards import write


def as_text(value: Any) -> str:
    """An action or observation as text: its only text field, else its fields as JSON."""
    fields = value.model_dump(exclude={"metadata", "done", "reward"}, exclude_none=True)
    texts = [one for one in fields.values() if isinstance(one, str)]
    return texts[0] if len(fields) == len(texts) == 1 else json.dumps(fields, default=str)


class ScorerRubric(TrajectoryRubric):  # type: ignore[misc]  # OpenEnv is untyped here
    """A step's reward is its score, an episode's the aggregate of them, or what `outcome` says.

    Args:
        scorer: of steps.
        task: what the agent is asked.
        aggregate: of step scores, by its registered name; used where there is no `outcome`.
        outcome: from the (action, observation) pairs of a finished episode to its reward.
        text: of an action or observation.
    """

    def __init__(
        self,
        scorer: Scorer,
        task: str,
        *,
        aggregate: str = "min",
        outcome: Callable[[Sequence[Any]], float] | None = None,
        text: Callable[[Any], str] = as_text,
    ) -> None:
        super().__init__()
        self.scorer, self.task, self.aggregate, self.outcome, self.text = scorer, task, aggregate, outcome, text

    def score_trajectory(self, trajectory: list[tuple[Any, Any]]) -> float:
        """The reward of a finished episode."""
        if self.outcome is not None:
            return self.outcome(trajectory)
        scores = np.array([self.compute_step_rewards()], np.float64)
        return float(totals_of(scores, self.aggregate)[0])

    def compute_step_rewards(self) -> list[float]:
        """One score an action, NaN where the scorer leaves one out."""
        episode = self.episode()
        (answer,) = self.scorer.score_many([Score(episode.problem, episode.steps)])
        return [float(score) for score in answer.scores[episode.action]]

    def episode(self) -> Trajectory:
        """The episode so far as steps: actions, and the observations that follow them."""
        pairs = [
            (Step(self.text(action)), Step(self.text(seen), "observation", "tool")) for action, seen in self._trajectory
        ]
        return Trajectory(Problem(self.task, self.task), tuple(step for pair in pairs for step in pair))

    def record(self) -> dict[str, Any]:
        """The episode with its step rewards, by the step-reward contract."""
        episode, rewards = self.episode(), self.compute_step_rewards()
        column = np.full(len(episode), math.nan)
        column[episode.action] = rewards
        raw = self.score_trajectory(self._trajectory)
        facts = {} if math.isnan(raw) else {"raw_outcome": raw}
        return write(Trajectory(episode.problem, episode.steps, columns={"reward": column}, facts=facts))
