"""The stages of a run by themselves."""

from __future__ import annotations

import pytest

from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.runtime.driver import Driver
from stepreward.pipeline import stages
from stepreward.pipeline.run_settings import RunSettings
from stepreward.policies.tabular import TabularPolicy
from stepreward.tasks.enumerable import EnumerableWorld

WORLD = EnumerableWorld(4, 3, seed=1)
KEY = Key.seed(0)


def test_a_tree_labeller_grows_a_tree_of_each_problem() -> None:
    driver = Driver(policy=TabularPolicy(WORLD.next_steps, WORLD.name), grader=WORLD)
    problems = WORLD.problems(3)
    samples, _ = stages.sample(problems, 4, KEY, driver, lambda *_: None)
    made = stages.label(samples, RunSettings(estimator="masprm", transform="soft"), KEY, driver, lambda *_: None)
    assert [*dict.fromkeys(one.problem.id for one in made)] == [one.id for one in problems]
    assert all(one.provenance[0].estimator == "masprm" for one in made)
    along = stages.label(samples, RunSettings(transform="soft"), KEY, driver, lambda *_: None)
    assert {one.steps for one in along} <= {one.steps for group in samples for one in group}


def test_a_run_has_no_reward_model_for_its_labels() -> None:
    with pytest.raises(InputError, match="label --model"):
        stages.require_methods(RunSettings(estimator="alphamath"))
