"""Searches guided by the exact value of every prefix, against exhaustive loops over the enumerable world."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest

from stepreward.core.keys import Key
from stepreward.core.runtime.driver import Driver
from stepreward.core.runtime.flows import Continuation, Flow, Policy, Propose, Score, Scored
from stepreward.core.types import Problem, Step
from stepreward.policies.tabular import TabularPolicy
from stepreward.search.beams.beam import beam_search, diverse_tree_search
from stepreward.search.candidates import Found
from stepreward.search.samples.independent import best_of_n, majority_vote, weighted_vote
from stepreward.tasks.enumerable import EnumerableWorld

WORLD = EnumerableWorld(4, 3, seed=2)
PROBLEMS = WORLD.problems(40)
KEY = Key.seed(0)


def values(problem: Problem, steps: Sequence[Step]) -> list[float]:
    return [WORLD.value(problem, steps[: t + 1]) for t in range(len(steps))]


class ExactScorer:
    """The chance that the policy solves the problem from each prefix."""

    name, batch_size = "exact", 64

    def __init__(self) -> None:
        self.asked: list[Score] = []

    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        self.asked += questions
        return [Scored(np.array(values(q.problem, q.steps)), len(q.steps), len(q.steps)) for q in questions]


class Scripted:
    """A policy by rule; remembers what it was asked and what it said."""

    name, batch_size, concurrency = "rule", 64, 1

    def __init__(self, rule: Callable[[Propose, int], Continuation]) -> None:
        self.rule = rule
        self.said: list[tuple[Propose, list[Continuation]]] = []

    def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
        made = [[self.rule(question, i) for i in range(question.n)] for question in questions]
        self.said += zip(questions, made, strict=True)
        return made


def every_choice(question: Propose, i: int) -> Continuation:
    """Sample i takes choice i: as many samples as choices see them all."""
    step, _, finished = WORLD.next_steps(question.problem, question.prefix)[i % 3]
    return Continuation((step,), finished, 1)


def sampled() -> Scripted:
    """The world's own policy, remembered."""
    table = TabularPolicy(WORLD.next_steps, WORLD.name)

    def rule(question: Propose, i: int) -> Continuation:
        one = Propose(question.problem, question.prefix, question.key, i + 1, question.until, question.max_tokens)
        return table.propose([one])[0][i]

    return Scripted(rule)


def find(flow: Flow[Found], policy: Policy, scorer: ExactScorer | None = None) -> Found:
    return next(Driver(policy=policy, scorer=scorer or ExactScorer(), grader=WORLD).run([flow])).result


def slow_beam(problem: Problem, beams: int) -> list[tuple[Step, ...]]:
    """The best prefixes of each length, every continuation tried; ties go to the earliest."""
    kept: list[tuple[Step, ...]] = [()]
    for _ in range(WORLD.depth):
        grown = [(*prefix, step) for prefix in kept for step, _, _ in WORLD.next_steps(problem, prefix)]
        kept = sorted(grown, key=lambda steps: -min(values(problem, steps)))[:beams]
    return kept


@pytest.mark.parametrize("beams", [1, 2, 5, 81])
def test_a_beam_over_every_choice_equals_the_exhaustive_loop(beams: int) -> None:
    for problem in PROBLEMS[:8]:
        found = find(beam_search(problem, KEY, beams=beams, width=3), Scripted(every_choice))
        expected = slow_beam(problem, beams)
        assert [t.steps for t in found.tree.trajectories()] == expected
        np.testing.assert_array_equal(found.totals, [min(values(problem, steps)) for steps in expected])
        assert found.chosen == 0
        # A right choice leads on from every node, and its value is above 0: the exact scorer never loses it.
        assert found.answer == "right"


def test_a_beam_that_covers_everything_is_brute_force() -> None:
    for problem in PROBLEMS[:4]:
        found = find(beam_search(problem, KEY, beams=81, width=3), Scripted(every_choice))
        leaves = [tuple(Step(f"{i}\n") for i in path) for path in product(range(3), repeat=4)]
        assert {t.steps for t in found.tree.trajectories()} == set(leaves)
        assert found.totals.max() == max(min(values(problem, steps)) for steps in leaves)


@pytest.mark.parametrize(("beams", "width"), [(1, 1), (1, 2), (2, 2)])
def test_a_beam_ends_right_exactly_where_every_step_sampled_a_winnable_continuation(beams: int, width: int) -> None:
    ends = []
    for problem in PROBLEMS:
        policy = sampled()
        found = find(beam_search(problem, KEY, beams=beams, width=width), policy)
        winnable = [False] * WORLD.depth
        for question, made in policy.said:
            new = [WORLD.value(problem, question.prefix + c.steps) > 0 for c in made]
            winnable[len(question.prefix)] |= any(new)
        assert (found.answer == "right") == all(winnable)
        ends.append(all(winnable))
    assert any(ends)
    assert beams * width > 1 or not all(ends), "the world is too easy to tell"


def test_questions_of_a_beam() -> None:
    # Choices are distinct, so 6 samples of the root give its 3 children, the 2 best go on with 3 continuations each.
    policy, scorer = Scripted(every_choice), ExactScorer()
    find(beam_search(PROBLEMS[0], KEY, beams=2, width=3), policy, scorer)
    assert [(len(q.prefix), q.n, q.until) for q, _ in policy.said] == [(0, 6, "step")] + [
        (t, 3, "step") for t in (1, 1, 2, 2, 3, 3)
    ]
    assert [len(q.steps) for q in scorer.asked] == [1] * 3 + [2] * 6 + [3] * 6 + [4] * 6


