"""What the last layer of a head reads, behind the outputs of a forward pass."""

from __future__ import annotations

import pytest
import torch
from tests.score.models import model, random_trajectories

from stepreward.core.errors import ModelError
from stepreward.core.tree import StepTree
from stepreward.score.encode.packing import pack
from stepreward.score.encode.readout import Readout
from stepreward.score.encode.record import EncoderRecord


@pytest.mark.parametrize("layers", [1, 2])
def test_the_last_layer_makes_the_outputs_of_the_features(layers: int) -> None:
    reward = model(record=EncoderRecord(readout=Readout("softmax", n_labels=2, positive=1)))
    last = torch.nn.Linear(32 if layers == 1 else 8, 2)
    reward.head = last if layers == 1 else torch.nn.Sequential(torch.nn.Linear(32, 8), torch.nn.Tanh(), last)
    batch = pack([reward.encoder.encode_tree(StepTree.from_trajectories(random_trajectories(0)))])
    plain = reward(batch)
    reward.with_features = True
    both = reward(batch)
    features = reward.step_features(both)
    assert features.shape == (len(plain), last.in_features)
    torch.testing.assert_close(reward.step_outputs(both, batch), plain)
    torch.testing.assert_close(features @ last.weight.T + last.bias, plain)
    # The logit of a step is the difference of both outputs.
    slope = reward.slope()
    assert float(slope) == pytest.approx(float((last.weight[1] - last.weight[0]).detach().norm()))
    assert not slope.requires_grad


def test_a_head_without_a_linear_end_has_no_slope() -> None:
    reward = model()
    reward.head = torch.nn.Sequential(reward.head, torch.nn.Tanh())
    with pytest.raises(ModelError, match="heads that end in a linear layer"):
        reward.slope()
