"""Flows: algorithms that sample, score or grade by yielding questions, so that they do no I/O themselves.

A flow is a generator for one problem. It yields a list of questions and receives the list of answers, in order.
The driver (`core.runtime.driver`) runs thousands of flows together; a test can answer the questions by hand.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from stepreward.core.keys import Key
from stepreward.core.runtime.acts import Act
from stepreward.core.types import TOOLS, Problem, Step

T = TypeVar("T")
MESSAGES, TOOL_CHOICE = "messages", "tool_choice"
TEMPLATE_KWARGS, EFFORT = "chat_template_kwargs", "reasoning_effort"
READ_BY_POLICIES = (MESSAGES, TOOLS, TOOL_CHOICE, TEMPLATE_KWARGS, EFFORT)
"""Keys of a problem's meta that a policy may read: the messages as a client sent them, tools and the choice of a tool,
and what a chat template reads beside the messages."""
UNREAD = "unread: "
"""Prefix of an extracted answer that could not be parsed within its limits of time and memory; the raw text follows."""


@dataclass(frozen=True, slots=True)
class Propose:
    """Requests `n` continuations of a prefix from a policy; the answer is a `list[Continuation]` of length n.

    Sample `i` is drawn from `key.fold(first + i)`, so that 8 samples at once equal 2 and then 6.
    """

    problem: Problem
    prefix: tuple[Step, ...]
    key: Key
    n: int = 1
    until: Literal["step", "end"] = "end"
    """Stop after one step, or at the end of the solution."""
    max_tokens: int | None = None
    """Limit on the tokens of one continuation. Here and below, None means the policy's own setting."""
    first: int = 0
    """Number of the first sample."""
    temperature: float | None = None
    top_p: float | None = None
    """Sample from the likeliest tokens that together have this probability."""
    top_k: int | None = None
    """Sample from this many of the likeliest tokens; 0 means all."""
    min_p: float | None = None
    """Exclude tokens less likely than this share of the likeliest token's probability."""
    expert: bool = False
    """Use the stronger policy, where there is one (`policies.expert`)."""
    acts: bool = True
    """Whether an environment, where there is one, executes what is written."""
    partial: bool = False
    """Whether the flow can use fewer than `n` continuations, or cut ones. When the budget ends or a sample fails, the
    continuations so far are thrown into the flow with the error. Without it a question is answered in full or not."""

    def sample_keys(self) -> list[Key]:
        """The randomness of each of the `n` samples."""
        return [self.key.fold(self.first + i) for i in range(self.n)]


@dataclass(frozen=True, slots=True)
class Continuation:
    """What a policy wrote after a prefix."""

    steps: tuple[Step, ...]
    """New steps only. At most one if `until="step"`."""
    finished: bool
    """True if the policy ended the solution (an end token, a terminal state), False if it was cut or may go on."""
    n_tokens: int
    """Tokens generated, the end token included."""
    truncated: bool = False
    """True if a length limit cut it: not an end."""
    n_prompt_tokens: int = 0
    """Tokens read before it, as far as the policy knows; a server's prefix cache may have spared some."""
    interrupted: bool = False
    """True if the policy stopped because no flow waited any more: truncated, and no answer to an equal question."""


@dataclass(frozen=True, slots=True)
class Score:
    """Requests the step scores of a trajectory from a scorer; the answer is a float64 array of shape (len(steps),).

    Entries of observations are NaN.
    """

    problem: Problem
    steps: tuple[Step, ...]
    whole: bool = False
    """The answer is the scorer's `Scored` instead: with further numbers of each step, such as single votes."""


@dataclass(frozen=True, slots=True)
class Grade:
    """Requests the outcome of a finished trajectory from a grader; the answer is a float in [0, 1], NaN if unknown."""

    problem: Problem
    steps: tuple[Step, ...]

    def is_ungraded(self, answer: float) -> bool:
        """Whether the outcome is unknown although the problem has a reference."""
        return answer != answer and self.problem.reference is not None


@dataclass(frozen=True, slots=True)
class Extract:
    """Requests the final answer of a trajectory from a grader; the answer is a str in a normal form, or None.

    Within a problem, equal strings are equal answers: votes count them.
    """

    problem: Problem
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Compare:
    """Requests from a judge which of two solutions is better; the answer is the probability, in [0, 1], of the first.

    1/2 is a tie. The order of the two is part of the question: a flow that must not depend on it yields both orders.
    """

    problem: Problem
    first: tuple[Step, ...]
    second: tuple[Step, ...]


Question = Propose | Score | Compare | Grade | Extract | Act
Flow = Generator[Sequence[Question], list[Any], T]
"""Yields questions, receives their answers in order, returns a T."""