def test_diverse_trees_end_right_and_ask_each_tree_once_a_step() -> None:
    for problem in PROBLEMS[:8]:
        policy, scorer = Scripted(every_choice), ExactScorer()
        found = find(diverse_tree_search(problem, KEY, trees=3, width=3), policy, scorer)
        assert found.answers == ("right",) * 3
        assert all(t.terminal and len(t) == 4 for t in found.tree.trajectories())
        assert [len(q.prefix) for q, _ in policy.said] == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
        assert len({q.key for q, _ in policy.said}) == 12
        assert sum(len(made) for _, made in policy.said) == 36
    found = find(diverse_tree_search(PROBLEMS[0], KEY, trees=4, width=2), sampled())
    assert len(found.answers) == 4


@pytest.mark.parametrize("aggregate", ["min", "last", "product", "mean"])
def test_best_of_n_equals_the_slow_choice(aggregate: str) -> None:
    total: dict[str, Callable[[list[float]], Any]] = {
        "min": min, "last": lambda row: row[-1], "product": np.prod, "mean": np.mean
    }  # fmt: skip
    for problem in PROBLEMS[:10]:
        found = find(best_of_n(problem, KEY, n=12, aggregate=aggregate), TabularPolicy(WORLD.next_steps, WORLD.name))
        totals = [total[aggregate](values(problem, t.steps)) for t in found.tree.trajectories()]
        np.testing.assert_allclose(found.totals, totals)
        assert found.chosen == next(i for i in range(12) if found.totals[i] == found.totals.max())
        if "right" in found.answers and aggregate != "mean":
            assert found.answer == "right"


SEARCHES: list[Any] = [beam_search, diverse_tree_search]
SAMPLERS: list[Any] = [best_of_n, majority_vote, weighted_vote]


def cut_after(length: int) -> Callable[[Propose, int], Continuation]:
    """Takes choices one at a time; whatever would pass `length` steps is cut."""

    def rule(question: Propose, i: int) -> Continuation:
        cut = len(question.prefix) >= length
        made = every_choice(question, i)
        return Continuation(() if cut else made.steps, made.finished and not cut, 1, truncated=cut)

    return rule


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("length", [0, 1, 3])
def test_what_a_limit_cut_is_never_finished(search: Any, length: int) -> None:
    found = find(search(PROBLEMS[0], KEY), Scripted(cut_after(length)))
    assert found.answer is None
    assert not any(t.terminal for t in found.tree.trajectories())
    assert [len(t) for t in found.tree.trajectories()] == ([length] * len(found.answers) if length else [])
    assert (found.chosen == -1) == (length == 0)


@pytest.mark.parametrize("search", SEARCHES)
def test_a_limit_on_steps_leaves_open_candidates(search: Any) -> None:
    found = find(search(PROBLEMS[0], KEY, max_steps=2), Scripted(every_choice))
    assert found.answers
    assert set(found.answers) == {None}
    assert all(not t.terminal and len(t) == 2 for t in found.tree.trajectories())


@pytest.mark.parametrize("search", SEARCHES)
def test_an_end_said_without_a_step_finishes_the_candidate_with_its_scores(search: Any) -> None:
    def rule(question: Propose, i: int) -> Continuation:
        if len(question.prefix) == WORLD.depth:
            return Continuation((), True, 1)
        return Continuation(every_choice(question, i).steps, False, 1)

    scorer = ExactScorer()
    found = find(search(PROBLEMS[0], KEY), Scripted(rule), scorer)
    assert found.answer == "right"
    assert all(t.terminal and len(t) == 4 for t in found.tree.trajectories())
    np.testing.assert_array_equal(found.totals, [min(values(PROBLEMS[0], t.steps)) for t in found.tree.trajectories()])
    assert max(len(q.steps) for q in scorer.asked) == 4


@pytest.mark.parametrize("search", [*SEARCHES, *SAMPLERS])
def test_a_policy_that_only_ends_leaves_nothing_to_choose(search: Any) -> None:
    found = find(search(PROBLEMS[0], KEY), Scripted(lambda question, i: Continuation((), True, 1)))
    assert (found.chosen, found.answer, found.trajectory, found.answers) == (-1, None, None, ())


@pytest.mark.parametrize("search", SAMPLERS)
def test_a_cut_sample_is_chosen_only_where_none_finished(search: Any) -> None:
    right = find(beam_search(PROBLEMS[0], KEY, beams=1, width=3), Scripted(every_choice)).trajectory
    assert right is not None
    # The last value of a whole right solution is 1, but its min is that of its first step, as for the cut one: a tie,
    # and the cut samples come first.

    def rule(question: Propose, i: int) -> Continuation:
        return Continuation(right.steps[:2], False, 2, truncated=True) if i < 3 else Continuation(right.steps, True, 4)

    found = find(search(PROBLEMS[0], KEY, n=4), Scripted(rule))
    assert (found.chosen, found.answer) == (3, "right")
    assert found.answers == (None, None, None, "right")
    all_cut = find(search(PROBLEMS[0], KEY, n=3), Scripted(rule))
    assert (all_cut.chosen, all_cut.answer) == (0, None)
