"""Metrics during training, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tests.train.toy import toy_labels, toy_model

from stepreward.core.errors import ModelError
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.score.encode.per_step import EncoderRecord
from stepreward.score.encode.readout import Readout
from stepreward.train.data.labelled_trees import labelled_trees
from stepreward.train.data.training_set import make_batches
from stepreward.train.evaluation import Readings, evaluate_batches
from stepreward.train.objective import Objective

NAN = float("nan")


@pytest.mark.parametrize(
    "record",
    [
        EncoderRecord(),
        EncoderRecord(readout=Readout(n_labels=3, positive=2)),
        EncoderRecord(readout=Readout("softmax", n_labels=2, positive=1)),
        EncoderRecord(readout=Readout("softmax", n_labels=3)),
        EncoderRecord(readout=Readout("softmax", n_labels=3, positive=2, also=(1,))),
    ],
)
def test_the_sigmoid_of_a_step_logit_is_the_score(record: EncoderRecord) -> None:
    model = toy_model(record=record)
    z = torch.randn(7, record.readout.n_labels) * 3
    torch.testing.assert_close(model.step_logits(z).sigmoid(), model.scores(z))


def test_scores_in_minus_one_to_one_have_the_logits_of_their_probabilities() -> None:
    z = torch.randn(7, 2) * 3
    for readout in ("difference", "tanh"):
        model = toy_model(record=EncoderRecord(readout=Readout(readout, n_labels=2, positive=1)))
        torch.testing.assert_close(2 * model.step_logits(z).sigmoid() - 1, model.scores(z))
    model = toy_model(record=EncoderRecord(readout=Readout("mean-sigmoid", n_labels=2)))
    with pytest.raises(ModelError, match="no single logit"):
        model.step_logits(z)


def measured(labels: list[Trajectory], bias: float, record: EncoderRecord | None = None) -> dict[str, float]:
    """Metrics of a model that says the same of every step."""
    model = toy_model(record=record)
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.fill_(bias)
    batches = make_batches(labelled_trees(labels), model.encoder, row_tokens=256, batch_tokens=512)
    return evaluate_batches(model, batches, Objective.of("bce"))


def test_a_constant_model_has_the_metrics_of_a_constant() -> None:
    """p = 3/4 of every step: Brier is the mean of (3/4 - y)^2, ECE the distance of 3/4 from the mean label."""
    labels = toy_labels(10, 0)
    y = np.concatenate([one.labels for one in labels])
    found = measured(labels, math.log(3))
    assert found["auroc"] == pytest.approx(0.5)
    assert found["brier"] == pytest.approx(np.mean((0.75 - y) ** 2))
    assert found["ece"] == pytest.approx(abs(0.75 - y.mean()))
    assert found["loss"] == pytest.approx(-np.mean(y * math.log(0.75) + (1 - y) * math.log(0.25)))


def test_what_is_not_defined_is_nan() -> None:
    right = [one for one in toy_labels(20, 0) if one.labels.min() == 1]
    found = measured(right, 0.0)
    assert np.isnan([found["f1"], found["threshold"], found["auroc"]]).all()
    assert found["brier"] == pytest.approx(0.25)
    value = measured(
        toy_labels(5, 0),
        7.0,
        EncoderRecord(readout=Readout("value")),
    )
    assert np.isnan([value["brier"], value["ece"]]).all()
    assert value["auroc"] == pytest.approx(0.5)


def test_first_errors_are_compared_where_steps_are_supervised() -> None:
    """Scores a .9, b .2, c .8 and d .1: with b wrong and d not supervised, thresholds in [.2, .8) are right of all."""
    problem = Problem("p", "Say")
    labels = [
        Trajectory(problem, (Step("a\n"), Step(f"{word}\n")), columns={"label": y})
        for word, y in (("b", np.array([1.0, 0.0])), ("c", np.array([1.0, 1.0])), ("d", np.array([1.0, NAN])))
    ]
    model = toy_model()
    batches = make_batches(labelled_trees(labels), model.encoder, row_tokens=256, batch_tokens=512)
    model.score_parts = lambda _: np.array([[0.9], [0.2], [0.8], [0.1]])  # type: ignore[method-assign]
    found = evaluate_batches(model, batches)
    assert found["f1"] == 1.0
    assert found["threshold"] == pytest.approx(0.2)
    assert found["brier"] == pytest.approx((3 * 0.1**2 + 0.2**2 + 0.2**2) / 5)


def test_intervals_are_over_problems_and_reach_from_the_worst_draw_to_the_best() -> None:
    """Two problems, alike within and different between: a draw has one of them twice, or both.

    Brier of problem a is 0.01 (scores 0.9, label 1), of b 0.81 (0.9, label 0). Draws are aa 1/4, ab 1/2, bb 1/4: the
    2.5 % and 97.5 % quantiles are those of aa and bb. Over the four trajectories, draws of one kind would be rarer.
    """
    scores, labels = np.full((4, 2), 0.9), np.array([[1.0, 1], [1, 1], [0, 0], [0, 0]])
    found = Readings(scores, labels, ("a", "a", "b", "b"), None, True)
    assert found.metrics()["brier"] == pytest.approx(0.41)
    assert found.intervals()["brier"] == pytest.approx((0.01, 0.81))
    assert found.intervals()["ece"] == pytest.approx((0.1, 0.9))
    # All scores are equal: half of the pairs are in order, in draws with both labels.
    assert "auroc" in found.intervals()
    bare = Readings(scores, labels, ("a", "a", "b", "b"), 0.3, False)
    assert bare.metrics()["loss"] == 0.3
    assert not {"brier", "ece", "loss"} & bare.intervals().keys()


def test_the_threshold_of_an_interval_is_that_of_all_trajectories() -> None:
    """Of right (a) and wrong (b) solutions, at threshold 0.2 both are found: F1 is 1 in each draw that has both."""
    scores, labels = np.array([[0.9], [0.8], [0.2], [0.1]]), np.array([[1.0], [1], [0], [0]])
    found = Readings(scores, labels, ("a", "a", "b", "b"), None, True)
    assert found.metrics()["f1"] == 1.0
    assert found.metrics()["threshold"] == 0.2
    low, high = found.intervals()["f1"]
    # Draws that agree say nothing of other problems: Wilson's end of 0 in 2 is 0.658.
    assert (low, high) == pytest.approx((1 - 0.6576, 1.0), abs=1e-3)


def test_nothing_held_out_has_no_interval() -> None:
    assert Readings(np.zeros((0, 0)), np.zeros((0, 0)), (), None, True).intervals() == {}
