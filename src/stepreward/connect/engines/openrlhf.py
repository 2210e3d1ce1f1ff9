"""Step credit in OpenRLHF: an agent that keeps its step rewards, and an experience maker that gives credit by them.

    # agent.py, for --train.agent_func_path
    class Agent(StepAgent): ...                       # with `turn`
    class AgentExecutor(MultiTurnAgentExecutor):
        def __init__(self): super().__init__(Agent)

    # entry script, before the trainer starts
    install(StepCredit("step-rloo"))

OpenRLHF sums the rewards of turns. Only numbers of a turn's `extra_logs` come through, and only those of the last turn:
so the agent repeats all its rewards there, padded to a fixed number. Needs OpenRLHF.
"""

from __future__ import annotations

import math
from typing import Any

import openrlhf.trainer.ppo_trainer as trainer_module  # type: ignore[import-not-found]
import torch
from openrlhf.trainer.ppo_utils.experience_maker import RemoteExperienceMaker  # type: ignore[import-not-found]
from openrlhf.utils.agent import AgentInstanceBase  # type: ignore[import-not-found]

from stepreward.connect.engines.engine_rollouts import EngineRollout, StepCredit, mask_spans
from stepreward.core.errors import InputError


class StepAgent(AgentInstanceBase):  # type: ignore[misc]  # OpenRLHF is untyped
    """An agent with a reward for each turn; `step` tells OpenRLHF all of them.

    A turn returns what OpenRLHF's `step` does, whose `rewards` add up to the outcome, and `step_reward`, the turn's own
    reward; without it the turn is unscored.
    """

    most = 32
    """Turns that an episode may have: all samples need the same fields."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.kept: list[float] = []

    async def turn(self, states: dict[str, Any], **named: Any) -> dict[str, Any]:
        """One turn of the environment."""
        raise NotImplementedError

    async def step(self, states: dict[str, Any], **named: Any) -> dict[str, Any]:
        """The turn, with the rewards of all turns so far in `extra_logs`."""
        made = await self.turn(states, **named)
        self.kept.append(float(made.pop("step_reward", math.nan)))
        if len(self.kept) > self.most:
            raise InputError(f"an episode has more than {self.most} turns", remedy="raise `most` of the agent's class")
        rows = {f"step_{at:02d}": self.kept[at] if at < len(self.kept) else 0.0 for at in range(self.most)}
        return made | {"extra_logs": {**made.get("extra_logs", {}), "turns": float(len(self.kept)), **rows}}


class StepExperienceMaker(RemoteExperienceMaker):  # type: ignore[misc]
    """OpenRLHF's experience maker with credit by steps in place of its estimators; a KL penalty belongs to the loss."""

    credit = StepCredit()

    @torch.no_grad()
    def compute_advantages_and_returns(self, experiences: list[Any]) -> list[Any]:
        """Sets `advantages` and `returns` (B, A) of each experience."""
        per_prompt = self.strategy.args.rollout.n_samples_per_prompt
        rollouts = [rollout_of(one, at, per_prompt) for one in experiences for at in range(len(one.index))]
        made = iter(self.credit.by_token(rollouts))
        for one in experiences:
            rows = [torch.as_tensor(next(made), dtype=torch.float32) for _ in one.index]
            one.advantages = torch.stack(rows).to(one.action_mask.device)
            one.returns, one.kl = one.advantages.clone(), None
            one.info["return"] = one.rewards
        return experiences


def rollout_of(experience: Any, at: int, per_prompt: int) -> EngineRollout:
    """Sample `at` of a batch of experience: its turns are runs of the action mask.

    Raises:
        InputError: turns and rewards differ in number, as where an environment says nothing between two turns.
    """
    mask = experience.action_mask[at].tolist()
    spans, info = mask_spans(mask), experience.info
    rewards = [float(info[f"step_{i:02d}"][at]) for i in range(int(info["turns"][at]))]
    # Where the sample was cut to the context window, its last turns are gone.
    rewards = rewards[: len(spans)] if bool(info["response_clip_ratio"][at]) else rewards
    if len(rewards) != len(spans):
        what = f"{len(rewards)} rewards for {len(spans)} turns"
        raise InputError(what, remedy="let environment_feedback of each turn but the last hold a token")
    group, outcome = int(experience.index[at]) // per_prompt, float(experience.rewards[at])
    return EngineRollout(group, rewards, outcome, spans, len(mask))


def install(credit: StepCredit) -> None:
    """Lets OpenRLHF's trainer make its experience with step credit."""
    trainer_module.RemoteExperienceMaker = type("Made", (StepExperienceMaker,), {"credit": credit})
