"""What each estimator costs for the error of plain Monte Carlo, in worlds whose values are known exactly.

    python -m benchmarks.estimators [--quick] [--write]

`--write` writes docs/results/estimators.md. Worlds are `tasks.enumerable`; their policy reports log-probabilities, the
reward model of those that ask for one gives exact values blurred by noise.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.known_worlds import KEY, interval, reached, run, saying, times
from benchmarks.pooled import POOLED_HEAD, cost_of_plain, oracle_saves, pooled, pooled_lines
from stepreward.core.measure.step_metrics import auroc
from stepreward.core.runtime.driver import Driver
from stepreward.core.tree import StepTree
from stepreward.core.types import Trajectory
from stepreward.label.samples import graded_samples
from stepreward.tasks.enumerable import EnumerableWorld

PAGE = Path(__file__).parents[1] / "docs" / "results" / "estimators.md"
SEEDS, PROBLEMS = 5, 10
WORLDS = {
    "a wrong step is fatal, 8 steps": (8, True),
    "a wrong step is fatal, 12 steps": (12, True),
    "two wrong steps are forgiven, 8 steps": (8, False),
}
REFERENCE = 64
"""Rollouts a step of plain Monte Carlo whose error the others must reach."""
GRID: tuple[int, ...] = (2, 4, 8, 12, 16, 24, 32, 48, 64)
ALONG: Mapping[str, Mapping[str, Any]] = {
    "math-shepherd": {},
    "shared-rollouts": {},
    "shared-rollouts, until_lost": {"until_lost": True},
    "shared-rollouts, until_lost, logprobs": {"until_lost": True, "weights": "logprobs"},
    "scan": {},
    "bisection": {},
    "bisection, at_once=2": {"at_once": 2},
    "unprm": {},
}
TREES: Mapping[str, Mapping[str, Any]] = {
    "omegaprm": {"n": 8, "searches": 16},
    "tree": {"simulations": 64},
    "masprm": {"stable": 0},
    "meds3": {"right_ends": 0, "most_nodes": 40},
    "prorag": {"simulations": 64, "greedy": False, "discount": 1.0, "max_steps": 40},
    "rest-rl": {"simulations": 24},
    "hrm": {"width": 2, "simulations": 40, "max_steps": 40},
    "qlass": {"simulations": 40, "max_steps": 40},
    "rest-mcts": {"simulations": 24},
    "alphamath": {"max_steps": 40},
}


HEAD = (
    """# What labels cost

Written by `python -m benchmarks.estimators --write`; no number in a table is typed by hand.

Worlds whose every value is known exactly: three choices at each step, {seeds} worlds of a kind, {problems} problems of
each, and of every second problem a wrong solution where there is one. The reference is plain Monte Carlo
(`math-shepherd`) with {reference} rollouts of every step.

- *value*: how many times fewer rollouts, and tokens, give values of the same error (root mean square against the exact
  ones). A dash: not with {reference} rollouts and not with twice as many, as where values before the error are
  inferred as 1.
- *first error*: how many times fewer find the first error as often. Geometric means over worlds with 95 % intervals.
- *coverage* of the 95 % intervals, *bias* and root mean square *error*, with n = 16, of the steps that it values:
  `scan` values none behind the first error.

Steps are of two to five tokens, of which one decides; the entropy by which `unprm` probes grows with their number.
Tokens are counted as if all steps were of one length.

