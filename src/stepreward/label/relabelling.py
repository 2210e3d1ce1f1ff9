"""Labels made anew of what was measured or scored, and the solutions that are kept: no policy is called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stepreward.core.method import Method
from stepreward.core.types import Steps, Trajectory

Chosen = tuple[Method[..., Any], Mapping[str, Any]]
"""A method with its hyper-parameters."""


def relabelled(
    rows: Sequence[Trajectory],
    transform: Chosen | None = None,
    filters: Sequence[Chosen] = (),
    others: Sequence[Trajectory] = (),
) -> list[Trajectory]:
    """Solutions with new labels, those that every filter keeps.

    Args:
        rows: solutions with measured values or scores.
        transform: makes the labels; None leaves them as they are.
        filters: of the family filter, one after the other.
        others: a second source of labels of the same solutions in the same order, for filters that compare two.

    Raises:
        ValueError: a hyper-parameter is outside its range, or the two sources are not of the same solutions.
    """
    made = [*rows] if transform is None else [transform[0].take({"trajectory": one}, **transform[1]) for one in rows]
    beside = [*others]
    for method, settings in filters:
        kept = method.take({"trajectories": made, "others": beside}, **settings)
        made, beside = ([one for one, stays in zip(some, kept, strict=False) if stays] for some in (made, beside))
    return made


def label_counts(labels: Steps) -> dict[str, int]:
    """How many steps there are, how many have a label, and of how many it is above 1/2 (right) or not (wrong).

    Args:
        labels: (N,) of actions, NaN where there is none.
    """
    known = labels[~np.isnan(labels)]
    right = int((known > 0.5).sum())
    return {"steps": labels.size, "labelled": known.size, "right": right, "wrong": known.size - right}
