"""A policy in an environment, as one value that goes wherever a policy goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from stepreward.core.runtime.acts import Episodes
from stepreward.core.runtime.flows import Continuation, Policy, Propose, Wanted
from stepreward.core.runtime.joint_policy import JointPolicy, answers_by


class Agent(JointPolicy):
    """A policy whose answers are executed by an environment, turn by turn (`core.runtime.acting`).

    The driver of a flow does that: by itself the agent answers as its policy does, one turn at a time.

    Args:
        policy: who writes each turn.
        environment: who executes it and shows what comes of it.
    """

    def __init__(self, policy: Policy, environment: Episodes) -> None:
        super().__init__([policy])
        self.policy, self.environment = policy, environment

    @property
    def name(self) -> str:
        """Identity for caches and provenance."""
        return f"{self.policy.name} in {self.environment.name}"

    def propose_while(self, wanted: Wanted, questions: Sequence[Propose]) -> list[list[Continuation]]:
        """One turn of each question, in order; the policy stops, if it can, once an answer is not wanted."""
        prepared = {one.problem.id: self.environment.prepared(one.problem) for one in questions}
        questions = [replace(one, problem=prepared[one.problem.id]) for one in questions]
        return answers_by([self.policy] * len(questions), questions, wanted)