"""
    + POOLED_HEAD
)
END = """*alive above lost*: chance that a step from which the problem can still be solved is worth more than one from
which it cannot (AUROC). Trees value other steps than those of given solutions, and those that their search prefers;
what `qlass`, `rest-mcts` and means over a search call a value is no chance of success, and their error says so.
"""


def solutions(world: EnumerableWorld) -> list[Trajectory]:
    """One solution of each problem, a wrong one of every second where 16 samples hold one."""
    driver = Driver(policy=saying(world), grader=world)
    done = driver.run(graded_samples(problem, KEY, n=16) for problem in world.problems(PROBLEMS))
    groups = [one.result for one in sorted(done, key=lambda finished: finished.index)]
    return [next((t for t in some if i % 2 and t.outcome == 0), some[0]) for i, some in enumerate(groups)]


def exact(world: EnumerableWorld, solution: Trajectory) -> NDArray[np.float64]:
    """(S,) exact value behind each step."""
    return np.array([world.value(solution.problem, solution.prefix(i + 1)) for i in range(len(solution))])


def along(world: EnumerableWorld, name: str, n: int, settings: Mapping[str, Any]) -> dict[str, float]:
    """Errors and costs of an estimator with n rollouts over solutions of a world."""
    items = solutions(world)
    found = run(world, name.partition(",")[0], items, {**settings, "n": n})
    truth = np.concatenate([exact(world, one)[:-1] for one in items])
    value, low, high = (np.concatenate([one.column(c)[:-1] for one in found.made]) for c in ("value", "low", "high"))
    open_ = ~np.isnan(low) & (truth > 0) & (truth < 1)
    first = [next(iter(np.flatnonzero(one.column("value") == 0)), -1) for one in found.made]
    least = [one.facts.get("root_value", 0.0) for one in found.made]
    if settings.get("relative") or name == "unprm":
        # A prefix is lost where it is worth less than the bare problem.
        first = [next(iter(np.flatnonzero((one.column("value") < at) | (one.column("value") == 0))), -1)
                 for one, at in zip(found.made, least, strict=True)]  # fmt: skip
    right = [at == world.first_error(one.problem, one.steps) for at, one in zip(first, items, strict=True)]
    return {
        "n": n, "rollouts": found.rollouts / len(items), "tokens": found.tokens / len(items),
        "squared": float(np.nanmean((value - truth) ** 2)), "bias": float(np.nanmean(value - truth)),
        "inside": float(((low <= truth) & (truth <= high))[open_].sum()), "open": float(open_.sum()),
        "first_error": float(np.mean(right)),
    }  # fmt: skip


def compare(depth: int, fatal: bool) -> dict[str, Any]:
    """Every estimator along solutions: savings at the reference's error, over worlds of several seeds."""
    worlds = [EnumerableWorld(depth, 3, seed=seed, fatal=fatal) for seed in range(SEEDS)]
    table = {name: [[along(world, name, n, own) for n in GRID] for world in worlds] for name, own in ALONG.items()}
    plain = [rows[GRID.index(REFERENCE)] for rows in table["math-shepherd"]]
    made: dict[str, Any] = {}
    for name, by_world in table.items():
        made[name] = {}
        for cost in ("rollouts", "tokens"):
            least = [reached(rows, ref["squared"], cost) for rows, ref in zip(by_world, plain, strict=True)]
            saved = [ref[cost] / own for ref, own in zip(plain, least, strict=True)]
            made[name][f"value_{cost}"] = None if np.isnan(saved).any() else interval(saved)
        # The first errors must be found as often as by the reference, over all worlds together.
        wanted = np.mean([ref["first_error"] for ref in plain])
        found = [[rows[i] for rows in by_world] for i in range(len(GRID))]
        enough = next((rows for rows in found if np.mean([row["first_error"] for row in rows]) >= wanted), None)
        for cost in ("rollouts", "tokens"):
            pairs = zip(plain, enough or (), strict=False)
            times = [ref[cost] / row[cost] for ref, row in pairs if row[cost] > 0]
            made[name][f"first_{cost}"] = interval(times) if times else None
        middle = GRID.index(16) if 16 in GRID else 0
        inside, open_ = (sum(rows[middle][k] for rows in by_world) for k in ("inside", "open"))
        made[name] |= {
            "rmse": float(np.sqrt(np.mean([rows[middle]["squared"] for rows in by_world]))),
            "bias": float(np.mean([rows[middle]["bias"] for rows in by_world])),
            "coverage": inside / open_ if open_ else float("nan"),
            "first_error": float(np.mean([rows[middle]["first_error"] for rows in by_world])),
            "rollouts": float(np.mean([rows[middle]["rollouts"] for rows in by_world])),
        }
    oracle: dict[str, list[float]] = {"rollouts": [], "tokens": []}
    for world in worlds:
        alone = [StepTree.from_trajectories([one], one.problem) for one in solutions(world)]
        for cost, saved_by in oracle_saves(world, alone, cost_of_plain(world, alone, REFERENCE)).items():
            oracle[cost].append(saved_by)
    return {"estimators": made, "oracle": {cost: interval(some) for cost, some in oracle.items()}, "reference": {
        "rmse": float(np.sqrt(np.mean([ref["squared"] for ref in plain]))),
        "first_error": float(np.mean([ref["first_error"] for ref in plain])),
        "rollouts": float(np.mean([ref["rollouts"] for ref in plain])),
        "tokens": float(np.mean([ref["tokens"] for ref in plain])),
    }}  # fmt: skip


