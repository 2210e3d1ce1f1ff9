"""Searches in an environment: what is shown between actions is no step of a search, and a request is no action.

The world of `test_conformance`, as text and as an environment that shows the digits so far: which digit a sample writes
depends on the digits before it and on the sample's number alone, so that both must be searched alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from stepreward.core.catalog import search
from stepreward.core.keys import Key
from stepreward.core.method import Method
from stepreward.core.runtime.acts import REWORDS, Observation
from stepreward.core.runtime.agent import Agent
from stepreward.core.runtime.driver import Driver
from stepreward.core.runtime.flows import Compare, Continuation, Judged, Propose, Score, Scored
from stepreward.core.types import Problem, Step
from stepreward.environments.episode_pool import EpisodePool
from stepreward.search.candidates import Candidate, Found
from tests.search.test_conformance import DEPTH, EVERY, KEY, METHODS, ByDigit, Sum, digit, problem

REQUESTS = {"reflexion", "rearter-explained", "guided-retry"}
"""Those that ask the policy for words."""


class ByNumber:
    """Writes digits; the end is a turn of its own, as a language model's is."""

    name, batch_size, concurrency = "by number", 64, 1

    def __init__(self) -> None:
        self.requests: list[Propose] = []

    def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
        self.requests += [q for q in questions if not q.acts]
        return [[self._one(q, q.first + i) for i in range(q.n)] for q in questions]

    def _one(self, question: Propose, number: int) -> Continuation:
        if not question.acts:
            return Continuation((Step("Take a 9.\n"),), True, 3)
        said = [digit(step) for step in question.prefix if step.kind == "action"]
        count = min(1 if question.until == "step" else DEPTH, DEPTH - len(said))
        made = list[Step]()
        for _ in range(count):
            said.append(int(Key.seed(5).fold(number, *said).rng().integers(10)))
            meta = {"self_certainty": float(said[-1])}
            made.append(Step(f"{said[-1]}\n", logprobs=(-1.0 / (1 + said[-1]),), tokens=(said[-1],), meta=meta))
        return Continuation(tuple(made), count == 0 or question.until == "end", count)


class Showing:
    """Shows the digits so far; the episode is over after three."""

    def reset(self, given: Problem) -> Observation:
        self.digits = ""
        return Observation.of("nothing yet\n")

    def act(self, action: Step) -> Observation:
        self.digits += str(digit(action))
        return Observation.of(f"so far {self.digits}\n", done=len(self.digits) == DEPTH)

    def close(self) -> None:
        """Nothing runs."""


class OneTurn(ByNumber):
    """The same, a turn at a time: who acts is asked for whole answers."""

    def _one(self, question: Propose, number: int) -> Continuation:
        if not question.acts:
            return super()._one(question, number)
        made = super()._one(question, number)
        return Continuation(made.steps[:1], True, 1)


class Numbers(Sum):
    def compare_many(self, questions: Sequence[Compare]) -> list[Judged]:
        def number(steps: Sequence[Step]) -> int:
            return int("0" + "".join(str(digit(step)) for step in steps if step.kind == "action"))

        return [Judged(0.5 + 0.5 * float(np.sign(number(q.first) - number(q.second)))) for q in questions]


def run(method: Method[..., Any], policy: Any, scorer: Any = None, **how: Any) -> Found:
    judge = Numbers()
    driver = Driver(policy=policy, scorer=scorer or ByDigit(), grader=judge, judge=judge)
    return next(driver.run([method(problem(), KEY, **how)])).result


def agent(policy: ByNumber | None = None) -> Agent:
    return Agent(policy or OneTurn(), EpisodePool(Showing, "showing"))


def said(found: Found) -> list[tuple[tuple[str, ...], tuple[float, ...], bool]]:
    rows = []
    for one in found.trajectories():
        scores = one.columns.get("score", np.full(len(one), np.nan))
        actions = [at for at, step in enumerate(one.steps) if step.kind == "action"]
        text = tuple(one.steps[at].text for at in actions)
        rows.append((text, tuple(np.nan_to_num(scores[actions], nan=-1.0).round(9).tolist()), one.terminal))
    return rows


@EVERY
def test_a_search_of_an_agent_is_that_of_the_same_text(method: Method[..., Any]) -> None:
    plain, acted = run(method, ByNumber()), run(method, agent())
    assert said(acted) == said(plain)
    assert acted.answers == plain.answers
    np.testing.assert_allclose(acted.totals, plain.totals)
    assert acted.chosen == plain.chosen


@pytest.mark.parametrize("name", sorted(REQUESTS & {method.name for method in METHODS}))
def test_a_request_in_words_is_answered_and_not_acted(name: str) -> None:
    policy = OneTurn()
    low = ByDigit(lambda scores: 0.1 * scores)
    run(search[name], agent(policy), low)
    assert policy.requests
    assert all(question.problem.meta[REWORDS] == "p" for question in policy.requests)


def test_turns_of_a_candidate() -> None:
    shown, act = Step("seen", "observation"), Step("act")
    one = Candidate((shown, act, shown, shown, act))
    assert one.turns == 2
    assert [one.length_of(n) for n in range(5)] == [0, 2, 5, 5, 5]
    assert Candidate().length_of(1) == 0


class Doubting:
    """Likes a step only where the problem holds the critique."""

    name, batch_size = "doubting", 64

    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        values = [np.array([0.9 if "better" in s.text else 0.1 for s in q.steps]) for q in questions]
        return [Scored(one, one.size, one.size) for one in values]


