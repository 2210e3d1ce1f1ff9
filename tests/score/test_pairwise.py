"""Judges of pairs: exact verdicts, no say for the order, strict reading, and a scorer's totals as the limit case."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepreward.core.errors import UnknownNameError
from stepreward.core.keys import Key
from stepreward.core.runtime.driver import answer_all
from stepreward.core.runtime.flows import Compare, Continuation, Judge, Propose, Score, Scored
from stepreward.core.types import Problem, Step
from stepreward.policies.scripted import ScriptedPolicy
from stepreward.score.judges.pairwise import PROMPT, PolicyJudge, ScorerJudge, verdict
from stepreward.search.samples.independent import best_of_n
from stepreward.search.samples.tournaments import elo, knockout

PROBLEM = Problem("p", "What is 3 + 4?")
RIGHT, WRONG, OTHER = (Step("3 + 4 = 7\n"), Step("Answer: 7\n")), (Step("3 + 4 = 8\n"),), (Step("Answer: 9\n"),)


def compare(first: tuple[Step, ...], second: tuple[Step, ...], problem: Problem = PROBLEM) -> Compare:
    return Compare(problem, first, second)


def shown(question: Propose) -> tuple[str, str]:
    """The solutions of a prompt, as they stand in it."""
    text = question.problem.text
    first = text.partition("[Solution A]\n")[2].partition("\n\n[Solution B]")[0]
    return first, text.partition("[Solution B]\n")[2].partition("\n\nCompare")[0]


def chances(judge: Judge, questions: Sequence[Compare]) -> list[float]:
    return [one.chance for one in judge.compare_many(questions)]


def truthful(question: Propose, _: int) -> str:
    """Knows that seven is right."""
    good = ["7" in side for side in shown(question)]
    return "Because.\n" + ("[[C]]" if good[0] == good[1] else "[[A]]" if good[0] else "[[B]]")


def test_a_judge_is_shown_both_orders_and_its_verdicts_are_exact() -> None:
    policy = ScriptedPolicy(truthful)
    judge: Judge = PolicyJudge(policy)
    assert chances(judge, [compare(RIGHT, WRONG), compare(WRONG, RIGHT), compare(WRONG, OTHER)]) == [1.0, 0.0, 0.5]
    assert [shown(question) for question in policy.questions] == [
        ("3 + 4 = 7\nAnswer: 7", "3 + 4 = 8"), ("3 + 4 = 8", "3 + 4 = 7\nAnswer: 7"),
        ("3 + 4 = 8", "Answer: 9"), ("Answer: 9", "3 + 4 = 8"),
    ]  # fmt: skip
    assert all("[Problem]\nWhat is 3 + 4?" in question.problem.text for question in policy.questions)
    assert len({question.problem.id for question in policy.questions}) == 4, "policies tell prompts apart by id"
    assert {(question.temperature, question.n, question.until) for question in policy.questions} == {(0.0, 1, "end")}
    # Four answers of two lines each, a token a line.
    usage = judge.usage  # type: ignore[attr-defined]
    assert (usage.answers, usage.unread, usage.swayed, usage.tokens) == (4, 0, 0, 8)
    # The second question turns the first one around: its two answers are paid for.
    again = judge.compare_many([compare(RIGHT, WRONG), compare(WRONG, RIGHT), compare(WRONG, OTHER)])
    assert [one.tokens for one in again] == [4, 0, 4]


@pytest.mark.parametrize("always", ["A", "B"])
def test_one_who_always_names_the_same_place_gives_ties(always: str) -> None:
    judge = PolicyJudge(ScriptedPolicy({"": [f"[[{always}]]"]}))
    questions = [compare(RIGHT, WRONG), compare(WRONG, RIGHT), compare(OTHER, RIGHT), compare(RIGHT, RIGHT)]
    assert chances(judge, questions) == [0.5] * 4
    assert judge.usage.swayed == 2, "RIGHT with WRONG, and with OTHER; the same solution twice is no pair"


@given(st.floats(0, 1), st.lists(st.sampled_from([RIGHT, WRONG, OTHER]), min_size=2, max_size=2))
def test_a_preference_for_a_place_cancels_exactly(partiality: float, sides: list[tuple[Step, ...]]) -> None:
    """A judge who takes the first place with some chance, whatever stands there, and else tells the truth."""

    def partial(question: Propose, i: int) -> str:
        return "[[A]]" if i < round(8 * partiality) else truthful(question, i)

    judge = PolicyJudge(ScriptedPolicy(partial), n=8)
    truth = chances(PolicyJudge(ScriptedPolicy(truthful)), [compare(*sides)])[0]
    one, other = chances(judge, [compare(*sides), compare(*sides[::-1])])
    assert one + other == pytest.approx(1)
    # Of 8 answers k are for the first place in both orders: the truth is left with weight (8 - k) / 8.
    assert one == pytest.approx(0.5 + (truth - 0.5) * (8 - round(8 * partiality)) / 8)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Both try. [[A]]", 1.0), ("[[B]]", 0.0), ("fair\n[[C]]\n", 0.5), ("[[A]] indeed [[A]]", 1.0),
        ("<think>first [[A]]?</think>No: [[B]]", 0.0), ("[[A]] or [[B]]", None), ("A", None), ("[A]", None),
        ("[[a]]", None), ("[[D]]", None), ("", None), ("<think>[[A]]</think>", None), ("[[ A ]]", None),
    ],
)  # fmt: skip
def test_a_verdict_is_read_strictly(text: str, expected: float | None) -> None:
    assert verdict(text) == expected


def test_what_cannot_be_read_is_a_tie_and_is_counted() -> None:
    def half(question: Propose, _: int) -> str | Continuation:
        return truthful(question, 0) if "7" in shown(question)[0] else "I cannot tell"

    judge = PolicyJudge(ScriptedPolicy(half))
    # One order says 1 for RIGHT, the other nothing, which is 1/2.
    assert chances(judge, [compare(RIGHT, WRONG)]) == [0.75]
    cut = Continuation((Step("On the one"),), finished=False, n_tokens=3, truncated=True, n_prompt_tokens=10)
    silent = PolicyJudge(ScriptedPolicy(lambda *_: cut))
    assert chances(silent, [compare(RIGHT, WRONG)]) == [0.5]
    assert (judge.usage.unread, silent.usage.unread, silent.usage.tokens) == (1, 2, 26)


def test_texts_that_look_like_the_prompts_own_are_shown_as_they_are() -> None:
    policy = ScriptedPolicy({"": ["[[C]]"]})
    PolicyJudge(policy).compare_many([compare((Step("{second} {prompt}"),), (Step("x"),), Problem("q", "{first}?"))])
    assert shown(policy.questions[0]) == ("{second} {prompt}", "x")
    assert "[Problem]\n{first}?" in policy.questions[0].problem.text


def test_samples_depend_on_the_pair_alone_and_names_on_the_settings() -> None:
    policy = ScriptedPolicy({"": ["[[C]]"]})
    judge = PolicyJudge(policy)
    chances(judge, [compare(RIGHT, WRONG)])
    chances(judge, [compare(OTHER, WRONG), compare(WRONG, RIGHT)])
    bits = {shown(question): question.key.bits for question in policy.questions}
    assert len(set(bits.values())) == 4
    assert all(bits[shown(question)] == question.key.bits for question in policy.questions)
    names = {PolicyJudge(policy, **settings).name for settings in ({}, {"n": 2}, {"temperature": 1.0})}  # type: ignore[arg-type]
    assert (
        len({*names, PolicyJudge(policy, prompt=PROMPT + " Go.").name, PolicyJudge(policy, key=Key.seed(1)).name}) == 5
    )
    with pytest.raises(ValueError, match=r"must hold \{second\}"):
        PolicyJudge(policy, prompt="{prompt} {first}")
    with pytest.raises(ValueError, match="n must be at least 1"):
        PolicyJudge(policy, n=0)


class Says:
    """Scores a step by the number behind its last space."""

    name, batch_size = "says", 8

    def __init__(self) -> None:
        self.asked: list[Score] = []

    def score_many(self, questions: list[Score]) -> list[Scored]:
        self.asked += questions
        return [Scored(np.array([float(s.text.split()[-1]) for s in q.steps])) for q in questions]


def steps(*scores: float) -> tuple[Step, ...]:
    return tuple(Step(f"x {score}\n") for score in scores)


def test_a_scorer_s_better_total_wins() -> None:
    scorer = Says()
    judge: Judge = ScorerJudge(scorer)
    nan, pairs = float("nan"), []
    pairs += [(steps(0.9, 0.2), steps(0.3, 0.3)), (steps(0.5), steps(0.9, 0.5)), (steps(0.4), steps(0.1, 0.9))]
    pairs += [(steps(nan), steps(0.1)), (steps(0.1, nan), steps(nan)), (steps(nan), (Step("y nan"),))]
    assert chances(judge, [compare(*pair) for pair in pairs]) == [0.0, 0.5, 1.0, 0.0, 1.0, 0.5]
    assert len(scorer.asked) == len({side for pair in pairs for side in pair}), "each solution is scored once"
    assert chances(ScorerJudge(scorer, aggregate="max"), [compare(*pairs[0])]) == [1.0]
    with pytest.raises(UnknownNameError, match="leest"):
        ScorerJudge(scorer, aggregate="leest")


@pytest.mark.parametrize("search", [knockout, elo])
def test_a_tournament_by_totals_finds_what_best_of_n_finds(search: object) -> None:
    """The limit case: a judge who is sure and consistent, and no two totals equal."""

    class Text:
        name = "text"

        def grade(self, problem: Problem, steps: tuple[Step, ...]) -> float:
            return float("nan")

        def answer(self, problem: Problem, steps: tuple[Step, ...]) -> str | None:
            return steps[-1].text

    for seed in range(5):
        values = np.random.default_rng(seed).permutation(8) / 8
        policy = ScriptedPolicy({"": [f"x {value}\n" for value in values]})
        flows = [one(PROBLEM, Key.seed(seed), n=8) for one in (search, best_of_n)]  # type: ignore[operator]
        found = [
            answer_all(flow, policy=policy, scorer=Says(), judge=ScorerJudge(Says()), grader=Text()).answer
            for flow in flows
        ]
        assert found == [f"x {values.max()}\n"] * 2