def trees(depth: int, fatal: bool) -> dict[str, Any]:
    """Every tree labeller: its values at inner steps against the policy's exact ones, over worlds of several seeds."""
    made = {}
    for name, own in TREES.items():
        values, truths, tokens, inside, open_ = [], [], 0, 0, 0
        for seed in range(SEEDS):
            world = EnumerableWorld(depth, 3, seed=seed, fatal=fatal)
            found = run(world, name, world.problems(PROBLEMS), own)
            tokens += found.tokens
            for tree in found.made:
                value, truth, low, high = _inner(world, tree)
                values.append(value)
                truths.append(truth)
                known = ~np.isnan(low) & (truth > 0) & (truth < 1)
                inside += int(((low <= truth) & (truth <= high))[known].sum())
                open_ += int(known.sum())
        value, truth = np.concatenate(values), np.concatenate(truths)
        made[name] = {
            "tokens": tokens / SEEDS / PROBLEMS, "steps": len(value) / SEEDS / PROBLEMS,
            "rmse": float(np.sqrt(np.mean((value - truth) ** 2))), "bias": float(np.mean(value - truth)),
            "alive": float(auroc(value, truth > 0)), "coverage": inside / open_ if open_ else None,
        }  # fmt: skip
    return made


def _inner(world: EnumerableWorld, tree: StepTree) -> tuple[NDArray[np.float64], ...]:
    """Values, exact values and interval ends of a tree's measured steps that end no solution."""
    value = tree.column("value")
    nodes = np.flatnonzero(~np.isnan(value) & (tree.depth > 0) & (tree.depth < world.depth))
    truth = np.array([world.value(tree.problem, tree.prefix(node)) for node in nodes.tolist()])
    return value[nodes], truth, tree.column("low")[nodes], tree.column("high")[nodes]


def main() -> dict[str, Any]:
    """All tables."""
    start = time.perf_counter()
    found = {
        name: {"along": compare(*how), "pooled": pooled(*how, SEEDS, REFERENCE), "trees": trees(*how)}
        for name, how in WORLDS.items()
    }
    return {"worlds": found, "seeds": SEEDS, "problems": PROBLEMS, "seconds": time.perf_counter() - start}


def page(found: Mapping[str, Any]) -> str:
    """The page of all results."""
    lines = [HEAD.format(reference=REFERENCE, **found)]
    for name, by in found["worlds"].items():
        ref = by["along"]["reference"]
        lines += [
            "", f"## {name[0].upper()}{name[1:]}", "",
            f"The reference: error {ref['rmse']:.3f}, {100 * ref['first_error']:.1f} % of first errors, "
            f"{ref['rollouts']:,.0f} rollouts and {ref['tokens']:,.0f} steps generated a solution.", "",
            "| along solutions | value: rollouts | value: tokens | first error: rollouts | first error: tokens "
            "| error | bias | coverage |",
            "|---|---|---|---|---|---|---|---|",
        ]  # fmt: skip
        for one, row in by["along"]["estimators"].items():
            saved = " | ".join(
                times(row[f"{what}_{cost}"]) for what in ("value", "first") for cost in ("rollouts", "tokens")
            )
            rest = f"{row['rmse']:.3f} | {row['bias']:+.3f} | {100 * row['coverage']:.0f} %"
            lines.append(f"| {one} | {saved} | {rest} |")
        oracle = by["along"]["oracle"]
        lines.append(f"| *an oracle* | {times(oracle['rollouts'])} | {times(oracle['tokens'])} | - | - | - | - | - |")
        lines += pooled_lines(by["pooled"])
        lines += [
            "", "| trees | tokens a problem | steps valued | error | bias | alive above lost | coverage |",
            "|---|---|---|---|---|---|---|",
        ]  # fmt: skip
        for one, row in by["trees"].items():
            covered = "-" if row["coverage"] is None else f"{100 * row['coverage']:.0f} %"
            lines.append(
                f"| {one} | {row['tokens']:,.0f} | {row['steps']:.0f} | {row['rmse']:.3f} | {row['bias']:+.3f} "
                f"| {row['alive']:.3f} | {covered} |"
            )
    lines += ["", END]
    return "\n".join(lines)


if __name__ == "__main__":
    if "--quick" in sys.argv:
        SEEDS, PROBLEMS, GRID, REFERENCE = 2, 4, (4, 16), 16
    result = main()
    if "--write" in sys.argv:
        PAGE.write_text(page(result))
    print(json.dumps(result, indent=2))
