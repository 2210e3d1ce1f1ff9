"""Several solutions of a problem: what their values cost where prefixes share rollouts, and what an oracle would pay.

Part of `python -m benchmarks.estimators`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.known_worlds import interval, reached, run, times
from stepreward.core.tree import StepTree
from stepreward.core.types import Step
from stepreward.tasks.enumerable import EnumerableWorld

SOLUTIONS = 16
PROBLEMS = 4
GRID = (12, 24, 36)
ROWS: Mapping[str, Mapping[str, Any]] = {
    "counts": {},
    "logprobs": {"weights": "logprobs"},
}
POOLED_HEAD = f"""Second tables are of {SOLUTIONS} solutions a problem (of {PROBLEMS} problems a world), which
`pooled-rollouts` samples first, at its own cost. The reference is then plain Monte Carlo that pays equal prefixes of
several solutions once, with its exact error, sqrt(mean V (1 - V) / n); *error*, *bias* and *coverage* are with n = 24.

*An oracle* is the least that any unbiased estimator can pay to whom a rollout says where it leaves the solutions and
how it ends, if it knew every value beforehand, drew only rollouts that leave, and weighed steps by their probability:
(sum over prefixes of sqrt(A))^2 / error^2, A being what one rollout leaves of the summed squared errors. An estimator
that must find out where values are uncertain pays more; one that also knows which step a rollout leaves by, as
`logprobs` do, may pay less."""


def pooled(depth: int, fatal: bool, seeds: int, reference: int) -> dict[str, Any]:
    """Every setting of `pooled-rollouts` at the reference's error, and the oracle, over worlds of several seeds."""
    rows: dict[str, list[list[dict[str, float]]]] = {name: [] for name in ROWS}
    plain: list[dict[str, float]] = []
    oracle: dict[str, list[float]] = {"rollouts": [], "tokens": []}
    for seed in range(seeds):
        world = EnumerableWorld(depth, 3, seed=seed, fatal=fatal)
        first: list[StepTree] = []
        for name, own in ROWS.items():
            made = [(n, run(world, "pooled-rollouts", world.problems(PROBLEMS), settings(own, n))) for n in GRID]
            first = first or made[0][1].made
            rows[name].append([
                {"rollouts": found.rollouts, "tokens": found.tokens, **errors(world, found.made)} for _, found in made
            ])  # fmt: skip
        plain.append(cost_of_plain(world, first, reference))
        for cost, saved_by in oracle_saves(world, first, plain[-1]).items():
            oracle[cost].append(saved_by)
    made_rows = {}
    for name, by_world in rows.items():
        pairs = [*zip(by_world, plain, strict=True)]
        saved = {cost: [ref[cost] / reached(points, ref["squared"], cost) for points, ref in pairs] for cost in oracle}
        middle = [points[GRID.index(24)] for points in by_world]
        made_rows[name] = {
            **{cost: None if np.isnan(some).any() else interval(some) for cost, some in saved.items()},
            "rmse": float(np.sqrt(np.mean([row["squared"] for row in middle]))),
            "bias": float(np.mean([row["bias"] for row in middle])),
            "coverage": sum(row["inside"] for row in middle) / sum(row["open"] for row in middle),
        }
    return {
        "estimators": made_rows, "oracle": {cost: interval(some) for cost, some in oracle.items()},
        "reference": {
            "rmse": float(np.sqrt(np.mean([ref["squared"] for ref in plain]))),
            **{cost: float(np.mean([ref[cost] for ref in plain])) / PROBLEMS for cost in oracle},
        },
    }  # fmt: skip


def settings(own: Mapping[str, Any], n: int) -> dict[str, Any]:
    """Of `pooled-rollouts`."""
    return {"solutions": SOLUTIONS, "n": n, **own}


def inner(world: EnumerableWorld, tree: StepTree) -> list[tuple[int, tuple[Step, ...]]]:
    """Nodes and prefixes of a tree that a rollout can go on from, the bare problem left out."""
    return [(node, tree.prefix(node)) for node in range(1, tree.n) if tree.depth[node] < world.depth]


