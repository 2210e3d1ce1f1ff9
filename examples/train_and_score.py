"""Learns a step reward model from labelled solutions, saves it, loads it again and scores steps with it.

Labels of 180 solutions from the exact checker of the built-in world, and a few seconds: enough to see that it learns,
too little to trust. Elsewhere labels come from rollouts (label_with_rollouts.py) or data sets (read_any_format.py).
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

import stepreward
from stepreward import Key, StepTree
from stepreward.core.runtime.driver import Driver
from stepreward.label.samples import graded_samples
from stepreward.policies.local import LocalPolicy
from stepreward.policies.model_sources import resolve
from stepreward.score.encode.per_step import EncoderRecord
from stepreward.score.model.step_reward_model import StepRewardModel
from stepreward.tasks.arithmetic import generate
from stepreward.tasks.arithmetic_truth import ArithmeticGrader, truth
from stepreward.train.trainer import TrainSettings, train

driver = Driver(policy=LocalPolicy.load("builtin:arithmetic"), grader=ArithmeticGrader())
flows = [graded_samples(problem, Key.seed(0), n=6) for problem in generate("train", 30)]
trees = []
for finished in driver.run(flows):
    tree = StepTree.from_trajectories(finished.result)
    labels = np.full(tree.mask.shape, np.nan)
    for row, trajectory in enumerate(tree.trajectories()):
        labels[row, : len(trajectory)] = truth(tree.problem, trajectory.steps)
    trees.append(tree.with_step_column("label", labels))

with tempfile.TemporaryDirectory() as folder:
    model = StepRewardModel.from_backbone(resolve("builtin:arithmetic"), EncoderRecord())
    settings = TrainSettings(epochs=8, batch_tokens=1024)
    result = train(trees[:25], model, Path(folder) / "model", settings, held_out=trees[25:])
    print(f"a right step scores above a wrong one in {result.metrics['auroc']:.0%} of pairs of held-out problems")

    scorer = stepreward.load(Path(folder) / "model")
    question = "Mia has 12 apples. Mia buys 5 more. How many apples does Mia have?"
    for steps in (["12 + 5 = 17\n", "Answer: 17\n"], ["12 - 5 = 7\n", "Answer: 7\n"]):
        print([step.strip() for step in steps], "->", [round(float(s), 2) for s in scorer.score(question, steps)])
