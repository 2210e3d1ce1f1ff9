"""Step credit in slime: two functions, named by their path.

    # my_credit.py
    adapter = SlimeCredit(StepCredit("pure", {"temperature": 0.1}))
    post_process, advantages = adapter.post_process, adapter.advantages
    # --custom-reward-post-process-path my_credit.post_process --custom-advantage-function-path my_credit.advantages

`post_process` sees all samples of the batch, gives credit by group, and hands the advantages of each sample's tokens on
as its `rewards`: slime copies only fields that it knows, and that is the one which may hold lists. `advantages` reads
them on the trainer. Step rewards stand in `sample.metadata["step_rewards"]`, one a turn (run of the loss mask).
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import Any

import torch

from stepreward.connect.engines.engine_rollouts import (
    STEP_REWARDS,
    EngineRollout,
    StepCredit,
    mask_spans,
    read_rewards,
)
from stepreward.core.errors import InputError


class SlimeCredit:
    """The two functions with one credit method.

    Args:
        credit: the method.
        key: where a sample's `metadata` holds the step rewards.
    """

    def __init__(self, credit: StepCredit, key: str = STEP_REWARDS) -> None:
        self.credit, self.key = credit, key

    def rollout_of(self, args: Any, sample: Any) -> EngineRollout:
        """A sample as a rollout."""
        length = int(sample.response_length)
        spans = mask_spans([1] * length if sample.loss_mask is None else sample.loss_mask)
        rewards = read_rewards(sample.metadata, self.key, len(spans))
        return EngineRollout(sample.group_index, rewards, sample.get_reward_value(args), spans, length)

    def post_process(self, args: Any, samples: Sequence[Any]) -> tuple[list[Any], list[list[float]]]:
        """Raw rewards, and in place of the rewards the advantages of each sample's tokens."""
        made = self.credit.by_token([self.rollout_of(args, sample) for sample in samples])
        return [sample.get_reward_value(args) for sample in samples], [row.tolist() for row in made]

    def advantages(self, args: Any, rollout_data: MutableMapping[str, Any]) -> None:
        """Fills `advantages` and `returns` with what `post_process` handed on.

        Raises:
            InputError: context parallelism cuts responses, or rewards are no lists of the responses' lengths.
        """
        if getattr(args, "context_parallel_size", 1) > 1:
            raise InputError("responses are cut by context parallelism", remedy="set --context-parallel-size 1")
        place = rollout_data["kl"][0].device if rollout_data.get("kl") else "cpu"
        made = [torch.tensor(row, dtype=torch.float32, device=place) for row in rollout_data["rewards"]]
        for row, length in zip(made, rollout_data["response_lengths"], strict=True):
            if row.shape != (length,):
                what = f"rewards of shape {tuple(row.shape)} for a response of {length} tokens"
                raise InputError(what, remedy="name post_process as --custom-reward-post-process-path too")
        rollout_data["advantages"], rollout_data["returns"] = made, [row.clone() for row in made]
