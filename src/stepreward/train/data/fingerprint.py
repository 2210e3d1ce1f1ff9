"""A hash of training data: equal data, equal hash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from stepreward.core.tree import StepTree
from stepreward.core.types import LABEL
from stepreward.train.data.domains import domain_of
from stepreward.train.data.row_data import annotators_of, of_rows, pairs_of
from stepreward.train.objective import Objective


class Fingerprint:
    """The hash of all that a training reads of trees, and their numbers, taken while they pass by.

    To make the trees of a large table again only to hash them would take minutes.

    Args:
        objective: what is trained.
        references: whether the model's prompt holds reference answers.
    """

    def __init__(self, objective: Objective | None = None, *, references: bool = False) -> None:
        self.objective, self.references = objective, references
        self.sizes = {"problems": 0, "solutions": 0}
        self._digest = hashlib.blake2b(digest_size=16)

    def passing(self, trees: Iterable[StepTree]) -> Iterator[StepTree]:
        """The trees as they are."""
        for tree in trees:
            self._add(tree)
            yield tree

    def __str__(self) -> str:
        """The hash of what has passed by now, in hexadecimal digits."""
        return self._digest.hexdigest()

    def _add(self, tree: StepTree) -> None:
        digest = self._digest
        self.sizes["problems"] += 1
        self.sizes["solutions"] += len(tree.ends)
        for part in (domain_of(tree), tree.problem.id, tree.problem.text, *(step.text for step in tree.steps)):
            digest.update(part.encode("utf-8", "surrogatepass") + b"\0")
        if self.references:
            digest.update((tree.problem.reference or "").encode("utf-8", "surrogatepass") + b"\0")
        digest.update(tree.paths.tobytes() + tree.outcomes.tobytes())
        for name in ("log_weights", "strength"):
            digest.update(of_rows(tree, name).tobytes())
        # What most data do not have leaves the hash of the others as it is.
        if self.objective is not None and (self.objective.factors or any(annotators_of(tree))):
            digest.update(pairs_of(tree, self.objective).tobytes() + "\0".join(annotators_of(tree)).encode())
        for name in sorted({*tree.step_columns, LABEL}):
            digest.update(name.encode() + b"\0" + tree.step_column(name).tobytes())


def fingerprint(trees: Iterable[StepTree], objective: Objective | None = None, *, references: bool = False) -> str:
    """The hash of all that a training reads of trees; arguments as of `Fingerprint`."""
    made = Fingerprint(objective, references=references)
    for _ in made.passing(trees):
        pass
    return str(made)
