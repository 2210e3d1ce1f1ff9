"""Searches in a small world whose every value is known: digits, a solution is three of them, 9 9 9 is right."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from stepreward.core.keys import Key
from stepreward.core.runtime.driver import Driver, answer_all
from stepreward.core.runtime.flows import Continuation, Propose, Score, Scored
from stepreward.core.types import Problem, Step
from stepreward.policies.tabular import TabularPolicy
from stepreward.search.beams.beam import beam_search, diverse_tree_search
from stepreward.search.candidates import Found
from stepreward.search.samples.independent import best_of_n, majority_vote, weighted_vote

PROBLEM = Problem("digits", "three digits", "999")
KEY = Key.seed(0)


def next_steps(problem: Problem, prefix: Sequence[Step]) -> list[tuple[Step, float, bool]]:
    weights = np.arange(10, 0, -1) / 55
    return [(Step(f"{d}\n"), float(w), len(prefix) == 2) for d, w in enumerate(weights)]


class DigitScorer:
    """Scores a step by its digit: the exact order of prefixes."""

    name, batch_size = "digits", 64

    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        return [Scored(np.array([int(s.text) / 9 for s in q.steps]), len(q.steps), len(q.steps)) for q in questions]


class DigitGrader:
    name = "digits"

    def grade(self, problem: Problem, steps: Sequence[Step]) -> float:
        return float(self.answer(problem, steps) == problem.reference)

    def answer(self, problem: Problem, steps: Sequence[Step]) -> str | None:
        return "".join(s.text.strip() for s in steps)


def find(flow: object) -> Found:
    return answer_all(flow, policy=TabularPolicy(next_steps), scorer=DigitScorer(), grader=DigitGrader())  # type: ignore[arg-type]


def test_a_wide_beam_with_the_exact_scorer_finds_the_best_leaf() -> None:
    found = find(beam_search(PROBLEM, KEY, beams=8, width=300))
    assert found.answer == "999"
    assert len(found.answers) == 8
    assert found.totals[found.chosen] == 1.0
    assert len(set(found.answers)) == 8, "duplicates among the beams"


def test_a_beam_of_one_is_greedy_over_its_own_samples() -> None:
    found = find(beam_search(PROBLEM, KEY, beams=1, width=3))
    policy = TabularPolicy(next_steps)
    prefix: tuple[Step, ...] = ()
    for _ in range(3):
        at = KEY.fold("grow", *(part for step in prefix for part in ("", step.text)))
        (drawn,) = policy.propose([Propose(PROBLEM, prefix, at, n=3, until="step")])
        prefix = (*prefix, max((c.steps[0] for c in drawn), key=lambda s: min(int(x.text) for x in (*prefix, s))))
    assert found.trajectory is not None
    assert [s.text for s in found.trajectory.steps] == [s.text for s in prefix]


def test_diverse_trees_end_in_as_many_candidates() -> None:
    found = find(diverse_tree_search(PROBLEM, KEY, trees=5, width=4))
    assert len(found.answers) == 5
    assert all(t.terminal and len(t) == 3 for t in found.tree.trajectories())


def test_votes_and_best_of_n_choose_as_the_obvious_loop() -> None:
    best, vote = find(best_of_n(PROBLEM, KEY, n=30)), find(weighted_vote(PROBLEM, KEY, n=30))
    assert best.answers == vote.answers
    worst = [min(int(c) for c in a) / 9 for a in best.answers if a]
    np.testing.assert_allclose(best.totals, worst)
    assert best.chosen == int(np.argmax(worst))
    mass = {a: sum(w for b, w in zip(vote.answers, worst, strict=True) if a == b) for a in set(vote.answers)}
    assert mass[vote.answer] == max(mass.values())
    counts = [best.answers.count(a) for a in best.answers]
    assert find(majority_vote(PROBLEM, KEY, n=30)).chosen == int(np.argmax(counts))


class Endings:
    """Writes one digit, then says the end in a continuation of its own, as local models do; or is cut short."""

    name, batch_size, concurrency = "endings", 8, 1

    def __init__(self, *, cut: bool) -> None:
        self.cut = cut

    def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
        return [[self._one(q) for _ in range(q.n)] for q in questions]

    def _one(self, question: Propose) -> Continuation:
        if self.cut:
            return Continuation((Step("7"),), False, 1, truncated=True)
        if question.prefix:
            return Continuation((), True, 1)
        return Continuation((Step("9\n"),), False, 2)


@pytest.mark.parametrize("search", [beam_search, diverse_tree_search])
def test_an_end_without_a_step_finishes_and_a_cut_is_no_end(search: object) -> None:
    def run(cut: bool) -> Found:
        driver = Driver(policy=Endings(cut=cut), scorer=DigitScorer(), grader=DigitGrader())
        return next(driver.run([search(PROBLEM, KEY)])).result  # type: ignore[operator]

    whole = run(cut=False)
    assert whole.answer == "9"
    assert whole.trajectory is not None
    assert whole.trajectory.terminal
    assert run(cut=True).answer is None
