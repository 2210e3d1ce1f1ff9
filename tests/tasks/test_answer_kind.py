"""What a reference says about the form that answers to it may have."""

from __future__ import annotations

import pytest

from stepreward.tasks.answer_kind import kind_of


@pytest.mark.parametrize(
    ("reference", "left"),
    [("y = 2x", "y"), ("x_1 = 2y", "x_1"), ("2y = x + 1", ""), ("xy = 2z", ""), ("x^2 = y", ""), ("2x = 6y", "")],
)
def test_only_one_name_may_be_left_out_of_a_relation(reference: str, left: str) -> None:
    assert kind_of(reference).relation
    assert kind_of(reference).left == left
