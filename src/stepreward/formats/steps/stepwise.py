"""TRL's stepwise supervision and SCAN's rows: a prompt, a list of steps, a number for each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stepreward.core.types import Problem, Trajectory
from stepreward.formats.format import Format, has
from stepreward.formats.labels import AfterError, Unknown, fully_labelled, label_array, labelled, null_for_nan
from stepreward.formats.rows import Row, id_of, need, steps_of, text_or_none, texts_of
from stepreward.formats.steps.masprm import hold_q


def is_trl(row: Row) -> bool:
    """Whether a row looks like TRL's stepwise supervision."""
    return {"prompt", "completions", "labels"} <= row.keys() and not hold_q(row["labels"])


def read_trl(
    row: Row,
    number: int,
    *,
    separator: str = "\n",
    threshold: float | None = None,
    after_first_error: AfterError = "keep",
) -> Iterator[Trajectory]:
    """Reads `prompt`, `completions` (one text a step) and `labels` (booleans, or numbers in [0, 1], null if unknown).

    A field `reference` is the problem's reference answer.

    Args:
        number: its 1-based number; the problem's id is of its words.
        separator: put at the end of each step; TRL's trainer joins with a line break.
        threshold: labels above it become 1; None keeps them.
        after_first_error: labels after the first 0.

    Raises:
        InputError: a field is missing, there is no step, a label is outside [0, 1].
    """
    steps = steps_of(row.get("completions"), separator, name="completions")
    labels = label_array(need(row, "labels", (list, tuple)), len(steps))
    prompt, reference = need(row, "prompt"), text_or_none(row.get("reference"))
    # A verifier may be taught by one question with several references: each of these is a problem.
    problem = Problem(id_of("trl", prompt if reference is None else [prompt, reference]), prompt, reference)
    yield labelled(problem, steps, labels, "trl stepwise labels", threshold=threshold,
                   after_first_error=after_first_error)  # fmt: skip


def write_trl(
    item: Trajectory, *, separator: str = "\n", threshold: float | None = 0.5, unknown: Unknown = "cut"
) -> dict[str, Any]:
    """One TRL row.

    Args:
        separator: taken from the end of each step.
        threshold: labels above it are True; None writes the numbers.
        unknown: what a label that was not measured becomes; TRL cannot hold it.
    """
    item = fully_labelled(item, unknown)
    labels = item.labels.tolist() if threshold is None else (item.labels > threshold).tolist()
    texts = texts_of(item.steps, separator)
    known = {} if item.problem.reference is None else {"reference": item.problem.reference}
    return {"prompt": item.problem.text, "completions": texts, "labels": labels, **known}


def read_scan(
    row: Row,
    number: int,
    *,
    separator: str = "\n\n",
    threshold: float | None = None,
    after_first_error: AfterError = "keep",
) -> Iterator[Trajectory]:
    """Reads `question`, `steps` and `scores`, the soft labels of arXiv:2509.16548; its files stop at the first 0.

    Args:
        number: its 1-based number; the problem's id is of its words.
        separator: put at the end of each step.
        threshold: labels above it become 1; None keeps them soft.
        after_first_error: labels after the first 0.

    Raises:
        InputError: a field is missing, there is no step, a score is outside [0, 1].
    """
    steps = steps_of(row.get("steps"), separator)
    labels = label_array(need(row, "scores", (list, tuple)), len(steps), name="scores")
    problem = Problem(id_of("scan", need(row, "question")), need(row, "question"))
    yield labelled(problem, steps, labels, "scan rollouts", threshold=threshold, after_first_error=after_first_error)


def write_scan(item: Trajectory, *, separator: str = "\n\n") -> dict[str, Any]:
    """One SCAN row; a label that was not measured is null.

    Args:
        separator: taken from the end of each step.
    """
    texts = texts_of(item.steps, separator)
    return {"question": item.problem.text, "steps": texts, "scores": null_for_nan(item.labels)}


FORMATS: tuple[Format, ...] = (
    Format("trl", "prompt, completions, labels", is_trl, read_trl, write_trl),
    Format("scan", "question, steps, soft scores", has("question", "steps", scores=list), read_scan, write_scan),
)
