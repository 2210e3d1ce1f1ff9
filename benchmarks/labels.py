"""What a rollout buys: each estimator's labels against the exact values of a world with fatal errors.

    python -m benchmarks.labels [--quick]

Solutions have 8 to 16 steps; `x` is fatal, after a slip `s` errors are twice as likely, `a`, `b` and `c` are right. All
estimators but OmegaPRM, which draws its own, label the same wrong solutions with the same random numbers. Right ones
are left out: they would cost plain Monte Carlo as much and the first-error searches nothing. OmegaPRM's rollouts
include those that found its wrong solutions; its accuracy is over the errors that it located, of problems
that it solved sometimes.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepreward.core.catalog import estimate
from stepreward.core.keys import Key, uniforms
from stepreward.core.measure.statistics import Estimate, bootstrap, proportion
from stepreward.core.runtime.driver import Driver
from stepreward.core.runtime.flows import Continuation, Propose
from stepreward.core.tree import StepTree
from stepreward.core.types import Problem, Provenance, Step, Trajectory
from stepreward.label.omega import tree_labels
from stepreward.label.samples import graded_samples
from stepreward.label.transforms import hard

PROBLEMS = 150
SAMPLES = 4
ROLLOUTS: tuple[int, ...] = (2, 4, 8, 16, 32)
SEARCHES = 8
KEY = Key.seed(0)
KINDS = "abcsx"
STEPS = [Step(f"{kind}\n") for kind in KINDS]
KIND = {step.text: i for i, step in enumerate(STEPS)}
SLIP, FATAL = KINDS.index("s"), KINDS.index("x")
SLIP_CHANCE = 0.08


def make_problems(n: int) -> list[Problem]:
    """Problems that differ in length and in how often a step goes wrong; about half of all solutions are right."""
    rng = KEY.fold("problems").rng()
    lengths, errors = rng.integers(8, 17, n), rng.uniform(0.02, 0.08, n)
    return [
        Problem(f"world-{i}", "Reach the end.", meta={"length": int(s), "error": float(e)})
        for i, (s, e) in enumerate(zip(lengths, errors, strict=True))
    ]


def thresholds(problem: Problem) -> NDArray[np.float64]:
    """(2, 5) cumulative chances of the kinds of step, before and after a slip."""
    rows = []
    for error in (problem.meta["error"], 2 * problem.meta["error"]):
        right = (1 - error - SLIP_CHANCE) / 3
        rows.append(np.cumsum([right, right, right, SLIP_CHANCE, error]))
    return np.array(rows)


class World:
    """Policy and grader of the world; draws all rollouts of a question at once."""

    name = "world with fatal errors"
    batch_size = 4096
    concurrency = 1

    def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
        return [self._continue(question) for question in questions]

    def _continue(self, question: Propose) -> list[Continuation]:
        left = question.problem.meta["length"] - len(question.prefix)
        table = thresholds(question.problem)
        bits = np.array([key.bits for key in question.sample_keys()], np.uint64)
        u = uniforms(bits[:, None], np.arange(left)[None])
        slipped = np.full(question.n, any(KIND[step.text] == SLIP for step in question.prefix))
        kinds = np.empty((question.n, left), np.int64)
        for t in range(left):
            kinds[:, t] = np.minimum((u[:, t, None] >= table[slipped.astype(int)]).sum(-1), FATAL)
            slipped |= kinds[:, t] == SLIP
        return [Continuation(tuple(STEPS[k] for k in row), True, left) for row in kinds]

    def grade(self, problem: Problem, steps: Sequence[Step]) -> float:
        return float(all(KIND[step.text] != FATAL for step in steps))

    def answer(self, problem: Problem, steps: Sequence[Step]) -> str | None:
        return None


def true_values(trajectory: Trajectory) -> NDArray[np.float64]:
    """(S,) exact value of every prefix, by recursion over what the policy may still do."""
    meta = trajectory.problem.meta

    @cache
    def value(left: int, slipped: bool) -> float:
        if left == 0:
            return 1.0
        error = meta["error"] * (1 + slipped)
        right = (1 - error - SLIP_CHANCE) * value(left - 1, slipped)
        return float(right + SLIP_CHANCE * value(left - 1, True))

    kinds = np.array([KIND[step.text] for step in trajectory.steps])
    lost, slipped = (kinds == FATAL).cumsum() > 0, (kinds == SLIP).cumsum() > 0
    left = meta["length"] - 1 - np.arange(len(kinds))
    return np.where(lost, 0.0, [value(int(n), bool(s)) for n, s in zip(left, slipped, strict=True)])


def first_zero(values: NDArray[np.float64]) -> int:
    """Index of the first 0, -1 if there is none."""
    return next(iter(np.flatnonzero(values == 0).tolist()), -1)


def per_problem(rows: Sequence[tuple[str, float]]) -> Estimate:
    """Mean over rows with an interval over problems, whose rows belong together."""
    groups: dict[str, list[float]] = {}
    for problem, number in rows:
        groups.setdefault(problem, []).append(number)
    units = np.array([(sum(group), len(group)) for group in groups.values()])
    return bootstrap(units, KEY.fold("bootstrap"), statistic=lambda s: s[..., 0].sum(1) / s[..., 1].sum(1))


def run(flows: Sequence[Any]) -> tuple[list[Any], int]:
    """Results in order, and the rollouts they took: equal questions of different flows are paid once each."""
    driver = Driver(policy=World(), grader=World())
    done = sorted(driver.run(flows), key=lambda finished: finished.index)
    return [finished.result for finished in done], driver.bill.proposals


def measure(labels: Sequence[Trajectory], spent: float) -> dict[str, Any]:
    """Errors of the labels of wrong solutions, and the rollouts that a solution took."""
    right, value, step = [], [], []
    for one in labels:
        truth, name = true_values(one), one.problem.id
        right.append((name, float(first_zero(one.column("value")) == first_zero(truth))))
        seen = one.column("n_rollouts") > 0
        value += [(name, float(v)) for v in np.abs(one.column("value") - truth)[seen]]
        made = hard(one, after_error="zero").labels
        step += [(name, float(v)) for v in (made != (truth > 0))[~np.isnan(made)]]
    return {
        "solutions": len(labels),
        "rollouts_per_solution": spent / len(labels),
        "measured_per_solution": len(value) / len(labels),
        "first_error_accuracy": per_problem(right).to_json(),
        "value_error": per_problem(value).to_json(),
        "step_error": per_problem(step).to_json(),
    }


def coverage(labels: Sequence[Trajectory]) -> dict[str, Any]:
    """How often the interval of a measured prefix holds its exact value; lost prefixes are left out: always held."""
    inside = []
    for one in labels:
        truth = true_values(one)
        seen = (one.column("n_rollouts") > 0) & (truth > 0)
        inside += ((one.column("low") <= truth) & (truth <= one.column("high")))[seen].tolist()
    return proportion(sum(inside), len(inside)).to_json()


def along(name: str, wrong: Sequence[Trajectory], n: int) -> tuple[list[Trajectory], dict[str, Any]]:
    """One estimator with n rollouts a prefix over the wrong solutions."""
    flows = [estimate[name].take({"trajectory": t, "problem": t.problem, "key": KEY}, n=n) for t in wrong]
    labels, _ = run(flows)
    return labels, measure(labels, float(sum(one.column("n_rollouts").sum() for one in labels)))


def omega(problems: Sequence[Problem], n: int) -> dict[str, Any]:
    """OmegaPRM with n rollouts a state; each located error counts once, however many rollouts pass through it."""
    flows = [estimate["omegaprm"].take({"problem": p, "key": KEY}, n=n, searches=SEARCHES) for p in problems]
    trees: list[StepTree]
    trees, spent = run(flows)
    errors: dict[tuple[str, str], Trajectory] = {}
    for tree in trees:
        for one in tree_labels(tree, Provenance("omegaprm"), located=True):
            if one.outcome == 0:
                lost = one.prefix(first_zero(one.column("value")) + 1)
                errors.setdefault((tree.problem.id, "".join(step.text for step in lost)), one)
    return measure([*errors.values()], float(spent))


def saving(table: dict[str, dict[int, dict[str, Any]]], reference: int) -> dict[str, Any]:
    """For each estimator, its cheapest setting that is at least as accurate as plain Monte Carlo with `reference`."""
    plain = table["math-shepherd"][reference]
    accuracy: Callable[[dict[str, Any]], float] = lambda row: row["first_error_accuracy"]["value"]  # noqa: E731
    made: dict[str, Any] = {"accuracy": accuracy(plain), "rollouts_per_solution": plain["rollouts_per_solution"]}
    for name, rows in table.items():
        enough = [(row["rollouts_per_solution"], n) for n, row in rows.items() if accuracy(row) >= accuracy(plain)]
        if name != "math-shepherd" and enough:
            cost, n = min(enough)
            made[name] = {"n": n, "accuracy": accuracy(rows[n]), "times_fewer": plain["rollouts_per_solution"] / cost}
    return made


def main() -> dict[str, Any]:
    """Measures every estimator at several numbers of rollouts, and the coverage of the intervals."""
    start = time.perf_counter()
    problems = make_problems(PROBLEMS)
    samples, _ = run([graded_samples(problem, KEY, n=SAMPLES) for problem in problems])
    solutions = [t for group in samples for t in group]
    wrong = [t for t in solutions if t.outcome == 0]
    table: dict[str, dict[int, dict[str, Any]]] = {}
    covered: dict[int, dict[str, Any]] = {}
    same: dict[int, dict[str, Any]] = {}
    for n in ROLLOUTS:
        made: dict[str, list[Trajectory]] = {}
        for name in ("math-shepherd", "scan", "bisection"):
            made[name], row = along(name, wrong, n)
            table.setdefault(name, {})[n] = row
        table.setdefault("omegaprm", {})[n] = omega(problems, n)
        covered[n] = coverage(made["math-shepherd"])
        same[n] = gain(made["bisection"], made["math-shepherd"])
    return {
        "problems": PROBLEMS,
        "solutions": len(solutions),
        "wrong_solutions": len(wrong),
        "estimators": table,
        "interval_coverage": covered,
        "bisection_minus_monte_carlo_accuracy": same,
        "to_reach_monte_carlo": {n: saving(table, n) for n in ROLLOUTS},
        "seconds": time.perf_counter() - start,
    }


def gain(labels: Sequence[Trajectory], others: Sequence[Trajectory]) -> dict[str, Any]:
    """Difference of first-error accuracy on the same solutions, with its interval over problems."""
    rows = []
    for one, other in zip(labels, others, strict=True):
        at = first_zero(true_values(one))
        difference = float(first_zero(one.column("value")) == at) - float(first_zero(other.column("value")) == at)
        rows.append((one.problem.id, difference))
    return per_problem(rows).to_json()


if __name__ == "__main__":
    if "--quick" in sys.argv:
        PROBLEMS, ROLLOUTS = 20, (2, 4)
    print(json.dumps(main(), indent=2))
