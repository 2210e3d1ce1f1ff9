"""Questions and steps without labels, under the names that data sets use."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from stepreward.core.errors import InputError
from stepreward.formats.steps.unlabelled import is_unlabelled, read_unlabelled


@pytest.mark.parametrize("question", ["question", "prompt", "problem"])
@pytest.mark.parametrize("steps", ["steps", "completions"])
def test_the_fields_have_several_names(question: str, steps: str) -> None:
    row = {question: "1 + 1?", steps: ["one", "two"]}
    assert is_unlabelled(row)
    (found,) = read_unlabelled(row, 1)
    assert found.problem.text == "1 + 1?"
    assert [step.text for step in found.steps] == ["one", "two"]
    assert np.isnan(found.labels).all()


@pytest.mark.parametrize("steps", ["one", [], [1, 2], ["one", 2], None])
def test_steps_are_texts(steps: Any) -> None:
    with pytest.raises(InputError, match="'steps' must be a list of texts"):
        list(read_unlabelled({"question": "q", "steps": steps}, 1))
