"""Policies as one: what a crew, an agent and a policy with an expert state follows from what theirs state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from tests.environments.counting import pool

from stepreward.cli.flags.policies import cut_note
from stepreward.core.keys import Key
from stepreward.core.runtime.agent import Agent
from stepreward.core.runtime.flows import Continuation, Policy, Propose, Wanted, honoured_settings, room_of, token_limit
from stepreward.core.runtime.joint_policy import answers_by
from stepreward.core.runtime.spending import Bill
from stepreward.core.types import Problem, Step
from stepreward.policies.crew import Crew, Member
from stepreward.policies.expert import WithExpert
from stepreward.policies.turn_order import order_of

PROBLEM = Problem("p", "?")


class Plain:
    """A policy that states no more than it must."""

    def __init__(self, name: str, batch_size: int, concurrency: int) -> None:
        self.name, self.batch_size, self.concurrency = name, batch_size, concurrency
        self.sent: list[list[str]] = []

    def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
        self.sent.append([one.problem.id for one in questions])
        return [[Continuation((Step(f"{self.name} to {one.problem.id}"),), True, 1)] for one in questions]


class Stating(Plain):
    """One that states all that a policy may."""

    def __init__(self, name: str, sizes: tuple[int, int, int, int], takes: set[str], measures: set[str]) -> None:
        super().__init__(name, *sizes[:2])
        self.max_tokens, self.length = sizes[2:]
        self.takes, self.measures = frozenset(takes), frozenset(measures)

    def room(self, problem: Problem) -> int:
        return self.length - len(problem.text)


class Leaving(Plain):
    """One that notes which of its questions are still waited for."""

    def propose_while(self, wanted: Wanted, questions: Sequence[Propose]) -> list[list[Continuation]]:
        self.waited = [wanted(at) for at in range(len(questions))]
        return self.propose(questions)


WIDE = Stating("wide", (8, 2, 50, 101), {"top_k", "tools"}, {"logprobs", "self_certainty"})
NARROW = Stating("narrow", (4, 3, 70, 61), {"top_k", "messages"}, {"logprobs"})
PLAIN = Plain("plain", 16, 1)


def crew(*policies: Policy) -> Crew:
    members = {policy.name: Member(policy) for policy in policies}
    return Crew(members, order_of([*members], "round-robin", {}))


def stated(policy: Any) -> tuple[object, ...]:
    numbers = (policy.batch_size, policy.concurrency, token_limit(policy), room_of(policy, PROBLEM))
    return (*numbers, honoured_settings(policy), policy.measures)


BOTH = {"logprobs", "self_certainty"}


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (Agent(WIDE, pool()), (8, 2, 50, 100, {"top_k", "tools"}, BOTH)),
        (Agent(PLAIN, pool()), (16, 1, None, room_of(PLAIN, PROBLEM), set(), set())),
        (crew(WIDE, NARROW), (4, 2, 70, 60, {"top_k"}, {"logprobs"})),
        (crew(WIDE, PLAIN), (8, 1, None, 100, set(), set())),
        (WithExpert(WIDE, NARROW), (8, 2, 70, 100, {"top_k"}, BOTH)),
        (WithExpert(NARROW, WIDE), (4, 2, 70, 60, {"top_k"}, {"logprobs"})),
        (WithExpert(WIDE, PLAIN), (8, 1, None, 100, set(), BOTH)),
        (WithExpert(PLAIN, WIDE), (16, 1, None, room_of(PLAIN, PROBLEM), set(), set())),
    ],
)
def test_what_policies_as_one_state(policy: Any, expected: tuple[object, ...]) -> None:
    assert stated(policy) == expected


def test_a_note_of_cut_samples_names_a_limit_of_a_crew_only_where_all_have_one() -> None:
    bill = Bill(drawn=4, cut=1)
    assert "1 of 4 samples reached the policy's limit" in cut_note(bill, crew(WIDE, PLAIN))
    assert "1 of 4 samples reached max_tokens=70" in cut_note(bill, crew(WIDE, NARROW))


def test_each_policy_is_sent_its_own_questions_at_once_and_says_whether_they_are_waited_for() -> None:
    cheap, dear = Leaving("cheap", 8, 1), Leaving("dear", 8, 1)
    questions = [Propose(Problem(f"{i}", "?"), (), Key.seed(i), expert=i in (1, 2)) for i in range(5)]
    answers = WithExpert(cheap, dear).propose_while(lambda at: at in (2, 3), questions)
    texts = [answer[0].steps[0].text for answer in answers]
    assert texts == ["cheap to 0", "dear to 1", "dear to 2", "cheap to 3", "cheap to 4"]
    assert (cheap.sent, dear.sent) == ([["0", "3", "4"]], [["1", "2"]])
    assert (cheap.waited, dear.waited) == ([False, True, False], [False, True])
    WithExpert(cheap, dear).propose(questions[:1])
    assert (cheap.waited, len(dear.sent)) == ([True], 1), "one that is asked nothing is not called"


def test_what_no_policy_answers_is_at_its_end() -> None:
    plain = Plain("plain", 8, 1)
    questions = [Propose(Problem(f"{i}", "?"), (), Key.seed(i), n=2) for i in range(2)]
    first, second = answers_by([None, plain], questions, lambda _: True)
    assert first == [Continuation((), finished=True, n_tokens=0)] * 2
    assert (second[0].steps[0].text, plain.sent) == ("plain to 1", [["1"]])
