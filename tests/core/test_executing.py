"""Scores by execution, in a world whose values are known exactly."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from tests.environments.counting import CHANCES, TURNS, counted, policy, pool

from stepreward.core.errors import BudgetExhausted, InputError, ModelError, Unanswered, UnknownNameError
from stepreward.core.keys import Key
from stepreward.core.prefix_names import prefix_of
from stepreward.core.runtime.acts import Act, Observation
from stepreward.core.runtime.agent import Agent
from stepreward.core.runtime.answer_log import AnswerLog, digest
from stepreward.core.runtime.driver import Driver
from stepreward.core.runtime.executing import Measure, executed
from stepreward.core.runtime.flows import Flow, Propose, Score, Scored
from stepreward.core.runtime.spending import Budget
from stepreward.core.types import Floats, Problem, Step
from stepreward.environments.episode_pool import EpisodePool
from stepreward.pipeline.compose import compose
from stepreward.score.baselines import WITHOUT_MODEL
from stepreward.score.executed import ExecutedScorer, with_execution

TASK = Problem("count", "Count.", reference="6")
GOALS = {1: 0.0, 2: 1.0, 3: 0.0, 4: 2.0}


class Paying:
    """Counts like `Counting`; pays by the number reached, and ends after four actions."""

    def __init__(self) -> None:
        self.value, self.turns = 1, 0

    def reset(self, _: Problem) -> Observation:
        return Observation.of("value 1\n")

    def act(self, action: Step) -> Observation:
        self.value, self.turns = counted(self.value, action.text.strip()), self.turns + 1
        paid = GOALS.get(self.value, 0.5)
        return Observation.of(f"value {self.value}\n", done=self.turns == TURNS, reward=paid, outcome=paid / 2)

    def fork(self) -> Paying:
        made = type(self)()
        made.value, made.turns = self.value, self.turns
        return made

    def close(self) -> None:
        """Nothing runs."""


class Unpaid(Paying):
    def act(self, action: Step) -> Observation:
        shown = super().act(action)
        return Observation(shown.steps, shown.done)


def paid(actions: tuple[str, ...]) -> list[float]:
    """Rewards of actions, by a loop."""
    value, made = 1, []
    for action in actions:
        value = counted(value, action)
        made.append(GOALS.get(value, 0.5))
    return made


def asked(steps: tuple[Step, ...], *, whole: bool = False) -> Flow[Scored | Floats]:
    (answer,) = yield [Score(TASK, steps, whole=whole)]
    return answer


def agent(environment: type[Paying] = Paying) -> Agent:
    return Agent(policy(), EpisodePool(environment, environment.__name__))


def episode(*actions: str) -> tuple[Step, ...]:
    """The steps of actions with what is shown between them."""
    steps, value = [Step("value 1\n", "observation", "user")], 1
    for action in actions:
        value = counted(value, action)
        steps += [Step(f"{action}\n"), Step(f"value {value}\n", "observation", "user")]
    return tuple(steps[:-1])


def ends(steps: tuple[Step, ...]) -> list[int]:
    """Lengths of the prefixes that end in an action."""
    return [at for at, step in enumerate(steps, 1) if step.kind == "action"]


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("by", ["return", "reward", "outcome"])
def test_scores_are_what_the_environment_says(by: Measure, whole: bool) -> None:
    actions = ("+1", "*2", "-1")
    driver = Driver(policy=agent(), scorer=ExecutedScorer(by))
    answer = next(driver.run([asked(episode(*actions), whole=whole)])).result
    scores = answer.scores if isinstance(answer, Scored) else answer
    rewards = paid(actions)
    assert rewards == [1.0, 2.0, 0.0]
    expected = {"reward": rewards, "return": [1.0, 3.0, 3.0], "outcome": [0.5, 1.0, 0.0]}[by]
    np.testing.assert_array_equal(scores, [value for one in expected for value in (np.nan, one)])
    assert driver.bill.actions == 3
    assert driver.bill.scorings == 0


@pytest.mark.parametrize(("by", "total"), [("return", sum), ("reward", sum), ("outcome", lambda made: made[-1] / 2)])
def test_a_beam_over_every_action_finds_the_best_episode(by: Measure, total: object) -> None:
    best = max(total(paid(actions)) for actions in product(CHANCES, repeat=TURNS))  # type: ignore[operator]
    solver = compose(agent(), ExecutedScorer(by), search="beam", beams=81, width=24)
    (found,) = solver.solve([TASK], seed=1)
    assert found.found.totals[found.found.chosen] == best


def test_each_action_is_executed_once() -> None:
    solver = compose(agent(), ExecutedScorer(), search="beam", beams=2, width=3)
    (found,) = solver.solve([TASK])
    assert found.found.searched is not None
    tried = {prefix_of(one.steps[:at]).name for one in found.found.searched.trajectories() for at in ends(one.steps)}
    assert found.bill.actions == len(tried) > TURNS


def test_a_model_scores_what_goes_on_and_the_outcome_what_has_ended() -> None:
    constant = WITHOUT_MODEL["constant"]()
    won, lost = episode("+1", "+1", "*2"), episode("+1", "-1", "+1")
    driver = Driver(policy=Agent(policy(), pool(forks=True)), scorer=ExecutedScorer("outcome", constant))
    given = constant.score_many([Score(TASK, won)])[0].scores
    answers = [one.result for one in driver.run([asked(won), asked(lost)])]
    assert [answer[-1] for answer in answers] == [1.0, given[-1]]
    for answer in answers:
        np.testing.assert_array_equal(answer[:-1], given[:-1])
    assert driver.bill.scorings == 2


def test_without_actions_left_nothing_is_scored_and_the_best_so_far_is_the_answer() -> None:
    solver = compose(agent(), ExecutedScorer(), search="beam", beams=2, width=3, stop=Budget(actions=7))
    (found,) = solver.solve([TASK])
    assert (found.stopped, found.bill.actions <= 7, found.error) == ("actions", True, "")
    assert found.found.chosen >= 0


def test_a_flow_has_what_came_where_the_budget_holds_neither_execution_nor_the_scorer() -> None:
    question = Score(TASK, episode("+1"))

    def flow() -> Flow[list[object]]:
        try:
            yield [question, question]
        except BudgetExhausted as error:
            return [*error.answers]
        return []

    for scored, expected in (([], 0), ([np.array([np.nan, 0.25]), np.array([np.nan, 0.75])], 2)):
        running = executed(flow(), "outcome", otherwise=True)
        assert next(running) == [Act(TASK, question.steps, scores=True), question, question]
        assert running.throw(BudgetExhausted("no action is left")) == [question, question]
        with pytest.raises(StopIteration) as end:
            running.throw(BudgetExhausted("no token is left", scored))
        np.testing.assert_array_equal(end.value.value, scored, strict=False)
        assert len(end.value.value) == expected


def test_an_action_that_was_not_executed_is_asked_for_again() -> None:
    question, more = Score(TASK, episode("+1")), Propose(TASK, (), Key.seed(0), partial=True)

    def flow() -> Flow[list[object]]:
        try:
            yield [question, more]
        except Unanswered as error:
            (again,) = yield [question]
            return [*error.answers, again]
        return []

    running = executed(flow(), "reward")
    act = Act(TASK, question.steps, scores=True)
    assert next(running) == [act, more]
    assert running.throw(Unanswered("the server is gone", [None, ["some"]])) == [act]
    with pytest.raises(StopIteration) as end:
        running.send([Observation(reward=0.5)])
    before, samples, again = end.value.value
    assert samples == ["some"]
    np.testing.assert_array_equal([before, again], [[np.nan, np.nan], [np.nan, 0.5]])


def test_what_the_last_tokens_wrote_is_executed() -> None:
    """The budget in samples ends with the third turn; its actions are scored all the same."""
    solver = compose(agent(), ExecutedScorer(), search="beam", beams=1, width=4, stop=Budget(rollouts=12))
    (found,) = solver.solve([TASK])
    assert found.stopped == "rollouts"
    assert not np.isnan(found.found.totals[found.found.chosen])
    assert len(ends(found.found.trajectories()[found.found.chosen].steps)) == 3


def test_a_run_that_goes_on_executes_nothing_again(tmp_path: Path) -> None:
    solver = compose(agent(), ExecutedScorer(), search="beam", beams=2, width=3)
    bills = []
    for _ in range(2):
        with AnswerLog(tmp_path / "answers.sqlite") as log:
            (found,) = solver.solve([TASK], log=log)
        bills.append((found.bill.actions, found.bill.proposals, found.found.totals.tolist()))
    assert bills[0][0] > 0
    assert bills[1] == (0, 0, bills[0][2])


def test_an_environment_without_rewards_is_told_of() -> None:
    with pytest.raises(ModelError, match="gives no return where an episode of 'count' ends; name another by="):
        compose(agent(Unpaid), ExecutedScorer(), search="greedy").solve([TASK])


def test_scores_by_execution_need_an_agent() -> None:
    with pytest.raises(InputError, match="need an agent"):
        next(Driver(policy=policy(), scorer=ExecutedScorer()).run([asked(episode("+1"))]))
    with pytest.raises(InputError, match="needs an agent; pass --environment"):
        ExecutedScorer().score("How many?", ["One."])


def test_names() -> None:
    inner = WITHOUT_MODEL["constant"]()
    assert with_execution("else", lambda name: inner) is inner
    made = [with_execution(name, lambda _: inner) for name in ("executed", "executed?by=reward", "executed?model=m")]
    assert [(one.by, one.otherwise) for one in made if isinstance(one, ExecutedScorer)] == [
        ("return", None), ("reward", None), ("outcome", inner)
    ]  # fmt: skip
    assert len({one.name for one in made}) == 3
    with pytest.raises(InputError, match="by must be one of return, reward, outcome, got 'q'"):
        with_execution("executed?by=q", lambda _: inner)
    with pytest.raises(UnknownNameError, match="beam"):
        with_execution("executed?beam=1", lambda _: inner)


def test_an_act_that_scores_is_the_same_answer_in_a_log() -> None:
    steps = episode("+1")
    assert digest(Act(TASK, steps), "e") == digest(Act(TASK, steps, scores=True), "e")
