"""The driver that stays: flows of other threads, their faults, their ends in time, and those that leave."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, wait

import numpy as np
import pytest

from stepreward.core.errors import BudgetExhausted, InputError, PolicyError, SteprewardError
from stepreward.core.keys import Key
from stepreward.core.runtime.answerers import Answerers
from stepreward.core.runtime.driver import ResidentDriver
from stepreward.core.runtime.flows import Continuation, Flow, Propose, Score, Scored, Wanted, always
from stepreward.core.runtime.spending import Budget
from stepreward.core.types import Problem, Step


class Server:
    """A policy of several requests at once: says its problem's id, fails or waits where the prompt asks for it."""

    name, batch_size, concurrency = "server", 1, 4

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.abandoned: list[str] = []
        self.gate = threading.Event()
        self.may_return = threading.Event()
        """Until it is set, an answer that is no longer wanted does not return."""
        self.may_return.set()

    def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
        return self.propose_while(always, questions)

    def propose_while(self, wanted: Wanted, questions: Sequence[Propose]) -> list[list[Continuation]]:
        problem = questions[0].problem
        self.asked.append(problem.id)
        if problem.text == "fail":
            raise PolicyError("broken")
        while problem.text == "wait" and not self.gate.wait(0.01):
            if not wanted(0):
                self.abandoned.append(problem.id)
                self.may_return.wait(60)
                return [[Continuation((Step("so far"),), False, 1, True, interrupted=True)] * q.n for q in questions]
        return [[Continuation((Step(problem.id),), True, 2)] * q.n for q in questions]


class Lengths:
    """Scores by length; a step that says "bad" fails its whole batch."""

    name, batch_size = "lengths", 8

    def __init__(self) -> None:
        self.batches: list[int] = []

    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        self.batches.append(len(questions))
        time.sleep(0.02)
        if any(step.text == "bad" for q in questions for step in q.steps):
            raise InputError("a bad step")
        return [Scored(np.array([float(len(s.text)) for s in q.steps]), 3, 5) for q in questions]


def write(problem: Problem, rounds: int = 1) -> Flow[list[str]]:
    said = []
    for i in range(rounds):
        try:
            (made,) = yield [Propose(problem, (), Key.seed(0).fold(problem.id, i))]
        except BudgetExhausted:
            break
        said.append(made[0].steps[0].text)
    return said


def score(problem: Problem, text: str) -> Flow[float]:
    (scores,) = yield [Score(problem, (Step(text),))]
    return float(scores[0])


@pytest.fixture
def parts() -> Iterator[tuple[Server, Lengths, ResidentDriver]]:
    policy, scorer = Server(), Lengths()
    with ResidentDriver(Answerers(policy=policy, scorer=scorer)) as driver:
        yield policy, scorer, driver
        policy.gate.set()


Parts = tuple[Server, Lengths, ResidentDriver]