def errors(world: EnumerableWorld, trees: Sequence[StepTree]) -> dict[str, float]:
    """Mean squared error and bias of values of all inner prefixes, and how many intervals hold the exact one."""
    gaps: list[float] = []
    inside = open_ = 0
    for tree in trees:
        value, low, high, n = (tree.column(name) for name in ("value", "low", "high", "n_rollouts"))
        for node, prefix in inner(world, tree):
            truth = world.value(tree.problem, prefix)
            gaps.append(float(value[node]) - truth)
            if 0 < truth < 1 and n[node] > 0:
                open_ += 1
                inside += bool(low[node] <= truth <= high[node])
    gap = np.array(gaps)
    return {"squared": float((gap**2).mean()), "bias": float(gap.mean()), "inside": inside, "open": open_}


def cost_of_plain(world: EnumerableWorld, trees: Sequence[StepTree], n: int) -> dict[str, float]:
    """Expected squared error of n rollouts of each distinct prefix, and what they cost."""
    every = [(tree.problem, prefix) for tree in trees for _, prefix in inner(world, tree)]
    values = np.array([world.value(*one) for one in every])
    return {
        "squared": float((values * (1 - values) / n).mean()), "rollouts": float(n * len(every)),
        "tokens": float(n * sum(world.depth - len(prefix) for _, prefix in every)),
    }  # fmt: skip


def oracle_saves(world: EnumerableWorld, trees: Sequence[StepTree], plain: Mapping[str, float]) -> dict[str, float]:
    """How many times less an oracle pays than plain Monte Carlo of the same error."""
    return {cost: plain[cost] / least(world, trees, plain["squared"], cost) for cost in ("rollouts", "tokens")}


def least(world: EnumerableWorld, trees: Sequence[StepTree], squared: float, cost: str) -> float:
    """Least cost of a mean squared error: (sum of sqrt(A_x c_x))^2 / (prefixes x squared error).

    A_x is the weight in the sum of squared errors of one rollout that leaves the solutions at prefix x, c_x its cost.
    """
    total, size = 0.0, 0
    for tree in trees:
        weight, rest = np.zeros(tree.n), np.ones(tree.n)
        value = np.array([world.value(tree.problem, tree.prefix(node)) for node in range(tree.n)])
        outside = value.copy()
        # Shorter prefixes come first: the error of a value is a part of the error of those that lead to it.
        for node in range(tree.n):
            chances = {step.text: p for step, p, _ in world.next_steps(tree.problem, tree.prefix(node))}
            inside = 0 < tree.depth[node] < world.depth
            weight[node] += inside
            size += inside
            for child in np.flatnonzero(tree.parent == node).tolist():
                p = chances[tree.step(child).text]
                weight[child] = p**2 * weight[node]
                rest[node] -= p
                outside[node] -= p * value[child]
        for node in np.flatnonzero((tree.depth > 0) & (tree.depth < world.depth) & (rest > 1e-9)).tolist():
            u = float(np.clip(outside[node] / rest[node], 0, 1))
            price = 1.0 if cost == "rollouts" else float(world.depth - tree.depth[node])
            total += float(np.sqrt(weight[node] * rest[node] ** 2 * u * (1 - u) * price))
    return total**2 / (size * squared)


def pooled_lines(found: Mapping[str, Any]) -> list[str]:
    """The table of a world."""
    ref = found["reference"]
    lines = [
        "", f"Of {SOLUTIONS} solutions a problem the reference has the error {ref['rmse']:.3f}, for "
        f"{ref['rollouts']:,.0f} rollouts and {ref['tokens']:,.0f} steps a problem.", "",
        f"| {SOLUTIONS} solutions, pooled-rollouts | value: rollouts | value: tokens | error | bias | coverage |",
        "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name, row in found["estimators"].items():
        lines.append(
            f"| {name} | {times(row['rollouts'])} | {times(row['tokens'])} | {row['rmse']:.3f} | {row['bias']:+.3f} "
            f"| {100 * row['coverage']:.0f} % |"
        )
    oracle = found["oracle"]
    return [*lines, f"| *an oracle* | {times(oracle['rollouts'])} | {times(oracle['tokens'])} | - | - | - |"]
