"""Solutions for MPBench's metrics (arXiv:2503.12505), in a layout of our own: its files could not be seen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from stepreward.core.errors import InputError
from stepreward.core.types import Problem, Trajectory
from stepreward.formats.format import Format, has
from stepreward.formats.labels import hard_first_error, label_array, null_for_nan
from stepreward.formats.rows import Row, annotated, need, other_fields, shown, steps_of, text_or_none, texts_of
from stepreward.formats.steps.rlhflow import images_of

PARADIGMS = ("step correctness", "reasoning process search")
_OWN = ("id", "question", "image", "steps", "labels", "answer")


def read(row: Row, number: int, *, separator: str = "\n\n") -> Iterator[Trajectory]:
    """Reads `question`, `steps`, `labels` (1 right, 0 wrong, null unknown), `paradigm`, and `image`, `answer` and `id`.

    This is no layout of the authors': write your copy of MPBench so; the last three fields may be left out. `paradigm`
    is "step correctness" or "reasoning process search"; the third, answer aggregation, is several graded solutions of a
    problem, which `best-of-n` measures.

    Args:
        number: its 1-based number, used where the row has no `id`.
        separator: put at the end of each step.

    Raises:
        InputError: a field is missing, a label is outside [0, 1], or the paradigm is none.
    """
    if row.get("paradigm") not in PARADIGMS:
        what = f"'paradigm' must be {' or '.join(map(repr, PARADIGMS))}, got {shown(row.get('paradigm'))}"
        raise InputError(what, remedy="name the paradigm that the row is of")
    steps = steps_of(row.get("steps"), separator)
    labels = label_array(row.get("labels"), len(steps))
    images = images_of(row.get("image"))
    problem = Problem(
        str(row.get("id", f"mp-bench-{number}")), need(row, "question"), reference=text_or_none(row.get("answer")),
        meta={"images": images} if images else {},
    )  # fmt: skip
    first = None if np.isnan(labels).any() else hard_first_error(labels)
    yield annotated(problem, steps, labels, "mp-bench annotators", first_error=first, facts=other_fields(row, *_OWN))


def write(item: Trajectory, *, separator: str = "\n\n") -> dict[str, Any]:
    """One row of this layout, of the paradigm that `meta` names or else of step correctness.

    Args:
        separator: taken from the end of each step.
    """
    problem = item.problem
    made = {
        "paradigm": PARADIGMS[0], **item.facts, "id": problem.id, "question": problem.text,
        "steps": texts_of(item.steps, separator), "labels": null_for_nan(item.labels),
    }  # fmt: skip
    made |= {} if problem.reference is None else {"answer": problem.reference}
    return made | ({"image": problem.meta["images"]} if problem.meta.get("images") else {})


FORMATS: tuple[Format, ...] = (
    Format("mp-bench", "labelled steps by MPBench's paradigms, a layout of our own",
           has("question", "steps", "labels", "paradigm"), read, write),
)  # fmt: skip
