"""The numbers of many solutions in little memory: arrays in place of objects, and no texts.

A solution takes about 40 bytes, its problem's id and its answer; a step takes a byte, and 4 bytes (8 where 4 would lose
digits) in each column of scores or labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stepreward.core.types import LABEL, Floats, StepMask, Steps, Trajectory, score_column
from stepreward.score.baselines import POSITION, PositionScorer

Rows = NDArray[np.bool_]
"""(B,) which solutions."""
UNSTATED = np.iinfo(np.int64).min
"""The first error of a solution that does not state it."""
_CELLS = 1 << 20
"""Entries of a padded block of steps, at least one solution's: a long solution must not widen thousands of others."""


class SolutionNumbers:
    """Step scores, labels, first errors, outcomes, answers and problems of solutions that come in parts.

    Args:
        parts: the solutions, at least one; they are read once and not kept.
    """

    def __init__(self, parts: Iterable[Sequence[Trajectory]]) -> None:
        self.names: list[str] = []
        """Names of the recorded scorers, in the order of their first use."""
        self._parts: list[_Part] = []
        rows, problems = [], []
        for items in parts:
            self.names = list(dict.fromkeys([*self.names, *(name for item in items for name in item.scores)]))
            self._parts.append(_Part(items))
            rows.append(
                (
                    np.array([UNSTATED if item.first_error is None else item.first_error for item in items], np.int64),
                    np.array([item.outcome for item in items], np.float64),
                    np.array([item.problem.gradable for item in items], bool),
                )
            )
            problems.append(_bytes([item.problem.id for item in items]))
            del items  # so that the next part can take their memory
        first_error, outcome, gradable = (np.concatenate(some) for some in zip(*rows, strict=True))
        self.first_error: NDArray[np.int64] = first_error
        """(B,) first wrong step, -1 where none, UNSTATED where not known."""
        self.outcome: Floats = outcome
        """(B,) grade in [0, 1], NaN where not known."""
        self.gradable: Rows = gradable
        """(B,) whether there is a reference or tests, by which a grader can say if the solution is right."""
        self.length = np.concatenate([part.length for part in self._parts])
        """(B,) number of steps."""
        ids, number = _numbered(problems)
        order = pc.sort_indices(ids)
        rank = np.empty(len(ids), np.int32)
        rank[order.to_numpy()] = np.arange(len(ids), dtype=np.int32)
        self.problem: NDArray[np.int32] = rank[number]
        """(B,) number of the solution's problem, in the order of ids."""
        self._ids = ids.take(order)

    def __len__(self) -> int:
        return len(self.outcome)

    @property
    def problem_ids(self) -> Iterator[str]:
        """Yields the ids of the problems in the order of their numbers."""
        return (_text(one) for one in self._ids)

    def answer_numbers(self) -> NDArray[np.int32]:
        """(B,) numbers that are equal iff the answers are; -1 where there is none."""
        return _numbered([part.answer for part in self._parts])[1]

    def answers(self) -> Iterator[str | None]:
        """Yields the answer of each solution."""
        return (_text(one) if one.is_valid else None for part in self._parts for one in part.answer)

    def recorded(self, name: str) -> Rows:
        """(B,) whether the solution has scores of that name; of `position`, which is computed, each has."""
        return np.concatenate([part.has(self._column(name)) for part in self._parts])

    def blocks(self, name: str, rows: Rows, *, width: int = 0) -> Iterator[tuple[NDArray[np.int64], Floats, StepMask]]:
        """Yields the scores of chosen solutions that have some, some solutions at a time.

        Args:
            name: of the scorer.
            rows: (B,) which solutions.
            width: the least S of a block, which is otherwise that of its longest solution.

        Yields:
            Numbers of the solutions, their scores (b, S), NaN at padding, and (b, S) True at actions.
        """
        column, first = self._column(name), 0
        for part in self._parts:
            here = np.flatnonzero(rows[first : first + len(part.length)] & part.has(column))
            size = max(_CELLS // max(int(part.length[here].max(initial=0)), width, 1), 1)
            for some in (here[at : at + size] for at in range(0, len(here), size)):
                place = part.places(some, width)
                scores = np.append(part.entries(column).astype(np.float64), np.nan)[place]
                yield first + some, scores, np.append(part.action, False)[place]
            first += len(part.length)

    def each(self, name: str) -> Iterator[Floats]:
        """Yields the scores (S,) of each solution, NaN where it has none of that name."""
        column = self._column(name)
        for part in self._parts:
            yield from np.split(part.entries(column).astype(np.float64), np.cumsum(part.length)[:-1])

    def labelled_steps(self, name: str) -> tuple[Steps, Steps]:
        """(N,) scores and labels of the labelled steps of solutions with scores."""
        column = self._column(name)
        # One column after the other: the parts of both would take as much memory again as the result.
        scores = np.concatenate([part.entries(column)[part.labelled(column)] for part in self._parts])
        return scores, np.concatenate([part.entries(LABEL)[part.labelled(column)] for part in self._parts])

    def problem_of_labelled_steps(self, name: str) -> NDArray[np.int32]:
        """(N,) the number of the problem of each of these steps."""
        labelled = np.concatenate([part.labelled(self._column(name)) for part in self._parts])
        made: NDArray[np.int32] = np.repeat(self.problem, self.length)[labelled]
        return made

    def _column(self, name: str) -> str:
        """The step column of a scorer; "" for `position` where it is not recorded."""
        return "" if name == POSITION and name not in self.names else score_column(name)


class _Part:
    """The numbers of solutions that were read together: entries of steps lie one after the other, (N,)."""

    def __init__(self, items: Sequence[Trajectory]) -> None:
        self.length = np.array([len(item) for item in items], np.int32)
        self.action = np.array([step.kind == "action" for item in items for step in item.steps], bool)
        self.answer = _bytes([item.answer for item in items])
        scores = [item.scores for item in items]
        names = dict.fromkeys(name for one in scores for name in one)
        self._columns = {score_column(name): _column([one.get(name) for one in scores], self.length) for name in names}
        self._columns[LABEL] = _column([item.columns.get(LABEL) for item in items], self.length)

    def has(self, column: str) -> Rows:
        """(b,) whether the solution has the step column."""
        every = np.full(len(self.length), not column)
        return self._columns[column][0] if column in self._columns else every

    def entries(self, column: str) -> Steps:
        """(N,) entries of a step column; "" gives the scores by position."""
        if not column:
            return PositionScorer().scores_of(self.action, self.length)
        return self._columns[column][1] if column in self._columns else np.full(len(self.action), np.nan)

    def labelled(self, column: str) -> NDArray[np.bool_]:
        """(N,) whether the step has a label, and its solution has the step column."""
        return ~np.isnan(self.entries(LABEL)) & np.repeat(self.has(column), self.length)

    def places(self, rows: NDArray[np.int64], width: int) -> NDArray[np.int64]:
        """(k, S) the place of each step of some solutions among the entries, -1 at padding."""
        size = max(int(self.length[rows].max(initial=0)), width)
        start, steps = np.cumsum(self.length) - self.length, np.arange(size)
        return np.where(steps < self.length[rows, None], start[rows, None] + steps, -1)


def _column(rows: Sequence[Floats | None], length: NDArray[np.int32]) -> tuple[Rows, Steps]:
    """Which solutions have the column, and its entries, as 4 bytes each where those are exact."""
    parts = [np.full(size, np.nan) if row is None else row for row, size in zip(rows, length.tolist(), strict=True)]
    exact = np.concatenate([np.zeros(0), *parts])
    with np.errstate(over="ignore"):
        small = exact.astype(np.float32)
    lossless = np.array_equal(small.astype(np.float64), exact, equal_nan=True)
    return np.array([row is not None for row in rows], bool), small if lossless else exact


def _numbered(parts: Sequence[pa.Array]) -> tuple[pa.Array, NDArray[np.int32]]:
    """The different entries, and (B,) the number of each one; -1 for null."""
    every = pa.chunked_array(parts, pa.large_binary()).combine_chunks().dictionary_encode()
    return every.dictionary, every.indices.fill_null(-1).to_numpy(zero_copy_only=False)


def _bytes(texts: Sequence[str | None]) -> pa.Array:
    # Bytes, because a text may have lone surrogates; their order is that of the texts.
    made = [None if text is None else text.encode("utf-8", "surrogatepass") for text in texts]
    return pa.array(made, pa.large_binary())


def _text(entry: pa.Scalar) -> str:
    return str(entry.as_py().decode("utf-8", "surrogatepass"))
