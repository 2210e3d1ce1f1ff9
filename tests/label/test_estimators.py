"""Estimators along one trajectory, held against a world whose every value is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from label_world import PROBLEM, World, letters, steps
from tests.effort import scaled

from stepreward.core.catalog import estimate
from stepreward.core.catalog import transform as transforms
from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.runtime.driver import Driver, answer_all
from stepreward.core.runtime.flows import Continuation, Flow, Propose
from stepreward.core.runtime.spending import Budget
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.label.estimators import (
    first_error_bisection,
    first_error_walk,
    likelihoods,
    monte_carlo,
    uncertainty,
)
from stepreward.label.rollouts import Counts, Rollout
from stepreward.policies.scripted import ScriptedPolicy

WORLD = World()
KEY = Key.seed(0)


def run(flow: Flow[Trajectory], world: World = WORLD, **settings: Any) -> Trajectory:
    (finished,) = Driver(policy=world.policy(), grader=world, **settings).run([flow])
    return finished.result


def asked(flow: Flow[Trajectory], lost_from: int, length: int) -> tuple[list[int], Trajectory]:
    """Lengths of the prefixes probed where every rollout fails from prefix length `lost_from` on."""

    def line(question: Propose, i: int) -> Continuation:
        dead = len(question.prefix) >= lost_from
        rest = steps(("x" if dead else "a") * (length - len(question.prefix)))
        return Continuation(rest, finished=True, n_tokens=len(rest))

    policy = ScriptedPolicy(line)
    labels = answer_all(flow, policy=policy, grader=WORLD)
    return [len(question.prefix) for question in policy.questions], labels


def test_monte_carlo_is_unbiased_at_every_prefix_and_within_its_standard_error() -> None:
    n, t = 4000, WORLD.trajectory("asbaxa")
    labels = run(monte_carlo(t, KEY, n=n, root=True))
    truth = WORLD.truth(t)
    assert truth[4] == truth[5] == 0
    # After the slip an error has chance 0.3 a step: 0.7^4, 0.7^3, 0.7^2 with four, three, two steps to go.
    np.testing.assert_allclose(truth[1:4], [0.7**4, 0.7**3, 0.7**2])
    # Four standard errors of a mean of n coin tosses; six prefixes, so a right estimator fails for 1 seed in 3000.
    np.testing.assert_array_less(np.abs(labels.column("value") - truth), 4 * np.sqrt(truth * (1 - truth) / n) + 1e-12)
    assert abs(labels.facts["root_value"] - WORLD.value(())) < 4 * np.sqrt(0.25 / n)
    assert labels.column("n_rollouts").tolist() == [n] * 5 + [0]
    np.testing.assert_array_equal(labels.labels, labels.column("value"))
    np.testing.assert_allclose(labels.column("n_correct")[:5] / n, labels.column("value")[:5])


def test_wilson_intervals_cover_the_truth_at_about_their_nominal_rate() -> None:
    # 200 problems x 5 prefixes x 16 rollouts, exact coverage of Wilson at n = 16 lies in [0.91, 0.98] over p.
    t = WORLD.trajectory("abasba")
    problems = [Problem(f"p{i}", "") for i in range(200)]
    flows = [monte_carlo(Trajectory(p, t.steps, t.outcome), KEY, n=16) for p in problems]
    results = [f.result for f in Driver(policy=WORLD.policy(), grader=WORLD).run(flows)]
    truth = WORLD.truth(t)[:5]
    covered = np.mean([(r.column("low")[:5] <= truth) & (truth <= r.column("high")[:5]) for r in results])
    assert 0.93 <= covered <= 0.975
    assert all(np.isnan(r.column("low")[5]) and np.isnan(r.column("high")[5]) for r in results)


@pytest.mark.parametrize(
    ("lost_from", "probes", "value", "n_rollouts"),
    [
        # S = 8: the end is lost. Actions 0..6 may be probed; the middle of (-1, 7) is action 3, a prefix of 4 steps.
        (8, [4, 6, 7], [1, 1, 1, 1, 1, 1, 1, 0], [0, 0, 0, 2, 0, 2, 2, 0]),
        (5, [4, 6, 5], [1, 1, 1, 1, 0, 0, 0, 0], [0, 0, 0, 2, 2, 2, 0, 0]),
        (1, [4, 2, 1], [0, 0, 0, 0, 0, 0, 0, 0], [2, 2, 0, 2, 0, 0, 0, 0]),
        (3, [4, 2, 3], [1, 1, 0, 0, 0, 0, 0, 0], [0, 2, 2, 2, 0, 0, 0, 0]),
    ],
)
def test_bisection_asks_exactly_these_prefixes(
    lost_from: int, probes: list[int], value: list[int], n_rollouts: list[int]
) -> None:
    prefixes, labels = asked(first_error_bisection(WORLD.trajectory("aaaaaaax"), KEY, n=2), lost_from, 8)
    assert prefixes == probes
    np.testing.assert_array_equal(labels.column("value"), value)
    assert labels.column("n_rollouts").tolist() == n_rollouts


@given(length=st.integers(1, 40), data=st.data())
@settings(max_examples=scaled(60), deadline=None)
def test_both_searches_find_any_error_and_keep_their_bounds(length: int, data: st.DataObject) -> None:
    lost_from = data.draw(st.integers(1, length))
    t = WORLD.trajectory("a" * (length - 1) + "x")
    probes, halved = asked(first_error_bisection(t, KEY, n=1), lost_from, length)
    assert len(probes) <= int(np.ceil(np.log2(length)))
    assert np.flatnonzero(halved.column("value") == 0)[0] == lost_from - 1
    walk, walked = asked(first_error_walk(t, KEY, n=1), lost_from, length)
    assert walk == list(range(1, min(lost_from, length - 1) + 1))
    assert np.flatnonzero(walked.column("value") == 0).tolist() == [lost_from - 1]
    np.testing.assert_array_equal(np.isnan(walked.column("value")), np.arange(length) >= lost_from)


def test_an_open_trajectory_may_have_no_error_and_its_last_step_is_measured() -> None:
    t = Trajectory(PROBLEM, steps("aaa"), terminal=False)
    probes, labels = asked(first_error_bisection(t, KEY, n=1), lost_from=9, length=9)
    assert probes == [2, 3]
    assert labels.column("value").tolist() == [1, 1, 1]
    _, lost = asked(first_error_bisection(t, KEY, n=1), lost_from=2, length=9)
    assert lost.column("value").tolist() == [1, 0, 0]
    assert run(monte_carlo(t, KEY, n=4)).column("n_rollouts").tolist() == [4, 4, 4]


@pytest.mark.parametrize("name", ["scan", "bisection"])
def test_a_right_solution_costs_nothing(name: str) -> None:
    driver = Driver(policy=WORLD.policy(), grader=WORLD)
    (finished,) = driver.run([estimate[name].take({"trajectory": WORLD.trajectory("abasba"), "key": KEY})])
    assert finished.result.column("value").tolist() == [1.0] * 6
    assert finished.result.column("n_rollouts").sum() == driver.bill.proposals == 0


@pytest.mark.parametrize("name", ["scan", "bisection"])
def test_half_an_outcome_is_no_right_solution(name: str) -> None:
    t = Trajectory(PROBLEM, steps("abx"), 0.5)
    labels = run(estimate[name].take({"trajectory": t, "key": KEY}, n=2))
    assert labels.column("n_rollouts").sum() > 0
    assert labels.column("value")[-1] in (0.5, 0.0) or np.isnan(labels.column("value")[-1])


def test_the_walk_draws_the_rollouts_that_monte_carlo_draws() -> None:
    t = WORLD.trajectory("axbbab")
    all_of_them, walk = run(monte_carlo(t, KEY, n=8)), run(first_error_walk(t, KEY, n=8))
    measured = walk.column("n_rollouts") > 0
    assert measured.tolist() == [True, True, False, False, False, False]
    np.testing.assert_array_equal(walk.column("value")[measured], all_of_them.column("value")[measured])
    assert np.isnan(walk.column("value")[2:]).all()


@pytest.mark.parametrize("at_once", [1, 2, 3, 7])
def test_stopping_at_a_success_finds_the_same_error_with_fewer_rollouts(at_once: int) -> None:
    saved = 0
    for text in ("axbbab", "aaaaax", "xaaaaa", "ssaabx", "abxaba"):
        t = WORLD.trajectory(text)
        whole, early = run(first_error_bisection(t, KEY, n=8)), run(first_error_bisection(t, KEY, n=8, at_once=at_once))
        np.testing.assert_array_equal(early.column("value") > 0, whole.column("value") > 0)
        probed = whole.column("n_rollouts") > 0
        np.testing.assert_array_equal(early.column("n_rollouts") > 0, probed)
        # A probe without a success asks all; one with a success stops within the round that held the first one.
        assert (early.column("n_rollouts")[probed & (whole.column("value") == 0)] == 8).all()
        stopped = probed & (whole.column("value") > 0)
        rounds = np.minimum(-(-early.column("n_rollouts")[stopped] // at_once) * at_once, 8)
        assert (early.column("n_rollouts")[stopped] == rounds).all()
        assert (early.column("n_correct")[stopped] >= 1).all()
        saved += int((whole.column("n_rollouts") - early.column("n_rollouts")).sum())
    assert saved > 0


def test_rollouts_do_not_depend_on_the_other_flows_or_their_order() -> None:
    ts = [WORLD.trajectory(text, Problem(f"p{i}", "")) for i, text in enumerate(["axbbab", "aaaaax", "xaaaaa"])]
    together = {
        f.index: f.result for f in Driver(policy=WORLD.policy(), grader=WORLD).run([monte_carlo(t, KEY) for t in ts])
    }
    for i, t in enumerate(ts):
        np.testing.assert_array_equal(run(monte_carlo(t, KEY)).column("value"), together[i].column("value"))
    assert (run(monte_carlo(ts[0], Key.seed(1))).column("value") != together[0].column("value")).any()


@pytest.mark.parametrize("limit", range(0, 50, 5))
@pytest.mark.parametrize("name", ["math-shepherd", "scan", "bisection"])
def test_a_spent_budget_leaves_what_was_measured_and_is_never_exceeded(name: str, limit: int) -> None:
    t = WORLD.trajectory("abbaax")
    flow = estimate[name].take({"trajectory": t, "key": KEY}, n=8)
    driver = Driver(policy=WORLD.policy(), grader=WORLD, budget=Budget(rollouts=limit))
    (finished,) = driver.run([flow])
    labels, whole = finished.result, run(estimate[name].take({"trajectory": t, "key": KEY}, n=8))
    assert (
        driver.bill.proposals
        == labels.column("n_rollouts").sum()
        == min(limit // 8 * 8, whole.column("n_rollouts").sum())
    )
    known = ~np.isnan(labels.column("value"))
    np.testing.assert_array_equal(labels.column("value")[known], whole.column("value")[known])
    if limit < 8:
        assert known.tolist() == [False] * 5 + [True]


def test_a_token_budget_stops_the_questions() -> None:
    # A rollout after t of 6 steps costs 6 - t tokens, n = 4: 20 tokens after the first step, 16 after the second.
    labels = run(monte_carlo(WORLD.trajectory("abbaax"), KEY, n=4), budget=Budget(tokens=30))
    assert labels.column("n_rollouts").tolist() == [4, 4, 0, 0, 0, 0]


def test_observations_are_neither_probed_nor_labelled() -> None:
    mixed = (Step("a\n"), Step("tool says 3\n", "observation", "tool"), *steps("aax"))
    t = Trajectory(PROBLEM, mixed, 0.0)
    labels = run(monte_carlo(t, KEY, n=4))
    assert labels.column("n_rollouts").tolist() == [4, 0, 4, 4, 0]
    assert np.isnan(labels.column("value")).tolist() == [False, True, False, False, False]
    assert np.isnan(run(first_error_bisection(t, KEY, n=4)).column("value")[1])


def continuations(outcomes: str) -> ScriptedPolicy:
    """r: a right rollout, w: a wrong one, c: one cut by the limit."""
    lines = [Continuation(steps("x" if o == "w" else "a"), o != "c", 1, truncated=o == "c") for o in outcomes]
    return ScriptedPolicy(lambda _, i: lines[i])


def test_cut_rollouts_count_as_wrong_or_not_at_all() -> None:
    t = WORLD.trajectory("ax")
    wrong = answer_all(monte_carlo(t, KEY, n=4), policy=continuations("rrwc"), grader=WORLD)
    assert (wrong.column("value")[0], wrong.column("n_rollouts")[0], wrong.column("n_correct")[0]) == (0.5, 4, 2)
    dropped = answer_all(monte_carlo(t, KEY, n=4, unfinished="drop"), policy=continuations("rrwc"), grader=WORLD)
    assert (dropped.column("value")[0], dropped.column("n_rollouts")[0], dropped.column("n_correct")[0]) == (
        2 / 3,
        3,
        2,
    )
    none = answer_all(first_error_bisection(t, KEY, n=2, unfinished="drop"), policy=continuations("cc"), grader=WORLD)
    assert none.column("n_rollouts")[0] == 0
    assert np.isnan(none.column("value")[0])


class Unsure(World):
    """A grader that cannot tell when the last step is b."""

    def grade(self, problem: Problem, solution: Sequence[Step]) -> float:
        return float("nan") if letters(solution).endswith("b") else super().grade(problem, solution)


def test_rollouts_whose_outcome_is_unknown_count_as_nothing() -> None:
    policy = ScriptedPolicy({"a\n": ["a\n", "b\n", "x\n", "b\n"]})
    labels = answer_all(monte_carlo(WORLD.trajectory("ax"), KEY, n=4), policy=policy, grader=Unsure())
    assert (labels.column("value")[0], labels.column("n_rollouts")[0], labels.column("n_correct")[0]) == (0.5, 2, 1)


@pytest.mark.parametrize("name", ["math-shepherd", "scan", "bisection"])
def test_what_cannot_be_labelled_is_a_clear_error(name: str) -> None:
    with pytest.raises(InputError, match="'p' has no step"):
        run(estimate[name].take({"trajectory": Trajectory(PROBLEM, (), 1.0), "key": KEY}))
    with pytest.raises(InputError, match=r"no outcome.*grade it first"):
        run(estimate[name].take({"trajectory": Trajectory(PROBLEM, steps("a")), "key": KEY}))
    with pytest.raises(ValueError, match="n >= 1"):
        run(estimate[name].take({"trajectory": WORLD.trajectory("ax"), "key": KEY}, n=0))


def test_provenance_says_how_to_run_it_again() -> None:
    labels = run(first_error_walk(WORLD.trajectory("axa"), KEY, n=3))
    assert (labels.provenance[0].estimator, labels.provenance[0].seed) == ("scan", KEY.bits)
    again = estimate[labels.provenance[0].estimator].take(
        {"trajectory": labels, "key": Key(labels.provenance[0].seed or 0)}, **labels.provenance[0].settings
    )
    np.testing.assert_array_equal(run(again).column("value"), labels.column("value"))


def said(letter_logprobs: Sequence[tuple[str, tuple[float, ...]]], outcome: float = float("nan")) -> Trajectory:
    made = tuple(Step(f"{letter}\n", logprobs=logprobs) for letter, logprobs in letter_logprobs)
    return Trajectory(PROBLEM, made, outcome)


def test_likelihood_weighted_shares_are_unprms() -> None:
    means = {-0.5: 1.0, -1.0: 0.0, -1.5: 0.0}
    made = [Rollout(said([("a", (mean,))]).steps, outcome, True, 1) for mean, outcome in means.items()]
    counts = Counts(said([("a", (-1.0,)), ("b", (-1.0,))]))
    assert counts.record(0, made, likelihoods(made)) == pytest.approx(0.50648, abs=1e-5)
    assert 2 < counts.n_rollouts[0] < 3
    alike = [replace(one, steps=said([("a", (-1.0, -1.0))]).steps) for one in made]
    assert counts.record(0, alike, likelihoods(alike)) == pytest.approx(1 / 3)
    assert counts.n_rollouts[0] == pytest.approx(3)


def test_uncertainty_is_an_entropy_that_grows_with_length() -> None:
    assert uncertainty(said([("a", (-0.3,))]).steps[0]) == 0
    assert uncertainty(said([("a", (-2.0,) * 8)]).steps[0]) == pytest.approx(np.log(8))
    p = np.exp(np.array([-1.0, -6.0]) / 5)
    p /= p.sum()
    assert uncertainty(said([("a", (-1.0, -6.0))]).steps[0]) == pytest.approx(-(p * np.log(p)).sum())


def test_the_most_uncertain_open_step_is_probed_first_and_the_earliest_error_is_found() -> None:
    # The error is step 2 (x). Uncertainty is highest at step 4, then 1, then 2.
    unsure = {0: 1, 1: 4, 2: 3, 3: 2, 4: 6, 5: 1}
    solution = said([(c, (-1.0,) * unsure[i]) for i, c in enumerate("abxaab")], outcome=0.0)
    policy = ScriptedPolicy(lambda question, i: "".join("a\n" for _ in range(6 - len(question.prefix))))
    made = answer_all(first_error_bisection(solution, KEY, n=2, order="uncertainty"), policy=policy, grader=WORLD)
    assert [letters(q.prefix) for q in policy.questions] == ["abxaa", "ab", "abx"]
    assert int(np.flatnonzero(made.column("value") == 0)[0]) == 2
    assert made.column("value").tolist() == [1, 1, 0, 0, 0, 0]


def test_a_prefix_below_the_bare_problem_is_lost() -> None:
    # The bare problem: 2 of 4 right; behind the first step 1 of 4, although it can still be right.
    lines = {"": ["a\na\n", "b\nb\n", "x\na\n", "a\nx\n"], "a\n": ["a\n", "x\n", "x\n", "x\n"]}
    solution = said([("a", (-1.0,)), ("b", (-1.0,))], outcome=0.0)
    flow = first_error_bisection(solution, KEY, n=4, relative=True)
    made = answer_all(flow, policy=ScriptedPolicy(lines), grader=World(length=2))
    assert made.facts["root_value"] == 0.5
    assert made.column("value").tolist() == [0.25, 0.0]


def test_missing_log_probabilities_are_an_error() -> None:
    with pytest.raises(InputError, match="order=middle"):
        answer_all(
            first_error_bisection(Trajectory(PROBLEM, steps("abxaab"), 0.0), KEY, order="uncertainty"),
            policy=WORLD.policy(), grader=WORLD,
        )  # fmt: skip
    with pytest.raises(InputError, match="weighted=False"):
        answer_all(
            first_error_bisection(Trajectory(PROBLEM, steps("abxaab"), 0.0), KEY, weighted=True),
            policy=WORLD.policy(), grader=WORLD,
        )  # fmt: skip


def test_a_prefix_as_good_as_the_bare_problem_is_alive() -> None:
    lines = {"": ["a\na\na\n", "x\na\na\n"], "a\n": ["a\na\n", "x\na\n"], "a\nb\n": ["a\n", "x\n"]}
    policy = ScriptedPolicy(lines)
    solution = said([("a", (-1.0,)), ("b", (-1.0,)), ("x", (-1.0,))], outcome=0.0)
    answer_all(first_error_bisection(solution, KEY, n=2, relative=True), policy=policy, grader=World(length=3))
    assert [letters(question.prefix) for question in policy.questions] == ["", "a", "ab"]


def test_an_unknown_bare_problem_leaves_nothing_to_compare_with() -> None:
    class Unknown(World):
        def grade(self, problem: Problem, solution: Sequence[Step]) -> float:
            return float("nan")

    policy = ScriptedPolicy({"": ["b\nb\n"]})
    solution = said([("a", (-1.0,)), ("a", (-1.0,)), ("x", (-1.0,))], outcome=0.0)
    made = answer_all(first_error_bisection(solution, KEY, n=2, relative=True), policy=policy, grader=Unknown())
    assert len(policy.questions) == 1
    assert np.isnan(made.column("value")[:-1]).all()


def test_a_right_solution_is_compared_with_the_bare_problem_too() -> None:
    solution = said([("a", (-1.0,)), ("a", (-1.0,))], outcome=1.0)
    policy = ScriptedPolicy({"": ["a\na\n", "x\na\n"]})
    made = answer_all(first_error_bisection(solution, KEY, n=2, relative=True), policy=policy, grader=World(length=2))
    assert (made.facts["root_value"], made.column("value").tolist()) == (0.5, [1.0, 1.0])
    assert transforms["relative"].take({"trajectory": made}).labels.tolist() == [1.0, 1.0]


def test_weights_of_unknown_rollouts_are_left_out() -> None:
    counts = Counts(said([("a", (-1.0,)), ("b", (-1.0,))]))
    outcomes = {-9.0: float("nan"), -0.5: 1.0, -1.0: 0.0}
    made = [Rollout(said([("a", (mean,))]).steps, outcome, True, 1) for mean, outcome in outcomes.items()]
    weights = np.exp([-0.5, -1.0])
    assert counts.record(0, made, likelihoods(made)) == pytest.approx(weights[0] / weights.sum())
    assert counts.n_correct[0] == pytest.approx(counts.value[0] * counts.n_rollouts[0])
    assert likelihoods([Rollout((), 1.0, True, 0)]).tolist() == [1.0]


def test_values_that_stopped_early_are_compared_with_nothing() -> None:
    flow = first_error_bisection(Trajectory(PROBLEM, steps("abx"), 0.0), KEY, at_once=2, relative=True)
    with pytest.raises(InputError, match="drop at_once"):
        next(flow)
