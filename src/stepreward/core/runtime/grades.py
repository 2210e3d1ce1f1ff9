"""Grades as answers: how long each took, so that what was dear is logged and never paid twice."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stepreward.core.runtime.flows import Extract, Grade, Grader

DEAR = 1.0
"""Seconds from which a grade is worth a place in the log: a rerun reads it."""
UNREAD = "unread: "
"""What an answer begins with that could not be read within its bounds; the text as written follows."""


@dataclass(frozen=True, slots=True)
class Graded:
    """A grader's answer to one question, with its cost."""

    answer: float | str | None
    seconds: float = 0.0


def asking(
    grader: Grader, clock: Callable[[], float] = time.monotonic
) -> Callable[[Sequence[Grade | Extract]], list[Graded]]:
    """Who answers `Grade` and `Extract` questions in order by a grader."""

    def ask(questions: Sequence[Grade | Extract]) -> list[Graded]:
        made = []
        for question in questions:
            start = clock()
            read = grader.answer if isinstance(question, Extract) else grader.grade
            answer = read(question.problem, question.steps)
            made.append(Graded(answer, clock() - start))
        return made

    return ask


def kept(question: Grade | Extract, answer: Graded) -> bool:
    """Whether a rerun should read an answer in the log: it took long, or could not be had and might take long again."""
    if answer.seconds >= DEAR:
        return True
    if isinstance(question, Extract):
        return isinstance(answer.answer, str) and answer.answer.startswith(UNREAD)
    return isinstance(answer.answer, float) and ungraded(question, answer.answer)


def ungraded(question: Grade, answer: float) -> bool:
    """Whether an outcome that should be known is not: there is a reference, and no grade."""
    return answer != answer and question.problem.reference is not None
