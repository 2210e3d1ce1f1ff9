"""Two policies as one: a cheap one that writes, and a stronger one that is asked at chosen steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from stepreward.core.flows import Continuation, Interruptible, Policy, Propose


class WithExpert:
    """Sends questions that ask for the expert to a stronger policy; a `core.flows.Policy`.

    Args:
        policy: who answers all others.
        expert: who answers `Propose(expert=True)`.
    """

    def __init__(self, policy: Policy, expert: Policy) -> None:
        self.policy, self.expert = policy, expert
        self.expert_tokens = 0
        """Tokens that the expert has generated."""

    @property
    def name(self) -> str:
        """Identity for caches and provenance."""
        return f"{self.policy.name} with {self.expert.name}"

    @property
    def takes_tools(self) -> bool:
        """Whether both may be told of tools to call."""
        return all(getattr(policy, "takes_tools", False) for policy in (self.policy, self.expert))

    @property
    def batch_size(self) -> int:
        """The policy's."""
        return self.policy.batch_size

    @property
    def concurrency(self) -> int:
        """What both can bear."""
        return min(self.policy.concurrency, self.expert.concurrency)

    def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
        """Answers the questions, in order."""
        return self.propose_while(_always, questions)

    def propose_while(self, wanted: Callable[[], bool], questions: Sequence[Propose]) -> list[list[Continuation]]:
        """Like `propose`; either leaves off, if it can, once the answers are not wanted.

        Raises:
            SteprewardError: they are not wanted any more.
        """
        answers: list[list[Continuation]] = [[] for _ in questions]
        for who, expert in ((self.policy, False), (self.expert, True)):
            own = [i for i, question in enumerate(questions) if question.expert is expert]
            asked = [questions[i] for i in own]
            ask = partial(who.propose_while, wanted) if isinstance(who, Interruptible) else who.propose
            for i, answer in zip(own, ask(asked) if own else [], strict=True):
                answers[i] = answer
                self.expert_tokens += sum(c.n_tokens for c in answer) if expert else 0
        return answers


def _always() -> bool:
    return True
