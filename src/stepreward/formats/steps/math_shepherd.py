"""Math-Shepherd (arXiv:2312.08935): one text whose steps end in a tag, and its twin with + or - at the tags."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from stepreward.core.errors import InputError
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.formats.format import Format
from stepreward.formats.labels import SIGNS, AfterError, Unknown, fully_labelled, labelled
from stepreward.formats.rows import Row, id_of, need, shown
from stepreward.formats.steps.tagged import MARK, TAG, joined, parted, pieces_of


def matches(row: Row) -> bool:
    """Whether a row looks like Math-Shepherd."""
    return isinstance(row.get("input"), str) and TAG in row["input"] and isinstance(row.get("label"), str)


def _signs(pieces: list[str], label: str) -> list[float]:
    """The sign in `label` at each tag; the texts between must be those of the input."""
    # By place, not by splitting at the signs: solutions have plus and minus in their equations.
    at, signs = 0, []
    for i, piece in enumerate(pieces):
        sign = label[at + len(piece) : at + len(piece) + 1]
        if label[at : at + len(piece)] != piece or sign not in SIGNS:
            raise InputError(
                f"'label' must repeat 'input' with + or - for each '{TAG}': at step {i} it has "
                f"{shown(label[at + len(piece) - 10 : at + len(piece) + 1])}",
            )
        signs.append(SIGNS[sign])
        at += len(piece) + 1
    return signs


def read(row: Row, number: int, *, mark: str = MARK, after_first_error: AfterError = "keep") -> Iterator[Trajectory]:
    """Reads `input`, `label` and `task`; a step keeps its "Step i:" and ends in a line break.

    Args:
        number: its 1-based number; the problem's id is of its words.
        mark: how the first step begins; the question comes before it.
        after_first_error: the file labels every step, each by its own rollouts; "mask" forgets those after a 0.

    Raises:
        InputError: a field is missing, no tag or no "Step 1:" is there, or the two texts differ.
    """
    text, label = need(row, "input"), need(row, "label")
    pieces = pieces_of(text, TAG, name="input")
    question, first = parted(pieces[0], mark)
    # The file writes "step one ки\nstep two ки": the space and the line break belong to the tag, not to the steps.
    texts = [first, *(piece.removeprefix("\n") for piece in pieces[1:])]
    yield labelled(
        Problem(id_of("math-shepherd", question), question, meta={"task": row.get("task", "")}),
        tuple(Step(piece.removesuffix(" ") + "\n") for piece in texts), np.array(_signs(pieces, label)),
        "math-shepherd rollouts", after_first_error=after_first_error,
    )  # fmt: skip


def write(item: Trajectory, *, threshold: float = 0.5, unknown: Unknown = "cut") -> dict[str, Any]:
    """One Math-Shepherd row; "Step i:" is put where a step has none.

    Args:
        threshold: labels above it are +.
        unknown: what a label that was not measured becomes; the format cannot hold it.

    Raises:
        InputError: a text contains the tag.
    """
    item = fully_labelled(item, unknown)
    text = joined(item, TAG, MARK)
    pieces = text.split(TAG)
    signs = ["+" if label > threshold else "-" for label in item.labels]
    label = "".join(piece + sign for piece, sign in zip(pieces, signs, strict=False))
    return {"input": text, "label": label, "task": item.problem.meta.get("task", "")}


FORMATS: tuple[Format, ...] = (Format("math-shepherd", "tagged text with + and -", matches, read, write),)
