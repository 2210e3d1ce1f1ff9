"""Searches that stop early: their rules in closed form, and how often they stop where the answer's chance is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from stepreward.core.catalog import calibrate
from stepreward.core.keys import Key
from stepreward.core.runtime.driver import Driver, Finished
from stepreward.core.runtime.flows import Continuation, Propose, Score, Scored
from stepreward.core.types import Problem, Step
from stepreward.policies.tabular import TabularPolicy
from stepreward.score.calibrate.calibrated_scorer import CalibratedScorer
from stepreward.search.candidates import Found
from stepreward.search.samples.stopping import (
    adaptive_consistency,
    doubling,
    instance_adaptive,
    lead_is_sure,
    samples_for,
    unanimous_window,
)
from stepreward.tasks.enumerable import EnumerableWorld

PROBLEM = Problem("p", "?")
WORLD = EnumerableWorld(4, 3, seed=3)


class Answers:
    """Says `a` with a given chance, else one of two others."""

    batch_size, concurrency = 64, 1

    def __init__(self, chance: float) -> None:
        self.chance, self.name = chance, f"answers {chance}"

    def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
        return [[self._one(key) for key in q.sample_keys()] for q in questions]

    def _one(self, key: Key) -> Continuation:
        u = float(key.rng().random())
        text = "a" if u < self.chance else "b" if u < self.chance + (1 - self.chance) / 2 else "c"
        return Continuation((Step(text),), True, 1)


class Text:
    name, batch_size = "text", 64

    def grade(self, problem: Problem, steps: Sequence[Step]) -> float:
        return float(steps[-1].text == "a")

    def answer(self, problem: Problem, steps: Sequence[Step]) -> str | None:
        return steps[-1].text

    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        return [Scored(np.array([0.9 if s.text == "a" else 0.1 for s in q.steps])) for q in questions]


def run(flow: Any, chance: float) -> Finished[Found]:
    return next(Driver(policy=Answers(chance), scorer=Text(), grader=Text()).run([flow]))


@given(first=st.integers(0, 12), second=st.integers(0, 12))
def test_the_lead_s_chance_is_an_integral(first: int, second: int) -> None:
    def density(p: float) -> float:
        return p**first * (1 - p) ** second

    expected = quad(density, 0.5, 1)[0] / quad(density, 0, 1)[0]
    assert lead_is_sure(first, second) == pytest.approx(expected, abs=1e-8)


def test_the_lead_worked_out() -> None:
    assert lead_is_sure(0, 0) == 0.5
    # One vote to none: the integral of 2 p from 1/2 to 1.
    assert lead_is_sure(1, 0) == pytest.approx(0.75)
    assert lead_is_sure(4, 0) == pytest.approx(1 - 0.5**5)


@given(p=st.floats(0.01, 0.9), confidence=st.sampled_from([0.5, 0.9, 0.99]))
def test_a_budget_is_the_least_number_that_suffices(p: float, confidence: float) -> None:
    n = samples_for(p, confidence=confidence)
    assert 1 - (1 - p) ** n >= confidence - 1e-9
    assert n == 1 or 1 - (1 - p) ** (n - 1) < confidence + 1e-9
    assert samples_for(min(p + 0.05, 1.0), confidence=confidence) <= n, "an easier problem needs no more"


def test_limits_of_budgets() -> None:
    assert samples_for(1.0) == 1
    assert samples_for(0.0) == math.ceil(math.log(0.01) / math.log(1 - 1e-4))
    with pytest.raises(ValueError, match="confidence"):
        samples_for(0.5, confidence=1.0)


@pytest.mark.parametrize("search", [adaptive_consistency, unanimous_window, doubling, instance_adaptive])
def test_a_sure_policy_costs_few_samples_and_an_unsure_one_many(search: Any) -> None:
    sure = run(search(PROBLEM, Key.seed(1)), 1.0)
    unsure = [run(search(PROBLEM, Key.seed(i)), 0.1) for i in range(20)]
    assert sure.result.answer == "a"
    assert sure.bill.proposals <= 5
    assert np.mean([one.bill.proposals for one in unsure]) > 1.5 * sure.bill.proposals
    # The samples are those of the plain vote, only fewer.
    assert all(len(one.result.answers) == one.bill.proposals for one in unsure)


def test_it_stops_exactly_where_the_rule_says() -> None:
    # Four equal votes: 1 - 2^-5 = 0.97 is the first above 0.95; rounds are of one.
    assert run(adaptive_consistency(PROBLEM, Key.seed(0), at_once=1), 1.0).bill.proposals == 4
    assert run(unanimous_window(PROBLEM, Key.seed(0), window=3), 1.0).bill.proposals == 3
    assert run(doubling(PROBLEM, Key.seed(0), start=4), 1.0).bill.proposals == 4
    # A chance of 0.9 needs two samples for 0.99, and five for 0.99999.
    assert run(instance_adaptive(PROBLEM, Key.seed(0), least=1), 1.0).bill.proposals == 2
    assert run(instance_adaptive(PROBLEM, Key.seed(0), least=1, confidence=0.99999), 1.0).bill.proposals == 5


class Values:
    """The exact chance of success after each step."""

    name, batch_size = "values", 64

    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        return [
            Scored(np.array([WORLD.value(q.problem, q.steps[: t + 1]) for t in range(len(q.steps))])) for q in questions
        ]


def budgets(scorer: Any, problem: Problem, least: int) -> list[int]:
    """Samples that the search pays for."""
    driver = Driver(policy=TabularPolicy(WORLD.next_steps), scorer=scorer, grader=WORLD)
    flow = instance_adaptive(problem, Key.seed(0), n=100_000, least=least)
    return [len(one.result.answers) for one in driver.run([flow])]


def test_the_first_steps_tell_the_budget_of_the_question() -> None:
    # Brute force: the first `least` samples by their keys, their first steps' scores, Eq. 3. Ends do not matter.
    for problem in WORLD.problems(6):
        firsts = WORLD.next_steps(problem, ())
        at_question = sum(chance * WORLD.value(problem, (step,)) for step, chance, _ in firsts)
        assert at_question == pytest.approx(WORLD.value(problem, ())), "what the mean of first steps tends to"
        for least in (1, 3, 40):
            question = Propose(problem, (), Key.seed(0).folding("grow").key, n=least)
            (samples,) = TabularPolicy(WORLD.next_steps).propose([question])
            p = np.mean([WORLD.value(problem, one.steps[:1]) for one in samples])
            wanted = math.ceil(math.log(0.01) / math.log(1 - min(max(p, 1e-4), 1 - 1e-4)) - 1e-9)
            assert budgets(Values(), problem, least) == [max(least, wanted)]


def test_lower_quantiles_of_the_chance_buy_more_samples() -> None:
    # Success rates of 0, 1/2 and 1 at a score of 1/2: the tenth is 0 and the median 1/2, wherever the score is.
    scores, rates = np.full(30, 0.5), np.repeat([0.0, 0.5, 1.0], 10)
    lower, median = (calibrate["quantile"](level=level).fit(scores, rates) for level in (0.1, 0.5))
    problem = WORLD.problems(1)[0]
    assert budgets(CalibratedScorer(Values(), median), problem, 1) == [samples_for(0.5)] == [7]
    assert budgets(CalibratedScorer(Values(), lower), problem, 1) == [samples_for(0.0)]


def test_the_window_stops_as_often_as_it_should() -> None:
    # A window of two stops at once with chance p^2 + 2 (q/2)^2.
    p, runs = 0.6, 2000
    driver = Driver(policy=Answers(p), grader=Text())
    flows = [unanimous_window(PROBLEM, Key.seed(i), n=8, window=2) for i in range(runs)]
    at_once = float(np.mean([one.bill.proposals == 2 for one in driver.run(flows)]))
    expected = p**2 + 2 * ((1 - p) / 2) ** 2
    assert abs(at_once - expected) < 4 * math.sqrt(expected * (1 - expected) / runs)


def test_the_most_is_the_most() -> None:
    for search in (adaptive_consistency, unanimous_window, doubling, instance_adaptive):
        assert run(search(PROBLEM, Key.seed(2), n=7), 0.34).bill.proposals <= 7
