"""What every method of the families estimate and filter owes, by the registry, so that a new one is held to it too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from label_world import saying

from stepreward.core.catalog import estimate, keep, transform
from stepreward.core.keys import Key
from stepreward.core.method import Method
from stepreward.core.runtime.driver import Driver
from stepreward.core.runtime.flows import Score, Scored
from stepreward.core.tree import StepTree
from stepreward.core.types import Problem, Provenance, Step, Trajectory
from stepreward.label.omega import tree_labels
from stepreward.label.relabelling import transform_of, transformed
from stepreward.label.samples import graded_samples
from stepreward.tasks.enumerable import EnumerableWorld

WORLD = EnumerableWorld(4, 3, seed=5)
(PROBLEM,) = WORLD.problems(1)
KEY = Key.seed(3)
# Changed programs are no solutions of this world, and nothing in it can be checked: test_program_mutations.py,
# test_step_checkers.py, test_planted_errors.py, test_planted_lines.py and test_repaired_steps.py.
ELSEWHERE = ("mutations", "checker", "changed-numbers", "planted-errors", "changed-lines", "int")
ESTIMATORS = pytest.mark.parametrize(
    "method",
    [one for one in estimate if one.name not in ELSEWHERE],
    ids=lambda m: str(m.name),
)
# These compare the solutions of all problems.
TOGETHER = ("balance", "balance-score")
FILTERS = pytest.mark.parametrize("method", list(keep), ids=lambda m: str(m.name))


class Exact:
    """The exact value of each prefix, for estimators that ask for a reward model."""

    name, batch_size = "exact", 64

    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        values = [np.array([WORLD.value(q.problem, q.steps[: i + 1]) for i in range(len(q.steps))]) for q in questions]
        return [Scored(one, columns={"vote1": (one > 0).astype(float)}) for one in values]


def result(flow: Any) -> Any:
    driver = Driver(policy=saying(WORLD), scorer=Exact(), grader=WORLD)
    return next(driver.run([flow])).result


def solution() -> Trajectory:
    """A sampled solution that is wrong, so that there is a first error to find."""
    return next(one for one in result(graded_samples(PROBLEM, KEY, n=16)) if one.outcome == 0)


def estimated(method: Method[..., Any], trajectory: Trajectory, key: Key = KEY) -> list[Trajectory]:
    """The measured trajectories, also where the method measures a tree."""
    made = result(method.take({"problem": PROBLEM, "trajectory": trajectory, "key": key}))
    return tree_labels(made, Provenance(method.name)) if isinstance(made, StepTree) else [made]


@ESTIMATORS
def test_an_estimate_has_shares_of_rollouts_within_their_intervals(method: Method[..., Any]) -> None:
    for one in estimated(method, solution()):
        value, n, correct, low, high = (one.column(c) for c in ("value", "n_rollouts", "n_correct", "low", "high"))
        known = ~np.isnan(value)
        assert known.any()
        assert ((value[known] >= 0) & (value[known] <= 1)).all()
        assert (correct[n > 0] <= n[n > 0]).all()
        bounded = known & ~np.isnan(low)
        assert ((low <= value) & (value <= high))[bounded].all()
        assert one.problem == PROBLEM


@ESTIMATORS
def test_an_estimate_follows_from_its_key_and_leaves_its_trajectory_alone(method: Method[..., Any]) -> None:
    given = solution()
    first, again = estimated(method, given), estimated(method, given)
    assert [one.steps for one in first] == [one.steps for one in again]
    for one, other in zip(first, again, strict=True):
        for name, values in one.columns.items():
            np.testing.assert_array_equal(values, other.column(name), err_msg=name)
    assert given.columns == {}
    if "trajectory" in method.data:
        # A tree has others beside it.
        assert (first[0].steps, first[0].outcome) == (given.steps, given.outcome)


def test_who_rolls_out_asks_for_grades_too() -> None:
    """Solutions without an outcome are graded first, for methods that ask for a grader alone."""
    assert [one.name for one in estimate if "policy" in one.asks and "grader" not in one.asks] == []


def rows() -> list[Trajectory]:
    """Three problems: one that is always solved, one never, one sometimes."""
    made = []
    for name, outcomes in {"always": (1, 1), "never": (0, 0), "sometimes": (1, 0, 1)}.items():
        for at, outcome in enumerate(outcomes):
            count = np.array([4.0, 4.0])
            columns = {"value": count * 0 + outcome, "label": count * 0 + outcome, "n_rollouts": count,
                       "n_correct": count * outcome}  # fmt: skip
            steps = (Step(f"{name} {at}\n"), Step("end\n"))
            made.append(Trajectory(Problem(name, "?"), steps, float(outcome), columns=columns))
    return made


def kept(method: Method[..., Any], some: list[Trajectory]) -> list[bool]:
    others = [one.with_columns({"label": 1 - one.labels}) if i % 2 else one for i, one in enumerate(some)]
    mask = method.take({"trajectories": some, "others": others})
    assert (mask.shape, mask.dtype) == ((len(some),), bool)
    return [bool(one) for one in mask]


@FILTERS
def test_a_filter_says_of_each_row_whether_to_keep_it_in_any_order(method: Method[..., Any]) -> None:
    every = rows()
    some = [every[at] for at in (0, 2, 4, 6)]  # `others` depends on the place: even ones are as they are.
    order = [6, 2, 0, 4]
    before = [one.labels.copy() for one in every]
    here = kept(method, every)
    assert method.name == "uncertain" or sum(here) > 0
    alone = method.take({"trajectories": some, "others": some})
    turned = [every[at] for at in order]
    there = method.take({"trajectories": turned, "others": turned})
    assert dict(zip(order, there.tolist(), strict=True)) == dict(zip((0, 2, 4, 6), alone.tolist(), strict=True))
    for one, labels in zip(every, before, strict=True):
        np.testing.assert_array_equal(one.labels, labels)


@FILTERS
def test_other_problems_do_not_matter_to_a_filter(method: Method[..., Any]) -> None:
    every = rows()
    if method.name in TOGETHER:
        return
    assert kept(method, every)[:2] == kept(method, every[:2])


@pytest.mark.parametrize("method", [one for one in estimate if not one.plugin], ids=lambda m: str(m.name))
def test_it_declares_the_transform_that_makes_labels_where_none_is_named(method: Method[..., Any]) -> None:
    assert transform_of(method.name) is transform[method.transform]
    assert transform_of(method.name, "majority").name == "majority"


@ESTIMATORS
def test_labels_where_no_transform_is_named_tell_more_and_less_likely_steps_apart(method: Method[..., Any]) -> None:
    """One threshold of 0 over values of a search, or of a reward model, calls nearly every step right."""
    rows = [*transformed(estimated(method, solution()), transform_of(method.name), {})]
    measured = np.concatenate([one.column("value") for one in rows])
    labels = np.concatenate([one.labels for one in rows])
    known = ~np.isnan(measured)
    assert not np.isnan(labels[known]).all()
    assert {fact for one in rows for fact in one.facts["transforms"]} == {method.transform}
    if "scorer" in method.asks and method.name != "judge":
        np.testing.assert_array_equal(labels[known], measured[known])
