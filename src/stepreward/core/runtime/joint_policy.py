"""Policies as one policy: what it states of itself follows from what they state."""

from __future__ import annotations

from abc import ABC, abstractmethod
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


class JointPolicy(ABC):
    """Others as one `core.runtime.flows.Policy`; a subclass has a `name`, and says who answers which question.

    Args:
        policies: all that answer.
        usual: those that answer most questions, whose measures, room and batches count; left out: all.
    """

    def __init__(self, policies: Sequence[Policy], usual: Sequence[Policy] = ()) -> None:
        self._policies, self._usual = policies, usual or policies

    @property
    def takes(self) -> frozenset[str]:
        """Settings that all honour."""
        return frozenset.intersection(*map(honoured_settings, self._policies))

    @property
    def measures(self) -> frozenset[str]:
        """What all the usual ones measure."""
        return frozenset.intersection(*map(measured_by, self._usual))

    @property
    def max_tokens(self) -> int | None:
        """The longest answer of any, where all state a limit; else none."""
        limits = [*map(token_limit, self._policies)]
        known = [one for one in limits if one is not None]
        return max(known) if len(known) == len(limits) else None

    @property
    def batch_size(self) -> int:
        """The smallest of the usual ones."""
        return min(one.batch_size for one in self._usual)

    @property
    def concurrency(self) -> int:
        """The smallest of all."""
        return min(one.concurrency for one in self._policies)

    def room(self, problem: Problem) -> int:
        """Tokens that a problem's prompt leaves to an answer of the usual ones; no limit where none is known."""
        return min(room_of(one, problem) for one in self._usual)

    def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
        """Answers the questions, in order."""
        return self.propose_while(always, questions)

    @abstractmethod
    def propose_while(self, wanted: Wanted, questions: Sequence[Propose]) -> list[list[Continuation]]:
        """Like `propose`; the policies stop, if they can, once an answer is not wanted."""


def answers_by(
    policies: Sequence[Policy | None], questions: Sequence[Propose], wanted: Wanted
) -> list[list[Continuation]]:
    """Answers to the questions of a batch, in order, each by its own policy; what none answers is at its end.

    Args:
        policies: who answers each question.
        questions: of the batch.
        wanted: whether an answer is still waited for; policies that can stop do so once none of theirs is.
    """
    answers = [[Continuation((), finished=True, n_tokens=0)] * one.n for one in questions]
    for policy in {id(one): one for one in policies if one is not None}.values():
        own = [at for at, one in enumerate(policies) if one is policy]
        sent = [questions[at] for at in own]
        if isinstance(policy, Interruptible):
            made = policy.propose_while(partial(_wanted_at, wanted, own), sent)
        else:
            made = policy.propose(sent)
        for at, answer in zip(own, made, strict=True):
            answers[at] = answer
    return answers


def _wanted_at(wanted: Wanted, positions: Sequence[int], position: int) -> bool:
    return wanted(positions[position])
