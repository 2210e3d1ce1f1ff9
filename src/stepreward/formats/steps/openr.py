"""OpenR's converted rows (arXiv:2410.09671), also those of MATH-APS: one text whose steps end in a tag, and signs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stepreward.core.errors import InputError
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.formats.format import Format, has
from stepreward.formats.labels import AfterError, Unknown, fully_labelled, labelled, signed_labels
from stepreward.formats.rows import Row, id_of, need, texts_of
from stepreward.formats.steps.tagged import pieces_of

TAG = "\n\n\n\n\n"


def read(
    row: Row, number: int, *, tag: str = TAG, separator: str = "\n", after_first_error: AfterError = "keep"
) -> Iterator[Trajectory]:
    """Reads `question`, `process` and `label`: one sign for each tag.

    A row of MATH-APS that labels one prefix alone is one long step. PRM800K rows that OpenR converted hold neutral
    steps as "+"; those of MATH-APS hold values above 1/2 as "+".

    Args:
        number: its 1-based number; the problem's id is of its words.
        tag: what ends each step: five line breaks, or "ки" in older files.
        separator: put at the end of each step.
        after_first_error: labels after the first "-"; every prefix was estimated by its own rollouts.

    Raises:
        InputError: a field is missing, or labels and tags differ in number.
    """
    pieces = pieces_of(need(row, "process"), tag, name="process")
    # The tag has a space before it, and one after it that begins the next piece.
    steps = tuple(
        Step(piece.removesuffix(" ").removeprefix(" " if i else "") + separator) for i, piece in enumerate(pieces)
    )
    labels = signed_labels(row.get("label"), len(steps))
    problem = Problem(id_of("openr", need(row, "question")), need(row, "question"))
    yield labelled(problem, steps, labels, "openr labels", after_first_error=after_first_error)


def write(
    item: Trajectory, *, tag: str = TAG, separator: str = "\n", threshold: float = 0.5, unknown: Unknown = "cut"
) -> dict[str, Any]:
    """One converted row.

    Args:
        tag: put after each step.
        separator: taken from the end of each step.
        threshold: labels above it are "+".
        unknown: what a label that was not measured becomes; the format cannot hold it.

    Raises:
        InputError: a step contains the tag.
    """
    item = fully_labelled(item, unknown)
    texts = texts_of(item.steps, separator)
    if any(tag in text for text in texts):
        raise InputError(f"a step of problem {item.problem.id} contains the tag {tag!r}", remedy="name another tag")
    signs = ["+" if label > threshold else "-" for label in item.labels]
    process = " ".join(f"{text} {tag}" for text in texts)
    return {"question": item.problem.text, "process": process, "label": signs}


FORMATS: tuple[Format, ...] = (
    Format("openr", "question, tagged process, a list of signs", has("question", "label", process=str), read, write),
)
