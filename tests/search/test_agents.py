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

REQUESTS = {"reflexion", "rearter-explained"}
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
