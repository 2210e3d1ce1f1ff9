"""Flows under the driver: order, batches, budgets, sharing of equal questions, logs and replay."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from stepreward.core.errors import BudgetExhausted, SteprewardError
from stepreward.core.keys import Key
from stepreward.core.runtime.answer_log import AnswerLog
from stepreward.core.runtime.driver import Driver, Finished, answer_all
from stepreward.core.runtime.flows import (
    Compare,
    Continuation,
    Extract,
    Flow,
    Grade,
    Judged,
    Propose,
    Score,
    Scored,
)
from stepreward.core.runtime.spending import Budget, Prices
from stepreward.core.types import Problem, Step


class Dice:
    """A policy whose step is a keyed digit; remembers the sizes of its batches."""

    def __init__(self, batch_size: int = 8, concurrency: int = 1, delay: float = 0.0) -> None:
        self.name, self.batch_size, self.concurrency, self.delay = "dice", batch_size, concurrency, delay
        self.batches: list[int] = []
        self.together = self.most_together = 0
        self._lock = threading.Lock()

    def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
        with self._lock:
            self.together += 1
            self.most_together = max(self.most_together, self.together)
            self.batches.append(sum(question.n for question in questions))
        threading.Event().wait(self.delay)
        with self._lock:
            self.together -= 1
        return [[self.sample(key) for key in question.sample_keys()] for question in questions]

    @staticmethod
    def sample(key: Key) -> Continuation:
        return Continuation((Step(str(key.rng().integers(10))),), True, 2)


class LengthScorer:
    name, batch_size = "length", 4

    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        return [Scored(np.array([float(len(s.text)) for s in q.steps]), 3, 5) for q in questions]


class Even:
    name = "even"

    def grade(self, problem: Problem, steps: Sequence[Step]) -> float:
        return float(int(steps[-1].text) % 2 == 0)

    def answer(self, problem: Problem, steps: Sequence[Step]) -> str | None:
        return steps[-1].text


def evens(problem: Problem, rounds: int, n: int = 2) -> Flow[list[float]]:
    """Grades of `rounds` times `n` samples, one round after the other."""
    grades: list[float] = []
    for i in range(rounds):
        (continuations,) = yield [Propose(problem, (), Key.seed(0).fold(problem.id, i), n=n)]
        grades += yield [Grade(problem, c.steps) for c in continuations]
    return grades


def truth(problem: Problem, rounds: int, n: int = 2) -> list[float]:
    keys = [Key.seed(0).fold(problem.id, i).fold(j) for i in range(rounds) for j in range(n)]
    return [float(int(key.rng().integers(10)) % 2 == 0) for key in keys]


PROBLEMS = [Problem(f"p{i}", "roll") for i in range(20)]


@pytest.mark.parametrize(
    ("batch_size", "concurrency", "window"), [(1, 1, 3), (8, 1, 1024), (7, 1, 4), (2, 3, 5), (64, 4, 64)]
)
def test_results_do_not_depend_on_batching(batch_size: int, concurrency: int, window: int) -> None:
    driver = Driver(policy=Dice(batch_size, concurrency), grader=Even(), window=window)
    results = {f.index: f.result for f in driver.run(evens(p, i % 4) for i, p in enumerate(PROBLEMS))}
    assert results == {i: truth(p, i % 4) for i, p in enumerate(PROBLEMS)}
    rounds = sum(i % 4 for i in range(20))
    assert (driver.bill.proposals, driver.bill.generated_tokens, driver.bill.grades) == (
        2 * rounds,
        4 * rounds,
        2 * rounds,
    )


def test_local_batches_are_full() -> None:
    policy = Dice(batch_size=8)
    list(Driver(policy=policy, grader=Even()).run(evens(p, 3) for p in PROBLEMS))
    assert sum(policy.batches) == 120
    assert max(policy.batches) == 8
    assert len(policy.batches) == 15


def test_requests_to_a_server_are_concurrent_and_bounded() -> None:
    policy = Dice(batch_size=1, concurrency=4, delay=0.02)
    list(Driver(policy=policy, grader=Even()).run(evens(p, 2) for p in PROBLEMS))
    assert policy.most_together == 4


def test_a_flow_advances_while_another_waits() -> None:
    """A slow answer for one flow does not hold the other one back."""

    class OneSlow(Dice):
        def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
            if questions[0].problem.id == "p0":
                time.sleep(0.3)
            return super().propose(questions)

    driver = Driver(policy=OneSlow(1, 3), grader=Even())
    order = [f.index for f in driver.run([evens(PROBLEMS[0], 1), evens(PROBLEMS[1], 5)])]
    assert order == [1, 0]


def test_equal_questions_are_asked_once_and_billed_once() -> None:
    policy = Dice()
    finished: list[Finished[list[float]]] = list(
        Driver(policy=policy, grader=Even()).run([evens(PROBLEMS[0], 2) for _ in range(3)])
    )
    assert sum(policy.batches) == 4
    assert sorted(f.bill.proposals for f in finished) == [0, 0, 4]


def test_scores_and_answers_reach_the_flow() -> None:
    def flow(problem: Problem) -> Flow[tuple[list[float], str]]:
        steps = (Step("ab"), Step("4"))
        scores, answer = yield [Score(problem, steps), Extract(problem, steps)]
        nothing = yield []
        assert nothing == []
        return scores.tolist(), answer

    driver = Driver(scorer=LengthScorer(), grader=Even())
    (finished,) = driver.run([flow(PROBLEMS[0])])
    assert finished.result == ([2.0, 1.0], "4")
    assert (finished.bill.scored_steps, finished.bill.scored_tokens, finished.bill.scored_tokens_unshared) == (2, 3, 5)


@pytest.mark.parametrize(
    ("budget", "kept"), [(Budget(rollouts=5), 4), (Budget(rollouts=4), 4), (Budget(tokens=3), 2), (Budget(tokens=5), 4)]
)
def test_budgets_are_kept_and_the_flow_returns_what_it_has(budget: Budget, kept: int) -> None:
    def patient(problem: Problem) -> Flow[list[float]]:
        grades: list[float] = []
        for i in range(9):
            try:
                (continuations,) = yield [Propose(problem, (), Key.seed(0).fold(problem.id, i), n=2)]
            except BudgetExhausted:
                break
            grades += yield [Grade(problem, c.steps) for c in continuations]
        return grades

    driver = Driver(policy=Dice(), grader=Even(), budget=budget)
    assert [len(f.result) for f in driver.run(patient(p) for p in PROBLEMS[:3])] == [kept] * 3
    assert driver.bill.proposals == 3 * kept


def test_a_flow_that_does_not_catch_the_end_of_its_budget_fails_loudly() -> None:
    with pytest.raises(BudgetExhausted, match="rollouts=1"):
        list(Driver(policy=Dice(), grader=Even(), budget=Budget(rollouts=1)).run([evens(PROBLEMS[0], 1)]))


def test_a_resumed_run_pays_only_for_what_is_missing(tmp_path: Path) -> None:
    with AnswerLog(tmp_path / "log.sqlite") as log:
        list(Driver(policy=Dice(), grader=Even(), log=log).run(evens(p, 2) for p in PROBLEMS[:10]))
    with AnswerLog(tmp_path / "log.sqlite") as log:
        driver = Driver(policy=Dice(), grader=Even(), log=log)
        results = {f.index: f.result for f in driver.run(evens(p, 3) for p in PROBLEMS)}
    assert results == {i: truth(p, 3) for i, p in enumerate(PROBLEMS)}
    assert (driver.bill.cached, driver.bill.proposals) == (20, 10 * 2 + 10 * 6)


def test_a_log_replays_without_a_policy(tmp_path: Path) -> None:
    with AnswerLog(tmp_path / "log.sqlite") as log:
        policy = Dice()
        policy.name = ""
        list(Driver(policy=policy, grader=Even(), log=log).run([evens(PROBLEMS[0], 2)]))
        (finished,) = Driver(grader=Even(), log=log).run([evens(PROBLEMS[0], 2)])
        assert finished.result == truth(PROBLEMS[0], 2)
        with pytest.raises(SteprewardError, match="pass policy="):
            list(Driver(grader=Even(), log=log).run([evens(PROBLEMS[1], 1)]))


def test_answer_all_runs_one_flow() -> None:
    assert answer_all(evens(PROBLEMS[3], 2), policy=Dice(), grader=Even()) == truth(PROBLEMS[3], 2)


class Alphabetical:
    """A judge for whom the earlier text is better; remembers the sizes of its batches."""

    name, batch_size = "alphabetical", 2

    def __init__(self) -> None:
        self.batches: list[int] = []

    def compare_many(self, questions: Sequence[Compare]) -> list[Judged]:
        self.batches.append(len(questions))
        return [Judged(float(q.first[0].text < q.second[0].text), 7) for q in questions]


def test_a_judge_answers_comparisons_in_batches_billed_and_logged(tmp_path: Path) -> None:
    def flow() -> Flow[list[float]]:
        steps = [(Step(text),) for text in "abc"]
        pairs = [(0, 1), (2, 1), (0, 2)]
        return (yield [Compare(Problem("p", "?"), steps[a], steps[b]) for a, b in pairs])

    for paid in (True, False):
        judge = Alphabetical()
        with AnswerLog(tmp_path / "log.sqlite") as log:
            (done,) = Driver(judge=judge, log=log).run([flow()])
        assert done.result == [1.0, 0.0, 1.0]
        assert judge.batches == ([2, 1] if paid else [])
        assert (done.bill.comparisons, done.bill.cached) == ((3, 0) if paid else (0, 3))
        assert done.bill.judged_tokens == (21 if paid else 0)


def test_a_comparison_without_a_judge_names_who_is_missing() -> None:
    def flow() -> Flow[list[float]]:
        return (yield [Compare(Problem("p", "?"), (), ())])

    with pytest.raises(SteprewardError, match="pass judge="):
        answer_all(flow())


class Steady:
    """Scores every step 1, ten tokens a question."""

    name, batch_size = "steady", 4

    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        return [Scored(np.ones(len(q.steps)), 10, 30) for q in questions]


def scored_samples(problem: Problem, rounds: int) -> Flow[int]:
    """Samples and scores one after another; returns how many it got."""
    done = 0
    for i in range(rounds):
        try:
            ((one,),) = yield [Propose(problem, (), Key.seed(0).fold(problem.id, i))]
        except BudgetExhausted:
            break
        yield [Score(problem, one.steps)]
        done += 1
    return done


@pytest.mark.parametrize(
    ("budget", "kept"),
    [
        (Budget(scored_tokens=25), 3),
        (Budget(scored_tokens=10), 1),
        # A round costs 2 tokens of the policy at 2 and 10 of the scorer at 3: 34.
        (Budget(money=68.0), 2),
        (Budget(money=69.0), 3),
        # The clock moves by one each time it is read: at the start, then before each sample.
        (Budget(seconds=2.5), 2),
        (Budget(seconds=1e9), 5),
    ],
)
def test_budgets_of_scoring_time_and_money_end_a_flow_with_what_it_has(budget: Budget, kept: int) -> None:
    ticks = iter(range(1000))
    driver = Driver(
        policy=Dice(),
        scorer=Steady(),
        budget=budget,
        prices=Prices(generated=2e6, scored=3e6),
        clock=lambda: float(next(ticks)),
    )
    (one,) = driver.run([scored_samples(PROBLEMS[0], 5)])
    assert one.result == kept
    assert one.seconds > 0
    assert one.bill.scored_tokens == 10 * kept


def test_prices() -> None:
    assert Prices(generated=10.0, scored=1.0).of(500_000, 2_000_000) == 7.0
