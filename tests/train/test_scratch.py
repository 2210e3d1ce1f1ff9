"""Where training starts from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.train.toy import toy_labels, toy_model

from stepreward.core.errors import InputError, ModelError
from stepreward.score.encode.record import EncoderRecord, PerStep
from stepreward.score.model.step_reward_model import StepRewardModel
from stepreward.train.data.labelled_trees import labelled_trees
from stepreward.train.scratch import starting_model


def test_a_fresh_model_knows_the_words_of_its_data_and_single_digits() -> None:
    trees = labelled_trees(toy_labels(30, 0))
    model = starting_model("scratch", trees, hidden=16, layers=1, vocabulary=300, seed=3)
    assert len(model.tokenizer("good", add_special_tokens=False)["input_ids"]) == 1
    assert len(model.tokenizer("123\n", add_special_tokens=False)["input_ids"]) == 4
    again = starting_model("scratch", trees, hidden=16, layers=1, vocabulary=300, seed=3)
    for (name, a), (_, b) in zip(model.named_parameters(), again.named_parameters(), strict=True):
        np.testing.assert_array_equal(a.detach(), b.detach(), err_msg=name)


def test_a_pretrained_backbone_is_read_from_its_folder(tmp_path: Path) -> None:
    toy_model().save_pretrained(tmp_path)
    model = starting_model(tmp_path, record=EncoderRecord(PerStep(max_length=99)))
    assert isinstance(model, StepRewardModel)
    assert model.record.encoding.max_length == 99
    with pytest.raises(ModelError, match=r"no model at .*nothing': there is no such folder"):
        starting_model(tmp_path / "nothing")


def test_what_cannot_be_made_is_named() -> None:
    with pytest.raises(InputError, match="no text to learn a tokenizer from"):
        starting_model("scratch")
    with pytest.raises(InputError, match="multiple of 8"):
        starting_model("scratch", labelled_trees(toy_labels(1, 0)), hidden=12)
