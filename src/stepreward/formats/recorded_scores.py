"""Scores of steps in the layouts of logs: how each names them, and where an action is in a file."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from stepreward.core.types import SCORE, Step, Trajectory, score_column
from stepreward.formats.rows import Row

RECORDED = "step_scores"
"""Field of a step's meta, while it is read, and of a step's `extra` in ATIF: scores by name of the verifier."""
IDENTIFIER = "stepreward"
"""Who annotates, in layouts that say it."""
Scores = Mapping[str, float]
"""Scores of one action by name of the verifier; `score` where it has none."""
Take = Callable[[Hashable], Scores]
"""The scores of the action at a place; empty where it has none."""


@dataclass(frozen=True, slots=True)
class ScoreLayout:
    """How a layout holds scores of steps."""

    place: Callable[[int, int, Step], Hashable | None]
    """`(number, nth, step)`: where the action is in a file, by its row's number, the number of the run in this row
    and the step; None where the layout has no place for it."""
    put: Callable[[Row, int, Take], Row]
    """`(row, number, take)`: a row of the file, not of a gathered run, with the scores of its actions. The row itself
    stays as it is; a score of the same name is replaced."""
    rows: Callable[[Step, Scores], Iterator[dict[str, Any]]] | None = None
    """A row a score, as the log's platform takes them over its API; None where there is no such platform."""


def scores_at(item: Trajectory, at: int, columns: tuple[str, ...] | None = None) -> dict[str, float]:
    """The scores of a step by name of the verifier, those alone that are finite numbers.

    Args:
        item: the run.
        at: index of the step.
        columns: step columns; all columns of scores where None.
    """
    names = [name for name in item.columns if name.split(":")[0] == SCORE] if columns is None else columns
    found = {name.removeprefix(f"{SCORE}:"): float(item.column(name)[at]) for name in names}
    return {name: value for name, value in found.items() if math.isfinite(value)}


def with_recorded(item: Trajectory) -> Trajectory:
    """The run with the scores that its log records of steps as columns, and no longer in the steps' meta."""
    if not any(RECORDED in step.meta for step in item.steps):
        return item
    names = dict.fromkeys(name for step in item.steps for name in step.meta.get(RECORDED, ()))
    columns = {
        score_column(name): np.array([step.meta.get(RECORDED, {}).get(name, np.nan) for step in item.steps], np.float64)
        for name in names
    }
    bare = tuple(
        replace(step, meta={name: value for name, value in step.meta.items() if name != RECORDED})
        for step in item.steps
    )
    return replace(item, steps=bare, columns={**item.columns, **columns})


def numbers_of(scores: object) -> dict[str, float]:
    """Those of an object's values that are finite numbers."""
    if not isinstance(scores, Mapping):
        return {}
    return {
        str(name): float(value) for name, value in scores.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }  # fmt: skip


def stable_id(*parts: str) -> str:
    """An id that is the same for the same parts, as a UUID is written."""
    made = hashlib.blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return "-".join((made[:8], made[8:12], made[12:16], made[16:20], made[20:]))
