"""A world whose truth is learnable in seconds: a step that holds "bad" is wrong, and so is all that follows it."""

from __future__ import annotations

import numpy as np

from stepreward.core.types import Problem, Step, Trajectory
from stepreward.score.encode.per_step import EncoderRecord
from stepreward.score.model.step_reward_model import StepRewardModel
from stepreward.score.model.tiny_models import fresh_backbone, train_tokenizer

WORDS = ["good", "fine", "bad", "nice", "well"]


def toy_labels(n: int, seed: int) -> list[Trajectory]:
    rng = np.random.default_rng(seed)
    made = []
    for i in range(n):
        problem = Problem(f"toy-{seed}-{i}", "Say something " + " ".join(rng.choice(WORDS[:2], 2)))
        for _ in range(4):
            words = [str(w) for w in rng.choice(WORDS, 3)]
            steps = tuple(Step(w + "\n") for w in words)
            label = np.minimum.accumulate([float(w != "bad") for w in words])
            made.append(Trajectory(problem, steps, float(label[-1]), columns={"label": label}))
    return made


def rows_with_observations() -> list[Trajectory]:
    made = []
    for i, row in enumerate(toy_labels(2, 3)):
        first, second, third = row.steps
        seen = Step("seen well\n", kind="observation")
        steps = (first, seen, second, third) if i % 2 else (first, second, seen, third)
        made.append(Trajectory(row.problem, steps, row.outcome))
    return made


def toy_model(seed: int = 0, record: EncoderRecord | None = None) -> StepRewardModel:
    tokenizer = train_tokenizer(["Say something good fine bad nice well\n"] * 20, 300)
    return StepRewardModel(
        fresh_backbone(tokenizer, hidden=32, layers=2, seed=seed), tokenizer, record or EncoderRecord()
    )
