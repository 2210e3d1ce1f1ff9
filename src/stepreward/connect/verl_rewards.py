"""Step rewards in verl's rollouts: a reward manager that scores steps, and agent loops that keep their rewards.

verl (0.9) passes a trajectory's reward as one float. `StepRewardManager` scores the steps too and puts their rewards
into `reward_extra_info`; the agent loops of this module write them to the rewards of tokens, where the estimators of
`connect.verl` read them. Needs verl; only verl's configuration imports this module.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from verl import DataProto
from verl.experimental.agent_loop.agent_loop import AgentLoopOutput
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop
from verl.experimental.agent_loop.tool_agent_loop import ToolAgentLoop
from verl.experimental.reward_loop.reward_manager.naive import NaiveRewardManager

from stepreward.connect.completions import StepFinder, problem_of
from stepreward.core.errors import InputError
from stepreward.core.runtime.flows import Score, Scorer
from stepreward.score.load import load

OWN = "stepreward_own"
"""Key of `extra_fields`: 1 at tokens of the response that the policy wrote."""
STEPS = "stepreward_steps"
"""Key of `reward_extra_info`: for each output of a session, JSON of what it wrote and of its steps' rewards.

It is text so that rows may differ. verl gives all outputs of a session the information of the last one, so each finds
its own by the digest of its tokens.
"""


class StepRewardManager(NaiveRewardManager):  # type: ignore[misc]  # verl is untyped
    """verl's own reward for the outcome, and a reward for each step by any scorer.

        reward.reward_manager.source=importlib
        reward.reward_manager.module.path=pkg://stepreward.connect.verl_rewards
        reward.reward_manager.name=StepRewardManager
        +reward.stepreward.scorer=runs/demo/model

    Further settings in the same table: `step_end`, text that ends a step ("\\n"; empty makes each turn one step).

    Raises:
        InputError: the table names no scorer.
    """

    def __init__(self, config: Any, tokenizer: Any, compute_score: Any, *others: Any, **named: Any) -> None:
        super().__init__(config, tokenizer, compute_score, *others, **named)
        table = dict(config.reward.get("stepreward") or {})
        if "scorer" not in table:
            raise InputError("no scorer is configured", remedy="pass +reward.stepreward.scorer=NAME_OR_FOLDER")
        self.scorer: Scorer = load(table["scorer"])
        ends = [i for i in (tokenizer.eos_token_id, tokenizer.pad_token_id) if i is not None]
        self._finder = StepFinder(tokenizer, len(tokenizer), table.get("step_end", "\n"), ends)

    async def run_single(self, data: DataProto) -> dict[str, Any]:
        """The outcome of the last output as `reward_score`, the step rewards of all in `reward_extra_info`.

        An outcome of None becomes NaN, which is unscored: verl would drop the rewards of the whole batch for None.
        """
        made: dict[str, Any] = await super().run_single(data)
        if made["reward_score"] is None:
            extra = {name: math.nan if value is None else value for name, value in made["reward_extra_info"].items()}
            made |= {"reward_score": math.nan, "reward_extra_info": extra}
        made["reward_extra_info"][STEPS] = await self.loop.run_in_executor(None, self._of_outputs, data)
        return made

    def _of_outputs(self, data: DataProto) -> str:
        """JSON of all outputs of a session: the digest of each one's tokens, and its steps."""
        found = {}
        for row in data:
            width = row.batch["responses"].shape[-1]
            # Outputs of a session are padded to the longest; prompt and response together, and the response alone.
            length = row.non_tensor_batch.get("response_len", int(row.batch["attention_mask"][-width:].sum()))
            ids = row.batch["responses"][:length].numpy()[None]
            own = (row.non_tensor_batch.get("tool_extra_fields") or {}).get(OWN)
            mask = np.ones(ids.shape, bool) if own is None else np.array([own[: ids.shape[1]]], bool)
            found[digest(ids[0].tolist())] = self._steps(row, ids, mask)
        return json.dumps(found)

    def _steps(self, row: Any, ids: Any, own: Any) -> list[tuple[int, float]]:
        """Last token and reward of each step."""
        spans = self._finder.spans(ids, own)
        prompt = row.non_tensor_batch.get("raw_prompt", "")
        problem = problem_of(prompt if isinstance(prompt, str) else list(prompt), {})
        (trajectory,) = self._finder.trajectories([problem], ids, np.ones_like(own), own, spans)
        (answer,) = self.scorer.score_many([Score(problem, trajectory.steps)])
        scores = answer.scores[[step.kind == "action" for step in trajectory.steps]]
        return [(int(end) - 1, float(score)) for end, score in zip(spans.end, scores, strict=True)]


def digest(ids: Sequence[int]) -> str:
    """What tells one response's tokens from another's."""
    return hashlib.blake2b(np.array(ids, np.int64).tobytes(), digest_size=8).hexdigest()


def dense_scores(length: int, steps: Sequence[tuple[int, float]], outcome: float) -> torch.Tensor:
    """(T,) rewards of tokens: a step's at its last token, the outcome at the last one; NaN where one is unscored.

    The reward of a step that ends the response is put one token earlier, as verl's estimators read the last token as
    the outcome. Only if the earlier token belongs to another step, or does not exist, the two add up at the last token;
    an unscored step then adds 0, so that the outcome stays.
    """
    scores = torch.zeros(length, dtype=torch.float32)
    taken = {end for end, _ in steps}
    for end, reward in steps:
        place = end - 1 if end == length - 1 and end and end - 1 not in taken else end
        scores[place] += 0.0 if place == length - 1 and math.isnan(reward) else reward
    if length:
        scores[-1] += outcome
    return scores


class StepOutput(AgentLoopOutput):  # type: ignore[misc]
    """An agent loop's output with a reward for each step."""

    def as_dict(self) -> dict[str, Any]:
        """verl's fields, with `rm_scores` by steps where the reward manager gave them."""
        made: dict[str, Any] = super().as_dict()
        extra = self.extra_fields.get("reward_extra_info", {}).get(STEPS)
        own = None if extra is None else json.loads(extra).get(digest(self.response_ids))
        if own is not None and "rm_scores" in made:
            made["rm_scores"] = dense_scores(len(made["response_mask"]), own, float(self.reward_score))
        return made


def _with_steps(output: Any) -> Any:
    if isinstance(output, list):
        return [_with_steps(one) for one in output]
    given = {name: getattr(output, name) for name in output.model_fields_set}
    given["extra_fields"] = {**output.extra_fields, OWN: list(output.response_mask)}
    return StepOutput(**given)


class StepSingleTurn(SingleTurnAgentLoop):  # type: ignore[misc]
    """verl's single-turn loop with step rewards."""

    async def run(self, *arguments: Any, **named: Any) -> Any:
        """What the loop returns, ready for step rewards."""
        return _with_steps(await super().run(*arguments, **named))


class StepToolAgent(ToolAgentLoop):  # type: ignore[misc]
    """verl's tool-calling loop with step rewards: each turn of the policy is a step, or is cut into some."""

    async def run(self, *arguments: Any, **named: Any) -> Any:
        """What the loop returns, ready for step rewards."""
        return _with_steps(await super().run(*arguments, **named))
