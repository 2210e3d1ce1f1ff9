"""Benchmarks of agents' next steps: one right action among wrong ones, along a task.

A task, or a state of several pairs, with an action that has no score is left out whole and counted (`unscored`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepreward.core.catalog import bench
from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.measure.statistics import Estimate, bootstrap
from stepreward.core.runtime.flows import Scorer
from stepreward.core.types import Comparison, Floats
from stepreward.evaluate.data.result import BenchResult
from stepreward.evaluate.data.scoring import places, rows_of_subsets, scored_comparisons
from stepreward.evaluate.measures.counts import bootstrap_sums, interval


@bench.method(
    "web-reward-bench",
    paper="arXiv:2505.15277",
    equation="section 5.1; src/utils/eval_utils.py of the authors",
)
def web_reward_bench(
    scorer: Scorer, data: Sequence[Comparison], *, aggregate: str = "last", seed: int = 0
) -> BenchResult:
    """Whether the right next action of a web agent outscores the wrong ones: by step, by rank, and for whole tasks.

    Args:
        scorer: whose scores are measured.
        data: one comparison a step, with one preferred candidate; `meta["task_id"]` names the task, `subset` the set.
        aggregate: how the scores of a candidate's steps become one; the last is the action in question.
        seed: of the bootstrap, over tasks.

    Raises:
        InputError: there is no comparison, or one has not exactly one preferred candidate.
    """
    data, scores, unscored = scored_comparisons(scorer, data, aggregate, _task)
    parts = _against(data, scores)
    # A wrong action that scores as high ranks above the right one.
    rank = np.array([1.0 + float((bad >= good).sum()) for good, bad in parts])
    key = Key.seed(seed).fold("web-reward-bench")
    # Steps of one task succeed together: the bootstrap draws tasks.
    tasks = np.unique([_task(item) for item in data], return_inverse=True)[1]
    protocol = (
        "Wrong actions that score as high rank above the right one. A step is right if its rank is 1, a task if all "
        "its steps are. Intervals: percentile bootstrap over tasks."
    )
    groups = {name: _measured(rank[rows], tasks[rows], key.fold(name)) for name, rows in rows_of_subsets(data).items()}
    return BenchResult("web-reward-bench", "mrr", _measured(rank, tasks, key), protocol, groups, unscored=unscored)


def _task(item: Comparison) -> str:
    return str(item.meta.get("task_id", item.problem.id))


def _state(item: Comparison) -> tuple[str, str]:
    return item.subset, item.problem.id


def _measured(rank: Floats, tasks: NDArray[np.int64], key: Key) -> dict[str, Estimate]:
    _, task = np.unique(tasks, return_inverse=True)
    steps = np.bincount(task).astype(float)
    first = (rank == 1).astype(float)
    hit, reciprocal = np.bincount(task, weights=first), np.bincount(task, weights=1 / rank)

    def over_steps(values: NDArray[Any], name: str) -> Estimate:
        pooled = bootstrap_sums(np.stack([values, steps], axis=1), key.fold(name))
        return interval(pooled[:, 0] / pooled[:, 1], len(steps))

    return {
        "mrr": over_steps(reciprocal, "mrr"),
        "step_accuracy": over_steps(hit, "step"),
        "trajectory_accuracy": bootstrap((hit == steps).astype(float), key.fold("trajectory")),
    }


@bench.method(
    "web-prm-bench",
    paper="arXiv:2601.21872",
    equation="pairwise and best-of-N accuracy",
    note="one right action against four, in one comparison or, as published, in a pair each; the paper's judges see "
    "pairs, a reward model scores all five. Averages are over steps, environments are groups",
)
def web_prm_bench(scorer: Scorer, data: Sequence[Comparison], *, aggregate: str = "last", seed: int = 0) -> BenchResult:
    """Whether the right next action of a web agent outscores each wrong one, and whether it outscores them all.

    Args:
        scorer: whose scores are measured.
        data: comparisons with one preferred candidate, those of one problem being one step; `subset` names the
            environment.
        aggregate: how the scores of a candidate's steps become one; the last is the action in question.
        seed: of the bootstrap, over steps.

    Raises:
        InputError: there is no comparison, or one has not exactly one preferred candidate.
    """
    data, scores, unscored = scored_comparisons(scorer, data, aggregate, _state)
    parts = _against(data, scores)
    states = places([_state(item) for item in data])
    won = [np.concatenate([parts[at][0] > parts[at][1] for at in rows]) for rows in states.values()]
    shares = np.array([[float(one.mean()), float(one.all())] for one in won])
    key = Key.seed(seed).fold("web-prm-bench")

    def measured(rows: Sequence[int], fold: Key) -> dict[str, Estimate]:
        names = ("pairwise_accuracy", "best_of_n_accuracy")
        return {name: bootstrap(shares[rows, at], fold.fold(name)) for at, name in enumerate(names)}

    protocol = (
        "pairwise_accuracy is the share of wrong actions that score below the right one, best_of_n_accuracy the share "
        "of steps where all do; ties are wrong. Intervals: bootstrap over steps."
    )
    groups = {name: measured(rows, key.fold(name)) for name, rows in places([of for of, _ in states]).items()}
    return BenchResult(
        "web-prm-bench", "best_of_n_accuracy", measured(range(len(states)), key), protocol, groups, unscored=unscored
    )


def _against(data: Sequence[Comparison], scores: Sequence[Floats]) -> list[tuple[float, Floats]]:
    """The right action's score and the wrong ones' of each step."""
    parts = []
    for item, row in zip(data, scores, strict=True):
        right = np.array(item.preferred) > 0
        if right.sum() != 1:
            what = f"problem {item.problem.id!r} prefers {int(right.sum())} candidates, not one"
            raise InputError(what, remedy="drop the row")
        parts.append((float(row[right][0]), row[~right]))
    return parts
