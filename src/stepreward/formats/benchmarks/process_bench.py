"""ProcessBench (arXiv:2412.06559): solutions with the first wrong step marked by people."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from stepreward.core.errors import InputError
from stepreward.core.types import Problem, Trajectory
from stepreward.formats.format import Format, has
from stepreward.formats.labels import AfterMarked, known_first_error, labels_to_first_error
from stepreward.formats.rows import Row, annotated, need, shown, steps_of, texts_of, written_by


def read(
    row: Row, number: int, *, separator: str = "\n\n", after_first_error: AfterMarked = "mask"
) -> Iterator[Trajectory]:
    """Reads `id`, `problem`, `steps`, `label` (0-based first error, -1 none), `final_answer_correct`, `generator`.

    Args:
        number: its 1-based number.
        separator: put at the end of each step.
        after_first_error: steps after the first error were not judged: NaN by default, or 0.

    Raises:
        InputError: a field is missing, there is no step, or the label is no step.
    """
    steps, first = steps_of(row.get("steps"), separator), need(row, "label", int)
    final = row.get("final_answer_correct")
    if final is not None and not isinstance(final, bool):
        raise InputError(f"'final_answer_correct' must be true or false, got {shown(final)}", remedy="or leave it out")
    yield annotated(
        Problem(str(row.get("id", f"processbench-{number}")), need(row, "problem")), steps,
        labels_to_first_error(first, len(steps), after=after_first_error), "processbench annotators",
        policy=str(row.get("generator", "")), outcome=math.nan if final is None else float(final), first_error=first,
    )  # fmt: skip


def write(item: Trajectory, *, separator: str = "\n\n", threshold: float = 0.5) -> dict[str, Any]:
    """One ProcessBench row.

    Args:
        item: the solution; where `first_error` is unknown, it is the first label at or below `threshold`.
        separator: taken from the end of each step.
        threshold: in [0, 1].

    Raises:
        InputError: the first error is unknown because a label before it is.
    """
    first = known_first_error(item, threshold=threshold)
    outcome = item.outcome
    return {
        "id": item.problem.id,
        "generator": written_by(item),
        "problem": item.problem.text,
        "steps": texts_of(item.steps, separator),
        "final_answer_correct": None if math.isnan(outcome) else outcome > 0.5,
        "label": first,
    }


FORMATS: tuple[Format, ...] = (
    Format("process-bench", "first errors marked by people", has("problem", "steps", "label"), read, write),
)
