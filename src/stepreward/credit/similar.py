"""States that are alike without being equal: observations of the same place that differ in a clock or a counter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from difflib import SequenceMatcher

import numpy as np
from numpy.typing import NDArray


def alike(texts: Sequence[str], group: Sequence[Hashable], *, threshold: float = 0.95) -> NDArray[np.int64]:
    """Ids of states for `gigpo` where observations need only be similar: equal ids are one state.

    In order, each text joins the first state of its group whose first text it resembles, or opens a state of its own:
    similarity-based GiGPO (arXiv:2505.10978) as verl-agent has it, with the same ratio of `difflib`. Pairs that cannot
    reach the threshold, by lengths, shared characters and those in order, are never compared, and equal texts once.

    Args:
        texts: (N,) the observation before each step.
        group: (N,) problem of each step; states of different problems are never one.
        threshold: least ratio of matching characters, in (0, 1].

    Returns:
        (N,) ids.

    Raises:
        ValueError: the threshold is not in (0, 1].
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be above 0 and at most 1, got {threshold}")
    known: dict[tuple[Hashable, str], int] = {}
    states: dict[Hashable, _States] = {}
    opened = 0
    for text, problem in zip(texts, group, strict=True):
        if (problem, text) in known:
            continue
        mine = states.setdefault(problem, _States(threshold))
        found = mine.find(text)
        if found is None:
            found, opened = opened, opened + 1
            mine.open(text, found)
        known[problem, text] = found
    return np.array([known[problem, text] for text, problem in zip(texts, group, strict=True)], np.int64)


class _States:
    """The states of one problem, by their first texts."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.firsts: list[tuple[int, str, Counter[str], dict[str, int]]] = []

    def open(self, text: str, number: int) -> None:
        self.firsts.append((number, text, Counter(text), _positions(text)))

    def find(self, text: str) -> int | None:
        """The first state that the text resembles."""
        counts = Counter(text)
        matcher = SequenceMatcher(None, b=text)
        for number, first, other, places in self.firsts:
            size = len(text) + len(first)
            if not size:
                return number
            # Each bound costs more than the one before and is closer: lengths, shared characters, those in order.
            if 2 * min(len(text), len(first)) / size < self.threshold:
                continue
            if 2 * (counts & other).total() / size < self.threshold:
                continue
            if 2 * _common_length(text, places, len(first)) / size < self.threshold:
                continue
            matcher.set_seq1(first)
            if matcher.ratio() >= self.threshold:
                return number
        return None


def _positions(text: str) -> dict[str, int]:
    """Positions of each character, as the bits of a number."""
    made: dict[str, int] = {}
    for place, character in enumerate(text):
        made[character] = made.get(character, 0) | 1 << place
    return made


def _common_length(text: str, places: dict[str, int], length: int) -> int:
    """Length of the longest common subsequence, with all characters of the other text at once in a number's bits.

    No other blocks that match in order have more characters. A bit is 0 once its character is used; the sum carries
    each use to the first free place.
    """
    every = (1 << length) - 1
    free = every
    for character in text:
        used = free & places.get(character, 0)
        free = (free + used | free - used) & every
    return length - free.bit_count()
