"""The split into problems for training and for evaluation."""

from __future__ import annotations

from collections.abc import Iterable

from stepreward.core.keys import Key


def held_out_split(problems: Iterable[str], share: float, seed: int) -> tuple[list[int], list[int]]:
    """Numbers of problems for training and for evaluation: a random draw keyed by each problem's id."""
    parts: tuple[list[int], list[int]] = ([], [])
    key = Key.seed(seed)
    for number, name in enumerate(problems):
        parts[bool(key.fold("held out", name).rng().random() < share)].append(number)
    return parts
