"""Filters that look at all solutions together: equal numbers of kinds, no copies, the most varied first.

They draw nothing: where some of equal ones are kept, a digest of their texts chooses, the same in any order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stepreward.core.catalog import keep
from stepreward.core.measure.first_error import first_error
from stepreward.core.types import Trajectory
from stepreward.core.vocabulary import Count

Balanced = Literal["verdict", "length", "position"]
"""What is made equal: solutions with and without an error; the same at each length; the places of first errors."""


def _digest(one: Trajectory, salt: str = "") -> bytes:
    return hashlib.blake2b(repr((salt, one.problem.id, one.text)).encode(), digest_size=16).digest()


def _first_errors(trajectories: Sequence[Trajectory]) -> list[int | None]:
    """The first labelled step at or below 1/2, -1 for none; None of a solution without labels."""
    return [None if np.isnan(one.labels).all() else int(first_error(one.labels)) for one in trajectories]


def _chosen(
    trajectories: Sequence[Trajectory], cells: Sequence[Hashable | None], most: Callable[[Hashable], int], salt: str
) -> NDArray[np.bool_]:
    """(B,) the members of each cell with the smallest digests, at most as many as it may have."""
    members: dict[Hashable, list[int]] = {}
    for row, cell in enumerate(cells):
        if cell is not None:
            members.setdefault(cell, []).append(row)
    kept = np.zeros(len(trajectories), bool)
    for cell, rows in members.items():
        kept[sorted(rows, key=lambda row: _digest(trajectories[row], salt))[: most(cell)]] = True
    return kept


@keep.method(
    "balance",
    note="equal numbers of right and wrong solutions, as repositories SCAN-PRM, MM-PRM and MedSSS draw them; by length "
    "and position are ours",
)
def balance(
    trajectories: Sequence[Trajectory], *, by: Balanced = "verdict", times: float = 1.0, seed: int = 0
) -> NDArray[np.bool_]:
    """Keeps about as many solutions of each kind, so that a model cannot guess labels from what is common.

    - `verdict`: as many with a step that is labelled wrong as without one.
    - `length`: the same among the solutions of each number of actions, so that length tells nothing.
    - `position`: of solutions with an error, those of each place of the first one at most as many as at the place in
      the middle (the median over places); the others stay.

    Args:
        trajectories: labelled, of any problems; those without a label are left out.
        by: what is made equal.
        times: how many times as many a kind may have as the smaller one, or the median.
        seed: another choice among equal ones.

    Returns:
        (B,) True to keep.

    Raises:
        ValueError: `times` is below 1, or `by` is none of the three.
    """
    if times < 1 or by not in ("verdict", "length", "position"):
        raise ValueError(f"balance takes by=verdict, length or position and times >= 1, got {by!r} and {times}")
    errors = _first_errors(trajectories)
    cells: list[Hashable | None] = []
    for one, at in zip(trajectories, errors, strict=True):
        where = at if by == "position" else int(one.action.sum()) if by == "length" else 0
        cells.append(None if at is None else (where, at >= 0))
    sizes = {cell: cells.count(cell) for cell in set(cells) if isinstance(cell, tuple)}

    def most(cell: Hashable) -> int:
        assert isinstance(cell, tuple)
        where, wrong = cell
        if by != "position":
            return int(times * min(sizes[cell], sizes.get((where, not wrong), 0)))
        places = [size for (_, some), size in sizes.items() if some]
        return int(times * float(np.median(places))) if wrong else sizes[cell]

    return _chosen(trajectories, cells, most, f"{seed}")


@keep.method("distinct", note="ours; the walk over texts is the same in any order of the solutions")
def distinct(trajectories: Sequence[Trajectory], *, similar: float = 1.0, to_error: bool = False) -> NDArray[np.bool_]:
    """Keeps one of the solutions of a problem that say the same, so that no step counts many times.

    Two say the same if the sets of their words overlap by that much (Jaccard index: common words over all words), step
    by step on average; at 1, if they differ in white space and case alone.

    Args:
        trajectories: of any problems.
        similar: least overlap in (0, 1] that makes a solution a copy of one that is kept.
        to_error: compare the steps up to the first error alone, which training reads where later ones are masked.

    Returns:
        (B,) True to keep.

    Raises:
        ValueError: `similar` is outside (0, 1].
    """
    if not 0 < similar <= 1:
        raise ValueError(f"similar must lie in (0, 1], got {similar}")
    texts = []
    for one, at in zip(trajectories, _first_errors(trajectories), strict=True):
        end = len(one) if not to_error or at is None or at < 0 else at + 1
        texts.append(tuple(" ".join(step.text.lower().split()) for step in one.steps[:end]))
    kept = np.zeros(len(trajectories), bool)
    groups: dict[str, list[int]] = {}
    for row in sorted(range(len(texts)), key=lambda row: (texts[row], _digest(trajectories[row]))):
        before = groups.setdefault(trajectories[row].problem.id, [])
        if not any(_overlap(texts[row], texts[other], exact=similar == 1) >= similar for other in before):
            kept[row] = True
            before.append(row)
    return kept


def _overlap(one: tuple[str, ...], other: tuple[str, ...], *, exact: bool) -> float:
    """The mean Jaccard index of the words of steps at the same place; of different numbers of steps 0."""
    if exact or len(one) != len(other) or not one:
        return float(one == other)
    found = []
    for a, b in zip(one, other, strict=True):
        first, second = set(a.split()), set(b.split())
        found.append(len(first & second) / len(first | second) if first | second else 1.0)
    return float(np.mean(found))


@keep.method(
    "varied",
    note="the choice of repository MedSSS, training/prm_train.py: right and wrong paths sorted by the variance of "
    "values; its number of paths is computed at the first problem and stays, here it is the setting",
)
def varied(trajectories: Sequence[Trajectory], *, most: Count = 2, column: str = "value") -> NDArray[np.bool_]:
    """Keeps the right and the wrong solutions of each problem whose values vary most along the way.

    Args:
        trajectories: graded, with values.
        most: right ones, and wrong ones, of each problem.
        column: of the values.

    Returns:
        (B,) True to keep; False where the outcome or all values are not known.
    """
    spread, cells = [], list[Hashable | None]()
    for one in trajectories:
        known = one.column(column)[~np.isnan(one.column(column))]
        spread.append(float(np.var(known)) if known.size else 0.0)
        graded = known.size and not np.isnan(one.outcome)
        cells.append((one.problem.id, one.outcome > 0.5) if graded else None)
    kept = np.zeros(len(trajectories), bool)
    for cell in {cell for cell in cells if cell is not None}:
        rows = [row for row, own in enumerate(cells) if own == cell]
        kept[sorted(rows, key=lambda row: (-spread[row], _digest(trajectories[row])))[:most]] = True
    return kept
