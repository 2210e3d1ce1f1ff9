"""What labelled solutions say of the step scores that they hold: first errors, calibration, selection.

Arrays of all solutions are small (`SolutionNumbers`); steps are padded for some solutions at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepreward.core.keys import Key
from stepreward.core.measure.aggregation import totals_of
from stepreward.core.measure.first_error import first_error
from stepreward.core.measure.statistics import bootstrap, paired_difference
from stepreward.core.measure.step_metrics import ThresholdSearch
from stepreward.evaluate.data.scoring import gap_decides
from stepreward.evaluate.data.solution_arrays import Pool
from stepreward.evaluate.data.solution_numbers import UNSTATED, Rows, SolutionNumbers
from stepreward.evaluate.measures.attempts import pass_at_k
from stepreward.evaluate.measures.selection_curves import curves, hits
from stepreward.evaluate.measures.step_scores import best_f1_on, found_f1, step_metrics


@dataclass(frozen=True)
class LabelledSolutions:
    """Measures the scores of one name after the other on the same solutions."""

    data: SolutionNumbers
    key: Key
    """Randomness of the split and of the bootstraps."""
    threshold: float | None = None
    """Steps scored at or below it are wrong; None chooses it on other problems than those measured on."""
    tune: float = 0.5
    """Share of the problems on which a threshold is chosen."""
    aggregate: str = "min"
    """How the scores of a solution's steps become one."""
    judged: bool = False
    """Whether a grader has read the outcomes that the data do not state."""

    def measured(self, name: str) -> dict[str, Any]:
        """Everything that the solutions allow to measure of one scorer."""
        mine = self.data.recorded(name)
        made: dict[str, Any] = {"solutions": int(mine.sum())}
        stated = mine & (self.data.first_error != UNSTATED)
        lost = np.zeros(len(mine), bool)
        for at, scores, actions in self.data.blocks(name, stated):
            lost[at] = gap_decides(scores, actions, self.data.first_error[at])
        made |= {"unscored": int(lost.sum())} if lost.any() else {}
        if (located := stated & ~lost).any():
            made |= self._first_error(name, located)
        values, labels = self.data.labelled_steps(name)
        if labels.size:
            steps = step_metrics(values, np.round(labels, out=labels))
            made["steps"] = {k: v for k, v in steps.items() if not isinstance(v, float) or np.isfinite(v)}
        why_not = self._no_selection(mine)
        if why_not is None:
            return {**made, "selection": self._selection(name, mine)}
        return {**made, "no_selection": why_not} if why_not else made

    def attempts(self) -> dict[str, Any] | None:
        """Chance that one of k solutions of a problem is right, for k = 1, 10, 100 ... and the fewest of a problem.

        Problems without a solution of known outcome are left out and counted; None where all are.
        """
        known = ~np.isnan(self.data.outcome)
        problems = int(self.data.problem.max()) + 1
        n = np.bincount(self.data.problem[known], minlength=problems)
        right = np.bincount(self.data.problem[known & (self.data.outcome > 0.5)], minlength=problems)
        some = n > 0
        if not some.any():
            return None
        fewest = int(n[some].min())
        sizes = [*(10**k for k in range(9) if 10**k < fewest), fewest]
        chances = {k: pass_at_k(right[some], n[some], k) for k in sizes}
        passed = {str(k): bootstrap(chances[k], self.key.fold("attempts", k)).to_json() for k in sizes}
        return {"problems": int(some.sum()), "unknown": int((~some).sum()), "pass_at": passed}

    def predicted(self, name: str, threshold: float) -> NDArray[np.int64]:
        """(B,) the first step at or below the threshold, -1 if none is; UNSTATED where a gap in the scores decides."""
        made = np.full(len(self.data), UNSTATED)
        for at, scores, actions in self.data.blocks(name, self.data.recorded(name)):
            first: NDArray[np.int64] = first_error(scores, threshold)
            made[at] = np.where(gap_decides(scores, actions, first), UNSTATED, first)
        return made

    def _first_error(self, name: str, located: Rows) -> dict[str, Any]:
        """Under "first_error" what was measured, or under "no_first_error" why it could not be."""
        threshold, origin, gold = self.threshold, "given", self.data.first_error
        if threshold is None:
            chosen = located & self._tuning[self.data.problem]
            located = located & ~chosen
            if any(len(set((gold[part] >= 0).tolist())) < 2 for part in (chosen, located)):
                problems = len(np.unique(self.data.problem[chosen | located]))
                what = f"{problems} problems, split to choose a threshold, lack right or wrong solutions in a part"
                return {"no_first_error": f"{what}; pass --threshold"}
            search = ThresholdSearch()
            for at, scores, _ in self.data.blocks(name, chosen):
                search.add(scores, gold[at])
            threshold, origin = search.best().threshold, best_f1_on(int(chosen.sum()))
        found = np.full(len(located), -1)
        for at, scores, _ in self.data.blocks(name, located):
            found[at] = first_error(scores, threshold)
        return {"first_error": found_f1(found[located], gold[located], self.key, threshold, origin).to_json()}

    @cached_property
    def _tuning(self) -> Rows:
        """(P,) whether a threshold is chosen on the problem."""
        keys = self.key.folding("tune")
        drawn = (keys.fold(problem).key.rng().random() < self.tune for problem in self.data.problem_ids)
        return np.fromiter(drawn, bool)

    def _no_selection(self, mine: Rows) -> str | None:
        """What keeps selection from being measured; empty where no problem has a choice, None where nothing does."""
        sizes = np.bincount(self.data.problem[mine])
        low, high = sizes[sizes > 0].min(), sizes.max()
        if high < 2:
            return ""
        if low != high:
            return f"problems have {low} to {high} solutions, selection needs the same number of each"
        unknown = np.isnan(self.data.outcome) & mine
        if (unknown & ~(self.data.gradable & self.judged)).any():
            return "some solutions have no outcome; pass --grader"
        if unknown.sum() == mine.sum():
            return "no solution could be graded"
        if (self.data.answer_numbers()[mine] < 0).all():
            return "no solution states its answer; pass --grader"
        return None

    def _selection(self, name: str, mine: Rows) -> dict[str, Any]:
        """Accuracy against N, where every problem has the same number of graded solutions, more than one."""
        rows = np.flatnonzero(mine)
        # By problem, and within a problem as they were read.
        rows = rows[np.argsort(self.data.problem[rows], kind="stable")]
        totals = np.full(len(mine), np.nan)
        # All blocks are padded alike: sums of more zeros can differ in the last digit, which would part equal totals.
        for at, scores, _ in self.data.blocks(name, mine, width=int(self.data.length[mine].max())):
            totals[at] = totals_of(scores, self.aggregate)
        shape = (len(np.unique(self.data.problem[rows])), -1)
        answers = self.data.answer_numbers()[rows].astype(np.int64).reshape(shape)
        pool = Pool(answers, self.data.outcome[rows].reshape(shape), {self.aggregate: totals[rows].reshape(shape)})
        samples, key = pool.outcome.shape[1], self.key
        sizes = [*(2**k for k in range(20) if 2**k < samples), samples]
        full = hits(pool, samples, key)
        return {
            "sizes": sizes,
            "accuracy": {name: [e.to_json() for e in row] for name, row in curves(pool, sizes, key).items()},
            "versus_majority": {
                name: paired_difference(full[name], full["majority"], key.fold("paired", name)).to_json()
                for name in (f"best-of-n:{self.aggregate}", f"weighted-vote:{self.aggregate}")
            },
        }
