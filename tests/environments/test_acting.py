"""Flows in an environment: turns, forks, budgets, logs and values against the exact ones of a small world."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepreward.core.catalog import estimate
from stepreward.core.catalog import search as searches
from stepreward.core.errors import BudgetExhausted, EpisodeError
from stepreward.core.keys import Key
from stepreward.core.runtime.acts import Act, Observation
from stepreward.core.runtime.agent import Agent
from stepreward.core.runtime.answer_log import AnswerLog
from stepreward.core.runtime.answerers import Answerers
from stepreward.core.runtime.driver import Driver, Failed, Finished, ResidentDriver
from stepreward.core.runtime.flows import Continuation, Flow, Grade, Propose, Score, Scored
from stepreward.core.runtime.spending import Budget, Prices
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.environments.episode_pool import EpisodePool
from stepreward.label.samples import graded_samples
from tests.environments.counting import CHANCES, TURNS, Counting, counted, policy, pool, value, value_of

KEY = Key.seed(0)


def task(target: int = 4, name: str = "") -> Problem:
    return Problem(name or f"to {target}", f"Count to {target}.", str(target))


def samples(problem: Problem, n: int, **how: object) -> Flow[list[Continuation]]:
    (made,) = yield [Propose(problem, (), KEY, n=n, **how)]  # type: ignore[arg-type]
    return list(made)


def run(flow: Flow[object], driver: Driver) -> object:
    return next(driver.run([flow])).result


def test_an_episode_has_every_observation_but_the_last() -> None:
    made = run(samples(task(), 50), Driver(policy=Agent(policy(), pool())))
    for one in made:  # type: ignore[attr-defined]
        assert one.finished
        at, turns = 1, 0
        assert [step.kind for step in one.steps] == ["observation", "action"] * (len(one.steps) // 2)
        for shown, action in zip(one.steps[::2], one.steps[1::2], strict=True):
            assert shown.text == f"value {at}\n"
            assert shown.meta.get("reward") == (0.0 if turns else None)
            at, turns = counted(at, action.text.strip()), turns + 1
        assert at == 4 or turns == TURNS


@pytest.mark.parametrize("forks", [False, True])
def test_rollouts_estimate_the_exact_value(forks: bool) -> None:
    driver = Driver(policy=Agent(policy(), pool(forks=forks)))
    n, problem = 4000, task()
    found = run(graded_samples(problem, KEY, n=n, temperature=None), driver)
    share = np.mean([one.outcome for one in found])  # type: ignore[attr-defined]
    exact = value(1, 0, 4)
    assert abs(share - exact) < 4 * np.sqrt(exact * (1 - exact) / n)


def test_labels_along_an_episode_are_its_exact_values() -> None:
    problem = task()
    driver = Driver(policy=Agent(policy(), pool(forks=True)))
    trajectory = next(t for t in run(graded_samples(problem, KEY, n=9, temperature=None), driver) if len(t) == 8)  # type: ignore[attr-defined]
    flow = estimate["math-shepherd"].take({"problem": problem, "trajectory": trajectory, "key": KEY}, n=2000)
    labels = run(flow, driver)
    assert isinstance(labels, Trajectory)
    for at in np.flatnonzero(trajectory.action)[:-1]:
        exact = value_of(trajectory.steps[: at + 1], 4)
        assert abs(labels.columns["value"][at] - exact) <= 4 * np.sqrt(exact * (1 - exact) / 2000) + 1e-9


def test_samples_at_once_equal_samples_in_parts() -> None:
    def two_parts() -> Flow[list[Continuation]]:
        problem = task()
        (first,) = yield [Propose(problem, (), KEY, n=2)]
        (more,) = yield [Propose(problem, (), KEY, n=6, first=2)]
        return [*first, *more]

    agent = Agent(policy(), pool())
    assert run(samples(task(), 8), Driver(policy=agent)) == run(two_parts(), Driver(policy=agent))


def test_steps_are_single_actions_that_nothing_executes_until_more_is_wanted() -> None:
    episodes = pool()
    made = run(samples(task(), 3, until="step"), Driver(policy=Agent(policy(), episodes)))
    assert [len(one.steps) for one in made] == [2, 2, 2]  # type: ignore[attr-defined]
    assert not any(one.finished for one in made)  # type: ignore[attr-defined]
    assert episodes.executed == 0


def test_an_episode_that_is_over_has_a_finished_continuation_without_steps() -> None:
    steps = (Step("value 1\n", "observation", "user"), Step("*2\n"))

    def after() -> Flow[list[Continuation]]:
        (made,) = yield [Propose(task(2), steps, KEY, n=2, until="step")]
        return list(made)

    assert run(after(), Driver(policy=Agent(policy(), pool()))) == [Continuation((), True, 0)] * 2


ACTIONS = st.lists(st.sampled_from(sorted(CHANCES)), max_size=TURNS)


@given(st.lists(ACTIONS, min_size=1, max_size=6), st.integers(1, 3))
def test_forks_by_snapshot_and_by_acting_again_show_the_same(paths: list[list[str]], live: int) -> None:
    problem, pools = task(99), [pool(forks=True, live=live), pool(live=live), pool(live=64)]
    for path in paths:
        shown: list[list[Observation]] = []
        for one in pools:
            steps: tuple[Step, ...] = ()
            answers = []
            for action in [None, *path]:
                steps += () if action is None else (Step(f"{action}\n"),)
                (answer,) = one.act_many([Act(problem, steps)])
                answers.append(Observation(answer.steps, answer.done, 0.0, answer.outcome, answer.answer))
                steps += answer.steps
            shown.append(answers)
        assert shown[0] == shown[1] == shown[2]


class Drifting(Counting):
    """Shows another number in every episode."""

    def act(self, action: Step) -> Observation:
        shown = super().act(action)
        return Observation.of(f"{shown.steps[0].text}{type(self).begun}", done=shown.done, outcome=shown.outcome)


def test_an_environment_that_does_not_repeat_itself_fails_its_flow_alone() -> None:
    episodes = EpisodePool(Drifting, "drifting", live=64)

    def twice(problem: Problem) -> Flow[int]:
        ((first,),) = yield [Propose(problem, (), KEY)]
        yield [Propose(problem, first.steps[:3], KEY.fold("again"), n=5)]
        return 1

    driver = Driver(policy=Agent(policy(), episodes))
    ends = [*driver.outcomes([twice(task(99, "a")), samples(task(99, "b"), 1)])]  # type: ignore[list-item]
    failed = [one for one in ends if isinstance(one, Failed)]
    assert len(failed) == 1
    assert isinstance(failed[0].error, EpisodeError)
    assert "after the same actions drifting shows 'value" in str(failed[0].error)
    assert any(isinstance(one, Finished) for one in ends)


class Breaking(Counting):
    def act(self, action: Step) -> Observation:
        raise OSError("the page is gone")


def test_an_environment_that_fails_names_the_action() -> None:
    driver = Driver(policy=Agent(policy(), EpisodePool(Breaking, "breaking")))
    with pytest.raises(EpisodeError, match=r"breaking failed at '.*': the page is gone"):
        run(samples(task(), 1), driver)


def test_a_budget_in_actions_holds_and_leaves_cut_episodes() -> None:
    def whole() -> Flow[list[Continuation]]:
        try:
            return (yield from samples(task(99), 8, partial=True))
        except BudgetExhausted as error:
            return list(error.answers[0])

    for most in range(1, 12):
        episodes = pool()
        driver = Driver(policy=Agent(policy(), episodes), budget=Budget(actions=most))
        (ended,) = driver.run([whole()])
        assert episodes.executed == ended.bill.actions <= most
        assert ended.stopped == "actions"
        assert all(one.truncated or one.finished for one in ended.result)
        assert all(one.steps[-1].kind == "action" for one in ended.result)


def test_actions_cost_money() -> None:
    def whole() -> Flow[list[Continuation]]:
        try:
            return (yield from samples(task(99), 1, partial=True))
        except BudgetExhausted as error:
            return list(error.answers[0])

    driver = Driver(policy=Agent(policy(), pool()), budget=Budget(money=0.05), prices=Prices(action=0.02))
    (ended,) = driver.run([whole()])
    assert (ended.bill.actions, ended.stopped) == (3, "money")


def test_seconds_end_an_episode() -> None:
    now = [0.0]

    class Slow(Counting):
        def act(self, action: Step) -> Observation:
            now[0] += 1.0
            return super().act(action)

    def whole() -> Flow[list[Continuation]]:
        try:
            return (yield from samples(task(99), 1, partial=True))
        except BudgetExhausted as error:
            return list(error.answers[0])

    agent = Agent(policy(), EpisodePool(Slow, "slow"))
    (ended,) = Driver(policy=agent, budget=Budget(seconds=1.5), clock=lambda: now[0]).run([whole()])
    assert (ended.bill.actions, ended.stopped) == (2, "seconds")
    assert [one.truncated for one in ended.result] == [True]


@pytest.mark.parametrize("at", [1, 5, 17, 40])
def test_a_run_that_was_killed_in_an_episode_goes_on_where_it_was(at: int, tmp_path: Path) -> None:
    flows = [task(target) for target in (4, 6, 99)]
    wanted = [one.result for one in Driver(policy=Agent(policy(), pool())).run(samples(p, 6) for p in flows)]

    class Killed(Counting):
        left = at

        def act(self, action: Step) -> Observation:
            type(self).left -= 1
            if type(self).left < 0:
                raise KeyboardInterrupt
            return super().act(action)

    with AnswerLog(tmp_path / "log.sqlite") as log:
        episodes = EpisodePool(Killed, "counting", batch_size=1)
        with pytest.raises(KeyboardInterrupt):
            [*Driver(policy=Agent(policy(), episodes), log=log).run(samples(p, 6) for p in flows)]
    with AnswerLog(tmp_path / "log.sqlite") as log:
        episodes = pool()
        driver = Driver(policy=Agent(policy(), episodes), log=log)
        ends = sorted(driver.run(samples(p, 6) for p in flows), key=lambda one: one.index)
        # What is shown first in an episode is no action, and in the log all the same.
        assert driver.bill.actions == episodes.executed
        assert [one.result for one in ends] == wanted
        again = Driver(policy=Agent(policy(), pool()), log=log)
        assert len([*again.run(samples(p, 6) for p in flows)]) == 3
        assert again.bill.actions == again.bill.proposals == 0


def test_a_run_that_goes_on_begins_no_episode_to_grade_it(tmp_path: Path) -> None:
    class Begun(Counting):
        begun = 0

    made, begun = [], []
    for _ in range(2):
        with AnswerLog(tmp_path / "log.sqlite") as log:
            driver = Driver(policy=Agent(policy(), EpisodePool(Begun, "counting")), log=log)
            flows = [graded_samples(task(target), Key.seed(0), n=8) for target in (4, 6)]
            made.append([one.result for one in sorted(driver.run(flows), key=lambda one: one.index)])
        begun.append(Begun.begun)
    assert made[0] == made[1]
    assert {row.outcome for rows in made[0] for row in rows} == {0.0, 1.0}
    assert begun[0] == begun[1] > 0


def test_threads_make_the_same_episodes() -> None:
    wanted = run(samples(task(), 20), Driver(policy=Agent(policy(), pool())))
    made = run(samples(task(), 20), Driver(policy=Agent(policy(), pool(concurrency=4, live=3))))
    assert made == wanted


def test_the_resident_driver_acts_too() -> None:
    wanted = run(samples(task(), 5), Driver(policy=Agent(policy(), pool())))
    with ResidentDriver(Answerers(policy=Agent(policy(), pool()))) as driver:
        assert driver.submit(samples(task(), 5)).result(10).result == wanted


class Exact:
    """Scores a step by the exact value after it."""

    name, batch_size = "exact", 64

    def score_many(self, questions: list[Score]) -> list[Scored]:
        made = []
        for one in questions:
            target = int(one.problem.reference or 0)
            values = [value_of(one.steps[: i + 1], target) for i in range(len(one.steps))]
            action = [step.kind == "action" for step in one.steps]
            made.append(Scored(np.where(action, values, np.nan)))
        return made


def test_beam_search_scores_actions_before_it_executes_them() -> None:
    """Greedy by the exact value after each action: the path that it takes is worked out beside it."""
    episodes = pool()
    driver = Driver(policy=Agent(policy(), episodes), scorer=Exact())
    problem = task(6)
    flow = searches["beam"].take({"problem": problem, "key": KEY}, beams=1, width=24, aggregate="last")
    found = next(driver.run([flow])).result
    at, best = 1, []
    while at != 6 and len(best) < TURNS:
        best.append(max(CHANCES, key=lambda name: value(counted(at, name), len(best) + 1, 6)))
        at = counted(at, best[-1])
    chosen = found.trajectories()[found.chosen]
    assert [step.text.strip() for step in chosen.steps if step.kind == "action"] == best
    assert episodes.executed == len(best)
    assert found.answer == str(at)


def test_the_grade_of_steps_that_were_executed_executes_nothing() -> None:
    episodes = pool()

    def graded() -> Flow[list[float]]:
        ((one,),) = yield [Propose(task(), (), KEY)]
        before = episodes.executed
        grades = yield [Grade(task(), one.steps)]
        assert episodes.executed + episodes.repeated == before
        return [float(grades[0]), value_of(one.steps, 4)]

    made = run(graded(), Driver(policy=Agent(policy(), episodes)))
    assert made[0] == made[1]  # type: ignore[index]


def test_an_action_after_the_end_is_refused() -> None:
    steps = (Step("value 1\n", "observation", "user"), Step("*2\n"), Step("value 2\n", "observation", "user"))
    with pytest.raises(EpisodeError, match="was over before the action"):
        pool().act_many([Act(task(2), (*steps, Step("+1\n")))])


def test_episodes_that_are_left_are_closed() -> None:
    made: list[Counting] = []
    lock = threading.Lock()

    class Noted(Counting):
        def __init__(self) -> None:
            super().__init__()
            with lock:
                made.append(self)

    episodes = EpisodePool(Noted, "noted", live=2)
    run(samples(task(99), 30), Driver(policy=Agent(policy(), episodes)))
    assert sum(not one.closed for one in made) <= 2
    episodes.close()
    assert all(one.closed for one in made)
