"""ReasonEval's meta-evaluation: are solutions, and their steps up to the first error, called valid where they are?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stepreward.core.catalog import bench
from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.measure.statistics import resamples
from stepreward.core.measure.step_metrics import auroc
from stepreward.core.runtime.flows import Scorer
from stepreward.core.types import Floats, Trajectory
from stepreward.evaluate.data.result import BenchResult
from stepreward.evaluate.data.scoring import labelled_scores
from stepreward.evaluate.measures.counts import bootstrap_sums, confusion, interval, macro_f1, step_counts

AUC_DRAWS = 200


@bench.method(
    "reason-eval",
    paper="arXiv:2404.05692",
    equation="section 4; mr-math_eval.py of the authors",
    note="validity: labels up to the first error. Redundancy: label redundant steps 0, all others 1, score minus the "
    "chance of redundancy, threshold -0.15",
)
def reason_eval(
    scorer: Scorer, data: Sequence[Trajectory], *, threshold: float = 0.5, ties: Literal["wrong", "missed"] = "wrong",
    seed: int = 0,
) -> BenchResult:  # fmt: skip
    """Macro F1 and area under the curve, of whole solutions by their lowest score and of labelled steps.

    A solution with a labelled step that has no score is left out and counted (`unscored`).

    Args:
        scorer: whose scores are measured.
        data: solutions with labels, NaN at steps that do not count (after the first error).
        threshold: solutions and steps scored above it are called valid.
        ties: a solution whose lowest score equals the threshold is called wrong, or, as in `mr-math_eval.py` of the
            authors, neither right nor wrong, and counts as missed.
        seed: of the bootstrap over solutions.

    Raises:
        InputError: no step is labelled, or no solution has scores of all its labelled steps.
    """
    known = [item for item in data if not np.isnan(item.labels).all()]
    if not known:
        raise InputError("no step is labelled", remedy="pass solutions with step labels")
    _, scores, labels, unscored = labelled_scores(scorer, known)
    steps = step_counts(scores, labels, threshold)
    right = np.logical_not((labels <= 0.5).any(axis=1))
    lowest = np.where(np.isnan(scores), np.inf, scores).min(axis=1)
    called_right = lowest > threshold
    # "missed": at the threshold a right solution is not called right, and a wrong one is not called wrong.
    whole = confusion(called_right if ties == "wrong" else np.where(right, called_right, lowest >= threshold), right)
    key, n = Key.seed(seed).fold("reason-eval"), len(labels)
    both = bootstrap_sums(np.stack([whole, steps], axis=1), key)
    rows = np.concatenate([np.arange(n)[None], resamples(n, AUC_DRAWS, key.fold("auc"))])
    metrics = {
        "solution_f1": interval(macro_f1(both[:, 0]), n),
        "step_f1": interval(macro_f1(both[:, 1]), n),
        "solution_auc": interval(_aucs(lowest[:, None], right[:, None].astype(np.float64), rows), n),
        "step_auc": interval(_aucs(np.where(np.isnan(labels), np.nan, scores), labels, rows), n),
    }
    protocol = (
        "A solution's score is its lowest step's. F1 is the mean over valid and invalid; the area under the curve "
        "needs no threshold. Steps that are not labelled, as after the first error, do not count."
    )
    return BenchResult("reason-eval", "step_f1", metrics, protocol, {}, threshold, "given", unscored)


def _aucs(scores: Floats, labels: Floats, rows: NDArray[np.int64]) -> Floats:
    return np.array([auroc(scores[mine], labels[mine]) for mine in rows])
