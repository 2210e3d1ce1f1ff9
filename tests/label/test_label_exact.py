"""Estimators over many problems of the enumerable world, whose values and first errors are exact."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stepreward.core.catalog import estimate
from stepreward.core.keys import Key
from stepreward.core.runtime.answer_log import AnswerLog
from stepreward.core.runtime.driver import Driver
from stepreward.core.runtime.spending import Budget
from stepreward.core.types import Trajectory
from stepreward.label.estimators import first_error_bisection, first_error_walk, monte_carlo
from stepreward.label.samples import graded_samples
from stepreward.policies.tabular import TabularPolicy
from stepreward.tasks.enumerable import EnumerableWorld

WORLD = EnumerableWorld(6, 3, seed=11)
POLICY = TabularPolicy(WORLD.next_steps, WORLD.name)
KEY = Key.seed(0)


def run(flows: list[object], **settings: object) -> list[Trajectory]:
    driver = Driver(policy=POLICY, grader=WORLD, **settings)  # type: ignore[arg-type]
    return [f.result for f in sorted(driver.run(flows), key=lambda f: f.index)]  # type: ignore[arg-type, type-var]


def solutions(n: int, *, right: bool | None = None) -> list[Trajectory]:
    """One sampled solution of each of n problems; the first of eight with the wanted outcome."""
    flows = [graded_samples(problem, KEY, n=8) for problem in WORLD.problems(n)]
    groups = [f.result for f in sorted(Driver(policy=POLICY, grader=WORLD).run(flows), key=lambda f: f.index)]
    return [next(t for t in group if right is None or t.outcome == right) for group in groups if any(
        right is None or t.outcome == right for t in group)]  # fmt: skip


def truth(t: Trajectory) -> np.ndarray:
    return np.array([WORLD.value(t.problem, t.prefix(i + 1)) for i in range(len(t))])


def error_of(labels: Trajectory) -> int:
    return next(iter(np.flatnonzero(labels.column("value") == 0).tolist()), -1)


def test_monte_carlo_is_unbiased_over_many_prefixes_and_its_intervals_hold() -> None:
    n, ts = 16, solutions(100)
    made = run([monte_carlo(t, KEY, n=n) for t in ts])
    value = np.concatenate([one.column("value")[:-1] for one in made])
    exact = np.concatenate([truth(t)[:-1] for t in ts])
    # The mean over independent prefixes has variance sum p (1 - p) / n / count^2: z < 4 fails for 1 seed in 16000.
    z = (value - exact).sum() / np.sqrt((exact * (1 - exact) / n).sum())
    assert abs(z) < 4
    np.testing.assert_array_equal(value[exact == 0], 0)
    open_ = (exact > 0) & (exact < 1)
    low, high = (np.concatenate([one.column(end)[:-1] for one in made])[open_] for end in ("low", "high"))
    assert open_.sum() > 300
    assert 0.92 <= ((low <= exact[open_]) & (exact[open_] <= high)).mean() <= 0.985


def test_searches_with_many_rollouts_find_the_first_error_of_every_wrong_solution() -> None:
    ts = solutions(40, right=False)
    assert len(ts) > 25
    exact = [WORLD.first_error(t.problem, t.steps) for t in ts]
    assert len(set(exact)) > 3
    for method, most in [(first_error_bisection, 3), (first_error_walk, 5)]:  # ceil(log2 6) = 3; 5 inner steps
        made = run([method(t, KEY, n=64) for t in ts])
        assert [error_of(one) for one in made] == exact
        probes = [int((one.column("n_rollouts") > 0).sum()) for one in made]
        assert max(probes) <= most
        if method is first_error_walk:
            assert probes == [min(at + 1, 5) for at in exact]


def test_right_solutions_have_no_error_and_cost_no_rollout() -> None:
    ts = solutions(20, right=True)
    driver = Driver(policy=POLICY, grader=WORLD)
    for method in (first_error_bisection, first_error_walk):
        made = [f.result for f in driver.run([method(t, KEY) for t in ts])]
        assert all(error_of(one) == -1 and (one.column("value") == 1).all() for one in made)
    assert driver.bill.proposals == 0


@pytest.mark.parametrize("name", ["scan", "bisection"])
def test_a_second_estimator_reads_the_rollouts_of_the_first_from_the_log(name: str, tmp_path: Path) -> None:
    ts = solutions(10, right=False)
    with AnswerLog(tmp_path / "answers.sqlite") as log:
        first = Driver(policy=POLICY, grader=WORLD, log=log)
        whole = [f.result for f in sorted(first.run([monte_carlo(t, KEY) for t in ts]), key=lambda f: f.index)]
        assert first.bill.proposals == 8 * 5 * len(ts)
        assert first.bill.cached == 0
        second = Driver(policy=POLICY, grader=WORLD, log=log)
        flows = [estimate[name].take({"trajectory": t, "key": KEY}) for t in ts]
        made = [f.result for f in sorted(second.run(flows), key=lambda f: f.index)]
        assert second.bill.proposals == 0
        assert second.bill.cached == sum((one.column("n_rollouts") > 0).sum() for one in made) > 0
        for one, other in zip(made, whole, strict=True):
            seen = one.column("n_rollouts") > 0
            np.testing.assert_array_equal(one.column("value")[seen], other.column("value")[seen])
        changed = Driver(policy=POLICY, grader=WORLD, log=log)
        list(changed.run([estimate[name].take({"trajectory": t, "key": Key.seed(1)}) for t in ts]))
        assert changed.bill.cached == 0


def test_a_budget_in_the_middle_leaves_the_first_prefixes() -> None:
    (t,) = solutions(1)
    (made,) = run([monte_carlo(t, KEY, n=8)], budget=Budget(rollouts=20))
    assert made.column("n_rollouts").tolist() == [8, 8, 0, 0, 0, 0]
    assert np.isnan(made.column("value")).tolist() == [False, False, True, True, True, False]
