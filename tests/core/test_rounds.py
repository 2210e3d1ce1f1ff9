"""Questions asked in parts: budgets that hold to the token, answers that count though others failed or came late."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.effort import scaled

from stepreward.core.errors import BudgetExhausted, PolicyError, Unanswered
from stepreward.core.keys import Key
from stepreward.core.runtime.answer_log import AnswerLog
from stepreward.core.runtime.answerers import Answerers
from stepreward.core.runtime.driver import Driver, Failed, Finished, ResidentDriver
from stepreward.core.runtime.flows import Continuation, Flow, Propose, Wanted, always
from stepreward.core.runtime.queue import QuestionQueue
from stepreward.core.runtime.running import wave
from stepreward.core.runtime.spending import Budget, Prices
from stepreward.core.types import Problem, Step
from stepreward.policies.expert import WithExpert
from stepreward.search.samples.independent import majority_vote

PROBLEM = Problem("p", "q")
KEY = Key.seed(0)


class Lengths:
    """A sample is as long as its number in a list says, unless its question allows less."""

    name = "lengths"

    def __init__(self, lengths: Sequence[int], *, batch_size: int = 64, concurrency: int = 1, most: int = 1000) -> None:
        self.lengths, self.batch_size, self.concurrency, self.max_tokens = lengths, batch_size, concurrency, most
        self.asked: list[Propose] = []

    def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
        self.asked += questions
        return [[self.one(q, q.first + i) for i in range(q.n)] for q in questions]

    def one(self, question: Propose, number: int) -> Continuation:
        own = self.lengths[number % len(self.lengths)]
        length = min(own, question.max_tokens or self.max_tokens)
        return Continuation((Step(f"{number}:{length}"),), length == own, length, truncated=length < own)


Sampled = tuple[list[str], str]


def sample(n: int, *, partial: bool = True, expert: bool = False, rounds: int = 1) -> Flow[Sampled]:
    """The samples that came, and what ended the asking."""
    came: list[str] = []
    for i in range(rounds):
        question = Propose(PROBLEM, (), KEY.fold(i), n=n, partial=partial, expert=expert)
        try:
            (made,) = yield [question]
        except BudgetExhausted as ended:
            made = ended.answers[0] if ended.answers else []
            return came + [c.steps[0].text for c in made], "budget"
        except Unanswered as failed:
            if not failed.answers[0]:
                raise
            return came + [c.steps[0].text for c in failed.answers[0]], "failed"
        came += [c.steps[0].text for c in made]
    return came, ""


def spend(policy: Any, budget: Budget, flow: Flow[Sampled], **more: Any) -> Finished[Sampled]:
    return next(Driver(policy=policy, budget=budget, **more).run([flow]))


@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=20),
    n=st.integers(1, 40),
    rounds=st.integers(1, 3),
    tokens=st.integers(1, 400),
    most=st.sampled_from([1, 20, 1000]),
    concurrency=st.sampled_from([1, 3]),
)
@settings(deadline=None, max_examples=scaled(60))
def test_no_token_more_than_the_budget_and_none_left_while_samples_wait(
    lengths: list[int], n: int, rounds: int, tokens: int, most: int, concurrency: int
) -> None:
    policy = Lengths(lengths, concurrency=concurrency, most=most)
    one = spend(policy, Budget(tokens=tokens), sample(n, rounds=rounds))
    assert one.bill.generated_tokens <= tokens
    came, ended = one.result
    whole = [f"{i}:{min(lengths[i % len(lengths)], most)}" for i in range(n)] * rounds
    assert (one.stopped == "") == (came == whole), "what was not cut or refused is told as such"
    if ended == "budget":
        assert one.bill.generated_tokens == tokens, "it had tokens left and asked no more"
    else:
        assert len(came) == n * rounds
    again = spend(Lengths(lengths, concurrency=concurrency, most=most), Budget(tokens=tokens), sample(n, rounds=rounds))
    assert again.result == one.result


def test_a_budget_that_holds_everything_changes_no_question() -> None:
    policy = Lengths([7], most=100)
    one = spend(policy, Budget(tokens=1000), sample(10))
    assert policy.asked == [Propose(PROBLEM, (), KEY.fold(0), n=10, partial=True)]
    assert (len(one.result[0]), one.stopped) == (10, "")


def test_a_policy_that_does_not_say_its_limit_is_asked_for_one_sample_first() -> None:
    class Silent(Lengths):
        @property
        def max_tokens(self) -> int:  # type: ignore[override]
            raise AttributeError

        @max_tokens.setter
        def max_tokens(self, value: int) -> None:
            pass

        def one(self, question: Propose, number: int) -> Continuation:
            return Continuation((Step("x"),), True, 10)

    policy = Silent([10])
    spend(policy, Budget(tokens=100), sample(20))
    # One that may have all 100; then 90 // (2 * 10) = 4; then 50 // 20 = 2; 30 // 20 = 1; and the last 20 and 10.
    assert [q.n for q in policy.asked] == [1, 4, 2, 1, 1, 1]


def test_the_wave_by_hand() -> None:
    assert wave([100] * 10, 1000, 0) == (10, 100)
    assert wave([100] * 10, 250, 0) == (2, 125)
    assert wave([100] * 10, 250, 20) == (6, 41)
    assert wave([100] * 10, 250, 80) == (2, 125)
    assert wave([30] * 10, 30, 80) == (1, 30)


@pytest.mark.parametrize("concurrency", [1, 4])
def test_rollouts_are_drawn_as_far_as_they_go(concurrency: int) -> None:
    policy = Lengths([3], batch_size=1 if concurrency > 1 else 64, concurrency=concurrency)
    one = spend(policy, Budget(rollouts=15), sample(16))
    assert (len(one.result[0]), one.bill.proposals, one.stopped) == (15, 15, "rollouts")
    whole = spend(policy, Budget(rollouts=15), sample(16, partial=False))
    assert (whole.result, whole.bill.proposals, whole.stopped) == (([], "budget"), 0, "rollouts")


def test_money_is_counted_at_the_price_of_who_writes() -> None:
    prices = Prices(generated=1.0, expert=10.0)
    both = WithExpert(Lengths([10]), Lengths([10]))
    cheap = spend(both, Budget(money=1e-4), sample(20), prices=prices)
    dear = spend(both, Budget(money=1e-4), sample(20, expert=True), prices=prices)
    assert (cheap.bill.generated_tokens, cheap.bill.expert_tokens) == (100, 0)
    assert (dear.bill.generated_tokens, dear.bill.expert_tokens) == (10, 10)
    assert (cheap.stopped, dear.stopped) == ("money", "money")
    assert prices.of(30, 0, 10) == pytest.approx((20 * 1.0 + 10 * 10.0) / 1e6)


class Slow(Lengths):
    """A server of four requests at once. Sample 3 hangs until it is let go; 2 writes until nobody waits; 1 fails."""

    def __init__(self) -> None:
        super().__init__([5], batch_size=1, concurrency=4)
        self.gate = threading.Event()

    def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
        return self.propose_while(always, questions)

    def propose_while(self, wanted: Wanted, questions: Sequence[Propose]) -> list[list[Continuation]]:
        (question,) = questions
        if question.first == 3 and question.problem.text == "hang":
            self.gate.wait(60)
        if question.first == 2 and question.problem.text != "q":
            while wanted(0):
                time.sleep(0.01)
            return [[Continuation((Step("so far"),), False, 2, True, interrupted=True)]]
        if question.first == 1 and question.problem.text == "fail":
            raise PolicyError("status 500")
        return super().propose(questions)


def ask(text: str, n: int = 8) -> Flow[Sampled]:
    try:
        (made,) = yield [Propose(Problem(text, text), (), KEY, n=n, partial=True)]
    except BudgetExhausted as ended:
        made = ended.answers[0]
        return [c.steps[0].text for c in made], "budget"
    return [c.steps[0].text for c in made], ""


def test_at_the_end_of_its_time_a_flow_gets_what_is_there(tmp_path: Path) -> None:
    policy = Slow()
    try:
        with ResidentDriver(Answerers(policy=policy)) as driver:
            one = driver.submit(ask("hang"), Budget(seconds=2.0)).result(30)
    finally:
        policy.gate.set()
    texts, ended = one.result
    assert (ended, one.stopped) == ("budget", "seconds")
    assert sorted(texts) == sorted([*(f"{i}:5" for i in (0, 1, 4, 5, 6, 7)), "so far"])
    assert one.bill.generated_tokens == 6 * 5 + 2, "what was cut is on the bill too"


def test_what_was_left_off_is_no_answer_for_whoever_asks_again(tmp_path: Path) -> None:
    with AnswerLog(tmp_path / "log") as log:
        one = next(Driver(policy=Slow(), budget=Budget(seconds=1.0), log=log).run([ask("leave", 3)]))
        assert one.result == (["0:5", "1:5", "so far"], "budget")
        assert len(log) == 2
    with AnswerLog(tmp_path / "log") as log:
        whole = next(Driver(policy=Lengths([5], batch_size=1, concurrency=4), log=log).run([ask("leave", 3)]))
        assert whole.result[0][:2] == ["0:5", "1:5"]


def test_who_joins_when_the_policy_has_left_off_is_answered_in_full() -> None:
    """The second client asks the same while the first one's time ends: he must not get the first one's torn sample."""
    torn, left, asked = threading.Event(), threading.Event(), []

    class Torn(Lengths):
        def propose_while(self, wanted: Wanted, questions: Sequence[Propose]) -> list[list[Continuation]]:
            asked.append(questions)
            if len(asked) > 1:
                return self.propose(questions)
            while wanted(0):
                time.sleep(0.005)
            torn.set()
            left.wait(30)
            return [[Continuation((Step("torn"),), False, 1, True, interrupted=True)]]

    with ResidentDriver(Answerers(policy=Torn([5], batch_size=1, concurrency=4))) as driver:
        first = driver.submit(ask("same", 1), Budget(seconds=0.2))
        assert torn.wait(30)
        second = driver.submit(ask("same", 1))
        time.sleep(0.1)
        left.set()
        assert first.result(30).result == (["torn"], "budget")
        assert second.result(30).result == (["0:5"], "")


def test_a_sample_that_fails_leaves_the_others_to_a_flow_that_can_use_them() -> None:
    def failing(n: int, partial: bool) -> Flow[Sampled]:
        try:
            (made,) = yield [Propose(Problem("fail", "fail"), (), KEY, n=n, partial=partial)]
        except Unanswered as failed:
            made = failed.answers[0]
        return [c.steps[0].text for c in made], ""

    driver = Driver(policy=FailsOne([5], batch_size=1, concurrency=4))
    outcomes = {o.index: o for o in driver.outcomes([failing(4, True), failing(4, False), failing(1, True)])}
    partial, whole, alone = outcomes[0], outcomes[1], outcomes[2]
    assert isinstance(partial, Finished)
    assert partial.result == (["0:5", "2:5", "3:5"], "")
    assert partial.bill.failed == 1
    assert isinstance(whole, Failed)
    assert "status 500" in str(whole.error)
    assert isinstance(alone, Finished)


@pytest.mark.parametrize("concurrency", [1, 3])
def test_parts_go_on_from_the_number_that_the_question_begins_with(concurrency: int) -> None:
    def flow() -> Flow[list[str]]:
        (made,) = yield [Propose(PROBLEM, (), KEY, n=5, first=7, partial=True)]
        return [c.steps[0].text for c in made]

    policy = Lengths([2], batch_size=2, concurrency=concurrency, most=4)
    driver = Driver(policy=policy, budget=Budget(tokens=16))
    assert next(driver.run([flow()])).result == [f"{i}:2" for i in range(7, 12)]
    assert len(policy.asked) > 1


def test_of_two_limits_the_nearer_one_holds() -> None:
    for tokens, money in ((30, 1e-3), (1000, 3e-5)):
        one = spend(Lengths([10]), Budget(tokens=tokens, money=money), sample(20), prices=Prices(generated=1.0))
        assert one.bill.generated_tokens == 30


def test_a_search_votes_over_the_samples_that_did_not_fail() -> None:
    class Text:
        name = "text"

        def grade(self, problem: Problem, steps: Sequence[Step]) -> float:
            return float("nan")

        def answer(self, problem: Problem, steps: Sequence[Step]) -> str | None:
            return steps[-1].text

    def searched(n: int) -> Finished[Any] | Failed:
        driver = Driver(policy=FailsOne([5], batch_size=1, concurrency=4), grader=Text())
        return next(driver.outcomes([majority_vote(PROBLEM, KEY, n=n)]))

    found = searched(4)
    assert isinstance(found, Finished)
    assert sorted(filter(None, found.result.answers)) == ["0:5", "2:5", "3:5"]


class FailsOne(Lengths):
    def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
        if any(q.first == 1 for q in questions):
            raise PolicyError("status 500")
        return super().propose(questions)


@pytest.mark.parametrize(("batch_size", "concurrency"), [(64, 1), (1, 1), (1, 4)])
def test_a_flow_that_fails_costs_no_other_its_result(batch_size: int, concurrency: int) -> None:
    class Refuses(Lengths):
        def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
            if any(q.problem.id == "p2" for q in questions):
                raise PolicyError("the prompt is too long")
            return super().propose(questions)

    def flow(i: int) -> Flow[int]:
        for _ in range(3):
            yield [Propose(Problem(f"p{i}", "q"), (), KEY, n=2)]
        if i == 4:
            raise ZeroDivisionError
        return i

    driver = Driver(policy=Refuses([5], batch_size=batch_size, concurrency=concurrency), window=3)
    outcomes = list(driver.outcomes(flow(i) for i in range(7)))
    assert sorted(o.index for o in outcomes) == [*range(7)]
    assert {o.index: o.result for o in outcomes if isinstance(o, Finished)} == {i: i for i in (0, 1, 3, 5, 6)}
    errors = {o.index: type(o.error) for o in outcomes if isinstance(o, Failed)}
    assert errors == {2: PolicyError, 4: ZeroDivisionError}


def test_a_flow_of_many_samples_does_not_hold_up_another() -> None:
    """Places by hand: sample k of the first flow stands at k; after ten were launched, a new flow's first at 9."""
    future: Future[list[Any]] = Future()
    launched: list[str] = []

    def answer(wanted: Wanted, questions: Sequence[Propose]) -> list[Any]:
        launched.append(f"{questions[0].problem.id}{questions[0].first}")
        return [[]]

    lane = QuestionQueue(1, 2, answer, lambda asker: True, lambda done: None, threads=True)
    lane.close()
    lane._pool = None
    for i in range(1000):
        lane.push(f"a{i}", Propose(Problem("a", "a"), (), KEY, first=i), future, turn=i)
    for _ in range(10):
        lane.launch(partial=True)
    for i in range(3):
        lane.push(f"b{i}", Propose(Problem("b", "b"), (), KEY, first=i), future, turn=i)
    for _ in range(7):
        lane.launch(partial=True)
    assert launched[10:] == ["b0", "a10", "b1", "a11", "b2", "a12", "a13"]
