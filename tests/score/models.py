"""Tiny random models of real architectures, with tokenizers trained on the spot."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

from stepreward.core.types import Problem, Step, Trajectory
from stepreward.score.encode.per_step import EncoderRecord
from stepreward.score.model.step_reward_model import StepRewardModel
from stepreward.score.model.tiny_models import fresh_backbone, train_tokenizer

CORPUS = ["What is 12 + 5?\n12 + 5 = 17\nAnswer: 17\n", "the quick brown fox, naïve café ünïcode 漢字 🙂\n"] * 50


@cache
def tokenizer() -> Any:
    return train_tokenizer(CORPUS, 400)


def model(kind: str = "qwen2", record: EncoderRecord | None = None, seed: int = 0) -> StepRewardModel:
    """A random model with a head wide enough that scores differ."""
    backbone = fresh_backbone(tokenizer(), hidden=32, layers=3, kind=kind, seed=seed)
    made = StepRewardModel(backbone, tokenizer(), record or EncoderRecord(), seed=seed)
    with torch.no_grad():
        made.head.weight.mul_(20)
    return made.eval()


def random_trajectories(seed: int, rows: int = 6, observations: bool = True) -> list[Trajectory]:
    """Trajectories of one problem that share prefixes."""
    rng = np.random.default_rng(seed)
    texts = ["12 + 5 = 17\n", "Answer: 17\n", "naïve café\n", "x\n", "the quick brown fox without newline"]
    problem = Problem(f"p{seed}", "What is 12 + 5? " * int(rng.integers(1, 4)))
    made = []
    for _ in range(rows):
        kinds = ["action", "observation"] if observations else ["action"]
        steps = tuple(
            Step(
                str(rng.choice(texts[:3] if i < 2 else texts)),
                str(rng.choice(kinds, p=[0.8, 0.2] if observations else None)),
            )  # type: ignore[arg-type]
            for i in range(int(rng.integers(1, 6)))
        )
        made.append(Trajectory(problem, steps))
    return made


SEEDS = st.integers(0, 10_000)
