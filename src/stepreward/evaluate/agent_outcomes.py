"""AgentRewardBench: does a judge know which runs of an agent succeeded?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stepreward.core.catalog import bench
from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.measure.aggregation import totals_of
from stepreward.core.measure.statistics import Estimate
from stepreward.core.runtime.flows import Scorer
from stepreward.core.types import Trajectory
from stepreward.evaluate.data.result import BenchResult
from stepreward.evaluate.data.scoring import rows_by, rows_kept, step_scores
from stepreward.evaluate.measures.counts import bootstrap_sums, confusion, interval, ratio


@bench.method(
    "agent-reward-bench",
    paper="arXiv:2504.08942",
    equation="agent_reward_bench/eval/metrics.py of the authors",
    note="runs without a verdict are left out, as the authors do in precision and recall",
)
def agent_reward_bench(
    scorer: Scorer,
    data: Sequence[Trajectory],
    *,
    aggregate: str = "last",
    threshold: float = 0.5,
    split: str = "test",
    seed: int = 0,
) -> BenchResult:
    """Precision, recall and F1 of the verdict that a run succeeded, against experts.

    Precision comes first: a judge that rewards failures teaches them. `success` is the share of runs that did succeed,
    which is the precision of a judge that always says so.

    Args:
        scorer: whose scores are measured.
        data: runs; `outcome` is the expert's verdict, runs without one are left out.
        aggregate: how the scores of a run's steps become one.
        threshold: a total above it says that the run succeeded.
        split: which of the runs whose split is known; "" for all.
        seed: of the bootstrap over runs.

    Raises:
        InputError: no run of the split has an expert's verdict, or none has a score.
        UnknownNameError: no such aggregation.
    """
    runs = [one for one in data if one.outcome == one.outcome and (not split or one.facts.get("split", split) == split)]
    if not runs:
        what = "no run has an expert's verdict" + (f" in the split {split!r}" if split else "")
        raise InputError(what, remedy="pass runs with outcomes, or --set split= for all splits")
    totals = totals_of(step_scores(scorer, runs), aggregate)
    lost = np.isnan(totals)
    kept = rows_kept(lost)
    runs, totals = [runs[row] for row in kept], totals[kept]
    counts = confusion(totals > threshold, np.array([one.outcome for one in runs]) > 0.5)
    key = Key.seed(seed).fold("agent-reward-bench")

    def measured(rows: Sequence[int], fold: Key) -> dict[str, Estimate]:
        tp, fp, fn, tn = np.moveaxis(bootstrap_sums(counts[rows], fold), -1, 0)
        shares = {
            "precision": ratio(tp, tp + fp),
            "recall": ratio(tp, tp + fn),
            "f1": ratio(2 * tp, 2 * tp + fp + fn),
            "accuracy": ratio(tp + tn, tp + fp + fn + tn),
            "success": ratio(tp + fn, tp + fp + fn + tn),
        }
        return {name: interval(values, len(rows)) for name, values in shares.items()}

    protocol = (
        "A total above the threshold says that the run succeeded; precision is the share of such runs that did succeed "
        "by the first expert (0 where there is none), recall the share of these that are found. Bootstrap over runs."
    )
    groups = {name: measured(rows, key.fold(name)) for name, rows in rows_by(runs, "subset").items()}
    return BenchResult(
        "agent-reward-bench", "precision", measured(range(len(runs)), key), protocol, groups, threshold, "given",
        unscored=int(lost.sum()),
    )  # fmt: skip
