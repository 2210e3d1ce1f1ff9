"""Step rewards in Agent Lightning 1.0: a hook that scores the model's calls, and rewards of calls in training batches.

    # hooks.py, a file with this one subclass
    class Hooks(step_hooks(stepreward.load("runs/demo/model"))):
        pass

When a rollout succeeds, an event `step_rewards` is added, whose data are a record of the step-reward contract: a step
for each `model_request`. Agent Lightning gives all rows of a rollout its final reward; `place_rewards` gives each row
(a call of the model) its own. Needs Agent Lightning for the hook alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from agentlightning.hooks import RolloutHooks  # type: ignore[import-not-found]

from stepreward.connect.engines.engine_rollouts import STEP_REWARDS, Number
from stepreward.core.runtime.flows import Score, Scorer
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.formats.fields import list_at, plain_text
from stepreward.formats.samples.step_rewards import write


def episode_of(rollout_id: str, events: Sequence[Any]) -> Trajectory:
    """The calls of a rollout as steps: what the model answered, and what the next request added."""
    steps: list[Step] = []
    asked: list[Any] = []
    problem = Problem(rollout_id, "")
    rewards = [one.data["value"] for one in events if one.event_type == "reward"]
    for event in (one for one in events if one.event_type == "model_request"):
        messages = list_at(event.data, "request.messages")
        if not asked:
            chat = tuple({"role": str(m["role"]), "content": plain_text(m.get("content"))} for m in messages)
            problem = Problem(rollout_id, chat)
        # The request repeats what was said before; the model's own last message is among it.
        new = messages[len(asked) + 1 :] if asked else []
        steps += [Step(plain_text(m.get("content")), "observation", str(m["role"])) for m in new]
        (choice, *_) = list_at(event.data, "response.choices")
        steps.append(Step(plain_text(choice["message"].get("content") or choice["message"].get("tool_calls"))))
        asked = messages
    facts = {"rollout": rollout_id} | ({"raw_outcome": float(rewards[-1])} if rewards else {})
    return Trajectory(problem, tuple(steps), facts=facts)


def step_hooks(scorer: Scorer) -> type[Any]:
    """A class of hooks that scores the model's calls of each attempt that succeeded."""

    class StepHooks(RolloutHooks):  # type: ignore[misc]  # Agent Lightning is untyped
        """Adds an event `step_rewards` to each attempt."""

        def on_succeeded(self, rollout: Any, events: dict[str, list[Any]], store: Any) -> None:
            """Scores the calls of every attempt that made one."""
            for attempt, own in events.items():
                episode = episode_of(rollout.rollout_id, own)
                if episode.steps:
                    (answer,) = scorer.score_many([Score(episode.problem, episode.steps)])
                    record = write(episode.with_columns({"reward": answer.scores}))
                    store.add_event(rollout.rollout_id, attempt, STEP_REWARDS, record)

    return StepHooks


def place_rewards(data: Any, rewards: Mapping[str, Sequence[Number]]) -> None:
    """Gives each row of a training batch (`trace_aggregator` level `transition`) the reward of its own call.

    Args:
        data: what `RolloutAdapter.get_train_data_batch` returned first.
        rewards: of each rollout's calls by its id; None is unscored, which verl's estimators of ours leave out.
    """
    scores = data.batch["token_level_scores"]
    own = data.batch["attention_mask"][:, -scores.shape[1] :]
    last = (own * torch.arange(1, scores.shape[1] + 1, device=own.device)).argmax(dim=1)
    rows = zip(data.non_tensor_batch["rollout_id_list"], data.non_tensor_batch["turn_index_list"], strict=True)
    for at, (rollout, turn) in enumerate(rows):
        given = rewards[str(rollout)][int(turn)]
        scores[at] = 0.0
        scores[at, last[at]] = math.nan if given is None else given
