"""The stages of a run by themselves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from stepreward.core.errors import EpisodeError, InputError, SteprewardError
from stepreward.core.keys import Key
from stepreward.core.runtime.driver import Driver
from stepreward.core.runtime.flows import Grader
from stepreward.core.types import Problem, Step
from stepreward.pipeline import stages
from stepreward.pipeline.flow_runs import FlowRuns, failures_of
from stepreward.pipeline.folder import RunFolder
from stepreward.pipeline.run_settings import RunSettings
from stepreward.policies.tabular import TabularPolicy
from stepreward.tasks.enumerable import EnumerableWorld

WORLD = EnumerableWorld(4, 3, seed=1)
KEY = Key.seed(0)


class Faulty:
    """The world's grader, which breaks at some problems."""

    name = "faulty"

    def __init__(self, *ids: str) -> None:
        self.ids = set(ids)

    def grade(self, problem: Problem, steps: Sequence[Step]) -> float:
        if problem.id in self.ids:
            raise EpisodeError("the page crashed")
        return WORLD.grade(problem, steps)

    def answer(self, problem: Problem, steps: Sequence[Step]) -> str | None:
        return WORLD.answer(problem, steps)


def runs(folder: Path, stage: str = "sample", grader: Grader = WORLD) -> FlowRuns:
    driver = Driver(policy=TabularPolicy(WORLD.next_steps, WORLD.name), grader=grader)
    return FlowRuns(stage, RunFolder(folder, {}), driver, lambda *_: None)


def test_what_fails_is_told_and_the_others_are_those_of_a_run_without_it(tmp_path: Path) -> None:
    problems = WORLD.problems(5)
    whole = stages.sample(problems, 4, KEY, runs(tmp_path / "whole"))
    faulty, folder = Faulty(problems[1].id, problems[3].id), RunFolder(tmp_path / "some", {})
    samples = stages.sample(problems, 4, KEY, runs(tmp_path / "some", grader=faulty))
    assert samples == [whole[0], None, whole[2], None, whole[4]]
    told = {"sample": {"failed": 2, "of": 5, "first": f"{problems[1].id}: the page crashed"}}
    assert failures_of(folder) == told
    # What failed stays failed, also where it would succeed by now: finished stages counted it.
    assert stages.sample(problems, 4, KEY, runs(tmp_path / "some")) == samples
    assert failures_of(folder) == told
    assert failures_of(RunFolder(tmp_path / "whole", {})) == {}
    labels = stages.label(samples, RunSettings(transform="soft"), KEY, runs(tmp_path / "some", "label"))
    assert {one.problem.id for one in labels} == {problems[at].id for at in (0, 2, 4)}


@pytest.mark.parametrize(("count", "lost"), [(5, 3), (1, 1), (60, 60)])
def test_a_stage_of_which_more_than_half_fails_ends_the_run(tmp_path: Path, count: int, lost: int) -> None:
    problems = WORLD.problems(count)
    faulty = Faulty(*(one.id for one in problems[:lost]))
    said = rf"sample: \d+ of {count} failed.*{problems[0].id}: the page crashed. Mend"
    with pytest.raises(SteprewardError, match=said) as end:
        stages.sample(problems, 2, KEY, runs(tmp_path, grader=faulty))
    assert isinstance(end.value.__cause__, EpisodeError)
    # Nothing is remembered: the next run tries again.
    assert failures_of(RunFolder(tmp_path, {})) == {}
    assert None not in stages.sample(problems, 2, KEY, runs(tmp_path))


def test_a_tree_labeller_grows_a_tree_of_each_problem(tmp_path: Path) -> None:
    problems = WORLD.problems(3)
    samples = stages.sample(problems, 4, KEY, runs(tmp_path))
    made = stages.label(samples, RunSettings(estimator="masprm", transform="soft"), KEY, runs(tmp_path, "label"))
    assert [*dict.fromkeys(one.problem.id for one in made)] == [one.id for one in problems]
    assert all(one.provenance[0].estimator == "masprm" for one in made)
    along = stages.label(samples, RunSettings(transform="soft"), KEY, runs(tmp_path, "label"))
    assert {one.steps for one in along} <= {one.steps for group in samples for one in group or ()}


def test_a_run_has_no_reward_model_for_its_labels() -> None:
    with pytest.raises(InputError, match="label --model"):
        stages.require_methods(RunSettings(estimator="alphamath"))
