"""Flows sampled and limited as somebody else says: what they ask, by a script."""

from __future__ import annotations

from collections.abc import Sequence

from stepreward.core.keys import Key
from stepreward.core.runtime.driver import answer_all
from stepreward.core.runtime.flows import Continuation, Flow, Propose
from stepreward.core.runtime.wrapped_flows import limited
from stepreward.core.types import Problem, Step

PROBLEM, KEY = Problem("p", "?"), Key.seed(0)


class Writer:
    """One step of so many tokens, for ever."""

    name, batch_size, concurrency = "writer", 8, 1

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self.asked: list[Propose] = []

    def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
        self.asked += questions
        return [
            [Continuation((Step(f"s{len(q.prefix)}\n"),), False, min(self.tokens, q.max_tokens or self.tokens))] * q.n
            for q in questions
        ]


def steps(n: int, *, temperature: float | None = None) -> Flow[int]:
    """Asks for `n` steps, one after the other; how many came."""
    prefix: tuple[Step, ...] = ()
    for _ in range(n):
        ((answer,),) = yield [Propose(PROBLEM, prefix, KEY, temperature=temperature)]
        prefix += answer.steps
    return len(prefix)


def test_what_a_question_says_of_its_sampling_stays() -> None:
    policy = Writer(1)
    answer_all(limited(steps(2), temperature=0.7, top_p=0.9), policy=policy)
    answer_all(limited(steps(1, temperature=0.0), temperature=0.7, top_p=0.9), policy=policy)
    answer_all(limited(steps(1)), policy=policy)
    asked = [(q.temperature, q.top_p) for q in policy.asked]
    assert asked == [(0.7, 0.9), (0.7, 0.9), (0.0, 0.9), (None, None)]


def test_an_answer_has_a_length() -> None:
    policy = Writer(3)
    # Three tokens a step and seven in all: the third step gets one, a fourth is not asked about.
    assert answer_all(limited(steps(5), max_tokens=7), policy=policy) == 3
    assert [q.max_tokens for q in policy.asked] == [7, 4, 1]
