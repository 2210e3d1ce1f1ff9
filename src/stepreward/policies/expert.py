"""Two policies as one: a cheap one for most steps, and a stronger one for chosen steps."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial

from stepreward.core.runtime.flows import (
    Continuation,
    Interruptible,
    Policy,
    Propose,
    Wanted,
    always,
    honoured_settings,
    measured_by,
    room_of,
    token_limit,
)
from stepreward.core.types import Problem


class WithExpert:
    """Sends questions marked `expert` to a stronger policy; a `core.runtime.flows.Policy`.

    Args:
        policy: answers all others.
        expert: answers `Propose(expert=True)`.
    """

    def __init__(self, policy: Policy, expert: Policy) -> None:
        self.policy, self.expert = policy, expert

    @property
    def name(self) -> str:
        """Identity for caches and provenance."""
        return f"{self.policy.name} with {self.expert.name}"

    @property
    def takes(self) -> frozenset[str]:
        """Settings that both honour."""
        return honoured_settings(self.policy) & honoured_settings(self.expert)

    @property
    def measures(self) -> frozenset[str]:
        """What the policy measures; the expert writes few steps."""
        return measured_by(self.policy)

    def room(self, problem: Problem) -> int:
        """Tokens that a problem's prompt leaves to the policy's answer; no limit where the policy knows none."""
        return room_of(self.policy, problem)

    @property
    def batch_size(self) -> int:
        """The policy's."""
        return self.policy.batch_size

    @property
    def concurrency(self) -> int:
        """The smaller of the two."""
        return min(self.policy.concurrency, self.expert.concurrency)

    @property
    def max_tokens(self) -> int:
        """The longest answer of either, where both state a limit; else none."""
        own, experts = token_limit(self.policy), token_limit(self.expert)
        return sys.maxsize if own is None or experts is None else max(own, experts)

    def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
        """Answers the questions, in order."""
        return self.propose_while(always, questions)

    def propose_while(self, wanted: Wanted, questions: Sequence[Propose]) -> list[list[Continuation]]:
        """Like `propose`; each policy stops, if it can, once an answer is not wanted."""
        answers: list[list[Continuation]] = [[] for _ in questions]
        for policy, expert in ((self.policy, False), (self.expert, True)):
            own = [i for i, question in enumerate(questions) if question.expert is expert]
            sent = [questions[i] for i in own]
            if not sent:
                continue
            for i, answer in zip(own, asked(policy, sent, wanted, own), strict=True):
                answers[i] = answer
        return answers


def asked(
    policy: Policy, sent: Sequence[Propose], wanted: Wanted, positions: Sequence[int]
) -> list[list[Continuation]]:
    """A policy's answers to some of a batch's questions; it stops, if it can, once an answer is not wanted.

    Args:
        policy: who answers.
        sent: the questions for it.
        wanted: of the whole batch.
        positions: of the sent ones in the batch.
    """
    if isinstance(policy, Interruptible):
        return policy.propose_while(partial(_wanted_at, wanted, positions), sent)
    return policy.propose(sent)


def _wanted_at(wanted: Wanted, positions: Sequence[int], position: int) -> bool:
    return wanted(positions[position])
