"""A policy in an environment, as one value that goes wherever a policy goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from stepreward.core.runtime.acts import Episodes
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


class Agent:
    """A policy whose answers are executed by an environment, turn by turn (`core.runtime.acting`).

    The driver of a flow does that: by itself the agent answers as its policy does, one turn at a time.

    Args:
        policy: who writes each turn.
        environment: who executes it and shows what comes of it.
    """

    def __init__(self, policy: Policy, environment: Episodes) -> None:
        self.policy, self.environment = policy, environment

    @property
    def name(self) -> str:
        """Identity for caches and provenance."""
        return f"{self.policy.name} in {self.environment.name}"

    @property
    def takes(self) -> frozenset[str]:
        """Settings that the policy honours."""
        return honoured_settings(self.policy)

    @property
    def measures(self) -> frozenset[str]:
        """What the policy measures."""
        return measured_by(self.policy)

    @property
    def max_tokens(self) -> int | None:
        """The policy's limit of one turn."""
        return token_limit(self.policy)

    @property
    def batch_size(self) -> int:
        """The policy's."""
        return self.policy.batch_size

    @property
    def concurrency(self) -> int:
        """The policy's."""
        return self.policy.concurrency

    def room(self, problem: Problem) -> int:
        """Tokens that a problem's prompt leaves to the policy; no limit where it knows none."""
        return room_of(self.policy, problem)

    def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
        """One turn of each question, in order."""
        return self.propose_while(always, questions)

    def propose_while(self, wanted: Wanted, questions: Sequence[Propose]) -> list[list[Continuation]]:
        """Like `propose`; the policy stops, if it can, once an answer is not wanted."""
        prepared = {one.problem.id: self.environment.prepared(one.problem) for one in questions}
        questions = [replace(one, problem=prepared[one.problem.id]) for one in questions]
        if isinstance(self.policy, Interruptible):
            return self.policy.propose_while(wanted, questions)
        return self.policy.propose(questions)
