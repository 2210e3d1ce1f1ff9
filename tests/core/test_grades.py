"""Grades that cannot be had: others go on, the answer is unknown, counted, and not asked again by a rerun."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.core.test_driver import Dice

from stepreward.core.runtime.answer_log import SLOW_GRADE, AnswerLog, keeps_grade
from stepreward.core.runtime.driver import Driver
from stepreward.core.runtime.flows import UNREAD, Extract, Flow, Grade, Graded
from stepreward.core.sandbox.bounded import Bounded, Unbounded
from stepreward.core.types import Problem, Step

pytestmark = pytest.mark.timeout(120)
PROBLEMS = [Problem(f"p{i}", "?", "1") for i in range(4)]


class Blocks:
    """A grader that hangs over one problem, in a process that is killed."""

    name = "blocks"

    def __init__(self) -> None:
        self.bounded = Bounded("tests.core.test_grades:wait", seconds=2.0, workers=2)
        self.asked: list[str] = []

    def grade(self, problem: Problem, steps: Sequence[Step]) -> float:
        self.asked.append(problem.id)
        try:
            return float(self.bounded(600 if problem.id == "p0" else 0))
        except Unbounded:
            return math.nan

    def answer(self, problem: Problem, steps: Sequence[Step]) -> str | None:
        return f"{UNREAD}x" if math.isnan(self.grade(problem, steps)) else "x"


def wait(seconds: int) -> float:
    """For a worker process."""
    time.sleep(seconds)
    return 1.0


def graded(problem: Problem) -> Flow[tuple[float, str | None]]:
    steps = (Step("s"),)
    grade, answer = yield [Grade(problem, steps), Extract(problem, steps)]
    return grade, answer


@pytest.mark.sampled(2)
@pytest.mark.parametrize("concurrency", [1, 4], ids=["local", "threads"])
def test_a_grader_that_hangs_holds_up_no_other_and_is_not_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, concurrency: int
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    for again in (False, True):
        grader = Blocks()
        with AnswerLog(tmp_path / "log.sqlite") as log:
            driver = Driver(policy=Dice(concurrency=concurrency), grader=grader, log=log)
            found = {one.index: one.result for one in driver.run(graded(problem) for problem in PROBLEMS)}
        assert [found[i] for i in (1, 2, 3)] == [(1.0, "x")] * 3
        assert math.isnan(found[0][0])
        assert found[0][1] == f"{UNREAD}x"
        assert driver.bill.ungraded == 1
        assert ("p0" in grader.asked) is not again


def test_what_is_kept_is_what_was_dear_or_could_not_be_had() -> None:
    grade, bare = Grade(PROBLEMS[0], ()), Grade(Problem("q", "?"), ())
    extract = Extract(PROBLEMS[0], ())
    assert keeps_grade(grade, Graded(math.nan))
    assert not keeps_grade(bare, Graded(math.nan)), "without a reference nothing was tried"
    assert not keeps_grade(grade, Graded(1.0))
    assert keeps_grade(grade, Graded(1.0, SLOW_GRADE))
    assert keeps_grade(extract, Graded(f"{UNREAD}9"))
    assert not keeps_grade(extract, Graded("9"))
    assert not keeps_grade(extract, Graded(None))
