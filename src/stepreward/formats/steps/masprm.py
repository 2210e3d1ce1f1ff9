"""MASPRM's rows (arXiv:2510.24803): the turns of agents with values in [-1, 1], or those packed into integers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np

from stepreward.core.errors import InputError
from stepreward.core.types import Floats, Problem, Trajectory
from stepreward.formats.format import Format
from stepreward.formats.labels import AfterError, Unknown, fully_labelled, label_array, labelled
from stepreward.formats.rows import Row, check_choice, id_of, need, steps_of, texts_of

SCALE, SHIFT = 10_000, 1_000_000
"""A value v is packed as round(SCALE v) + SHIFT, so that it survives a cast to integers: TRL's trainer casts labels."""
Scale = Literal["signed", "packed"]


def _packed(value: object) -> bool:
    return isinstance(value, int | float) and abs(value - SHIFT) <= SCALE


def hold_q(labels: object) -> bool:
    """Whether a list of labels has one that TRL's rows do not have: negative or packed."""
    return isinstance(labels, list) and any(
        _packed(value) or (isinstance(value, int | float) and -1 <= value < 0) for value in labels
    )


def matches(row: Row) -> bool:
    """Whether a row looks like MASPRM's: TRL's fields, and a label that TRL does not have."""
    return {"prompt", "completions"} <= row.keys() and hold_q(row.get("labels"))


def _unit(values: object, scale: Scale | Literal["auto"], steps: int) -> Floats:
    """Q in [-1, 1], plain or packed, as labels in [0, 1]."""
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise InputError("'labels' must be a list of numbers", remedy="one number a turn")
    # Q is in [-1, 1], so one number around a million shows that all of the row are packed.
    if scale == "packed" or (scale == "auto" and any(_packed(value) for value in values)):
        values = [(value - SHIFT) / SCALE if _packed(value) else value for value in values]
    halves = [(value + 1) / 2 if isinstance(value, int | float) else value for value in values]
    try:
        return label_array(halves, steps)
    except InputError as error:
        raise InputError(f"{error.problem} after mapping [-1, 1] to [0, 1]", remedy="see option scale") from error


def read(
    row: Row,
    number: int,
    *,
    separator: str = "\n",
    scale: Scale | Literal["auto"] = "auto",
    threshold: float | None = None,
    after_first_error: AfterError = "keep",
) -> Iterator[Trajectory]:
    """Reads `prompt`, `completions` (a turn of an agent each) and `labels`, Q in [-1, 1]; the label is (Q + 1) / 2.

    A file differs from TRL's by any negative or packed label among its first rows; without one, name the format.

    Args:
        number: its 1-based number; the problem's id is of its words.
        separator: put at the end of each turn.
        scale: "signed" for Q, "packed" for integers around a million, "auto" for what the row shows.
        threshold: labels above it become 1; None keeps them soft. 1/2 is Q = 0.
        after_first_error: labels after the first 0.

    Raises:
        InputError: a field is missing, a label is outside its range, or an unknown option.
    """
    check_choice("scale", scale, Literal["auto", "signed", "packed"])
    steps = steps_of(row.get("completions"), separator, name="completions")
    labels = _unit(row.get("labels"), scale, len(steps))
    problem = Problem(id_of("masprm", need(row, "prompt")), need(row, "prompt"))
    yield labelled(problem, steps, labels, "masprm tree search", threshold=threshold,
                   after_first_error=after_first_error)  # fmt: skip


def write(
    item: Trajectory, *, separator: str = "\n", scale: Scale = "signed", unknown: Unknown = "cut"
) -> dict[str, Any]:
    """One MASPRM row.

    Args:
        separator: taken from the end of each turn.
        scale: "signed" writes Q in [-1, 1], "packed" integers.
        unknown: what a label that was not measured becomes; the format cannot hold it.

    Raises:
        InputError: an unknown option.
    """
    check_choice("scale", scale, Scale)
    item = fully_labelled(item, unknown)
    values = 2 * item.labels - 1
    labels = values if scale == "signed" else (np.rint(values * SCALE) + SHIFT).astype(np.int64)
    texts = texts_of(item.steps, separator)
    return {"prompt": item.problem.text, "completions": texts, "labels": labels.tolist()}


FORMATS: tuple[Format, ...] = (Format("masprm", "turns of agents with values in [-1, 1]", matches, read, write),)
