"""Labels of steps: read from what data sets write, hardened, cut at the first error, and made whole for writers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from stepreward.core.errors import InputError
from stepreward.core.measure.first_error import first_error
from stepreward.core.types import LABEL, Floats, Problem, Step, Trajectory
from stepreward.formats.rows import annotated, check_choice, shown

AfterError = Literal["keep", "mask", "wrong"]
"""Labels after the first wrong step: as the file has them, not supervised (NaN), or 0."""
AfterMarked = Literal["mask", "wrong"]
"""Labels after the first wrong step where the file marks no other: not supervised (NaN), or 0."""
Unknown = Literal["cut", "right", "wrong", "error"]
"""How a format without "not measured" writes it: drop the steps from there on, write 1, write 0, refuse the row."""
Neutral = Literal["right", "wrong", "half", "mask"]
"""What a neutral rating becomes: 1, 0, 1/2 or not supervised."""
NEUTRAL: Mapping[str, float] = {"right": 1.0, "wrong": 0.0, "half": 0.5, "mask": float("nan")}
SIGNS: Mapping[str, float] = {"+": 1.0, "-": 0.0}


def label_array(values: object, steps: int, *, name: str = "labels") -> Floats:
    """Labels as (S,) floats; null is NaN.

    Raises:
        InputError: another number of labels than steps, or a label that is no number in [0, 1].
    """
    if not isinstance(values, Sequence | np.ndarray) or isinstance(values, str):
        raise InputError(f"'{name}' must be a list of numbers, got {shown(values)}", remedy="write one number a step")
    if len(values) != steps:
        raise InputError(f"'{name}' has {len(values)} entries for {steps} steps", remedy="write one a step")
    for i, value in enumerate(values):
        # pandas and Parquet turn null in a column of numbers into NaN.
        unknown = value is None or (isinstance(value, float) and math.isnan(value))
        if not unknown and not (isinstance(value, bool | int | float | np.bool_ | np.number) and 0 <= value <= 1):
            what = f"'{name}' entry {i} must be in [0, 1], got {shown(value)}"
            raise InputError(what, remedy="rescale it, or write null if it is unknown")
    return np.array([np.nan if value is None else float(value) for value in values], np.float64)


def signed_labels(values: object, steps: int, *, name: str = "label") -> Floats:
    """Labels as (S,) floats from "+" and "-", or from numbers.

    Raises:
        InputError: another number of labels than steps, or a label that is neither.
    """
    if isinstance(values, Sequence) and not isinstance(values, str):
        values = [SIGNS.get(value, value) if isinstance(value, str) else value for value in values]
    return label_array(values, steps, name=name)


def three_valued(values: object, steps: int, *, neutral: Neutral, name: str) -> Floats:
    """Labels as (S,) floats from 1, 0 and -1 for right, neutral and wrong; null is NaN.

    Raises:
        InputError: another number of labels than steps, a label that is none of these, or an unknown option.
    """
    if not isinstance(values, Sequence | np.ndarray) or isinstance(values, str) or len(values) != steps:
        raise InputError(f"'{name}' must hold one label for each of {steps} steps, got {shown(values)}")
    of = {None: float("nan"), -1: 0.0, 0: neutral_value(neutral), 1: 1.0}
    for i, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, int | float | None) or value not in of:
            raise InputError(f"'{name}' entry {i} must be 1, 0 or -1, got {shown(value)}", remedy="null if unknown")
    return np.array([of[value] for value in values])


def neutral_value(neutral: Neutral) -> float:
    """The label that a neutral rating becomes.

    Raises:
        InputError: an unknown option.
    """
    check_choice("neutral", neutral, Neutral)
    return NEUTRAL[neutral]


def labels_to_first_error(first: int | None, steps: int, *, after: AfterMarked = "mask") -> Floats:
    """Labels of a data set that marks the first wrong step alone.

    Right before the first error, wrong at it; after it unknown, as no annotator judged those steps, or wrong.

    Args:
        first: 0-based, -1 where no step is wrong; None where nothing is known, and all is NaN.
        steps: S.
        after: "mask" or "wrong".

    Raises:
        InputError: no such step, or an unknown option.
    """
    check_choice("after_first_error", after, AfterMarked)
    if first is None:
        return np.full(steps, np.nan)
    if not -1 <= first < steps:
        raise InputError(f"'label' must be -1 or a step below {steps}, got {first}", remedy="count from 0")
    labels = np.ones(steps)
    if first >= 0:
        labels[first] = 0.0
        labels[first + 1 :] = np.nan if after == "mask" else 0.0
    return labels


def blank_as_context(item: Trajectory) -> tuple[Trajectory, int]:
    """The solution with its steps of white space alone as context, and how many they are.

    Such a step cannot be right or wrong. It keeps its place, so that step columns stay aligned, and all its entries
    are NaN; a first error there is not known.

    Raises:
        InputError: no step says anything.
    """
    steps = item.steps
    blank = item.action & np.array([not step.text.strip() for step in steps], bool)
    if not blank.any():
        return item, 0
    if all(not step.text.strip() for step in steps):
        raise InputError(f"none of {len(steps)} steps holds text", remedy="drop or fill the row")
    first = item.first_error
    made = replace(
        item,
        steps=tuple(replace(step, kind="observation") if blank[i] else step for i, step in enumerate(steps)),
        columns={name: np.where(blank, np.nan, values) for name, values in item.columns.items()},
        first_error=None if first is not None and first >= 0 and blank[first] else first,
    )
    return made, int(blank.sum())


def known_first_error(item: Trajectory, *, threshold: float = 0.5) -> int:
    """The first wrong step as stated, or else the first label at or below `threshold`; -1 if none.

    Raises:
        InputError: it is unknown because a label before it is.
    """
    if item.first_error is not None:
        return item.first_error
    first = int(first_error(item.labels, threshold))
    if np.isnan(item.labels[: first if first >= 0 else None]).any():
        raise InputError(
            f"the first error of problem {item.problem.id} is unknown: a step before it has no label",
            remedy="label all steps up to the first error",
        )
    return first


def null_for_nan(labels: Floats) -> list[float | None]:
    """The labels as JSON values: null where not measured."""
    return [None if value != value else value for value in labels.tolist()]


def relabel(labels: Floats, *, threshold: float | None = None, after_first_error: AfterError = "keep") -> Floats:
    """Hardens labels and rewrites those after the first wrong one.

    Args:
        labels: (S,).
        threshold: labels above it become 1, the others 0; None keeps them soft.
        after_first_error: what becomes of labels after the first one that is at most `threshold` (0 where None).

    Raises:
        InputError: an unknown option.
    """
    check_choice("after_first_error", after_first_error, AfterError)
    made = labels.copy()
    if threshold is None and after_first_error == "keep":
        return made
    if threshold is not None:
        made = np.where(np.isnan(made), np.nan, (made > threshold).astype(np.float64))
    first = first_error(made, 0.0)
    if after_first_error != "keep" and first >= 0:
        made[first + 1 :] = np.nan if after_first_error == "mask" else 0.0
    return made


def hard_first_error(labels: Floats) -> int | None:
    """The first 0 of hard labels, -1 if all are 1; None where a label is soft or one before the first 0 is unknown."""
    first = int(first_error(labels, 0.0))
    return first if np.isin(labels[: first + 1 if first >= 0 else None], (0, 1)).all() else None


def fully_labelled(item: Trajectory, unknown: Unknown) -> Trajectory:
    """The solution with no label unknown, for formats that cannot say "not measured".

    Raises:
        InputError: nothing is left, `unknown` is "error" and a label is, or it is no option.
    """
    # Blank steps go first: `blank_as_context` gave them NaN as labels, so "cut" would end the solution there.
    kept = item.action | np.array([bool(step.text.strip()) for step in item.steps], bool)
    # The place of the first error among the steps that are kept; unknown if it was a blank step.
    first = item.first_error
    if first is not None and first >= 0:
        first = int(kept[:first].sum()) if kept[first] else None
    item = item if kept.all() else replace(item.only(kept), first_error=first)
    gaps = np.flatnonzero(np.isnan(item.labels))
    check_choice("unknown", unknown, Unknown)
    if not gaps.size:
        return item
    if unknown == "error" or (unknown == "cut" and gaps[0] == 0):
        raise InputError(
            f"step {gaps[0]} of problem {item.problem.id} has no label and this format needs one",
            remedy="choose unknown='right' or 'wrong', or a format that holds null",
        )
    if unknown == "cut":
        return replace(item.only(np.arange(len(item)) < gaps[0]), terminal=False)
    return item.with_columns({LABEL: np.where(np.isnan(item.labels), float(unknown == "right"), item.labels)})


def labelled(
    problem: Problem,
    steps: tuple[Step, ...],
    labels: Floats,
    by: str,
    *,
    threshold: float | None = None,
    after_first_error: AfterError = "keep",
    **rest: Any,
) -> Trajectory:
    """A trajectory of a data set that labels every step: `relabel`, then `annotated` with the first error they show.

    Raises:
        InputError: an unknown option.
    """
    labels = relabel(labels, threshold=threshold, after_first_error=after_first_error)
    return annotated(problem, steps, labels, by, first_error=hard_first_error(labels), **rest)
