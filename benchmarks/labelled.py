"""Labelled solutions into the trees that training reads: rows a second beside one tree at a time and a plain loop.

    python -m benchmarks.labelled [--quick]

Solutions of 8 steps, several of each problem; what they share is chance, one of three steps at each place. All ways run
in this process on the same objects, and their labels are equal. One tree at a time does for each problem the array
operations that are done for all problems together; the loop keeps a dictionary of prefixes and sums labels in it, and
makes no arrays at all.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from stepreward.core.measure.step_metrics import ragged
from stepreward.core.tree import StepTree
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.train.data.labelled_trees import labelled_trees

ROWS, STEPS, REPEATS = 10_000, 8, 2
EACH = (1, 4, 16)
"""Solutions of a problem."""


def make(rows: int, each: int) -> list[Trajectory]:
    """Labelled solutions, those of a problem one after the other."""
    rng = np.random.default_rng(0)
    made = []
    for at in range(rows):
        name = at // each
        steps = tuple(Step(f"step {i} of {name}: {kind}\n") for i, kind in enumerate(rng.integers(3, size=STEPS)))
        columns = {"label": rng.integers(0, 2, STEPS) / 1, "n_rollouts": np.zeros(STEPS)}
        made.append(Trajectory(Problem(f"p{name}", f"question {name}"), steps, 1.0, columns=columns))
    return made


def grouped(labels: Sequence[Trajectory]) -> list[list[Trajectory]]:
    """The solutions of each problem."""
    groups: dict[str, list[Trajectory]] = {}
    for one in labels:
        groups.setdefault(one.problem.id, []).append(one)
    return list(groups.values())


def one_by_one(labels: Sequence[Trajectory]) -> list[StepTree]:
    """The same trees, each by array operations of its own."""
    made = []
    for group in grouped(labels):
        tree = StepTree.from_trajectories(group)
        own = ragged([one.labels for one in group])
        weight = np.where(np.isnan(own), np.nan, np.maximum(ragged([one.column("n_rollouts") for one in group]), 1))
        node = tree.scatter_mean(weight * own) / tree.scatter_mean(weight)
        made.append(tree.with_step_column("label", np.where(np.isnan(own), np.nan, tree.gather(node))))
    return made


def plain(labels: Sequence[Trajectory]) -> list[list[list[float]]]:
    """The labels of each problem's solutions, by a dictionary of prefixes."""
    made = []
    for group in grouped(labels):
        sums: dict[tuple[Any, ...], list[float]] = {}
        nodes = []
        for one in group:
            node: tuple[Any, ...] = ()
            for step, label, n in zip(one.steps, one.labels.tolist(), one.column("n_rollouts").tolist(), strict=True):
                node = (node, step.identity)
                kept = sums.setdefault(node, [0.0, 0.0])
                kept[0] += max(1, n) * label
                kept[1] += max(1, n)
                nodes.append(kept)
        found = iter(nodes)
        made.append([[kept[0] / kept[1] for _, kept in zip(one.steps, found, strict=False)] for one in group])
    return made


def best(work: Callable[[Sequence[Trajectory]], Any], labels: Sequence[Trajectory]) -> tuple[Any, float]:
    """The result, and the least seconds of processor time of a few runs."""
    seconds = []
    for _ in range(REPEATS):
        start = time.process_time()
        made = work(labels)
        seconds.append(time.process_time() - start)
    return made, min(seconds)


def one_size(each: int) -> dict[str, Any]:
    """Rows a second of each way, and how many times as many ours makes."""
    labels = make(ROWS, each)
    ours, seconds = best(labelled_trees, labels)
    single, single_seconds = best(one_by_one, labels)
    looped, loop_seconds = best(plain, labels)
    for one, other, third in zip(ours, single, looped, strict=True):
        np.testing.assert_array_equal(one.step_column("label"), other.step_column("label"))
        np.testing.assert_allclose(one.step_column("label"), third, rtol=1e-12)
    return {
        "rows": ROWS,
        "each": each,
        "rows_a_second": ROWS / seconds,
        "of_one_tree_at_a_time": single_seconds / seconds,
        "of_a_plain_loop": loop_seconds / seconds,
    }


if __name__ == "__main__":
    if "--quick" in sys.argv:
        ROWS, REPEATS = 500, 1
    print(json.dumps([one_size(each) for each in EACH], indent=2))
