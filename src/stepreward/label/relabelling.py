"""Labels made anew of what was measured or scored, and the solutions that are kept: no policy is called."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from stepreward.core.catalog import estimate
from stepreward.core.catalog import transform as transforms
from stepreward.core.method import Method
from stepreward.core.types import Steps, Trajectory

Chosen = tuple[Method[..., Any], Mapping[str, Any]]
"""A method with its hyper-parameters."""


def transform_of(estimator: str, wanted: str = "") -> Method[..., Any]:
    """The transform that makes labels of what an estimator measures: the one that is wanted, or else its own.

    Without either, as with a plug-in that declares none, labels are the measured values.

    Raises:
        UnknownNameError: there is no such estimator or transform.
    """
    return transforms[wanted or estimate[estimator].transform or "soft"]


def transformed(
    rows: Iterable[Trajectory], transform: Method[..., Any], settings: Mapping[str, Any]
) -> Iterator[Trajectory]:
    """Solutions with the labels of a transform, in their order; streaming, unless it takes all of a problem together.

    Raises:
        ValueError: a hyper-parameter is outside its range.
    """
    if "trajectories" not in transform.data:
        for one in rows:
            made: Trajectory = transform.take({"trajectory": one}, **settings)
            yield made
        return
    every = [*rows]
    groups: dict[str, list[int]] = {}
    for at, one in enumerate(every):
        groups.setdefault(one.problem.id, []).append(at)
    for group in groups.values():
        found = transform.take({"trajectories": [every[at] for at in group]}, **settings)
        for at, one in zip(group, found, strict=True):
            every[at] = one
    yield from every


def relabelled(
    rows: Sequence[Trajectory],
    transform: Chosen | None = None,
    filters: Sequence[Chosen] = (),
    others: Sequence[Sequence[Trajectory]] = (),
) -> list[Trajectory]:
    """Solutions with new labels, those that every filter keeps.

    Args:
        rows: solutions with measured values or scores.
        transform: makes the labels; None leaves them as they are.
        filters: of the family filter, one after the other.
        others: further sources of labels of the same solutions in the same order, for filters that compare two: such a
            filter must keep a solution beside each of them.

    Raises:
        ValueError: a hyper-parameter is outside its range, or two sources are not of the same solutions.
    """
    made = [*rows] if transform is None else [*transformed(rows, *transform)]
    beside = [[*some] for some in others]
    for method, settings in filters:
        compared = beside if "others" in method.data else [[]]
        kept = np.all([method.take({"trajectories": made, "others": one}, **settings) for one in compared], axis=0)
        made, *beside = ([one for one, stays in zip(some, kept, strict=True) if stays] for some in (made, *beside))
    return made


def label_counts(labels: Steps) -> dict[str, int]:
    """How many steps there are, how many have a label, and of how many it is above 1/2 (right) or not (wrong).

    Args:
        labels: (N,) of actions, NaN where there is none.
    """
    known = labels[~np.isnan(labels)]
    right = int((known > 0.5).sum())
    return {"steps": labels.size, "labelled": known.size, "right": right, "wrong": known.size - right}