class Learning:
    """Writes a better step where it reads the explanation."""

    name, batch_size, concurrency = "learning", 64, 1

    def __init__(self) -> None:
        self.asked: list[Propose] = []

    def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
        self.asked += questions
        return [[self._one(q) for _ in range(q.n)] for q in questions]

    def _one(self, question: Propose) -> Continuation:
        if not question.acts:
            return Continuation((Step("Look it up."),), True, 1)
        text = "better\n" if "Look it up." in question.problem.text else "guess\n"
        return Continuation((Step(text),), bool(question.prefix), 1)


def explained(**how: Any) -> tuple[Found, Learning]:
    policy = Learning()
    driver = Driver(policy=policy, scorer=Doubting(), grader=Numbers2())
    settings = {"width": 2, "ahead": 0, "doubt": 0.5, **how}
    return next(driver.run([search["rearter-explained"](problem(), KEY, **settings)])).result, policy


class Numbers2:
    name = "text"

    def grade(self, given: Problem, steps: Sequence[Step]) -> float:
        return 1.0

    def answer(self, given: Problem, steps: Sequence[Step]) -> str | None:
        return steps[-1].text


@pytest.mark.parametrize(("most", "texts"), [(2, ["better"] * 2), (1, ["better", "guess"]), (0, ["guess"] * 2)])
def test_doubtful_steps_are_explained_and_sampled_again(most: int, texts: list[str]) -> None:
    found, policy = explained(most=most)
    assert found.trajectory is not None
    assert [step.text.strip() for step in found.trajectory.steps] == texts
    requests = [question for question in policy.asked if not question.acts]
    assert len(requests) == most
    for question in requests:
        assert "guess" in question.problem.text
        assert "Say briefly what is wrong with it" in question.problem.text


def test_without_doubt_nothing_is_explained() -> None:
    found, policy = explained(doubt=0.1)
    assert all(question.acts for question in policy.asked)
    plain = next(
        Driver(policy=Learning(), scorer=Doubting(), grader=Numbers2()).run(
            [search["rearter"](problem(), KEY, width=2, ahead=0)]
        )
    ).result
    assert said(found) == said(plain)


class Rising:
    """Gives an action the digit in it, out of ten; anything else nothing."""

    name, batch_size = "rising", 64

    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        values = [
            np.array([int(s.text.strip()) / 10 if s.kind == "action" else np.nan for s in q.steps]) for q in questions
        ]
        return [Scored(one, one.size, one.size) for one in values]


class Improving:
    """Proposes 1, and one more than what a request says was not executed."""

    name, batch_size, concurrency = "improving", 64, 1

    def __init__(self) -> None:
        self.asked: list[Propose] = []

    def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
        self.asked += questions
        return [[self._one(q)] * q.n for q in questions]

    def _one(self, question: Propose) -> Continuation:
        if not question.acts:
            return Continuation((Step("Too small."),), True, 1)
        lines = question.problem.text.splitlines()
        before = [line for line in lines if line.isdigit()]
        return Continuation((Step(f"{int(before[-1]) + 1 if before else 1}\n"),), True, 1)


def retried(**how: Any) -> tuple[list[str], Improving, EpisodePool]:
    policy, pool = Improving(), EpisodePool(Noting, "noting")
    driver = Driver(policy=Agent(policy, pool), scorer=Rising(), grader=Numbers2())
    found = next(driver.run([search["guided-retry"](Problem("p", "Say a number."), KEY, **how)])).result
    pool.close()
    assert found.trajectory is not None
    return [s.text.strip() for s in found.trajectory.steps if s.kind == "action"], policy, pool


class Noting:
    """Shows what was done; over after two actions."""

    def __init__(self) -> None:
        self.done = 0

    def reset(self, problem: Problem) -> Observation:
        return Observation.of("Begin.")

    def act(self, action: Step) -> Observation:
        self.done += 1
        return Observation.of(f"did {action.text}", done=self.done == 2, outcome=1.0)

    def close(self) -> None:
        """Nothing runs."""


def test_an_action_below_the_threshold_is_asked_for_again_and_the_best_is_executed() -> None:
    texts, policy, pool = retried(doubt=0.35)
    # 1, then 2, 3 and 4, which is above the threshold; alike after it.
    assert texts == ["4", "4"]
    # What was not taken was not executed.
    assert pool.executed == 2
    requests = [q.problem.text for q in policy.asked if q.acts and "was not executed" in q.problem.text]
    assert len(requests) == 6
    assert "a reward model gives it 0.10 of 1.\n1\n\nToo small.\nPropose another one." in requests[0]


@pytest.mark.parametrize(
    ("how", "texts"),
    [
        ({"doubt": 0.9}, ["4", "4"]), ({"doubt": 0.9, "retries": 1}, ["2", "2"]), ({"doubt": 0.05}, ["1", "1"]),
        ({"doubt": 0.9, "most": 4}, ["4", "2"]),
    ],
)  # fmt: skip
def test_retries_are_bounded_for_a_step_and_for_a_solution(how: dict[str, Any], texts: list[str]) -> None:
    made, policy, _ = retried(**how)
    assert made == texts
    assert sum(q.acts for q in policy.asked) == sum(map(int, texts))


def test_without_an_explanation_the_score_is_told_alone() -> None:
    texts, policy, _ = retried(doubt=0.35, explain_request="")
    assert texts == ["4", "4"]
    assert all(q.acts for q in policy.asked)
