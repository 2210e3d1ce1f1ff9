"""MR-Ben (arXiv:2406.13975): first errors in solutions of seven subjects; of programs, the first wrong line."""

from __future__ import annotations

from collections.abc import Iterator

from stepreward.core.errors import InputError
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.formats.benchmarks.first_error_rows import counted_from_one, judged
from stepreward.formats.format import Format, has
from stepreward.formats.labels import AfterMarked, labels_to_first_error
from stepreward.formats.rows import Row, annotated, need, other_fields, shown, steps_of

STEPS, FIRST = "Model_Solution_Steps", "Model_Solution_First_Error_Step"


def _wrong_line(steps: tuple[Step, ...], line: object) -> int | None:
    """The line of a program that is marked; None where it is blank or occurs several times."""
    if not isinstance(line, str):
        raise InputError(f"'{FIRST}' of a program must be one of its lines, got {shown(line)}")
    if not line.strip():
        return None
    found = [i for i, step in enumerate(steps) if step.text.strip() == line.strip()]
    if not found:
        raise InputError(f"'{FIRST}' is no line of the program: {shown(line)}")
    return found[0] if len(found) == 1 else None


def read(
    row: Row, number: int, *, separator: str = "\n", after_first_error: AfterMarked = "mask"
) -> Iterator[Trajectory]:
    """Reads a solution; steps count from 1, and a program's steps are its lines.

    Where a program has the marked line several times, or the mark is blank, first error and labels are unknown;
    `meta` keeps the line.

    Args:
        number: its 1-based number, used where the row has no `Question_UUID`.
        separator: put at the end of each step; lines of programs keep their own.
        after_first_error: steps after the first error were not judged: "mask", or "wrong".

    Raises:
        InputError: a field is missing, or a wrong solution has no first error among its steps.
    """
    texts = row.get(STEPS)
    # Of the coding subject a solution is one text, the program, and its first error is a line, not a number.
    steps = (
        tuple(Step(line) for line in texts.splitlines(keepends=True))
        if isinstance(texts, str) and texts
        else steps_of(texts, separator, name=STEPS)
    )
    first: int | None = -1
    if not judged(row, "Model_Solution_Correctness"):
        marked = row.get(FIRST)
        first = _wrong_line(steps, marked) if isinstance(texts, str) else counted_from_one(marked, len(steps), FIRST)
    options = row.get("Options")
    question = need(row, "Question") + (f"\n{options}" if isinstance(options, str) and options.strip() else "")
    answer = row.get("Ground_Truth_Answer")
    problem = Problem(
        str(row.get("Question_UUID", f"mr-ben-{number}")), question,
        reference=answer if isinstance(answer, str) and answer else None,
    )  # fmt: skip
    labels = labels_to_first_error(first, len(steps), after=after_first_error)
    yield annotated(
        problem, steps, labels, "mr-ben annotators", policy=str(row.get("Sampled_Model", "")), first_error=first,
        facts={"subset": str(row.get("Subject", "")), **other_fields(row, "Question", STEPS)},
    )  # fmt: skip


FORMATS: tuple[Format, ...] = (Format("mr-ben", "first errors across subjects", has("Question", STEPS, FIRST), read),)
