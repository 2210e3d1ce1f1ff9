"""Benchmarks of first errors: where does a solution go wrong first, if at all?

A scorer says "wrong" at the first step whose score is at or below the threshold. Solutions whose first error is not
known are left out. NaN is not measured: a solution is counted apart (`unscored`) and is no part of any number if a step
that decides has no score. What decides does not follow from the scores, so that thresholds are compared on the same
solutions: all actions up to the first error, or all of them where there is none. Only the MR-Score, which also counts
whether a solution is called wrong, goes by what was found: all actions up to the first one at or below it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stepreward.core.catalog import bench
from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.measure.first_error import first_error
from stepreward.core.measure.statistics import Estimate, mean_of, proportion
from stepreward.core.measure.step_metrics import best_threshold
from stepreward.core.runtime.flows import Scorer
from stepreward.core.types import Floats, Trajectory
from stepreward.evaluate.data.result import BenchResult
from stepreward.evaluate.data.scoring import rows_by, rows_kept, step_scores, unmeasured
from stepreward.evaluate.measures.counts import bootstrap_sums, confusion, interval, matthews, ratio
from stepreward.evaluate.measures.step_scores import FirstErrorResult, first_error_f1


def _located(data: Sequence[Trajectory]) -> tuple[list[Trajectory], NDArray[np.int64]]:
    """Solutions whose first error is known, and it: (B,) with -1 where there is none."""
    kept = [item for item in data if item.first_error is not None]
    if not kept:
        raise InputError("no solution says where its first error is", remedy="pass data that marks first errors")
    return kept, np.array([item.first_error for item in kept], np.int64)


def _measured(scorer: Scorer, data: Sequence[Trajectory]) -> tuple[list[Trajectory], NDArray[np.int64], Floats, int]:
    """Solutions that are located and scored up to there, their first errors, scores, and how many are not scored."""
    located, gold = _located(data)
    scores = step_scores(scorer, located)
    lost = unmeasured(scores, located, gold)
    kept = rows_kept(lost)
    return [located[row] for row in kept], gold[kept], scores[kept], int(lost.sum())


@bench.method("process-bench", paper="arXiv:2412.06559", equation="section 3.3; run_eval.py of the authors")
def process_bench(
    scorer: Scorer, data: Sequence[Trajectory], *, threshold: float | None = None, tune_on: str = "gsm8k",
    ties: Literal["wrong", "right"] = "wrong", seed: int = 0,
) -> BenchResult:  # fmt: skip
    """Measures how exactly first errors are found: the harmonic mean of two accuracies, by subset and averaged.

    Args:
        scorer: whose scores are measured.
        data: solutions with first errors; `meta["subset"]` names the subset.
        threshold: scores at or below it say "wrong". None chooses the one with the best F1 on the subset `tune_on`, as
            the authors do for models without a threshold of their own, and uses it everywhere.
        tune_on: subset on which a threshold is chosen; its own numbers are then optimistic.
        ties: what a score equal to a given threshold says. The benchmark's own code compares no scores; "right" is
            `rating < threshold` of sail-sg/ActivePRM, src/active_prm/eval/processbench.py.
        seed: of the bootstrap.

    Raises:
        InputError: no first error is known, none has scores, or there is no such subset to choose a threshold on.
    """
    kept, gold, scores, unscored = _measured(scorer, data)
    subsets = rows_by(kept, "subset")
    key = Key.seed(seed).fold("process-bench")
    origin = "given"
    if threshold is None:
        if tune_on not in subsets:
            there = ", ".join(sorted(subsets))
            what = f"no solution is of the subset {tune_on!r} that the threshold is chosen on; there are {there}"
            raise InputError(what, remedy="pass a threshold or another tune_on")
        chosen = subsets[tune_on]
        threshold = best_threshold(scores[chosen], gold[chosen]).threshold
        origin = f"best F1 on {tune_on}"
    elif ties == "right":
        threshold = float(np.nextafter(threshold, -np.inf))  # at or below the next lower number is below this one
    groups = {
        name: _metrics(first_error_f1(scores[mine], gold[mine], key.fold(name), threshold=threshold))
        for name, mine in subsets.items()
    }
    average = mean_of([made["f1"] for made in groups.values()])
    whole = _metrics(first_error_f1(scores, gold, key, threshold=threshold))
    protocol = (
        "A solution's predicted first error is its first step scored at or below the threshold. F1 is the harmonic "
        "mean of the accuracies on solutions with and without an error; average_f1 is the plain mean over subsets."
    )
    return BenchResult(
        "process-bench", "average_f1", {"average_f1": average, **whole}, protocol, groups, threshold, origin, unscored
    )


def _metrics(made: FirstErrorResult) -> dict[str, Estimate]:
    return {"f1": made.f1, "erroneous": made.erroneous, "correct": made.correct}


@bench.method(
    "mr-score",
    paper="arXiv:2312.17080",
    equation="Eq. 3; MR-Ben (arXiv:2406.13975) alike",
    note="a scorer gives no reasons, so the third term is 0: the score is at most one half",
)
def mr_score(scorer: Scorer, data: Sequence[Trajectory], *, threshold: float = 0.5, seed: int = 0) -> BenchResult:
    """Combines the separation of right and wrong solutions with finding the first error.

        MR = 0.2 max(0, MCC) + 0.3 ACC_step + 0.5 ACC_reason

    ACC_step is the share of wrong solutions whose first error is found exactly.

    Args:
        scorer: whose scores are measured.
        data: solutions with first errors; `meta["subset"]` names the subject.
        threshold: scores at or below it say "wrong".
        seed: of the bootstrap over solutions.

    Raises:
        InputError: no first error is known, or none has scores.
    """
    kept, gold = _located(data)
    scores = step_scores(scorer, kept)
    found = first_error(scores, threshold)
    lost = unmeasured(scores, kept, found)
    rows_left = rows_kept(lost)
    kept, gold, found = [kept[row] for row in rows_left], gold[rows_left], found[rows_left]
    key = Key.seed(seed).fold("mr-score")
    groups = {name: _mr(found[rows], gold[rows], key.fold(name)) for name, rows in rows_by(kept, "subset").items()}
    protocol = (
        "A solution is called wrong if any step is at or below the threshold. MCC takes right solutions as positive; "
        "its negative values count as 0. Intervals: percentile bootstrap over solutions."
    )
    return BenchResult(
        "mr-score", "mr_score", _mr(found, gold, key), protocol, groups, threshold, "given", int(lost.sum())
    )


def _mr(found: NDArray[np.int64], gold: NDArray[np.int64], key: Key) -> dict[str, Estimate]:
    right = gold < 0
    named = ((found == gold) & ~right).astype(np.float64)
    pooled = bootstrap_sums(np.c_[confusion(found < 0, right), named], key)
    mcc = matthews(pooled[:, :4])
    step = ratio(pooled[:, 4], pooled[:, 1] + pooled[:, 3], empty=np.nan)
    made = {"mr_score": 0.2 * np.maximum(mcc, 0) + 0.3 * step, "mcc": mcc, "step_accuracy": step}
    lowest = {"mcc": -1.0}
    return {name: interval(values, len(gold), bounds=(lowest.get(name, 0.0), 1.0)) for name, values in made.items()}


@bench.method(
    "first-error-accuracy",
    paper="arXiv:2311.08516",
    equation="section 3, mistake location",
    note="BIG-Bench Mistake; also the first-error accuracy of AgentProcessBench (arXiv:2603.14465)",
)
def first_error_accuracy(scorer: Scorer, data: Sequence[Trajectory], *, threshold: float = 0.5) -> BenchResult:
    """Counts a solution as right if its first error is named exactly, or if it has none and none is named.

    Args:
        scorer: whose scores are measured.
        data: solutions with first errors; `meta["subset"]` names the task.
        threshold: scores at or below it say "wrong".

    Raises:
        InputError: no first error is known, or none has scores.
    """
    kept, gold, scores, unscored = _measured(scorer, data)
    hit = first_error(scores, threshold) == gold

    def shares(rows: Sequence[int]) -> dict[str, Estimate]:
        mine, wrong = hit[rows], gold[rows] >= 0
        parts = {"accuracy": mine, "erroneous": mine[wrong], "correct": mine[~wrong]}
        return {name: proportion(int(part.sum()), len(part)) for name, part in parts.items()}

    protocol = (
        "The first step at or below the threshold must be the marked one, or none where none is marked. Wilson "
        "intervals."
    )
    groups = {name: shares(rows) for name, rows in rows_by(kept, "subset").items()}
    return BenchResult(
        "first-error-accuracy", "accuracy", shares(range(len(gold))), protocol, groups, threshold, "given", unscored
    )
