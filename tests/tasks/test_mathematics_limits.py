"""Text that is made to keep a parser busy is no answer."""

from __future__ import annotations

import pytest

from stepreward.core.types import Problem, Step
from stepreward.tasks.mathematics import MathGrader

PROBLEM = Problem("p", "q", "1")


@pytest.mark.timeout(20)
@pytest.mark.parametrize("brackets", ["()", "[]", "{}"])
def test_brackets_without_end_are_not_parsed(brackets: str) -> None:
    text = "\\boxed{" + brackets[0] * 3000 + "1" + brackets[1] * 3000 + "}"
    assert MathGrader().answer(PROBLEM, [Step(text)]) is None
    assert MathGrader().grade(PROBLEM, [Step(text)]) == 0.0


def test_brackets_as_people_write_them_are() -> None:
    text = "So \\boxed{" + "(" * 20 + "1" + ")" * 20 + "}"
    assert MathGrader().answer(PROBLEM, [Step(text)]) == "1"
