"""FoVer's rows (arXiv:2505.15960): steps that Z3 or Isabelle checked; in `error_labels`, true means right."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from stepreward.core.types import Floats, Problem, Trajectory
from stepreward.formats.format import Format, has
from stepreward.formats.labels import AfterError, label_array, labelled
from stepreward.formats.rows import Row, check_choice, need, other_fields, steps_of, texts_of

Polarity = Literal["true-is-right", "true-is-wrong"]


def _right(labels: Floats, polarity: Polarity) -> Floats:
    """1 for right steps, of labels in which true means what `polarity` says; and back again."""
    check_choice("polarity", polarity, Polarity)
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
        number: its 1-based number, used where the row has no `id`.
        separator: put at the end of each step.
        polarity: what true means. The field's name says error, its authors' files say right.
        after_first_error: labels after the first wrong step; every step was checked.

    Raises:
        InputError: a field is missing, there is not one label a step, or an unknown option.
    """
    steps = steps_of(row.get("solution_steps"), separator, name="solution_steps")
    labels = _right(label_array(row.get("error_labels"), len(steps), name="error_labels"), polarity)
    problem = Problem(str(row.get("id", f"fover-{number}")), need(row, "problem"))
    # The messages repeat the problem and the steps as the authors' verifier was given them.
    own = ("id", "problem", "solution_steps", "error_labels", "messages", "messages_for_prediction")
    yield labelled(problem, steps, labels, "fover verifiers", after_first_error=after_first_error,
                   facts=other_fields(row, *own))  # fmt: skip


def write(
    item: Trajectory, *, separator: str = "\n", threshold: float = 0.5, polarity: Polarity = "true-is-right"
) -> dict[str, Any]:
    """One FoVer row; a label that was not measured is null.

    Args:
        separator: taken from the end of each step.
        threshold: labels above it are right.
        polarity: what true means.

    Raises:
        InputError: an unknown option.
    """
    right = _right((item.labels > threshold).astype(float), polarity)
    known = (item.labels == item.labels).tolist()
    return {
        "id": item.problem.id,
        "problem": item.problem.text,
        "solution_steps": texts_of(item.steps, separator),
        "error_labels": [bool(label) if seen else None for label, seen in zip(right.tolist(), known, strict=True)],
    }


FORMATS: tuple[Format, ...] = (
    Format("fover", "steps checked by formal tools", has("problem", "solution_steps", "error_labels"), read, write),
)
