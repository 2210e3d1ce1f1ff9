"""The tree that labels: walks worked out by hand, identities of its settings, and exact values of small worlds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from label_world import PROBLEM, World, letters

from stepreward.core.catalog import estimate
from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.runtime.driver import Driver, answer_all
from stepreward.core.runtime.flows import Continuation, Grade, Propose, Scored
from stepreward.core.runtime.spending import Budget
from stepreward.core.search_tree import SearchTree, ucb_spread
from stepreward.core.tree import StepTree
from stepreward.core.types import Problem, Provenance, Step
from stepreward.label.omega import tree_labels
from stepreward.policies.scripted import ScriptedPolicy
from stepreward.policies.tabular import TabularPolicy
from stepreward.tasks.enumerable import EnumerableWorld

KEY = Key.seed(0)
WORLD = EnumerableWorld(5, 3, seed=2)
POLICY = TabularPolicy(WORLD.next_steps, WORLD.name)
FEW = World(length=3)


def grown(name: str, problems: int = 1, **settings: Any) -> list[StepTree]:
    driver = Driver(policy=POLICY, grader=WORLD)
    flows = [estimate[name].take({"problem": problem, "key": KEY}, **settings) for problem in WORLD.problems(problems)]
    return [one.result for one in sorted(driver.run(flows), key=lambda one: one.index)]


def by_text(tree: StepTree, name: str) -> dict[str, float]:
    return {letters(tree.prefix(i)): float(tree.column(name)[i]) for i in range(tree.n)}


def tree_of_three(own: float = float("nan")) -> SearchTree[str]:
    """A root with a child of value 0.5 and two visits, and one of value 1 and one visit."""
    tree = SearchTree("root", own)
    tree.expand(0, ["a", "b"], [b"a", b"b"], [0.5, 1.0])
    tree.visits[1:] = 2, 0
    return tree


@pytest.mark.parametrize(("keep", "own", "value"), [(0.0, 0.6, 2 / 3), (0.5, 0.6, 0.63333), (0.5, float("nan"), 2 / 3)])
def test_the_backups_of_meds3_by_hand(keep: float, own: float, value: float) -> None:
    tree = tree_of_three(own)
    tree.back_up_children(2, keep=keep)
    assert tree.value[0] == pytest.approx(value, abs=1e-5)
    assert tree.visits.tolist() == [1, 2, 1]


def test_a_discounted_walk_by_hand() -> None:
    # ProRAG: a play-out of F1 0.8 adds 0.8 x 0.99^2 two steps above.
    tree = SearchTree("root")
    (a,) = tree.expand(0, ["a"], [b"a"], [0.0])
    (b,) = tree.expand(int(a), ["b"], [b"b"], [0.0])
    tree.back_up(int(b), 0.8, discount=0.99)
    np.testing.assert_allclose(tree.total, [0.78408, 0.792, 0.8])


def test_the_best_child_counts_only_where_it_was_visited() -> None:
    tree = tree_of_three()
    tree.back_up_best(1, discount=0.9)
    assert tree.value[0] == pytest.approx(0.45)
    tree.back_up_best(2, discount=0.9)
    assert tree.value[0] == pytest.approx(0.9)


def test_a_node_closes_with_the_last_of_its_children() -> None:
    tree = tree_of_three()
    tree.close(1)
    assert tree.closed.tolist() == [False, True, False]
    assert tree.descend(lambda parent, visits, values, priors: -np.arange(2.0)) == 2
    tree.close(2)
    assert tree.closed.all()


def test_the_rule_of_armap_is_finite_without_visits() -> None:
    made = ucb_spread(8.0, np.array([2.0, 0.0]), np.array([0.5, 0.0]), np.ones(2), exploration=6.36396)
    np.testing.assert_allclose(made, [0.5 + 6.36396 * 1.44203 / 3, 6.36396 * 1.44203], rtol=1e-5)


class Hand:
    """A policy of one step at a time that answers what a script says, and notes what it is asked."""

    batch_size = 1
    concurrency = 1
    name = "hand"

    def __init__(self, script: dict[str, list[str]]) -> None:
        self.script, self.asked = script, []  # type: ignore[var-annotated]

    def propose(self, questions: Any) -> list[list[Continuation]]:
        return [self._answer(question) for question in questions]

    def _answer(self, question: Propose) -> list[Continuation]:
        before = letters(question.prefix)
        self.asked.append((before, question.until, question.n, question.temperature))
        made = []
        for text in self.script[before][: question.n]:
            ended, steps = text.endswith("."), [Step(f"{letter}\n") for letter in text.strip(".")]
            made.append(Continuation(tuple(steps), ended, len(steps)))
        return made


def test_masprm_backs_up_every_end_and_keeps_the_path() -> None:
    # The first walk: a, b (twice a); then below one of them an end c (right) and an x (wrong), both backed up.
    script = {"": ["a", "a", "a", "a"], "a": ["b.", "x.", "b.", "b."]}
    policy = Hand(script)
    flow = estimate["masprm"].take({"problem": PROBLEM, "key": KEY}, simulations=1)
    tree = answer_all(flow, policy=policy, grader=World(length=2))
    assert policy.asked == [("", "step", 4, None), ("a", "step", 4, None)]
    assert by_text(tree, "value") == {"": 0.5, "a": 0.5, "ab": 1.0, "ax": 0.0}
    assert by_text(tree, "visits") == {"": 2, "a": 2, "ab": 1, "ax": 1}
    # Distinct ends count once each, and no interval is claimed for what the search chose.
    assert by_text(tree, "n_rollouts") == {"": 0, "a": 0, "ab": 0, "ax": 0}


def test_a_path_reward_of_one_right_and_two_wrong_is_a_third() -> None:
    policy = Hand({"": ["a.", "x.", "s x.".replace(" ", "")]})
    flow = estimate["masprm"].take({"problem": PROBLEM, "key": KEY}, simulations=1, width=3)
    tree = answer_all(flow, policy=policy, grader=World(length=1))
    assert tree.column("value")[0] == pytest.approx(1 / 3)  # q = -1/3 as the paper counts


def test_meds3_rolls_out_fewer_times_the_deeper_a_step() -> None:
    script = {
        "": ["a", "b", "s"], **{first: ["a."] * 20 for first in "abs"},
        **{first + second: ["a."] * 20 for first in "abs" for second in "abs"},
    }  # fmt: skip
    script |= {first: ["a", "b", "s"] + ["aa."] * 20 for first in ("a", "b", "s")}
    policy = Hand(script)
    flow = estimate["meds3"].take({"problem": PROBLEM, "key": KEY}, simulations=2)
    answer_all(flow, policy=policy, grader=World(length=3))
    counts = {before: n for before, until, n, _ in policy.asked if until == "end"}
    assert {len(before): n for before, n in counts.items()} == {1: 10, 2: 6}


def test_prorag_plays_out_one_new_step_greedily() -> None:
    policy = Hand({"": ["a", "b", "s", "a", "b"], **{first: ["bb."] for first in "abs"}})
    flow = estimate["prorag"].take({"problem": PROBLEM, "key": KEY}, simulations=1)
    tree = answer_all(flow, policy=policy, grader=FEW)
    assert policy.asked[0] == ("", "step", 5, None)
    assert [(until, n, temperature) for _, until, n, temperature in policy.asked[1:]] == [("end", 1, 0.0)]
    played = policy.asked[1][0]
    assert by_text(tree, "value")[played] == 1.0
    assert tree.column("value")[0] == pytest.approx(0.99)


def test_whole_solutions_give_the_first_steps_of_rest_rl() -> None:
    policy = Hand({"": ["aaa.", "axa.", "b.", "aaa.", "s"]})
    flow = estimate["rest-rl"].take({"problem": PROBLEM, "key": KEY}, simulations=1)
    tree = answer_all(flow, policy=policy, grader=FEW)
    value, n, visits = (by_text(tree, name) for name in ("value", "n_rollouts", "visits"))
    # Right: aaa, b, aaa; wrong: axa; the cut s counts as wrong.
    assert value[""] == pytest.approx(3 / 5)
    assert (n[""], visits[""]) == (5, 5)
    # a passed on to aaa, axa, aaa: its own rollouts; it was not visited, so it has no value of the search.
    assert visits["a"] == 0
    labelled = tree_labels(tree, Provenance("rest-rl"))
    assert {letters(one.steps): one.outcome for one in labelled} == {"aaa": 1.0, "axa": 0.0, "b": 1.0, "s": 0.0}


def test_alphamath_values_what_it_expands_and_ends_at_once() -> None:
    class Halves:
        name, batch_size = "halves", 8

        def score_many(self, questions: Any) -> Any:
            return [Scored(np.full(len(q.steps), 0.25)) for q in questions]

    policy = Hand({"": ["a", "x."] * 3, "a": ["b."] * 5})
    flow = estimate["alphamath"].take({"problem": PROBLEM, "key": KEY}, simulations=2)
    tree = answer_all(flow, policy=policy, scorer=Halves(), grader=World(length=2))
    # Walk 1: a and the wrong end x, worth 0. Walk 2: a, worth 0.25, and the right end ab, worth 1.
    assert by_text(tree, "visits") == {"": 3, "a": 2, "x": 1, "ab": 1}
    values = {"": (0 + 0.25 + 1) / 3, "a": (0.25 + 1) / 2, "x": 0.0, "ab": 1.0}
    assert by_text(tree, "value") == pytest.approx(values)
    assert by_text(tree, "score")["a"] == 0.25


def test_a_step_that_is_worth_something_is_shown_without_anything_below_it() -> None:
    policy = Hand({"": ["a", "b"], "a": ["a", "b"]})
    flow = estimate["tree"].take(
        {"problem": PROBLEM, "key": KEY}, simulations=2, width=2, leaf="score", select="puct", readout="score"
    )

    class Half:
        name, batch_size = "half", 8

        def score_many(self, questions: Any) -> Any:
            return [Scored(np.full(len(q.steps), 0.5 if len(q.steps) == 1 else np.nan)) for q in questions]

    tree = answer_all(flow, policy=policy, scorer=Half(), grader=FEW)
    assert {letters(one.steps) for one in tree.trajectories()} == {"a", "b"}
    assert not any(one.terminal for one in tree.trajectories())


@pytest.mark.parametrize("name", ["tree", "masprm", "prorag", "rest-rl"])
def test_visits_add_up_and_means_are_the_sums_of_what_went_up(name: str) -> None:
    settings = {"discount": 1.0} if name == "prorag" else {}
    for tree in grown(name, 4, simulations=30, stable=0, **settings):
        visits, value = tree.column("visits"), tree.column("value")
        for node in range(tree.n):
            children = np.flatnonzero(tree.parent == node)
            if not children.size or not visits[node] > 0:
                continue
            inside = float(np.nansum(visits[children]))
            assert visits[node] >= inside
            if node == 0 and name != "rest-rl":
                assert visits[0] == inside
                assert value[0] * visits[0] == pytest.approx(float(np.nansum(visits[children] * value[children])))


@pytest.mark.parametrize("name", ["meds3", "tree"])
def test_a_mean_of_children_lies_between_them_and_an_end_keeps_its_outcome(name: str) -> None:
    more = {"backup": "children"} if name == "tree" else {"right_ends": 0, "most_nodes": 0}
    for tree in grown(name, 4, simulations=20, **more):
        value, visits = tree.column("value"), tree.column("visits")
        np.testing.assert_array_equal(value[tree.terminal], tree.outcome[tree.terminal])
        for node in range(tree.n):
            below = np.flatnonzero((tree.parent == node) & (visits > 0))
            if below.size and visits[node] > 0:
                assert value[below].min() - 1e-9 <= value[node] <= value[below].max() + 1e-9


def test_leaf_shares_of_equally_deep_trees_are_unbiased_and_distinct_leaves_are_not() -> None:
    trees = grown("hrm", 150, width=3)
    exact = np.array([WORLD.value(problem, ()) for problem in WORLD.problems(150)])
    made = np.array([tree.column("value")[0] for tree in trees])
    gap = made - exact
    assert abs(gap.mean()) < 4 * gap.std() / np.sqrt(150)
    distinct = np.array([np.nanmean(tree.outcomes) for tree in trees])
    assert distinct.mean() < exact.mean() - 4 * (distinct - exact).std() / np.sqrt(150)


def test_a_search_prefers_good_steps_so_that_its_mean_exceeds_the_policys_chance() -> None:
    exact = np.mean([WORLD.value(problem, ()) for problem in WORLD.problems(50)])
    few, many = (
        np.mean([tree.column("value")[0] for tree in grown("tree", 50, simulations=n, exploration=0.5)])
        for n in (4, 64)
    )
    assert many > few > exact - 0.05
    assert many > exact + 0.1


def test_joined_steps_keep_the_leaves_and_the_shares_above() -> None:
    # a has four ends below it, the first one right: as the one step ab it hangs beside a, which keeps none of 3.
    policy = Hand({"": ["a"], "a": ["b.", "x.", "xx.", "xs."]})
    for chance in (0.0, 1.0):
        flow = estimate["hrm"].take({"problem": PROBLEM, "key": KEY}, compress=chance, width=4, max_steps=9)
        tree = answer_all(flow, policy=policy, grader=World(length=9))
        value = {tuple(step.text for step in tree.prefix(i)): tree.column("value")[i] for i in range(tree.n)}
        if chance:
            assert value[("a\nb\n",)] == 1.0
            assert (value[()], value[("a\n",)]) == (0.25, 0.0)
        else:
            assert (value[()], value[("a\n",)], value[("a\n", "b\n")]) == (0.25, 0.25, 1.0)


def test_compression_conserves_the_root_of_every_tree() -> None:
    world, changed = EnumerableWorld(3, 5, seed=1), 0
    for problem in world.problems(12):
        one, other = (
            answer_all(
                estimate["hrm"].take({"problem": problem, "key": KEY}, width=8, compress=chance),
                policy=TabularPolicy(world.next_steps, world.name), grader=world,
            )
            for chance in (0.0, 0.5)
        )  # fmt: skip
        assert other.column("value")[0] == pytest.approx(one.column("value")[0])
        assert sorted(t.text for t in other.trajectories()) == sorted(t.text for t in one.trajectories())
        changed += sorted(map(len, one.trajectories())) != sorted(map(len, other.trajectories()))
    assert changed > 0


def test_scaled_values_reach_from_0_to_1() -> None:
    for tree in grown("qlass", 5):
        value = tree.column("value")
        assert (np.nanmin(value), np.nanmax(value)) == (0.0, 1.0)


@pytest.mark.parametrize(
    "stop", [{"right_ends": 2}, {"wrong_ends": 2}, {"most_nodes": 12}, {"stable": 3, "moved": 1.0}]
)
def test_a_search_stops_when_it_has_enough(stop: dict[str, Any]) -> None:
    (whole,), (short,) = (
        grown("masprm", simulations=60, stable=0),
        grown("masprm", **{"simulations": 60, "stable": 0, **stop}),
    )
    assert short.n < whole.n
    if "right_ends" in stop:
        assert (short.outcomes > 0.5).sum() >= 2


def test_a_spent_budget_returns_what_there_is() -> None:
    driver = Driver(policy=POLICY, grader=WORLD, budget=Budget(rollouts=40))
    (problem,) = WORLD.problems(1)
    (done,) = driver.run([estimate["tree"].take({"problem": problem, "key": KEY}, simulations=100)])
    assert driver.bill.proposals <= 40
    assert (done.result.column("visits") > 0).any()


def test_what_was_not_graded_is_not_wrong() -> None:
    class Unsure(World):
        def grade(self, problem: Problem, solution: Any) -> float:
            return float("nan") if "b" in letters(solution) else super().grade(problem, solution)

    policy = Hand({"": ["a.", "b.", "x.", "b."]})
    flow = estimate["masprm"].take({"problem": PROBLEM, "key": KEY}, simulations=3, stable=0)
    tree = answer_all(flow, policy=policy, grader=Unsure(length=1))
    assert by_text(tree, "value")[""] == 0.5 or np.isin(by_text(tree, "value")[""], [1 / 3, 2 / 3, 0.25, 0.75])
    assert np.isnan(by_text(tree, "value")["b"])
    assert by_text(tree, "visits")["b"] == 0


@pytest.mark.parametrize(("unfinished", "ends"), [("wrong", {"aa": 0.0, "ab": 0.0}), ("drop", {})])
def test_a_path_that_the_limit_cuts_is_wrong_or_dropped(unfinished: str, ends: dict[str, float]) -> None:
    policy = Hand({"": ["a", "a"], "a": ["a", "b"]})
    flow = estimate["tree"].take(
        {"problem": PROBLEM, "key": KEY}, simulations=2, width=2, leaf="path", max_steps=2, unfinished=unfinished
    )
    tree = answer_all(flow, policy=policy, grader=FEW)
    assert {letters(one.steps): one.outcome for one in tree.trajectories() if not np.isnan(one.outcome)} == ends


def test_settings_that_do_not_fit_are_refused() -> None:
    for settings in ({"alpha": 1.5}, {"discount": 0.0}, {"select": "breadth", "leaf": "path"}):
        with pytest.raises(InputError):
            answer_all(estimate["tree"].take({"problem": PROBLEM, "key": KEY}, **settings), policy=POLICY, grader=FEW)
    flow = estimate["tree"].take({"problem": PROBLEM, "key": KEY}, select="puct", prior="logprob")
    with pytest.raises(InputError, match="prior=share"):
        answer_all(flow, policy=ScriptedPolicy({"": ["a\nb\n"]}), grader=FEW)


def test_labels_carry_advantages_that_add_up_to_the_value_of_the_end() -> None:
    (tree,) = grown("masprm", simulations=20, stable=0)
    for one in tree_labels(tree, Provenance("masprm")):
        known = one.column("advantage")
        if not np.isnan(known).any() and one.terminal:
            assert known.sum() == pytest.approx(one.outcome - one.facts["root_value"])


def test_the_flow_asks_policy_and_grader_alone() -> None:
    flow = estimate["masprm"].take({"problem": PROBLEM, "key": KEY}, simulations=1)
    (first,) = next(flow)
    assert isinstance(first, Propose)
    (second, *_) = flow.send([[Continuation((Step("a\n"),), True, 1)]])
    assert isinstance(second, Grade)
