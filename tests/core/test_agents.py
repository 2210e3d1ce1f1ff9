"""Agents under the driver: limits of tokens, turns that are cut, who decides, and what a part of an answer is."""

from __future__ import annotations

import pytest
from tests.environments.counting import Counting, policy, pool

from stepreward.core.errors import BudgetExhausted
from stepreward.core.keys import Key
from stepreward.core.runtime.acting import acting
from stepreward.core.runtime.acts import Act, Observation
from stepreward.core.runtime.agent import Agent
from stepreward.core.runtime.driver import Driver
from stepreward.core.runtime.flows import Continuation, Extract, Flow, Grade, Propose
from stepreward.core.runtime.spending import Budget
from stepreward.core.types import Problem, Step
from stepreward.environments.episode_pool import EpisodePool
from stepreward.policies.scripted import ScriptedPolicy


def task(target: int = 4) -> Problem:
    return Problem(f"to {target}", f"Count to {target}.", str(target))


def samples(problem: Problem, n: int, **how: object) -> Flow[list[Continuation]]:
    (made,) = yield [Propose(problem, (), Key.seed(0), n=n, **how)]  # type: ignore[arg-type]
    return list(made)


def run(flow: Flow[object], driver: Driver) -> object:
    return next(driver.run([flow])).result


def test_the_tokens_of_a_continuation_are_those_of_all_its_turns() -> None:
    """An action is one token here: three of them, and the episode is cut before the fourth."""
    made = run(samples(task(99), 4, max_tokens=3), Driver(policy=Agent(policy(), pool())))
    assert [(one.n_tokens, one.truncated, one.finished) for one in made] == [(3, True, False)] * 4  # type: ignore[attr-defined]
    assert [sum(step.kind == "action" for step in one.steps) for one in made] == [3] * 4  # type: ignore[attr-defined]


def test_a_turn_that_a_limit_cut_cuts_the_episode() -> None:
    cut = ScriptedPolicy(lambda question, i: Continuation((Step("*2"),), False, 9, truncated=True))
    episodes = pool()
    (made,) = run(samples(task(), 1), Driver(policy=Agent(cut, episodes)))  # type: ignore[misc]
    assert (made.truncated, made.finished, made.n_tokens) == (True, False, 9)
    assert episodes.executed == 0, "half an action is not executed"


class Wrong:
    """A grader that knows nothing."""

    name = "wrong"

    def grade(self, problem: Problem, steps: object) -> float:
        return 0.25

    def answer(self, problem: Problem, steps: object) -> str:
        return "no idea"


def test_the_environment_decides_before_the_grader() -> None:
    def graded() -> Flow[list[object]]:
        steps = (Step("value 1\n", "observation", "user"), Step("*2\n"))
        return list((yield [Grade(task(2), steps), Extract(task(2), steps)]))

    assert run(graded(), Driver(policy=Agent(policy(), pool()), grader=Wrong())) == [1.0, "2"]

    class Silent(Counting):
        def act(self, action: Step) -> Observation:
            return Observation.of("something\n")

    silent = Agent(policy(), EpisodePool(Silent, "silent"))
    assert run(graded(), Driver(policy=silent, grader=Wrong())) == [0.25, "no idea"]


def test_a_part_of_an_answer_is_whole_samples_and_those_cut_behind_an_action() -> None:
    question = Propose(task(), (), Key.seed(0), n=4, partial=True)

    def parts() -> Flow[list[Continuation]]:
        try:
            (made,) = yield [question]
        except BudgetExhausted as error:
            (made,) = error.answers
        return list(made)

    def turn(text: str) -> list[Continuation]:
        return [Continuation((Step(text),), True, 1, n_prompt_tokens=5)]

    running = acting(parts())
    begun = Observation.of("value 1\n")
    assert next(running) == [Act(question.problem, ())], "samples share what is shown first"
    asked = running.send([begun])
    assert [(one.key, one.first, one.n) for one in asked] == [(question.key, i, 1) for i in range(4)]  # type: ignore[union-attr]
    # The second one writes an empty step, which is no action; the fourth has no turn when the budget ends.
    acts = running.send([turn("+1\n"), turn(""), turn("*2\n"), []])
    first_act, second_act, waiting = acts
    assert [one.steps[-1].text for one in (first_act, second_act)] == ["+1\n", "*2\n"]  # type: ignore[union-attr]
    more = running.send([Observation.of("value 2\n"), Observation.of("value 2\n"), []])
    later = question.key.fold("turn", 1)
    assert [one.key for one in more] == [later, later, question.key]  # type: ignore[union-attr]
    assert more[2] == waiting
    with pytest.raises(StopIteration) as end:
        running.throw(BudgetExhausted("over"))
    first, second, third = end.value.value
    assert [step.text for step in first.steps] == ["value 1\n", "+1\n"]
    assert [step.text for step in third.steps] == ["value 1\n", "*2\n"]
    assert [(one.finished, one.truncated) for one in (first, second, third)] == [
        (False, True),
        (True, False),
        (False, True),
    ]
    assert (second.steps, second.n_tokens, second.n_prompt_tokens) == ((), 1, 5)


def test_a_question_in_full_gets_nothing_of_a_part() -> None:
    def whole() -> Flow[object]:
        try:
            return (yield from samples(task(99), 8))
        except BudgetExhausted as error:
            return error.answers

    driver = Driver(policy=Agent(policy(), pool()), budget=Budget(actions=9))
    assert run(whole(), driver) == [[]]
