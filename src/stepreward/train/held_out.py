"""The split into problems for training and for evaluation."""

from __future__ import annotations

from collections.abc import Iterable

from stepreward.core.keys import Key
from stepreward.core.types import Trajectory


def held_out_split(rows: Iterable[Trajectory], share: float, seed: int) -> tuple[list[Trajectory], list[Trajectory]]:
    """Rows for training and rows for evaluation, split by problem: a random draw keyed by the problem's id."""
    parts: tuple[list[Trajectory], list[Trajectory]] = ([], [])
    drawn: dict[str, bool] = {}
    for one in rows:
        name = one.problem.id
        if name not in drawn:
            drawn[name] = bool(Key.seed(seed).fold("held out", name).rng().random() < share)
        parts[drawn[name]].append(one)
    return parts
