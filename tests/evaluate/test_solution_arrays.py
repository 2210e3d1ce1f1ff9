"""Arrays of solutions: what a solution does not say is refused, not guessed."""

from __future__ import annotations

import pytest

from stepreward.core.errors import MissingDataError
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.evaluate.data.solution_arrays import first_errors


def test_first_errors_are_those_that_solutions_say() -> None:
    said = [Trajectory(Problem("p", "?"), (Step("a"), Step("b")), first_error=at) for at in (1, -1)]
    assert first_errors(said).tolist() == [1, -1]
    with pytest.raises(MissingDataError, match="first_error"):
        first_errors([*said, Trajectory(Problem("p", "?"), (Step("a"),))])
