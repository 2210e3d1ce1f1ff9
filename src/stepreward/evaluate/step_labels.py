"""Benchmarks that label every step: is each step called what it is?

"Positive" is a step called valid. Steps without a label are left out, and so are solutions with a labelled step that
has no score, which are counted (`unscored`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stepreward.core.catalog import bench
from stepreward.core.keys import Key
from stepreward.core.measure.first_error import first_error
from stepreward.core.measure.statistics import Estimate
from stepreward.core.runtime.flows import Scorer
from stepreward.core.types import Floats, Trajectory
from stepreward.evaluate.data.result import BenchResult
from stepreward.evaluate.data.scoring import labelled_scores, rows_by
from stepreward.evaluate.measures.counts import (
    balanced_f1,
    bootstrap_sums,
    confusion,
    interval,
    recalls,
    step_counts,
    step_metrics_of,
)


@bench.method(
    "hard2verify",
    paper="arXiv:2510.13744",
    equation="balanced F1 of steps, of responses and of first errors",
    note="definitions as the benchmark's page states them; the authors' code was not at hand",
)
def hard2verify(scorer: Scorer, data: Sequence[Trajectory], *, threshold: float = 0.5, seed: int = 0) -> BenchResult:
    """Balanced F1, the harmonic mean of the accuracies on valid and on wrong ones: of steps, responses, first errors.

        2 TPR TNR / (TPR + TNR)

    A response is right if all of its steps are. Of a wrong one the first error must be named exactly (error_id).

    Args:
        scorer: whose scores are measured.
        data: solutions with labels.
        threshold: steps scored above it are called valid.
        seed: of the bootstrap over solutions.

    Raises:
        InputError: there is no solution, or none whose labelled steps have scores.
    """
    data, scores, labels, unscored = labelled_scores(scorer, data)
    counts, key = step_counts(scores, labels, threshold), Key.seed(seed).fold("hard2verify")
    whole = _responses(scores, labels, threshold)
    rows = rows_by(data, "subset")
    groups = {name: _balanced(counts[mine], whole[mine], key.fold(name)) for name, mine in rows.items()}
    protocol = (
        "Steps scored above the threshold are called valid. Balanced F1 is the harmonic mean of the shares of valid "
        "and of wrong steps that are called so; response_ and error_id_ have whole responses and exact first errors."
    )
    return BenchResult(
        "hard2verify", "balanced_f1", _balanced(counts, whole, key), protocol, groups, threshold, "given", unscored
    )


def _responses(scores: Floats, labels: Floats, threshold: float) -> Floats:
    """(B, 2, 4) counts of each whole response: called right or wrong, and its first error named or not."""
    called, gold = first_error(np.where(np.isnan(labels), np.nan, scores), threshold), first_error(labels)
    right, accepted = gold < 0, called < 0
    named = (called == gold) & ~accepted
    # A wrong response whose first error is not named counts as missed.
    return np.stack([confusion(accepted, right), confusion(np.where(right, accepted, ~named), right)], axis=1)


def _balanced(counts: Floats, whole: Floats, key: Key) -> dict[str, Estimate]:
    n = len(counts)
    made = step_metrics_of(bootstrap_sums(counts, key), n)
    pooled = bootstrap_sums(whole, key.fold("responses"))
    valid, wrong = recalls(bootstrap_sums(counts, key))
    made["balanced_accuracy"] = interval((valid + wrong) / 2, n)
    for at, name in enumerate(("response", "error_id")):
        made[f"{name}_balanced_f1"] = interval(balanced_f1(pooled[:, at]), n)
    return made


@bench.method(
    "visual-process-bench",
    paper="arXiv:2503.10291",
    equation="section 4.2: macro F1 of all steps, neutral ones left out",
)
def visual(scorer: Scorer, data: Sequence[Trajectory], *, threshold: float = 0.5, seed: int = 0) -> BenchResult:
    """Macro F1 of steps; neutral steps, which must come without a label or as one half, take no part.

    Args:
        scorer: whose scores are measured; it must read images to mean anything.
        data: solutions with labels; `meta["subset"]` names the source.
        threshold: steps scored above it are called valid.
        seed: of the bootstrap over solutions.

    Raises:
        InputError: there is no solution, or none whose labelled steps have scores.
    """
    protocol = (
        "The mean of the F1 of correct and of wrong steps, all steps and not the first error alone, pooled over "
        "solutions; neutral steps are left out. Steps scored above the threshold are called correct."
    )
    return _pooled("visual-process-bench", "macro_f1", "subset", protocol, scorer, data, threshold, seed, neutral=False)


@bench.method(
    "mp-bench",
    paper="arXiv:2503.12505",
    equation="section 3: step correctness and reasoning-process search",
    note="no average of the paradigms, whose weights the sources at hand do not state; its third, answer aggregation, "
    "is best-of-n",
)
def mp_bench(scorer: Scorer, data: Sequence[Trajectory], *, threshold: float = 0.5, seed: int = 0) -> BenchResult:
    """MPBench's two paradigms that judge steps: step correctness (PRMScore) and process search (F1 and MCC).

    Args:
        scorer: whose scores are measured.
        data: solutions with labels; `meta["paradigm"]`, or else `meta["subset"]`, names the paradigm.
        threshold: steps scored above it are called valid.
        seed: of the bootstrap over solutions.

    Raises:
        InputError: there is no solution, or none whose labelled steps have scores.
    """
    protocol = (
        "Steps scored above the threshold are called valid; counts are pooled over the solutions of a paradigm. Step "
        "correctness is quoted by PRMScore, search by F1 and Matthews' correlation."
    )
    by = "paradigm" if any(item.facts.get("paradigm") for item in data) else "subset"
    return _pooled("mp-bench", "prm_score", by, protocol, scorer, data, threshold, seed)


def _pooled(
    name: str, main: str, by: str, protocol: str, scorer: Scorer, data: Sequence[Trajectory], threshold: float,
    seed: int, *, neutral: bool = True,
) -> BenchResult:  # fmt: skip
    data, scores, labels, unscored = labelled_scores(scorer, data)
    if not neutral:
        labels = np.where(labels == 0.5, np.nan, labels)
    counts, key = step_counts(scores, labels, threshold), Key.seed(seed).fold(name)
    groups = {
        of: step_metrics_of(bootstrap_sums(counts[mine], key.fold(of)), len(mine))
        for of, mine in rows_by(data, by).items()
    }
    metrics = step_metrics_of(bootstrap_sums(counts, key), len(data))
    return BenchResult(name, main, metrics, protocol, groups, threshold, "given", unscored)