class Policy(Protocol):
    """Proposes steps. Samples depend on the question's key alone, never on the batch.

    A policy may have more, which the runtime looks for: `takes` (`honoured_settings`), `max_tokens` (`token_limit`) and
    `propose_while` (`Interruptible`).
    """

    @property
    def name(self) -> str:
        """Identity for caches and provenance: equal names promise equal samples."""

    @property
    def batch_size(self) -> int:
        """Continuations of a full batch; 1 for a server that takes each request alone."""

    @property
    def concurrency(self) -> int:
        """Batches that may run at the same time; 1 for a local model."""

    def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
        """Answers the questions, in order."""


Wanted = Callable[[int], bool]
"""Whether a flow still waits for the answer to the question at this position of a batch; called from any thread."""


def always(position: int) -> bool:
    """Every answer is wanted."""
    return True


@runtime_checkable
class Interruptible(Protocol):
    """A policy that can stop when no flow waits for its answers any more."""

    def propose_while(self, wanted: Wanted, questions: Sequence[Propose]) -> list[list[Continuation]]:
        """Answers the questions, in order; an answer that is not wanted any more stays as it is, `interrupted`."""


def honoured_settings(policy: Policy | None) -> frozenset[str]:
    """What of a question a policy honours beyond what every policy does, as its attribute `takes` states.

    Names are `top_k` and `min_p` of a question, and `READ_BY_POLICIES` of a problem's meta.
    """
    takes: frozenset[str] = getattr(policy, "takes", frozenset())
    return takes


def token_limit(policy: Policy | None) -> int | None:
    """Most tokens of a continuation whose question sets no limit, as the policy's attribute `max_tokens` states.

    None where the policy states no limit; a budget in tokens then starts with one sample.
    """
    limit: int | None = getattr(policy, "max_tokens", None)
    return limit


@runtime_checkable
class Measuring(Protocol):
    """A policy that measures its continuations beyond the tokens that they took."""

    @property
    def measures(self) -> frozenset[str]:
        """Of `logprobs` (`Step.logprobs`) and `self_certainty` (in `Step.meta`), those that its steps hold."""


def measured_by(policy: Policy | None) -> frozenset[str]:
    """What a policy's steps hold of `logprobs` and `self_certainty`."""
    return policy.measures if isinstance(policy, Measuring) else frozenset()


@runtime_checkable
class FiniteContext(Protocol):
    """A policy that knows the length of its context."""

    def room(self, problem: Problem) -> int:
        """Tokens that a problem's prompt leaves to an answer; below 1 where it does not fit."""


def room_of(policy: Policy | None, problem: Problem) -> int:
    """Tokens that a problem's prompt leaves to an answer; no limit where the policy knows none."""
    return policy.room(problem) if isinstance(policy, FiniteContext) else sys.maxsize


@dataclass(frozen=True, slots=True)
class Scored:
    """A scorer's answer to one question, with its cost."""

    scores: NDArray[np.float64]
    """(S,) one score a step, NaN at observations."""
    tokens: int = 0
    """Tokens encoded for this question and not for an earlier question of the batch, or a cached prefix."""
    tokens_unshared: int = 0
    """Tokens that encoding this trajectory alone costs."""
    columns: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    """(S,) further numbers of each step, by name."""


class Scorer(Protocol):
    """Scores steps."""

    @property
    def name(self) -> str:
        """Identity for caches and provenance."""

    @property
    def batch_size(self) -> int:
        """Trajectories of a full batch."""

    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        """Scores of each question's steps, in order; shared prefixes within the batch are encoded once."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A judge's answer to one question, with its cost."""

    chance: float
    """Probability that the first solution is the better one, in [0, 1]; 1/2 is a tie."""
    tokens: int = 0
    """Read and written, or encoded, for this question and not for an earlier one of the batch."""


class Judge(Protocol):
    """Compares solutions."""

    @property
    def name(self) -> str:
        """Identity for caches and provenance."""

    @property
    def batch_size(self) -> int:
        """Pairs of a full batch."""

    def compare_many(self, questions: Sequence[Compare]) -> list[Judged]:
        """The probability that the first solution of each question is the better one, in order."""


@dataclass(frozen=True, slots=True)
class Graded:
    """A grader's answer to one question, with its cost."""

    answer: float | str | None
    seconds: float = 0.0


class Grader(Protocol):
    """Decides outcomes. Several threads may call it at once."""

    @property
    def name(self) -> str:
        """Identity for caches and provenance: equal names promise equal grades."""

    def grade(self, problem: Problem, steps: Sequence[Step]) -> float:
        """Outcome in [0, 1], NaN if unknown."""

    def answer(self, problem: Problem, steps: Sequence[Step]) -> str | None:
        """The final answer stated by the steps, in a normal form; None if there is none."""
