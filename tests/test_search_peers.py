"""The loops and adapters that searches are measured against: they find what ours find, and batch what waits."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest
from benchmarks.its_hub_searches import Desk, LanguageModel, RewardModel, cut
from benchmarks.lock_step import Loop, Reencoder
from benchmarks.small_reward_models import untrained

from stepreward.core.keys import Key
from stepreward.core.runtime.driver import answer_all
from stepreward.core.runtime.flows import Propose, Score
from stepreward.core.types import Problem
from stepreward.policies.local import LocalPolicy
from stepreward.score.discriminative import DiscriminativeScorer
from stepreward.score.model.step_reward_model import StepRewardModel
from stepreward.search.beams.beam import beam_search
from stepreward.search.samples.independent import best_of_n
from stepreward.tasks.arithmetic import generate
from stepreward.tasks.arithmetic_truth import ArithmeticGrader

KEY = Key.seed(3)


class Message:
    """What its_hub hands over."""

    def __init__(self, role: str, content: str) -> None:
        self.role, self.content = role, content


@pytest.fixture(scope="module")
def policy() -> LocalPolicy:
    return LocalPolicy.load("builtin:arithmetic", device="cpu")


@pytest.fixture(scope="module")
def model() -> StepRewardModel:
    return untrained()


@pytest.fixture(scope="module")
def problem() -> Problem:
    return next(generate("held_out", 1))


def test_encoding_anew_gives_the_scores_of_packed_trees(
    policy: LocalPolicy, model: StepRewardModel, problem: Problem
) -> None:
    (samples,) = policy.propose([Propose(problem, (), KEY, n=5)])
    asked = [Score(problem, one.steps) for one in samples]
    anew = Reencoder(model, batch_tokens=200)
    expected = DiscriminativeScorer(model).score_many(asked)
    for found, answer in zip(anew.score_many(asked), expected, strict=True):
        np.testing.assert_allclose(found, answer.scores, atol=1e-5)
    assert anew.tokens == sum(answer.tokens_unshared for answer in expected)


def test_the_plain_loops_find_what_the_searches_find(
    policy: LocalPolicy, model: StepRewardModel, problem: Problem
) -> None:
    parts = {"policy": policy, "scorer": DiscriminativeScorer(model), "grader": ArithmeticGrader()}
    loop = Loop(policy, Reencoder(model, 4096))
    ours = answer_all(beam_search(problem, KEY, beams=2, width=3, max_steps=6), **parts).trajectory
    plain = loop.beam_search(problem, KEY, beams=2, width=3, max_steps=6)
    assert ours is not None
    assert [step.text for step in plain.steps] == [step.text for step in ours.steps]
    ours = answer_all(best_of_n(problem, KEY, n=6), **parts).trajectory
    plain = loop.best_of_n(problem, KEY, n=6)
    assert ours is not None
    assert [step.text for step in plain.steps] == [step.text for step in ours.steps]


def test_a_desk_answers_in_one_call_what_waits_together() -> None:
    calls: list[list[int]] = []

    def double(questions: Sequence[int]) -> list[int]:
        calls.append(list(questions))
        return [2 * question for question in questions]

    async def chain(desk: Desk[int, int], start: int) -> int:
        (first,) = await desk.ask([start])
        return sum(await desk.ask([first, first + 1]))

    async def everyone() -> list[int]:
        desk = Desk(double)
        return await asyncio.gather(*(chain(desk, start) for start in range(3)))

    # Start x: 2x, then 4x and 4x + 2.
    assert asyncio.run(everyone()) == [2, 10, 18]
    assert calls == [[0, 1, 2], [0, 1, 2, 3, 4, 5]]


def test_conversations_become_questions_and_answers_texts(
    policy: LocalPolicy, model: StepRewardModel, problem: Problem
) -> None:
    by_prompt = {problem.text: problem}
    writer, scorer = LanguageModel(policy, by_prompt, KEY), Reencoder(model, 4096)
    judge = RewardModel(scorer, by_prompt, min)
    opening = [Message("user", problem.text)]

    async def talk() -> tuple[str, str, list[float], list[float]]:
        first = (await writer.agenerate_single(opening, stop="\n", temperature=1.0))["content"]
        said = [*opening, Message("assistant", first)]
        (second,) = await writer.agenerate([said], stop="\n")
        both = first + second["content"]
        steps = await judge.ascore(problem.text, [first, both])
        return first, both, steps, await judge.ascore([[*opening, Message("assistant", both)]])

    first, both, steps, whole = asyncio.run(talk())
    assert [step.text for step in cut(both)] == both.splitlines(keepends=True)
    assert both.startswith(first)
    assert first.endswith("\n")
    expected = [min(row) for row in Reencoder(model, 4096).score_many([Score(problem, cut(t)) for t in (first, both)])]
    np.testing.assert_allclose([*steps, *whole], [*expected, expected[1]], atol=1e-5)
    assert writer.generated == len(model.tokenizer(both, add_special_tokens=False)["input_ids"])
