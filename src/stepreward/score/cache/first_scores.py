"""First scores: a step keeps its first score, as another batch would change its last bits.

The shape of a matrix product decides the order of its sums, so that equal tokens in another batch get a score that
differs by rounding. A search that compares totals would then depend on what else was in its batch.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

from stepreward.core.prefix_names import named
from stepreward.core.types import Problem


class FirstScores:
    """A cache of first scores by name, the least recently used evicted first; threads may share it.

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
        """The first score under a name; None if there is none."""
        with self._lock:
            return self._scores.get(name)

    def keep(self, names: Sequence[bytes], scores: Sequence[float]) -> list[float]:
        """The first scores under the names: kept ones, or else these, which are then kept."""
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
    return named(b"", problem.read_by_scorers)
