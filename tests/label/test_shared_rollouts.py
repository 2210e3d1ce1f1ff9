"""Rollouts that prefixes share: worked out by hand, and held against exact values of enumerable worlds."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from label_world import PROBLEM, World, letters, saying, steps

from stepreward.core.catalog import estimate
from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.runtime.driver import Driver, answer_all
from stepreward.core.runtime.flows import Continuation, Propose
from stepreward.core.tree import StepTree
from stepreward.core.types import Step, Trajectory
from stepreward.label.samples import graded_samples
from stepreward.label.shared_draws import outside
from stepreward.policies.scripted import ScriptedPolicy
from stepreward.tasks.enumerable import EnumerableWorld

KEY = Key.seed(4)
FATAL, FORGIVING = (EnumerableWorld(6, 3, seed=8, fatal=fatal) for fatal in (True, False))


def labelled(world: EnumerableWorld, n_problems: int, **settings: Any) -> tuple[list[Trajectory], np.ndarray, int]:
    """Labels of one solution of each problem, exact values of their steps, and rollouts paid."""
    driver = Driver(policy=saying(world), grader=world)
    samples = sorted(driver.run(graded_samples(p, KEY, n=1) for p in world.problems(n_problems)), key=lambda f: f.index)
    solutions = [one.result[0] for one in samples]
    driver = Driver(policy=saying(world), grader=world)
    flows = [
        estimate["shared-rollouts"].take({"trajectory": t, "key": KEY.fold("label")}, **settings) for t in solutions
    ]
    made = [one.result for one in sorted(driver.run(flows), key=lambda one: one.index)]
    exact = np.array([[world.value(t.problem, t.prefix(i + 1)) for i in range(len(t))] for t in solutions])
    return made, exact, driver.bill.proposals


@pytest.mark.parametrize("world", [FATAL, FORGIVING], ids=["fatal", "forgiving"])
def test_counted_rollouts_are_unbiased_and_cheaper_than_rollouts_of_each_prefix(world: EnumerableWorld) -> None:
    made, exact, paid = labelled(world, 300, n=16)
    value = np.array([one.column("value") for one in made])
    # Values of one solution depend on each other, solutions do not: the mean gap of each is one observation.
    gap = (value - exact)[:, :-1].mean(axis=1)
    assert abs(gap.mean()) < 4 * gap.std() / math.sqrt(len(gap))
    assert paid < 0.7 * 16 * 5 * 300
    plain = np.sqrt((exact * (1 - exact) / 16)[:, :-1].mean())
    assert np.sqrt(((value - exact)[:, :-1] ** 2).mean()) < plain


@pytest.mark.parametrize("weights", ["counts", "logprobs"])
@pytest.mark.parametrize("world", [FATAL, FORGIVING], ids=["fatal", "forgiving"])
def test_intervals_hold_the_exact_values(world: EnumerableWorld, weights: str) -> None:
    made, exact, _ = labelled(world, 120, n=16, weights=weights)
    low, high = (np.array([one.column(name) for one in made]) for name in ("low", "high"))
    open_ = (exact > 0) & (exact < 1) & ~np.isnan(low)
    assert open_.sum() > 200
    inside = ((low <= exact) & (exact <= high))[open_].mean()
    assert 0.905 <= inside <= 0.995


def test_known_probabilities_make_values_more_exact() -> None:
    errors = []
    for weights in ("counts", "logprobs"):
        made, exact, _ = labelled(FORGIVING, 120, n=16, weights=weights)
        value = np.array([one.column("value") for one in made])
        errors.append(float(np.sqrt(((value - exact)[:, :-1] ** 2).mean())))
    assert errors[1] < 0.95 * errors[0]


def test_the_rest_of_a_lost_solution_costs_nothing() -> None:
    whole, exact, paid = labelled(FATAL, 50, n=16)
    short, _, less = labelled(FATAL, 50, n=16, until_lost=True)
    assert less < paid
    for one, other, truth in zip(whole, short, exact, strict=True):
        np.testing.assert_array_equal(one.column("value")[truth > 0], other.column("value")[truth > 0])
        np.testing.assert_array_equal(other.column("value")[truth == 0], 0.0)


def values(script: dict[str, list[str]], **settings: Any) -> tuple[list[float], list[tuple[str, int]]]:
    policy = ScriptedPolicy({name: ["".join(f"{c}\n" for c in line) for line in some] for name, some in script.items()})
    solution = Trajectory(PROBLEM, steps("abx"), 0.0)
    flow = estimate["shared-rollouts"].take({"trajectory": solution, "key": KEY}, **settings)
    made = answer_all(flow, policy=policy, grader=World(length=3))
    return made.column("value").tolist(), [(letters(q.prefix), q.n) for q in policy.questions]


def test_a_solution_worked_out_by_hand() -> None:
    # Four rollouts of a: two go on with b (one right), two with c (both right). The prefix ab inherits the two and
    # draws two more, both wrong: 1/4. So a is worth 1/2 x 1/4 + 1/2 x 1.
    value, asked = values({"a\n": ["ba", "bx", "ca", "ca"], "a\nb\n": ["x", "x"]}, n=4)
    assert asked == [("a", 4), ("ab", 2)]
    assert value == [0.625, 0.25, 0.0]


def test_the_bare_problem_inherits_downwards_too() -> None:
    value, asked = values({"": ["abx", "abb", "xbb", "abx"], "a\n": ["xx"], "a\nb\n": ["a"]}, n=4, root=True)
    assert asked == [("", 4), ("a", 1), ("ab", 1)]
    # ab: x, b, x and a: 1/2. a: three of four go on with b, one is wrong: 3/8. The bare problem: 3/4 x 3/8.
    assert value == [0.375, 0.5, 0.0]


def test_likely_solutions_count_by_their_probability() -> None:
    chance = {"a": 0.9, "b": 0.08, "x": 0.02}

    class Said(ScriptedPolicy):
        def propose(self, questions: Any) -> Any:
            return [
                [replace(c, steps=tuple(replace(s, logprobs=(math.log(chance[s.text[0]]),)) for s in c.steps))
                 for c in some]
                for some in super().propose(questions)
            ]  # fmt: skip

    # The last step alone is open: a and b are right, x is wrong. Four draws: a twice, b, x.
    policy = Said({"a\n": ["a\n", "a\n", "b\n", "x\n"]})
    solution = Trajectory(
        PROBLEM, (replace(steps("a")[0], logprobs=(0.0,)), replace(steps("x")[0], logprobs=(0.0,))), 0.0
    )
    flow = estimate["shared-rollouts"].take({"trajectory": solution, "key": KEY}, n=4, weights="logprobs")
    made = answer_all(flow, policy=policy, grader=World(length=2))
    # Not 3/4: all three next steps were met, so that nothing is left to chance.
    assert made.column("value")[0] == pytest.approx(0.98)


def test_log_probabilities_that_are_missing_are_an_error_and_not_zero() -> None:
    with pytest.raises(InputError, match="weights=counts"):
        values({"a\n": ["ba", "bx", "ca", "ca"], "a\nb\n": ["x", "x"]}, n=4, weights="logprobs")


def shared(outcome: float, letters_of: str, policy: Any, **settings: Any) -> list[float]:
    solution = Trajectory(PROBLEM, steps(letters_of), outcome)
    flow = estimate["shared-rollouts"].take({"trajectory": solution, "key": KEY}, **settings)
    made = answer_all(flow, policy=policy, grader=World(length=len(letters_of)))
    return made.column("value").tolist()


def test_a_right_solution_is_never_lost() -> None:
    policy = ScriptedPolicy(lambda question, i: "x\n" * (4 - len(question.prefix)))
    assert shared(1.0, "abbb", policy, n=8, until_lost=True) == [0.0, 0.0, 0.0, 1.0]
    assert len(policy.questions) == 3


def test_rollouts_that_a_limit_cut_are_no_loss() -> None:
    def line(question: Propose, i: int) -> Continuation:
        whole = len(question.prefix) == 2
        return Continuation((Step("a\n" if whole else "c\n"),), whole, 1, truncated=not whole)

    value = shared(0.0, "abx", ScriptedPolicy(line), n=4, until_lost=True)
    np.testing.assert_array_equal(value, [np.nan, 1.0, 0.0])


@pytest.mark.parametrize("turned", [False, True])
def test_observations_belong_to_the_action_behind_them(turned: bool) -> None:
    def step(letter: str) -> Step:
        return Step(f"{letter}\n", kind="observation" if letter == "o" else "action",
                    logprobs=None if letter == "o" else (math.log(0.5),))  # fmt: skip

    lines = [Continuation(tuple(map(step, text)), True, 3) for text in ("obx", "oca")]
    script = {"a\n": lines[::-1] if turned else lines, "a\no\nb\n": [Continuation((step("x"),), True, 1)]}
    solution = Trajectory(PROBLEM, tuple(map(step, "aobx")), 0.0)
    flow = estimate["shared-rollouts"].take({"trajectory": solution, "key": KEY}, n=2, weights="logprobs")
    made = answer_all(flow, policy=ScriptedPolicy(script), grader=World(length=4))
    # b leads to nothing right, c to a right end, and each has the probability 1/2.
    assert made.column("value")[0] == pytest.approx(0.5)


def test_log_probabilities_are_those_of_the_policy_that_rolls_out() -> None:
    def line(letter: str, p: float) -> Continuation:
        made = tuple(Step(f"{one}\n", logprobs=(math.log(p),)) for one in letter)
        return Continuation(made, True, len(made))

    script = {"a\n": [line("bx", 0.5), line("ca", 0.5)], "a\nb\n": [line("x", 0.5)] * 2}
    for other in (0.5, 0.01):
        wrote = tuple(Step(f"{one}\n", logprobs=(math.log(other),)) for one in "abx")
        solution = Trajectory(PROBLEM, wrote, 0.0)
        flow = estimate["shared-rollouts"].take({"trajectory": solution, "key": KEY}, n=2, weights="logprobs")
        made = answer_all(flow, policy=ScriptedPolicy(script), grader=World(length=3))
        assert made.column("value")[0] == pytest.approx(0.5)


def test_as_exact_as_how_many_rollouts_by_hand() -> None:
    policy = ScriptedPolicy({"a\n": ["b\na\n", "b\nx\n", "c\na\n", "c\nx\n"], "a\nb\n": ["x\n", "a\n"]})
    solution = Trajectory(PROBLEM, steps("abx"), 0.0)
    flow = estimate["shared-rollouts"].take({"trajectory": solution, "key": KEY}, n=4)
    made = answer_all(flow, policy=policy, grader=World(length=3))
    # ab: 2 of 4, variance 1/16. a: 1/2 of that and 1/2 of c's 1 of 2, whose variance is 1/8; both are worth 1/2.
    variance = (1 / 16 + 1 / 8) / 4
    assert made.column("n_rollouts")[:2] == pytest.approx([0.25 / variance, 4])


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_the_value_outside_is_unbiased_over_all_draws_that_there_are(n: int) -> None:
    chance, worth = {"a": 0.6, "b": 0.3, "c": 0.1}, {"a": 0.9, "b": 0.25, "c": 0.0}
    each = [(Step(f"{c}\n", logprobs=(math.log(0.5 * p),)), right, p * (worth[c] if right else 1 - worth[c]))
            for c, p in chance.items() for right in (0, 1)]  # fmt: skip
    end, mean, weight = Step("z\n", logprobs=(0.0,)), 0.0, 0.0
    for line in product(each, repeat=n):
        p = math.prod(p for *_, p in line)
        weight += p
        # Their probabilities are halves of those among the steps that leave: 1/2 goes on as the solution does.
        mean += p * outside([((step, end), float(right), True) for step, right, _ in line], 0.5)[0]
    assert weight == pytest.approx(1)
    assert mean == pytest.approx(sum(chance[c] * worth[c] for c in chance))


def test_a_value_is_exact_where_every_next_step_was_met() -> None:
    draws = [((Step(f"{c}\n", logprobs=(math.log(p),)),), right, True)
             for c, p, right in (("a", 0.7, 1.0), ("b", 0.2, 0.0), ("c", 0.1, 1.0)) for _ in range(2)]  # fmt: skip
    assert outside(draws, 1.0)[0] == pytest.approx(0.8)


def pooled(world: EnumerableWorld, n_problems: int, **settings: Any) -> list[StepTree]:
    driver = Driver(policy=saying(world), grader=world)
    method = estimate["pooled-rollouts"]
    flows = [method.take({"problem": p, "key": KEY}, **settings) for p in world.problems(n_problems)]
    return [one.result for one in sorted(driver.run(flows), key=lambda one: one.index)]


@pytest.mark.parametrize("weights", ["counts", "logprobs"])
def test_pooled_values_are_unbiased_over_problems(weights: str) -> None:
    gaps, errors, plain = [], [], []
    for tree in pooled(FATAL, 40, n=8, solutions=4, until_lost=False, weights=weights):
        nodes = np.flatnonzero((tree.depth > 0) & (tree.depth < FATAL.depth))
        exact = np.array([FATAL.value(tree.problem, tree.prefix(node)) for node in nodes.tolist()])
        gap = tree.column("value")[nodes] - exact
        # Values of one problem depend on each other, problems do not: the mean gap of each is one observation.
        gaps.append(gap.mean())
        errors += (gap**2).tolist()
        plain += (exact * (1 - exact) / 8).tolist()
    assert abs(np.mean(gaps)) < 4 * np.std(gaps) / math.sqrt(len(gaps))
    assert np.mean(errors) < 0.95 * np.mean(plain)


def test_one_solution_in_the_pool_is_labelled_as_alone() -> None:
    made, _, _ = labelled(FATAL, 8, n=8, until_lost=True, weights="logprobs", root=True)
    trees = pooled(FATAL, 8, n=8, solutions=1, weights="logprobs", root=True)
    for tree in trees:
        (one,) = tree.trajectories()
        driver = Driver(policy=saying(FATAL), grader=FATAL)
        settings = {"n": 8, "until_lost": True, "weights": "logprobs", "root": True}
        flow = estimate["shared-rollouts"].take({"trajectory": one, "key": KEY}, **settings)
        alone = next(driver.run([flow])).result
        path = tree.paths[0]
        for name in ("value", "n_rollouts", "low", "high"):
            np.testing.assert_allclose(tree.column(name)[path], alone.column(name), atol=1e-12)
        assert tree.column("value")[0] == pytest.approx(alone.facts["root_value"])
    assert len(made) == len(trees)


def test_two_solutions_that_part_by_hand() -> None:
    lines = {
        "": ["aba", "abx", "aca", "aca"],
        "a\n": ["ba", "bx", "ca", "ba"], "a\nb\n": ["a"], "a\nc\n": ["a", "x", "a"],
    }  # fmt: skip
    policy = ScriptedPolicy({name: ["".join(f"{c}\n" for c in line) for line in some] for name, some in lines.items()})
    flow = estimate["pooled-rollouts"].take({"problem": PROBLEM, "key": KEY}, n=4, solutions=4)
    tree = answer_all(flow, policy=policy, grader=World(length=3))
    asked = [(letters(q.prefix), q.n) for q in policy.questions]
    assert asked == [("", 4), ("a", 4), ("ab", 1), ("ac", 3)]
    value = {letters(tree.prefix(node)): tree.column("value")[node] for node in range(tree.n)}
    # ab inherits three rollouts and draws one: 3 of 4. ac inherits one and draws three: 3 of 4. a: 3/4 of each.
    assert value["ab"] == value["ac"] == value["a"] == 0.75
    assert (value["aba"], value["abx"], value["aca"]) == (1, 0, 1)
    assert np.isnan(value[""])


def test_behind_a_lost_prefix_nothing_is_drawn_for_any_solution() -> None:
    lines = {"": ["xaa", "xba", "xaa"], "x\n": ["aa", "ba", "bb"]}
    policy = ScriptedPolicy({name: ["".join(f"{c}\n" for c in line) for line in some] for name, some in lines.items()})
    flow = estimate["pooled-rollouts"].take({"problem": PROBLEM, "key": KEY}, n=3, solutions=3)
    tree = answer_all(flow, policy=policy, grader=World(length=3))
    assert [letters(q.prefix) for q in policy.questions] == ["", "x"]
    inner = (tree.depth > 0) & (tree.depth < 3)
    np.testing.assert_array_equal(tree.column("value")[inner], 0.0)
    assert tree.column("n_rollouts")[inner].tolist() == [3, 0, 0]
