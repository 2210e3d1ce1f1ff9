"""UnPRM's rows: a prompt, a list of steps, a boolean for each, all false from the first error on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stepreward.core.types import Problem, Trajectory
from stepreward.formats.format import Format, has
from stepreward.formats.labels import AfterError, Unknown, fully_labelled, label_array, labelled
from stepreward.formats.rows import Row, id_of, need, steps_of, text_or_none, texts_of


def read(
    row: Row, number: int, *, separator: str = "\n", after_first_error: AfterError = "keep"
) -> Iterator[Trajectory]:
    """Reads `prompt`, `answer`, `completions` and `label`.

    Args:
        number: its 1-based number; the problem's id is of its words.
        separator: put at the end of each step.
        after_first_error: the file says false for every step after the first error, judged or not; "mask" forgets
            them.

    Raises:
        InputError: a field is missing, or there is not one label a step.
    """
    steps = steps_of(row.get("completions"), separator, name="completions")
    labels = label_array(row.get("label"), len(steps), name="label")
    problem = Problem(id_of("unprm", need(row, "prompt")), need(row, "prompt"), text_or_none(row.get("answer")))
    yield labelled(problem, steps, labels, "unprm first-error search", after_first_error=after_first_error)


def write(
    item: Trajectory, *, separator: str = "\n", threshold: float = 0.5, unknown: Unknown = "wrong"
) -> dict[str, Any]:
    """One UnPRM row.

    Args:
        separator: taken from the end of each step.
        threshold: labels above it are true.
        unknown: what a label that was not measured becomes; false, as the format has it after the first error.
    """
    item = fully_labelled(item, unknown)
    return {
        "prompt": item.problem.text,
        "answer": item.problem.reference,
        "completions": texts_of(item.steps, separator),
        "label": (item.labels > threshold).tolist(),
    }


FORMATS: tuple[Format, ...] = (
    Format("unprm", "prompt, answer, completions, label", has("prompt", "completions", label=list), read, write),
)
