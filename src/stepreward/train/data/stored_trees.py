"""Training data of tables larger than memory: trees that are made of their rows at access."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import overload

from stepreward.core.files.stored_rows import StoredRows
from stepreward.core.tree import StepTree, trees_of
from stepreward.core.types import Trajectory
from stepreward.train.data.labelled_trees import nothing_to_learn, teaches, with_labels
from stepreward.train.objective import Objective

Augment = Callable[[Sequence[Trajectory]], Sequence[Trajectory]]
"""From a problem's rows to those that are taught."""
_TOGETHER = 256
"""Problems whose trees are made at once."""


class StoredTrees(Sequence[StepTree]):
    """The trees that `labelled_trees` makes of some problems' rows, made again at each access.

    Args:
        rows: of these problems and of others.
        numbers: the problems.
        objective: cross-entropy to the column `label` where None.
        augment: further rows of each problem; none where None.
        watch: gives the numbers back as they are, and may count them: a pass over all trees can take minutes.

    Raises:
        InputError: there is nothing to learn from; at access, a label of a probability is outside [0, 1].
    """

    def __init__(
        self,
        rows: StoredRows,
        numbers: Sequence[int],
        objective: Objective | None = None,
        augment: Augment | None = None,
        watch: Callable[[Iterable[int]], Iterable[int]] = iter,
    ) -> None:
        self.rows, self.numbers, self.objective = rows, numbers, objective or Objective.of("bce")
        self.augment: Augment = augment or list
        self.watch = watch
        if not any(teaches(tree, self.objective) for tree in self):
            raise nothing_to_learn(self.objective)

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, index: int) -> StepTree: ...
    @overload
    def __getitem__(self, index: slice) -> list[StepTree]: ...
    def __getitem__(self, index: int | slice) -> StepTree | list[StepTree]:
        chosen = self.numbers[index]
        return self._made(chosen) if isinstance(chosen, Sequence) else self._made([chosen])[0]

    def __iter__(self) -> Iterator[StepTree]:
        left = iter(self.watch(self.numbers))
        while some := list(islice(left, _TOGETHER)):
            yield from self._made(some)

    def _made(self, numbers: Sequence[int]) -> list[StepTree]:
        return with_labels(trees_of([self.augment(self.rows.of(number)) for number in numbers]), self.objective)
