"""Every objective through the trainer: from columns and facts of rows to a checkpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.train.toy import toy_labels, toy_model

from stepreward.core.catalog import loss as losses
from stepreward.core.errors import InputError
from stepreward.core.method import Method
from stepreward.core.types import Trajectory
from stepreward.score.encode.per_step import EncoderRecord
from stepreward.score.encode.readout import Readout
from stepreward.score.model.step_reward_model import StepRewardModel
from stepreward.train.data import fingerprint, labelled_trees
from stepreward.train.objective import Objective
from stepreward.train.trainer import TrainSettings, train

QUICK = TrainSettings(epochs=1, learning_rate=3e-3, batch_tokens=512, row_tokens=256, evaluations=1)


def rich_rows() -> list[Trajectory]:
    """Rows with every column and fact that an objective reads."""
    made = []
    for i, one in enumerate(toy_labels(6, 0)):
        n = len(one)
        columns = {
            "judged": np.full(n, 0.3),
            "cell": np.arange(n) % 4.0,
            "reward": np.zeros(n),
            "other": np.full(n, 0.6),
        }
        made.append(replace(one.with_columns(columns), facts={"log_weight": i / 7, "strength": 2.0}))
    return made


@pytest.mark.parametrize("method", losses, ids=lambda method: method.name)
def test_every_objective_trains_a_model_that_scores(method: Method[..., Any], tmp_path: Path) -> None:
    targets = ("label", "other") if "targets" in method.data else ()
    outputs = 4 if {"cells", "ends"} & {*method.data} else 0
    settings = replace(QUICK, objective=method.name, targets=targets, outputs=outputs)
    objective = settings.loss()
    if outputs:
        with pytest.raises(InputError, match=r"no output that .* trains is the score of a step"):
            objective.readout()
        record = EncoderRecord(readout=Readout("value", n_labels=outputs))
    else:
        record = EncoderRecord(readout=objective.readout())
    model = toy_model(record=record)
    before = model.head.weight.detach().clone()
    trees = labelled_trees(rich_rows(), objective)
    result = train(trees, model, tmp_path / "model", settings, held_out=trees)
    assert np.isfinite(result.metrics["loss"])
    assert not torch.equal(model.head.weight, before)
    assert StepRewardModel.from_pretrained(tmp_path / "model").record == record


def test_other_strengths_are_other_data() -> None:
    rows = rich_rows()
    objective = Objective.of("preference-strength")
    weaker = [replace(one, facts={**one.facts, "strength": 1.0}) for one in rows]
    assert fingerprint(labelled_trees(rows, objective)) != fingerprint(labelled_trees(weaker, objective))
