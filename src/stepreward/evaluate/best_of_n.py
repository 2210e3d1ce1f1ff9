"""Best-of-N: which of a problem's sampled solutions do step scores choose, and is it right?

The same protocol measures a search: its final beams are the samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from stepreward.core.catalog import bench
from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.measure.aggregation import totals_of
from stepreward.core.measure.selection import answer_ids, majority, oracle, weighted_vote
from stepreward.core.measure.selection import best_of_n as highest
from stepreward.core.measure.statistics import Estimate, bootstrap
from stepreward.core.runtime.flows import Scorer
from stepreward.core.types import Floats, Trajectory
from stepreward.evaluate.data.result import BenchResult
from stepreward.evaluate.data.scoring import numbered, rows_kept, step_scores, unmeasured


@bench.method(
    "best-of-n",
    paper="arXiv:2409.12122",
    equation="rm@N and maj@N; rm_maj_eval.py of the authors",
    note="weighted_vote is search-and-learn's weighted prediction; answers are equal as the data states them",
)
def best_of_n(
    scorer: Scorer, data: Sequence[Trajectory], *, aggregate: str = "last", n: int | None = None, seed: int = 0
) -> BenchResult:
    """Accuracy of the highest-scored of N samples, beside majority, weighted vote, one sample and the best there is.

    Ties go to the earliest sample, in votes to the answer given first. A vote weighted by negative totals means
    nothing and is left out. A problem with a sample whose last action has no score is left out whole, since that sample
    might have been chosen; `unscored` counts such samples.

    Args:
        scorer: whose scores are measured.
        data: graded solutions, several of each problem; `answer` is what votes count.
        aggregate: how the scores of a solution's steps become one; a reward of the whole solution is its last step's.
        n: samples of each problem, the first in the data; all of them where None or where there are fewer.
        seed: of the bootstrap over problems.

    Raises:
        InputError: there is no problem with two samples, or a solution is not graded.
        UnknownNameError: no such aggregation.
    """
    _, earlier = numbered([item.problem.id for item in data])
    kept = [item for item, before in zip(data, earlier, strict=True) if n is None or before < n]
    if len(kept) < 2 or not earlier.any():
        raise InputError("no problem has two solutions to choose from", remedy="pass several samples of each problem")
    problems = [item.problem.id for item in kept]
    outcome = np.array([item.outcome for item in kept], np.float64)
    if np.isnan(outcome).any():
        raise InputError("a solution has no outcome", remedy="pass graded samples, or label them first")
    rows = step_scores(scorer, kept)
    lost = unmeasured(rows, kept, ended=True)
    left = rows_kept(lost, problems)
    kept, outcome, rows = [kept[row] for row in left], outcome[left], rows[left]
    group, earlier = numbered([item.problem.id for item in kept])
    totals = totals_of(rows, aggregate)
    answers = answer_ids([item.answer for item in kept], group.tolist())
    key = Key.seed(seed).fold("best-of-n")
    sizes = [2**k for k in range(30) if 2**k <= earlier.max()]
    groups: dict[str, Mapping[str, Estimate]] = {}
    for size in sizes:
        part = earlier < size
        rates = _rates(totals[part], answers[part], outcome[part], group[part])
        groups[f"first {size}"] = {name: bootstrap(rate, key.fold(name, size)) for name, rate in rates.items()}
    rates = _rates(totals, answers, outcome, group)
    metrics = {name: bootstrap(rate, key.fold(name)) for name, rate in rates.items()}
    gap = rates["best_of_n"] - rates["majority" if "majority" in rates else "one_sample"]
    protocol = (
        f"The sample with the highest total ({aggregate}) of the first N of each problem; ties to the earliest. "
        "best_of_n_gain is over majority on the same problems. Intervals: bootstrap over problems."
    )
    return BenchResult(
        "best-of-n",
        "best_of_n",
        {**metrics, "best_of_n_gain": bootstrap(gap, key.fold("gain"), bounds=(-1.0, 1.0))},
        protocol,
        groups,
        unscored=int(lost.sum()),
    )


def _rates(totals: Floats, answers: NDArray[np.int64], outcome: Floats, group: NDArray[np.int64]) -> dict[str, Floats]:
    """(G,) whether each way of choosing is right."""
    made = {
        "best_of_n": outcome[highest(totals, group)],
        "one_sample": np.bincount(group, outcome) / np.bincount(group),
        "pass_at_n": outcome[oracle(outcome, group)],
    }
    if (answers >= 0).any():
        made["majority"] = outcome[majority(answers, group)]
        if (totals >= 0).all():
            made["weighted_vote"] = outcome[weighted_vote(totals, answers, group)]
    return made
