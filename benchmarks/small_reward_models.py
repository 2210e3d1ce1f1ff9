"""Reward models of the built-in policy's size: one trained on exact step labels, and one that needs no training."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from stepreward.core.keys import Key
from stepreward.core.runtime.driver import Driver
from stepreward.core.tree import StepTree
from stepreward.label.samples import graded_samples
from stepreward.policies.local import LocalPolicy
from stepreward.policies.model_sources import resolve
from stepreward.score.encode.per_step import EncoderRecord
from stepreward.score.encode.readout import Readout
from stepreward.score.model.step_reward_model import StepRewardModel
from stepreward.tasks.arithmetic import Difficulty, generate
from stepreward.tasks.arithmetic_truth import ArithmeticGrader, truth
from stepreward.train.settings import TrainSettings
from stepreward.train.trainer import train

BUILTIN = "builtin:arithmetic"
OPERATIONS = (3, 6)
SAMPLES, HELD_OUT = 4, 10


def untrained() -> StepRewardModel:
    """The policy's backbone with a head that reads a step's least log-probability and nothing else."""
    model = StepRewardModel.from_backbone(
        resolve(BUILTIN),
        EncoderRecord(readout=Readout(surprise=True)),
    )
    assert isinstance(model.head, torch.nn.Linear)
    with torch.no_grad():
        model.head.weight[:, :-1] = 0
    return model.eval()


def trained(policy: LocalPolicy, problems: int) -> StepRewardModel:
    """The same backbone, trained on the policy's solutions of so many problems by what the exact checker says."""
    trees = list(_labelled(policy, problems))
    model = StepRewardModel.from_backbone(
        resolve(BUILTIN),
        EncoderRecord(readout=Readout(surprise=True)),
    )
    settings = TrainSettings(epochs=3, batch_tokens=2048, learning_rate=5e-4)
    with tempfile.TemporaryDirectory() as folder:
        train(trees[HELD_OUT:], model, Path(folder) / "model", settings, held_out=trees[:HELD_OUT])
        return StepRewardModel.from_pretrained(Path(folder) / "model")


def _labelled(policy: LocalPolicy, problems: int) -> Iterator[StepTree]:
    given = generate("train", problems + HELD_OUT, difficulty=Difficulty(operations=OPERATIONS))
    driver = Driver(policy=policy, grader=ArithmeticGrader())
    flows = (graded_samples(problem, Key.seed(0), n=SAMPLES) for problem in given)
    for finished in sorted(driver.run(flows), key=lambda one: one.index):
        tree = StepTree.from_trajectories(finished.result)
        labels = np.full(tree.mask.shape, np.nan)
        for row, trajectory in enumerate(tree.trajectories()):
            labels[row, : len(trajectory)] = truth(tree.problem, trajectory.steps)
        yield tree.with_step_column("label", labels)
