"""Distillation of step scores: a number worked by hand, and its limits at both ends of the temperature."""

from __future__ import annotations

import math

import pytest
import torch

from stepreward.core.catalog import loss

Z = torch.tensor([[0.3, -2.0, 1.5]], dtype=torch.float64)
Y = torch.tensor([[0.9, 0.2, 0.999]], dtype=torch.float64)
MASK = torch.ones(1, 3, dtype=torch.bool)


def value(name: str, logits: torch.Tensor, **settings: float) -> torch.Tensor:
    made: torch.Tensor = loss[name].take({"logits": logits, "labels": Y, "mask": MASK}, **settings).value
    return made


def test_a_number_worked_by_hand() -> None:
    # T = 2: q = sigmoid(log(9) / 2) = 3/4, sigmoid(2 log(3) / 2) = 3/4: 4 times the entropy of (3/4, 1/4), 0.562335.
    data = {"logits": torch.tensor([[2 * math.log(3)]]), "labels": torch.tensor([[0.9]]), "mask": MASK[:, :1]}
    assert float(loss["distillation"].take(data)) == pytest.approx(4 * 0.562335, abs=1e-5)


def test_at_temperature_1_it_is_cross_entropy_to_the_scores() -> None:
    assert value("distillation", Z, temperature=1.0) == value("bce", Z)


def test_a_hot_student_matches_logits() -> None:
    z = Z.clone().requires_grad_()
    value("distillation", z, temperature=1e4).backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(z.grad, (Z - torch.logit(Y)) / 4 / 3, rtol=1e-6, atol=1e-7)


def test_hard_labels_stay_hard() -> None:
    data = {"logits": Z, "labels": torch.tensor([[1.0, 0.0, 1.0]], dtype=torch.float64), "mask": MASK}
    expected = loss["bce"].take({**data, "logits": Z / 3}).value
    torch.testing.assert_close(loss["distillation"].take(data, temperature=3.0).value, 9 * expected)


def test_steps_without_a_teacher_are_left_out_and_trajectories_weigh_alike() -> None:
    """One row with two known scores and one with one: the mean over trajectories weighs that one as both others."""
    z = torch.tensor([[0.3, -2.0, 1.5], [0.7, 9.0, 9.0]], dtype=torch.float64).requires_grad_()
    y = torch.tensor([[0.9, math.nan, 0.2], [0.4, 0.5, math.nan]], dtype=torch.float64)
    data = {"logits": z, "labels": y, "mask": torch.tensor([[True, True, True], [True, False, False]])}

    def term(z: float, y: float) -> float:
        q, p = (1 / (1 + math.exp(-x / 2)) for x in (math.log(y / (1 - y)), z))
        return -4 * (q * math.log(p) + (1 - q) * math.log(1 - p))

    a, b, c = term(0.3, 0.9), term(1.5, 0.2), term(0.7, 0.4)
    assert float(loss["distillation"].take(data)) == pytest.approx((a + b + c) / 3)
    made = loss["distillation"].take(data, per="trajectory").value
    assert float(made.detach()) == pytest.approx(((a + b) / 2 + c) / 2)
    made.backward()
    assert z.grad is not None
    assert z.grad.isfinite().all()
    assert z.grad[~torch.tensor([[True, False, True], [True, False, False]])].tolist() == [0, 0, 0]
