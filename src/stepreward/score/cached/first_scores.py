"""Scores as they were first told: a step's score never changes, whatever it is computed with later."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

from stepreward.core.prefix_names import named
from stepreward.core.types import Problem


class Told:
    """The scores told so far, by name, those told longest ago forgotten first; may be shared by threads.

    Args:
        most: names that are remembered.

    Raises:
        ValueError: `most` is not positive.
    """

    def __init__(self, most: int) -> None:
        if most < 1:
            raise ValueError(f"max_scores must be at least 1, got {most}")
        self.most = most
        self._scores: OrderedDict[bytes, float] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._scores)

    def get(self, name: bytes) -> float | None:
        """The score that was told under a name; None if none was."""
        with self._lock:
            return self._scores.get(name)

    def keep(self, names: Sequence[bytes], scores: Sequence[float]) -> list[float]:
        """What is to be told under the names: scores told before, or else these."""
        with self._lock:
            made = []
            for name, score in zip(names, scores, strict=True):
                made.append(self._scores.setdefault(name, float(score)))
                self._scores.move_to_end(name)
            while len(self._scores) > self.most:
                self._scores.popitem(last=False)
        return made

    def clear(self) -> None:
        """Forgets everything."""
        with self._lock:
            self._scores.clear()


def root_name(problem: Problem) -> bytes:
    """Name of a problem without steps."""
    return named(b"", (problem.id, problem.text))
