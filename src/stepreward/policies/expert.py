"""Two policies as one: a cheap one for most steps, and a stronger one for chosen steps."""

from __future__ import annotations

from collections.abc import Sequence

from stepreward.core.runtime.flows import Continuation, Policy, Propose, Wanted
from stepreward.core.runtime.joint_policy import JointPolicy, answers_by


class WithExpert(JointPolicy):
    """Sends questions marked `expert` to a stronger policy; a `core.runtime.flows.Policy`.

    What it measures, its room and its batches are the policy's: the expert writes few steps.

    Args:
        policy: answers all others.
        expert: answers `Propose(expert=True)`.
    """

    def __init__(self, policy: Policy, expert: Policy) -> None:
        super().__init__([policy, expert], usual=[policy])
        self.policy, self.expert = policy, expert

    @property
    def name(self) -> str:
        """Identity for caches and provenance."""
        return f"{self.policy.name} with {self.expert.name}"

    def propose_while(self, wanted: Wanted, questions: Sequence[Propose]) -> list[list[Continuation]]:
        """Answers the questions, in order; each policy stops, if it can, once an answer is not wanted."""
        return answers_by([self.expert if one.expert else self.policy for one in questions], questions, wanted)
