"""OmegaPRM: a run worked out by hand, and its tree held against the world's exact values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from label_world import PROBLEM, World, letters, steps

from stepreward.core.catalog import estimate
from stepreward.core.keys import Key
from stepreward.core.measure.rollout_priority import priority
from stepreward.core.runtime.driver import Driver, answer_all
from stepreward.core.runtime.flows import Continuation
from stepreward.core.runtime.spending import Budget
from stepreward.core.tree import StepTree
from stepreward.core.types import Problem, Provenance, Step, Trajectory
from stepreward.label.estimators import monte_carlo
from stepreward.label.omega import find_lost, omega_prm, tree_labels
from stepreward.policies.scripted import ScriptedPolicy

WORLD = World()
KEY = Key.seed(0)
WHO = Provenance("omegaprm")


def lines(*solutions: str) -> list[str]:
    return ["".join(f"{letter}\n" for letter in solution) for solution in solutions]


# Solutions with an x are wrong. n = 4, L = 2 tokens, one token a step.
#   bare problem: 2 of 4 right. Pool: abbx (0.5^0.5 0.9^(4/2) = 0.573), cx (0.5^0.5 0.9^(2/2) = 0.636).
#   1. cx: probes c, 3 of 4 right, so x is the error. Pool gains another cx, of state c.
#   2. that cx comes first (0.5^0.25 0.9^(1/2) + 0.125 = 0.923 against 0.573 + 0.125 / 2) but was searched: dropped.
#      abbx: probes ab, 0 of 4; then a, 2 of 4, so b after a is the error. Pool gains abbx and aax, of state a.
#   3. aax (shorter): a is known to be winnable; probes aa, 4 of 4, so x is the error.
#   4. abbx was searched. The pool is empty.
SCRIPT = {
    "": lines("aaaa", "abbx", "cx", "bbbb"),
    "c\n": lines("a", "x", "a", "b"),
    "a\nb\n": lines("x", "bx", "x", "ax"),
    "a\n": lines("aaa", "bbx", "ax", "bab"),
    "a\na\n": lines("aa", "aa", "ab", "bb"),
}


def by_text(tree: StepTree, name: str) -> dict[str, float]:
    return {letters(tree.prefix(i)): float(tree.column(name)[i]) for i in range(tree.n)}


def test_a_run_worked_out_by_hand() -> None:
    policy = ScriptedPolicy(SCRIPT)
    tree = answer_all(omega_prm(PROBLEM, KEY, n=4, length_scale=2.0), policy=policy, grader=WORLD)
    assert [letters(question.prefix) for question in policy.questions] == ["", "c", "ab", "a", "aa"]
    value, visits, n = by_text(tree, "value"), by_text(tree, "visits"), by_text(tree, "n_rollouts")
    assert {k: value[k] for k in ("", "c", "ab", "a", "aa")} == {"": 0.5, "c": 0.75, "ab": 0, "a": 0.5, "aa": 1}
    assert (value["cx"], value["aaaa"], value["abbx"]) == (0.0, 1.0, 0.0)
    assert np.isnan(value["abb"])
    assert {k for k, v in visits.items() if v} == {"", "a"}
    assert (visits[""], visits["a"]) == (2, 1)
    assert {k for k, v in n.items() if v} == {"", "c", "ab", "a", "aa"}
    assert by_text(tree, "n_correct")["c"] == 3
    assert len(tree.trajectories()) == 20
    located = {letters(t.steps) for t, found in zip(tree.trajectories(), find_lost(tree), strict=True) if found}
    assert located == {letters(t.steps) for t in tree.trajectories()}


def test_labels_of_the_hand_worked_tree() -> None:
    tree = answer_all(omega_prm(PROBLEM, KEY, n=4, length_scale=2.0), policy=ScriptedPolicy(SCRIPT), grader=WORLD)
    labels = {letters(one.steps): one for one in tree_labels(tree, WHO)}
    assert len(labels) == len(tree_labels(tree, WHO)) == 12  # distinct among the 20 rollouts
    np.testing.assert_array_equal(labels["abbx"].column("value"), [0.5, 0.0, np.nan, 0.0])
    assert labels["abbx"].column("n_rollouts").tolist() == [4, 4, 0, 0]
    assert labels["abbx"].column("n_correct").tolist() == [2, 0, 0, 0]
    assert labels["abbx"].facts["root_value"] == 0.5
    assert labels["abbx"].provenance[0].estimator == WHO.estimator
    np.testing.assert_array_equal(labels["abbx"].labels, labels["abbx"].column("value"))
    np.testing.assert_array_equal(np.isnan(labels["abbx"].column("low")), [False, False, True, True])


def test_priorities_follow_the_formula() -> None:
    # 0.5^(1-0.75) 0.9^(250/500) + 0.125 sqrt(9) / (1 + 2) = 0.840896 x 0.948683 + 0.125
    made = priority(
        np.array([0.75, 0.5]), np.array([250.0, 500.0]), np.array([2.0, 0.0]), 9.0,
        alpha=0.5, beta=0.9, scale=500.0, c_puct=0.125,
    )  # fmt: skip
    np.testing.assert_allclose(made, [0.840896 * 0.948683 + 0.125, 0.707107 * 0.9 + 0.375], rtol=1e-5)


def test_priorities_are_fresh_so_that_visits_elsewhere_move_the_choice() -> None:
    # c_puct so large that the least visited state is chosen: after searches at the root, state c's rollout comes next
    # although the root's are shorter and were in the pool first.
    script = {
        "": lines("aaaa", "cx", "dx", "ex"),
        "c\n": lines("aaax", "a", "a", "a"),
        **{f"{letter}\n": lines("a") for letter in "dea"},
        **{"".join(f"{letter}\n" for letter in text): lines("a") for text in ("ca", "caa", "caaa")},
    }
    policy = ScriptedPolicy(script)
    answer_all(omega_prm(PROBLEM, KEY, n=4, c_puct=100.0), policy=policy, grader=WORLD)
    assert [letters(question.prefix) for question in policy.questions] == ["", "c", "caa", "caaa", "d", "e"]


def sampled(n: int, problems: int, **options: Any) -> tuple[list[StepTree], int]:
    driver = Driver(policy=WORLD.policy(), grader=WORLD)
    flows = [omega_prm(Problem(f"p{i}", ""), KEY, n=n, **options) for i in range(problems)]
    done = sorted(driver.run(flows), key=lambda finished: finished.index)
    return [finished.result for finished in done], driver.bill.proposals


def test_values_are_unbiased_although_prefixes_are_chosen_by_what_was_drawn() -> None:
    trees, _ = sampled(8, 40, searches=10)
    error, variance, covered = [], [], []
    for tree in trees:
        for node in np.flatnonzero(tree.column("n_rollouts") > 0):
            truth = WORLD.value(tree.prefix(int(node)))
            error.append(tree.column("value")[node] - truth)
            variance.append(truth * (1 - truth) / 8)
            covered.append(tree.column("low")[node] <= truth <= tree.column("high")[node])
    assert len(error) > 400
    assert abs(np.sum(error)) < 4 * np.sqrt(np.sum(variance))  # a right estimator fails for 1 seed in 16000
    assert 0.92 < np.mean(covered) < 0.99


def test_a_search_probes_at_most_log2_of_its_steps_and_reads_what_is_known() -> None:
    trees, spent = sampled(8, 20, searches=10)
    for tree in trees:
        states, searches = (tree.column("n_rollouts") > 0).sum(), tree.column("visits").sum()
        assert searches <= 10
        assert states - 1 <= searches * np.ceil(np.log2(WORLD.length))
    assert spent == sum(int(tree.column("n_rollouts").sum()) for tree in trees)


def test_prefixes_share_their_rollouts_with_monte_carlo() -> None:
    (tree,), _ = sampled(8, 1, searches=5)
    labels = next(one for one in tree_labels(tree, WHO) if (one.column("n_rollouts") > 0).sum() >= 2)
    t = Trajectory(tree.problem, labels.steps, labels.outcome)
    plain = answer_all(monte_carlo(t, KEY, n=8, root=True), policy=WORLD.policy(), grader=WORLD)
    measured = labels.column("n_rollouts") > 0
    np.testing.assert_array_equal(labels.column("value")[measured], plain.column("value")[measured])
    assert labels.facts["root_value"] == plain.facts["root_value"]


def test_located_trajectories_name_a_step_of_their_own() -> None:
    (tree,), _ = sampled(8, 1, searches=3)
    every, located = tree_labels(tree, WHO), tree_labels(tree, WHO, located=True)
    assert 0 < len(located) < len(every)
    for one in located:
        dead = np.flatnonzero(one.column("value") == 0)
        assert (one.outcome == 1) == (dead.size == 0)
        if dead.size:
            before = one.facts["root_value"] if dead[0] == 0 else one.column("value")[dead[0] - 1]
            assert before > 0


@pytest.mark.parametrize("limit", [0, 7, 8, 20, 100])
def test_a_spent_budget_returns_the_tree_so_far(limit: int) -> None:
    driver = Driver(policy=WORLD.policy(), grader=WORLD, budget=Budget(rollouts=limit))
    (finished,) = driver.run([omega_prm(PROBLEM, Key.seed(3), n=8)])
    tree = finished.result
    assert tree.column("n_rollouts").sum() == driver.bill.proposals == limit // 8 * 8
    assert np.isnan(tree.column("value")[0]) == (limit < 8)
    assert len(tree_labels(tree, WHO)) == 0 if limit < 8 else len(tree_labels(tree, WHO)) > 0


@pytest.mark.parametrize("solution", ["aaaa", "xaaa"])
def test_a_problem_solved_always_or_never_ends_at_the_root(solution: str) -> None:
    policy = ScriptedPolicy({"": lines(solution)})
    tree = answer_all(omega_prm(PROBLEM, KEY, n=4), policy=policy, grader=WORLD)
    assert len(policy.questions) == 1
    assert tree.column("value")[0] == float(solution == "aaaa")


def test_cut_rollouts_are_not_searched_and_ends_after_observations_are_probed() -> None:
    cut = Continuation(steps("aa"), finished=False, n_tokens=2, truncated=True)
    seen = Continuation((*steps("b"), Step("x\n", "observation", "tool")), finished=True, n_tokens=2)
    policy = ScriptedPolicy({"": [cut, seen, *lines("aa", "aa")], "b\n": lines("a")})
    tree = answer_all(omega_prm(PROBLEM, KEY, n=4), policy=policy, grader=WORLD)
    assert [letters(question.prefix) for question in policy.questions] == ["", "b"]
    assert tree.column("value")[0] == 0.5
    assert tree.trajectories()[0].terminal is False


def test_bad_settings_are_errors() -> None:
    with pytest.raises(ValueError, match="alpha, beta in"):
        answer_all(estimate["omegaprm"].take({"problem": PROBLEM, "key": KEY}, alpha=0.0), policy=WORLD.policy())
