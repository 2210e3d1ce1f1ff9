"""Step credit in ROLL: advantages in place of its rewards of responses.

    # entry script, before the pipeline starts
    from stepreward.connect.engines.roll import install
    install(StepCredit("gigpo"))     # with adv_estimator step_reinforce, and rewards not whitened

In ROLL's agentic pipeline a row is one step of a trajectory. The function that is replaced normalises rewards of
responses; the trainer then adds them to the last token and carries them back to all tokens of the row. Needs ROLL.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import roll.pipeline.agentic.agentic_pipeline as pipeline  # type: ignore[import-not-found]
import torch

from stepreward.connect.engines.engine_rollouts import EngineRollout, StepCredit
from stepreward.formats.samples.step_rewards import tiles

Rewards = Callable[..., tuple[Any, dict[str, Any]]]


def rollouts_of(batch: Any) -> list[tuple[list[int], EngineRollout]]:
    """The rows of each trajectory in the order of its steps, with the trajectory as a rollout.

    `step_scores` are step rewards, `episode_scores` the outcome, `state_hash` the state before a step.
    """
    rows = batch.non_tensor_batch
    lengths = batch.batch["response_mask"].sum(dim=1).tolist()
    found = []
    for trajectory in dict.fromkeys(rows["traj_id"].tolist()):
        own = np.flatnonzero(rows["traj_id"] == trajectory)
        own = own[np.argsort(rows["step"][own].astype(np.int64), kind="stable")]
        spans = tiles(int(lengths[at]) for at in own)
        scores = [None if score is None or math.isnan(score) else float(score) for score in rows["step_scores"][own]]
        data = {"state": [str(one) for one in rows["state_hash"][own]]} if "state_hash" in rows else {}
        group, outcome = str(rows["traj_group_id"][own[0]]), float(rows["episode_scores"][own[-1]])
        found.append((own.tolist(), EngineRollout(group, scores, outcome, spans, spans[-1][1], data)))
    return found


def response_level_rewards(credit: StepCredit) -> Rewards:
    """A function of the signature of ROLL's `compute_response_level_rewards`."""

    def compute(batch: Any, pipeline_config: Any) -> tuple[Any, dict[str, Any]]:
        """Writes `response_level_rewards` (rows,): the advantage of each step."""
        found = rollouts_of(batch)
        made = torch.zeros(len(batch.non_tensor_batch["traj_id"]), dtype=torch.float32)
        for (rows, _), advantages in zip(found, credit([one for _, one in found]), strict=True):
            made[rows] = torch.as_tensor(advantages, dtype=torch.float32)
        batch.batch["response_level_rewards"] = made
        return batch, {"critic/step_credit/mean": float(made.mean()), "critic/step_credit/std": float(made.std())}

    return compute


def install(credit: StepCredit) -> None:
    """Lets ROLL's agentic pipeline give step credit."""
    pipeline.compute_response_level_rewards = response_level_rewards(credit)
