"""ActPRM's rows (arXiv:2504.10559): question, steps, hard and soft labels, -100 where a step was not labelled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from stepreward.core.types import Problem, Trajectory
from stepreward.formats.format import Format
from stepreward.formats.labels import AfterError, label_array, labelled
from stepreward.formats.rows import Row, check_choice, need, steps_of, text_or_none, texts_of

# What PyTorch's cross-entropy leaves out.
UNLABELLED = -100
Which = Literal["hard", "soft"]


def matches(row: Row) -> bool:
    """Whether a row looks like ActPRM's."""
    return {"question", "steps"} <= row.keys() and bool({"hard_labels", "soft_labels"} & row.keys())


def read(
    row: Row,
    number: int,
    *,
    separator: str = "\n\n",
    labels: Which = "hard",
    threshold: float | None = None,
    after_first_error: AfterError = "keep",
) -> Iterator[Trajectory]:
    """Reads `question`, `steps` and `hard_labels` or `soft_labels`; -100 is not labelled.

    Args:
        number: its 1-based number, used where the row has no `uuid`.
        separator: put at the end of each step.
        labels: which of the two to read; the other is kept in `meta`.
        threshold: labels above it become 1; None keeps them.
        after_first_error: labels after the first 0; the authors' rows have -100 there.

    Raises:
        InputError: a field is missing, there is not one label a step, or an unknown option.
    """
    check_choice("labels", labels, Which)
    steps = steps_of(row.get("steps"), separator)
    name, other = ("hard_labels", "soft_labels") if labels == "hard" else ("soft_labels", "hard_labels")
    values = [None if value == UNLABELLED else value for value in need(row, name, list)]
    problem = Problem(
        str(row.get("uuid", f"actprm-{number}")), need(row, "question"), reference=text_or_none(row.get("answer"))
    )
    yield labelled(
        problem, steps, label_array(values, len(steps), name=name), "actprm judges", threshold=threshold,
        after_first_error=after_first_error, facts={other: row[other]} if isinstance(row.get(other), list) else {},
    )  # fmt: skip


def write(item: Trajectory, *, separator: str = "\n\n", threshold: float = 0.5) -> dict[str, Any]:
    """One ActPRM row with both kinds of labels; a label that was not measured is -100.

    Args:
        separator: taken from the end of each step.
        threshold: labels above it are 1 among the hard labels.
    """
    gaps = np.isnan(item.labels)
    soft = np.where(gaps, UNLABELLED, item.labels).tolist()
    hard = np.where(gaps, UNLABELLED, item.labels > threshold).astype(np.int64).tolist()
    row = {"question": item.problem.text, "steps": texts_of(item.steps, separator)}
    return {**row, "hard_labels": hard, "soft_labels": item.facts.get("soft_labels", soft)}


FORMATS: tuple[Format, ...] = (Format("actprm", "question, steps, hard and soft labels", matches, read, write),)
