"""FoVer's rows (arXiv:2505.15960): steps that Z3 or Isabelle checked; in `error_labels`, true means right."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from stepreward.core.errors import InputError
from stepreward.core.types import Floats, Problem, Trajectory
from stepreward.formats.format import Format
from stepreward.formats.rows import (
    AfterError,
    Row,
    annotated,
    hard_first_error,
    label_array,
    need,
    raw,
    relabel,
    rest_of,
    steps_of,
)

Polarity = Literal["true-is-right", "true-is-wrong"]


def matches(row: Row) -> bool:
    """Whether a row looks like FoVer's."""
    return {"problem", "solution_steps", "error_labels"} <= row.keys()


def _turned(labels: Floats, polarity: Polarity) -> Floats:
    if polarity not in ("true-is-right", "true-is-wrong"):
        raise InputError(f"polarity must be true-is-right or true-is-wrong, got {polarity!r}")
    return labels if polarity == "true-is-right" else 1 - labels


def read(
    row: Row,
    number: int,
    *,
    separator: str = "\n",
    polarity: Polarity = "true-is-right",
    after_first_error: AfterError = "keep",
) -> Iterator[Trajectory]:
    """Reads `id`, `problem`, `solution_steps` and `error_labels`; null is not labelled.

    Args:
        row: the row.
        number: its 1-based number, used where the row has no `id`.
        separator: put at the end of each step.
        polarity: what true means. The field's name says error, its authors' files say right.
        after_first_error: labels after the first wrong step; every step was checked.

    Raises:
        InputError: a field is missing, there is not one label a step, or an unknown option.
    """
    steps = steps_of(row.get("solution_steps"), separator, name="solution_steps")
    labels = _turned(label_array(row.get("error_labels"), len(steps), name="error_labels"), polarity)
    labels = relabel(labels, after_first_error=after_first_error)
    problem = Problem(str(row.get("id", f"fover-{number}")), need(row, "problem"))
    yield annotated(
        problem, steps, labels, "fover verifiers", first_error=hard_first_error(labels),
        facts=rest_of(row, "id", "problem", "solution_steps", "error_labels", "messages", "messages_for_prediction"),
    )  # fmt: skip


def write(
    item: Trajectory, *, separator: str = "\n", threshold: float = 0.5, polarity: Polarity = "true-is-right"
) -> dict[str, Any]:
    """One FoVer row; a label that was not measured is null.

    Args:
        item: the solution.
        separator: taken from the end of each step.
        threshold: labels above it are right.
        polarity: what true means.

    Raises:
        InputError: an unknown option.
    """
    right = _turned((item.labels > threshold).astype(float), polarity)
    known = (item.labels == item.labels).tolist()
    return {
        "id": item.problem.id,
        "problem": item.problem.text,
        "solution_steps": raw(item.steps, separator),
        "error_labels": [bool(label) if seen else None for label, seen in zip(right.tolist(), known, strict=True)],
    }


FORMATS: tuple[Format, ...] = (Format("fover", "steps checked by formal tools", matches, read, write),)
