"""Steps of the policy beside those of a trajectory."""

from __future__ import annotations

import numpy as np
import pytest
from label_world import PROBLEM, World, letters, saying, steps

from stepreward.core.catalog import estimate
from stepreward.core.keys import Key
from stepreward.core.runtime.driver import Driver, answer_all
from stepreward.core.runtime.spending import Budget
from stepreward.core.types import Provenance, Trajectory
from stepreward.label.better_and_worse import pairs_of
from stepreward.label.omega import tree_labels
from stepreward.label.samples import graded_samples
from stepreward.policies.scripted import ScriptedPolicy
from stepreward.tasks.enumerable import EnumerableWorld

KEY = Key.seed(0)
WORLD = EnumerableWorld(5, 3, seed=6)


def test_each_step_has_a_sibling_by_the_policy() -> None:
    # The expert writes ab; the policy x before the first step, and b before the second.
    script = {"": ["x\nb\n"], "a\n": ["b\n", "a\n"], "x\n": ["b\n"]}
    policy = ScriptedPolicy(script)
    expert = Trajectory(PROBLEM, steps("ab"), 1.0)
    tree = answer_all(
        estimate["ipr"].take({"trajectory": expert, "key": KEY}, n=2), policy=policy, grader=World(length=2)
    )
    assert [(letters(q.prefix), q.n) for q in policy.questions] == [("", 1), ("a", 1), ("a", 2), ("x", 2)]
    value = {letters(tree.prefix(i)): float(tree.column("value")[i]) for i in range(1, tree.n)}
    assert value == {"a": 1.0, "x": 0.0, "ab": 1.0, "xb": 0.0}
    rows = tree_labels(tree, Provenance("ipr"))
    (pair,) = pairs_of(rows)
    assert [letters(one.steps) for one in pair.candidates] == ["a", "x"]


def test_values_are_those_of_math_shepherd_and_a_wrong_sibling_of_a_right_step_is_found() -> None:
    driver = Driver(policy=saying(WORLD), grader=WORLD)
    samples = driver.run(graded_samples(problem, KEY, n=12) for problem in WORLD.problems(20))
    experts = [one for some in samples for one in some.result if one.outcome == 1][:15]
    found = 0
    for expert in experts:
        flows = [estimate[name].take({"trajectory": expert, "key": KEY}, n=8) for name in ("ipr", "math-shepherd")]
        tree, plain = (one.result for one in sorted(driver.run(flows), key=lambda one: one.index))
        (own,) = [one for one in tree_labels(tree, Provenance("ipr")) if one.steps == expert.steps]
        np.testing.assert_array_equal(own.column("value"), plain.column("value"))
        for node in range(1, tree.n):
            exact = WORLD.value(expert.problem, tree.prefix(node))
            if tree.column("n_rollouts")[node] > 0 and exact == 0:
                assert tree.column("value")[node] == 0
                found += 1
    assert found > 3


@pytest.mark.parametrize("rollouts", [0, 4])
def test_a_spent_budget_keeps_the_trajectory(rollouts: int) -> None:
    driver = Driver(policy=saying(WORLD), grader=WORLD, budget=Budget(rollouts=rollouts))
    (problem,) = WORLD.problems(1)
    (sample, *_) = next(Driver(policy=saying(WORLD), grader=WORLD).run([graded_samples(problem, KEY, n=1)])).result
    (done,) = driver.run([estimate["ipr"].take({"trajectory": sample, "key": KEY})])
    assert [one.steps for one in done.result.trajectories()][:1] == [sample.steps]
