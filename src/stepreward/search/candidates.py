"""What searches handle and return: candidates, their totals, and the tree with what was chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stepreward.core.measure.aggregation import totals_of
from stepreward.core.measure.step_metrics import ragged
from stepreward.core.prefix_names import prefix_of
from stepreward.core.tree import StepTree
from stepreward.core.types import SCORE, Problem, Step, Trajectory

Path = bytes
"""Name of a candidate's prefix: equal iff all steps are."""


@dataclass(frozen=True)
class Found:
    """The result of a search."""

    tree: StepTree
    """All candidates, with a column `score` where steps were scored; those cut before their end are not terminal."""
    totals: NDArray[np.float64]
    """(B,) aggregated score of each candidate, NaN where not scored."""
    answers: tuple[str | None, ...]
    """(B,) final answer of each candidate."""
    chosen: int
    """Index of the candidate chosen, -1 if there is none."""
    searched: StepTree | None = None
    """Every path that was grown, those given up included; columns say what the search knew of each node."""

    @property
    def answer(self) -> str | None:
        """The answer of the candidate chosen; None if it has none."""
        return self.answers[self.chosen] if self.chosen >= 0 else None

    @property
    def trajectory(self) -> Trajectory | None:
        """The candidate chosen."""
        return self.trajectories()[self.chosen] if self.chosen >= 0 else None

    def trajectories(self) -> list[Trajectory]:
        """(B,) candidates with answers, the column `score` where steps were scored, and the fact `total`, if any."""
        scored = "score" in self.tree.columns
        scores = self.tree.gather(self.tree.column("score")) if scored else np.zeros(self.tree.paths.shape)
        made = []
        for row, (one, mask) in enumerate(zip(self.tree.trajectories(), self.tree.mask, strict=True)):
            total = float(self.totals[row])
            made.append(
                replace(
                    one, answer=self.answers[row], facts={} if np.isnan(total) else {"total": total},
                    columns={SCORE: scores[row][mask]} if scored else {},
                )
            )  # fmt: skip
        return made

    def scores(self, row: int) -> list[float | None]:
        """Step scores of a candidate, None at observations; empty where steps were not scored."""
        if "score" not in self.tree.columns:
            return []
        found = self.tree.gather(self.tree.column("score"))[row][self.tree.mask[row]]
        return [None if np.isnan(score) else float(score) for score in found]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A path under search."""

    steps: tuple[Step, ...] = ()
    finished: bool = False
    scores: tuple[float, ...] = ()
    """Step scores; NaN at observations; empty before the candidate is scored."""
    total: float = float("nan")
    """Aggregate of `scores`; NaN where not scored."""
    count: int = 1
    """Samples that came out equal and were merged into this one."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", prefix_of(self.steps))

    @property
    def path(self) -> Path:
        """Name of its steps: of its node in the tree."""
        return prefix_of(self.steps).name

    @property
    def places(self) -> tuple[Path, ...]:
        """(S,) names of its prefixes: after each of its steps."""
        return prefix_of(self.steps).names

    def then(self, steps: Sequence[Step]) -> tuple[Step, ...]:
        """Its steps and more."""
        return prefix_of(self.steps).then(steps)

    def first(self, length: int) -> tuple[Step, ...]:
        """The first `length` of its steps."""
        return prefix_of(self.steps).first(length)

    def before(self, at: int) -> Candidate:
        """What there was before one of its steps, without what an environment showed last, which it shows again."""
        return Candidate(self.first(self.length_of(Candidate(self.steps[:at]).turns)))

    @property
    def turns(self) -> int:
        """Number of its actions: what an environment shows between them does not count."""
        return sum(step.kind == "action" for step in self.steps)

    def length_of(self, turns: int) -> int:
        """Number of steps up to the end of so many actions; all where it has fewer."""
        ends = [at for at, step in enumerate(self.steps, 1) if step.kind == "action"]
        return [0, *ends][turns] if turns <= len(ends) else len(self.steps)

    @property
    def rank(self) -> float:
        """Its total, -infinity where it was not scored: the highest is the best."""
        return -np.inf if np.isnan(self.total) else self.total


ROOT = Candidate()
"""The bare problem."""


def best(candidates: Sequence[Candidate], n: int) -> list[Candidate]:
    """The `n` candidates of highest total, best first; the earliest of equals."""
    return sorted(candidates, key=lambda c: -c.rank)[:n]


def ends(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The finished candidates, or all where none is finished."""
    return [c for c in candidates if c.finished] or list(candidates)


def choice(vote: bool) -> str:
    """Name of the method of the family select that takes the best answer of a weighted vote, or the best candidate."""
    return "weighted-vote" if vote else "best-of-n"


def total_of(scores: Sequence[Sequence[float]], method: str) -> NDArray[np.float64]:
    """(B,) totals of ragged step scores by an aggregate of the family; NaN scores (observations) do not count."""
    return totals_of(ragged(scores), method)


def tree_of(problem: Problem, candidates: Sequence[Candidate]) -> StepTree:
    """The candidates as one tree, with the column `score` where steps were scored; the first candidate's scores count.

    Raises:
        ValueError: a candidate has scores of some of its steps only.
    """
    tree = StepTree.from_prefixes(problem, [c.steps for c in candidates], [c.finished for c in candidates])
    parent, scores = tree.parent.tolist(), dict[int, float]()
    for end, candidate in zip(tree.ends.tolist(), candidates, strict=True):
        if len(candidate.scores) not in (0, len(candidate.steps)):
            raise ValueError(f"{len(candidate.scores)} scores for a candidate of {len(candidate.steps)} steps")
        node = end
        # Where a node is scored all above it are: from the end upwards each node is visited once.
        for score in reversed(candidate.scores):
            if node in scores:
                break
            scores[node], node = score, parent[node]
    if not scores:
        return tree
    return tree.with_column("score", [scores.get(node, np.nan) for node in range(tree.n)])


def nothing_found(problem: Problem) -> Found:
    """The result of a search that could not begin: no candidates."""
    return Found(tree_of(problem, []), np.zeros(0), (), -1)
