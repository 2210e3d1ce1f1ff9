"""A way of solving problems as one value: it does what its parts do when they are put together by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

import stepreward
from stepreward.core.catalog import search
from stepreward.core.errors import InputError, PolicyError, SteprewardError, UnknownNameError
from stepreward.core.keys import Key
from stepreward.core.runtime.answer_log import AnswerLog
from stepreward.core.runtime.driver import Driver
from stepreward.core.runtime.flows import Continuation, Propose, Score, Scored
from stepreward.core.runtime.spending import Bill, Budget, Prices
from stepreward.policies.tabular import TabularPolicy
from stepreward.score.capabilities import ScoreUse
from stepreward.tasks.enumerable import EnumerableWorld

WORLD = EnumerableWorld(4, 3, seed=1)
PROBLEMS = list(WORLD.problems(5))
POLICY = TabularPolicy(WORLD.next_steps)


class Constant:
    """The same score for every step, but for those of a text."""

    batch_size = 8

    def __init__(self, value: float, other: dict[str, float] | None = None) -> None:
        self.name, self.value, self.other = f"constant {value} {other}", value, other or {}

    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        made = []
        for q in questions:
            scores = np.array([self.other.get(step.text, self.value) for step in q.steps])
            made.append(Scored(scores, len(scores), len(scores)))
        return made


class Watched:
    """A policy that remembers what it was asked."""

    name, batch_size, concurrency = "watched", 64, 1

    def __init__(self) -> None:
        self.asked: list[Propose] = []

    def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
        self.asked += questions
        return POLICY.propose(questions)


def test_it_finds_what_its_parts_find() -> None:
    first, second = Constant(0.9), Constant(0.4, {PROBLEMS[0].text: 0.1})
    solver = stepreward.compose(
        POLICY, [first, second], combine="min", aggregate="mean", search="beam", grader=WORLD, beams=2, width=2
    )
    found = solver.solve(PROBLEMS, seed=3)
    driver = Driver(policy=POLICY, scorer=solver.scorer, grader=WORLD)
    key = Key.seed(3).fold("search")
    flows = (
        search["beam"].take({"problem": p, "key": key.fold(p.id)}, beams=2, width=2, aggregate="mean") for p in PROBLEMS
    )
    by_hand = sorted(driver.run(flows), key=lambda one: one.index)
    assert [one.answer for one in found] == [one.result.answer for one in by_hand]
    assert [one.problem for one in found] == PROBLEMS
    total = Bill()
    for one in found:
        total.add(one.bill)
    # Beside what the search asks, what each chose is graded.
    assert replace(total, grades=0) == driver.bill
    assert total.grades == len(PROBLEMS)
    assert [one.outcome for one in found] == [
        WORLD.grade(p, one.found.trajectory.steps) for p, one in zip(PROBLEMS, found, strict=True)
    ]
    for one in found:
        np.testing.assert_allclose(one.found.totals, 0.4)


def test_sampling_is_what_it_says_where_the_search_says_nothing() -> None:
    policy = Watched()
    how = {"temperature": 0.6, "top_p": 0.8, "beams": 1, "width": 2}
    stepreward.compose(policy, Constant(0.5), search="lookahead", grader=WORLD, **how).solve(PROBLEMS[:1])  # type: ignore[arg-type]
    assert {(q.temperature, q.top_p) for q in policy.asked} == {(0.6, 0.8), (0.0, 0.8)}


def test_an_expert_is_asked_by_searches_that_ask_one() -> None:
    expert = Watched()
    solver = stepreward.compose(POLICY, Constant(0.0), expert=expert, search="intervention", grader=WORLD)
    solver.solve(PROBLEMS)
    assert expert.asked
    assert all(question.expert for question in expert.asked)


@pytest.mark.parametrize(
    ("stop", "prices", "reason"),
    [
        (Budget(rollouts=5), None, "rollouts"),
        (Budget(money=1e-6), Prices(generated=1.0), "money"),
        (Budget(scored_tokens=1), None, "scored_tokens"),
    ],
)
def test_a_budget_stops_each_problem_by_itself(stop: Budget, prices: Prices | None, reason: str) -> None:
    solver = stepreward.compose(POLICY, Constant(0.5), search="beam", stop=stop, prices=prices, grader=WORLD)
    assert {one.stopped for one in solver.solve(PROBLEMS)} == {reason}


def test_progress_and_a_log(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("log") / "answers.sqlite"
    solver = stepreward.compose(POLICY, Constant(0.5), search="best-of-n", grader=WORLD, n=2)
    told: list[tuple[int, int]] = []
    with AnswerLog(path) as log:
        first = solver.solve(PROBLEMS, log=log, on_progress=lambda done, total, bill: told.append((done, total)))
    assert told == [(done, 5) for done in range(1, 6)]
    with AnswerLog(path) as log:
        again = solver.solve(PROBLEMS, log=log)
    assert [one.answer for one in again] == [one.answer for one in first]
    assert sum(one.bill.generated_tokens for one in again) == 0


def test_what_cannot_be_composed() -> None:
    with pytest.raises(UnknownNameError, match="did you mean beams"):
        stepreward.compose(POLICY, Constant(0.5), search="beam", beems=2)
    with pytest.raises(UnknownNameError, match="no search"):
        stepreward.compose(POLICY, search="beem")
    with pytest.raises(InputError, match="majority does not aggregate"):
        stepreward.compose(POLICY, search="majority", aggregate="min")
    with pytest.raises(UnknownNameError, match="no aggregate method is called 'least'"):
        stepreward.compose(POLICY, Constant(0.5), search="beam", aggregate="least")
    with pytest.raises(InputError, match="combine must be"):
        stepreward.compose(POLICY, [Constant(0.5), Constant(0.6)], combine="worst")  # type: ignore[arg-type]
    with pytest.raises(SteprewardError, match="scorer"):
        stepreward.compose(POLICY, search="beam").solve(PROBLEMS)


def test_a_problem_that_fails_costs_no_other_its_solution() -> None:
    class Refuses(TabularPolicy):
        def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
            if any(question.problem.id in refused for question in questions):
                raise PolicyError("the prompt is too long")
            return super().propose(questions)

    problems, refused = WORLD.problems(40), {WORLD.problems(40)[7].id}
    solver = stepreward.compose(Refuses(WORLD.next_steps), Constant(0.5), search="best-of-n", grader=WORLD, n=4)
    whole = stepreward.compose(
        TabularPolicy(WORLD.next_steps), Constant(0.5), search="best-of-n", grader=WORLD, n=4
    ).solve(problems)
    made = solver.solve(problems)
    assert [one.problem for one in made] == problems
    assert [one.error for one in made if one.problem.id in refused] == ["the prompt is too long"]
    assert [one.answer for one in made if not one.error] == [o.answer for o in whole if o.problem.id not in refused]
    assert (made[7].answer, made[7].found.chosen, made[7].bill.generated_tokens) == (None, -1, 0)
    # Twenty fail, but others are answered in between: the fault is not everybody's.
    refused = {problem.id for problem in problems[::2]}
    made = solver.solve(problems)
    assert [bool(one.error) for one in made] == [True, False] * 20
    refused |= {problem.id for problem in problems}
    with pytest.raises(PolicyError, match="too long"):
        solver.solve(problems[:3])
    with pytest.raises(PolicyError, match="too long"):
        solver.solve(problems)


class Whole(Constant):
    """A scorer whose scores depend on later steps."""

    use = ScoreUse(whole=True)


def test_a_search_of_prefixes_refuses_a_scorer_of_whole_solutions() -> None:
    scorer = Whole(0.5)
    assert stepreward.compose(POLICY, scorer, search="best-of-n", grader=WORLD).scorer is scorer
    for name in ("beam", "mcts"):
        assert stepreward.compose(POLICY, Constant(0.5), search=name, grader=WORLD).scorer is not None
        for scorers in (scorer, [Constant(0.5), scorer]):
            with pytest.raises(InputError, match=f"{name} scores solutions step by step"):
                stepreward.compose(POLICY, scorers, search=name, grader=WORLD)
