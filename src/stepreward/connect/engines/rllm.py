"""Step credit in rLLM: a hook that groups trajectories as rLLM does and gives every step its advantages.

    hook = grouping_hook(StepCredit("step-rloo"))
    # AgentTrainer(..., traj_grouping_hook=hook), with rllm.algorithm.use_precomputed_advantage=true

The advantage of a step is a list, one a token of its response: the tinker backend reads it. The verl backend reads one
number a trajectory and refuses lists, and the asynchronous buffer cannot filter uniform groups of them. Needs rLLM.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rllm.trainer.algorithms.transform import _default_traj_grouping_hook  # type: ignore[import-not-found]

from stepreward.connect.engines.engine_rollouts import EngineRollout, Number, StepCredit
from stepreward.formats.samples.step_rewards import tiles

STEP_REWARD = "step_reward"
"""Where a step's `info` may hold its reward; None is unscored, and without it the step's own `reward` counts."""


def step_reward(step: Any) -> Number:
    """The reward of a step: that of its `info`, else its own."""
    info = step.metadata or {}
    given: Number = info.get(STEP_REWARD, step.reward)
    return given


def rollout_of(trajectory: Any, group: str, reward_of: Callable[[Any], Number] = step_reward) -> EngineRollout:
    """A trajectory as a rollout: its steps are calls of the model, one after another."""
    spans = tiles(len(step.response_ids) for step in trajectory.steps)
    rewards = [reward_of(step) for step in trajectory.steps]
    return EngineRollout(group, rewards, trajectory.reward, spans, spans[-1][1] if spans else 0)


def grouping_hook(
    credit: StepCredit,
    *,
    reward_of: Callable[[Any], Number] = step_reward,
    default: Callable[..., list[Any]] = _default_traj_grouping_hook,
) -> Callable[..., list[Any]]:
    """A `traj_grouping_hook` of rLLM's unified trainer.

    Args:
        credit: the method; its groups are rLLM's.
        reward_of: the reward of a step, None where it is unscored.
        default: what groups the episodes.
    """

    def hook(episodes: Sequence[Any], *settings: Any, **named: Any) -> list[Any]:
        """Groups of trajectories whose steps have advantages."""
        groups = default(episodes, *settings, **named)
        rows = [(one, group.group_id) for group in groups for one in group.trajectories]
        made = credit([rollout_of(one, name, reward_of) for one, name in rows])
        for (trajectory, _), advantages in zip(rows, made, strict=True):
            for step, advantage in zip(trajectory.steps, advantages.tolist(), strict=True):
                step.advantage = [advantage] * len(step.response_ids)
        return groups

    return hook
