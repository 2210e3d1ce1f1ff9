"""Benchmarks of agents' steps: whom and what to blame for a failed trace, and judging each action of a chat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stepreward.core.catalog import bench
from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.measure.first_error import first_error
from stepreward.core.measure.statistics import Estimate, bootstrap, proportion
from stepreward.core.measure.step_metrics import ragged
from stepreward.core.runtime.flows import Scorer
from stepreward.core.types import Comparison, Trajectory
from stepreward.evaluate.comparison_benches import preferred_and_others
from stepreward.evaluate.data.result import BenchResult
from stepreward.evaluate.data.scoring import (
    rows_by,
    rows_kept,
    rows_of_subsets,
    scored_comparisons,
    step_scores,
    unmeasured,
)
from stepreward.evaluate.measures.counts import bootstrap_sums, interval, ratio

NEAR = 5
"""Steps by which a blamed step may miss in the tolerant accuracy."""


@bench.method(
    "who-and-when",
    paper="arXiv:2505.00212",
    equation="section 4: agent-level and step-level accuracy; evaluate.py of the authors",
    note="exact names and numbers; step_accuracy_upstream is the authors' test, which takes 10 for 1",
)
def who_and_when(scorer: Scorer, data: Sequence[Trajectory]) -> BenchResult:
    """Blames the step with the lowest score, and the agent that speaks there: how often are they the decisive ones?

    Every trace failed, so one step is always blamed and no threshold is needed; of equals the earliest.
    A trace with an action that has no score is left out and counted: that one may be the lowest.

    Args:
        scorer: whose scores are measured; observations, which it does not score, are never blamed.
        data: failed traces; `first_error` is the decisive step, `meta["mistake_agent"]` the agent that people blame.

    Raises:
        InputError: no trace has a decisive step.
    """
    kept = [item for item in data if item.first_error is not None and item.first_error >= 0]
    if not kept:
        raise InputError("no trace has a decisive step", remedy="pass failed traces of agents")
    scores = step_scores(scorer, kept)
    lost = unmeasured(scores, kept)
    left = rows_kept(lost)
    kept, scores = [kept[row] for row in left], scores[left]
    # A trace without any score blames no step: the lowest of nothing would be its first.
    silent = np.isnan(scores).all(axis=1)
    blamed = np.where(silent, -1, np.where(np.isnan(scores), np.inf, scores).argmin(axis=1))
    gold = np.array([item.first_error for item in kept], np.int64)
    agent = [
        at >= 0 and item.steps[at].agent == str(item.facts.get("mistake_agent", ""))
        for item, at in zip(kept, blamed.tolist(), strict=True)
    ]
    hits = {
        "agent_accuracy": np.array(agent, bool),
        "step_accuracy": blamed == gold,
        f"step_within_{NEAR}": (np.abs(blamed - gold) <= NEAR) & ~silent,
        "step_accuracy_upstream": np.array([str(g) in str(b) for g, b in zip(gold, blamed, strict=True)]) & ~silent,
    }

    def shares(rows: Sequence[int]) -> dict[str, Estimate]:
        return {name: proportion(int(hit[rows].sum()), len(rows)) for name, hit in hits.items()}

    protocol = (
        "The step with the lowest score is blamed, of equals the earliest, and the agent that speaks there; names and "
        "steps must match exactly. Wilson intervals."
    )
    groups = {name: shares(rows) for name, rows in rows_by(kept, "subset").items()}
    return BenchResult(
        "who-and-when", "step_accuracy", shares(range(len(kept))), protocol, groups, unscored=int(lost.sum())
    )


@bench.method(
    "agent-process-bench",
    paper="arXiv:2603.14465",
    equation="section 4.1; compare.py of the authors",
    note="a score becomes one of three labels by two thresholds; a step without a score is never right",
)
def agent_process_bench(
    scorer: Scorer, data: Sequence[Trajectory], *, threshold: float = 0.5, right_above: float = 0.5, seed: int = 0
) -> BenchResult:
    """Labels every action right, neutral or wrong, and finds the first wrong one.

    Scores above `threshold` and at most `right_above` are neutral. Where both are equal, as by default, only a score
    that is exactly there is neutral: the verdict "neutral" of a judge, which is 1/2.

    Args:
        scorer: whose scores are measured.
        data: chats; labels are 1, 1/2 for neutral, and 0, and NaN where a message was not rated.
        threshold: scores at or below it say "wrong"; below it, where `right_above` is the same number.
        right_above: scores above it say "right"; at least `threshold`.
        seed: of the bootstrap over chats.

    Raises:
        ValueError: the thresholds are the wrong way round.
        InputError: no message is rated.
    """
    if right_above < threshold:
        raise ValueError(f"right_above must be at least threshold, got {right_above} and {threshold}")
    labels = ragged([item.labels for item in data])
    rated = ~np.isnan(labels)
    if not rated.any():
        raise InputError("no message is rated", remedy="pass chats rated step by step")
    scores = step_scores(scorer, data)
    wrong = scores < threshold if threshold == right_above else scores <= threshold
    said = np.where(wrong, 0.0, np.where(scores > right_above, 1.0, 0.5))
    said = np.where(np.isnan(scores) | ~rated, np.nan, said)
    match = (said == labels) & rated
    silent = rated & np.isnan(said)
    counts = np.stack([one.sum(axis=1) for one in (match, silent, rated)], axis=1).astype(np.float64)
    first = first_error(said, 0.0) == first_error(labels, 0.0)
    exact = (match == rated).all(axis=1)
    key = Key.seed(seed).fold("agent-process-bench")

    def measured(rows: Sequence[int], fold: Key) -> dict[str, Estimate]:
        pooled = bootstrap_sums(counts[rows], fold)
        return {
            "step_accuracy": interval(ratio(pooled[:, 0], pooled[:, 2], empty=np.nan), len(rows)),
            "first_error_accuracy": proportion(int(first[rows].sum()), len(rows)),
            "exact": proportion(int(exact[rows].sum()), len(rows)),
            "silent": interval(ratio(pooled[:, 1], pooled[:, 2], empty=np.nan), len(rows)),
        }

    protocol = (
        "Step accuracy is over all rated steps, pooled, in three classes; first_error_accuracy is about the first "
        "wrong step exactly, or for none. A step without a score (`silent`) is never right; who scores nothing is "
        "right about the first error where there is none. Bootstrap over chats."
    )
    groups = {name: measured(rows, key.fold(name)) for name, rows in rows_by(data, "subset").items()}
    return BenchResult(
        "agent-process-bench",
        "step_accuracy",
        measured(range(len(data)), key),
        protocol,
        groups,
        threshold,
        f"given; right above {right_above:g}",
    )


@bench.method(
    "tool-comp",
    paper="arXiv:2501.01290",
    equation="step-wise accuracy; inference/llm_as_judge_inference.py of the authors",
    note="a reward model scores both steps; the paper's judges see the two in both orders. ToolPRMBench "
    "(arXiv:2601.12294) alike",
)
def tool_comp(scorer: Scorer, data: Sequence[Comparison], *, aggregate: str = "last", seed: int = 0) -> BenchResult:
    """How often the better of two next steps after the same history has the higher score; a tie is half.

    Args:
        scorer: whose scores are measured.
        data: comparisons whose candidates share all steps but the last; `subset` separates plans from steps.
        aggregate: how a candidate's step scores become one; the last step's alone by default.
        seed: of the bootstrap over comparisons.

    Raises:
        InputError: there is no comparison, or one prefers all candidates alike.
    """
    data, scores, unscored = scored_comparisons(scorer, data, aggregate)
    split = preferred_and_others(data, scores)
    won = np.array([(good.min() > bad.max()) + (good.min() == bad.max()) / 2 for good, bad in split])
    key = Key.seed(seed).fold("tool-comp")
    protocol = (
        "A comparison counts 1 if the better step scores higher, 1/2 if both score alike, else 0. Intervals: bootstrap "
        "over comparisons."
    )
    groups = {name: {"accuracy": bootstrap(won[rows], key.fold(name))} for name, rows in rows_of_subsets(data).items()}
    return BenchResult("tool-comp", "accuracy", {"accuracy": bootstrap(won, key)}, protocol, groups, unscored=unscored)