def test_flows_of_many_threads_end_with_their_own_results(parts: Parts) -> None:
    _, _, driver = parts
    made: dict[int, list[str]] = {}

    def client(i: int) -> None:
        made[i] = driver.submit(write(Problem(f"p{i}", "say"), 1 + i % 3)).result(10).result

    threads = [threading.Thread(target=client, args=(i,)) for i in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == {i: [f"p{i}"] * (1 + i % 3) for i in range(40)}
    assert driver.bill.generated_tokens == 2 * sum(1 + i % 3 for i in range(40))
    assert driver.active == 0


def test_questions_that_wait_for_a_busy_scorer_share_its_next_batch(parts: Parts) -> None:
    _, scorer, driver = parts
    futures = [driver.submit(score(Problem("p", "q"), "x" * i)) for i in range(1, 21)]
    assert [f.result(10).result for f in futures] == [float(i) for i in range(1, 21)]
    assert sum(scorer.batches) == 20
    assert max(scorer.batches) == 8


def test_a_fault_ends_the_flow_that_asked_and_no_other(parts: Parts) -> None:
    _, _, driver = parts
    futures = {text: driver.submit(score(Problem("p", "q"), text)) for text in ("a", "bb", "bad", "cccc")}
    broken = driver.submit(write(Problem("x", "fail")))
    assert {t: f.result(10).result for t, f in futures.items() if t != "bad"} == {"a": 1.0, "bb": 2.0, "cccc": 4.0}
    with pytest.raises(InputError, match="a bad step"):
        futures["bad"].result(10)
    with pytest.raises(PolicyError, match="broken"):
        broken.result(10)
    assert driver.submit(write(Problem("y", "say"))).result(10).result == ["y"]


def test_an_error_of_the_flow_itself_and_a_missing_answerer_reach_who_submitted_it(parts: Parts) -> None:
    _, _, driver = parts

    def wrong(problem: Problem) -> Flow[None]:
        yield [Propose(problem, (), Key.seed(0))]
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        driver.submit(wrong(Problem("p", "say"))).result(10)
    with ResidentDriver(Answerers()) as empty, pytest.raises(SteprewardError, match="there is no policy"):
        empty.submit(write(Problem("p", "say"))).result(10)


def test_time_is_over_in_the_middle_of_a_question(parts: Parts) -> None:
    policy, _, driver = parts
    policy.may_return.clear()
    end = driver.submit(write(Problem("slow", "wait"), 3), Budget(seconds=0.2)).result(30)
    assert (end.result, end.stopped) == ([], "seconds")
    _until(lambda: policy.abandoned == ["slow"])
    policy.may_return.set()
    driver.heartbeat().result(10)
    assert end.bill.proposals == 0


def test_a_flow_that_does_not_catch_the_end_of_its_time_fails_with_it(parts: Parts) -> None:
    _, _, driver = parts

    def plain(problem: Problem) -> Flow[int]:
        yield [Propose(problem, (), Key.seed(0))]
        return 1

    with pytest.raises(BudgetExhausted, match="budget"):
        driver.submit(plain(Problem("slow", "wait")), Budget(seconds=0.05)).result(10)


def test_who_leaves_takes_his_questions_along(parts: Parts) -> None:
    policy, _, driver = parts
    held = [driver.submit(write(Problem(f"w{i}", "wait"))) for i in range(4)]
    queued = driver.submit(write(Problem("queued", "say")))
    _until(lambda: len(policy.asked) == 4)
    queued.cancel()
    for future in held[:3]:
        future.cancel()
    _until(lambda: sorted(policy.abandoned) == ["w0", "w1", "w2"])
    with pytest.raises(CancelledError):
        queued.result(1)
    policy.gate.set()
    assert held[3].result(10).result == ["w3"]
    assert "queued" not in policy.asked
    _until(lambda: driver.active == 0)


def test_an_equal_question_is_answered_though_the_first_to_ask_has_left(parts: Parts) -> None:
    policy, _, driver = parts
    first = driver.submit(write(Problem("w", "wait")))
    second = driver.submit(write(Problem("w", "wait")))
    _until(lambda: policy.asked == ["w"] and driver.active == 2)
    first.cancel()
    _until(lambda: driver.active == 1)
    policy.gate.set()
    assert second.result(10).result == ["w"]
    assert policy.asked == ["w"]


def test_at_the_end_what_has_not_ended_fails(parts: Parts) -> None:
    _, _, driver = parts
    future: Future[object] = driver.submit(write(Problem("w", "wait")))  # type: ignore[assignment]
    driver.close()
    with pytest.raises(SteprewardError, match="closed"):
        future.result(10)
    with pytest.raises(SteprewardError, match="not running"):
        driver.submit(write(Problem("w", "wait")))
    driver.close()


def test_waves_of_flows_that_leave_at_any_moment_leave_nothing_behind(parts: Parts) -> None:
    _, _, driver = parts
    rng = np.random.default_rng(0)
    for _ in range(5):
        futures = [driver.submit(write(Problem(f"p{i}", "say"), 3)) for i in range(50)]
        for i in rng.choice(50, 25, replace=False):
            futures[i].cancel()
        assert not wait(futures, 10).not_done, "a cancelled future still blocks those who wait for it"
        for i, future in enumerate(futures):
            assert future.cancelled() or future.result().result == [f"p{i}"] * 3
    _until(lambda: driver.active == 0)


def _until(true: Callable[[], bool], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.005)


def test_flows_that_ask_nothing_keep_no_other_waiting(parts: Parts) -> None:
    driver = parts[2]

    def idle() -> Flow[str]:
        while True:
            yield []

    flood = [driver.submit(idle()) for _ in range(50)]
    ask = Propose(Problem("p", "say"), (), Key.seed(0))

    def asking() -> Flow[str]:
        ((made,),) = yield [ask]
        return made.steps[0].text

    assert driver.submit(asking()).result(20).result == "p"
    driver.heartbeat().result(20)
    for one in flood:
        one.cancel()
    end = time.monotonic() + 20
    while driver.active and time.monotonic() < end:
        time.sleep(0.01)
    assert driver.active == 0
