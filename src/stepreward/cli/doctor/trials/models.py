"""Trials of models on this machine: sampling, scoring, training."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from stepreward.cli.doctor.trials.known import ANSWER, RIGHT, SUM, WRONG, WrongError, expect
from stepreward.core.keys import Key
from stepreward.core.runtime.flows import Propose, Score
from stepreward.core.tree import StepTree
from stepreward.core.types import Trajectory
from stepreward.policies.local import LocalPolicy
from stepreward.policies.model_sources import resolve
from stepreward.score.discriminative import DiscriminativeScorer
from stepreward.score.encode.per_step import EncoderRecord
from stepreward.score.load import load
from stepreward.score.model.step_reward_model import StepRewardModel
from stepreward.score.model.tiny_models import fresh_backbone, train_tokenizer
from stepreward.train.settings import TrainSettings
from stepreward.train.trainer import train

BUILTIN = "builtin:arithmetic"


def generates() -> str:
    """The likeliest step of the built-in policy is the right one."""
    policy = LocalPolicy.load(BUILTIN, temperature=0, max_tokens=16)
    ((made,),) = policy.propose([Propose(SUM, (), Key.seed(0), 1, until="step")])
    expect("".join(step.text for step in made.steps), RIGHT.text)
    return f"{made.n_tokens} tokens were sampled from the built-in policy"


def scores() -> str:
    """A reward model scores two solutions with a common start in one pass as it scores each by itself."""
    scorer = DiscriminativeScorer(StepRewardModel.from_backbone(resolve(BUILTIN), EncoderRecord()))
    questions = [Score(SUM, (RIGHT, last)) for last in (ANSWER, WRONG)]
    together = np.array([scored.scores for scored in scorer.score_many(questions)])
    alone = np.array([scorer.score_many([question])[0].scores for question in questions])
    if not (np.abs(together - alone) < 1e-3).all():
        raise WrongError(f"{together.tolist()} in one pass are not the scores one by one, {alone.tolist()}")
    return "two solutions were scored, in one pass as each by itself"


def trains() -> str:
    """A reward model learns from two solutions, is saved, and scores when it is loaded again."""
    tree = StepTree.from_trajectories([Trajectory(SUM, (RIGHT, ANSWER)), Trajectory(SUM, (WRONG,))])
    tokenizer = train_tokenizer([SUM.text, RIGHT.text, WRONG.text], 258)
    model = StepRewardModel(fresh_backbone(tokenizer, hidden=16, layers=1), tokenizer, EncoderRecord())
    data = [tree.with_step_column("label", [[1.0, 1.0], [0.0, np.nan]])]
    with tempfile.TemporaryDirectory(dir=".", prefix=".doctor-") as folder:
        made = train(data, model, Path(folder) / "model", TrainSettings(epochs=1))
        (score,) = load(Path(folder) / "model").score(SUM.text, [RIGHT.text])
    expect((made.steps, bool(np.isfinite(score))), (1, True))
    return "a small model was trained, saved and loaded"
