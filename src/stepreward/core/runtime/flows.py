"""Flows: algorithms that sample, score or grade by asking, so that they do no I/O themselves.

A flow is a generator for one problem. It yields a list of questions and is sent the list of answers, in order.
The driver (`core.runtime.driver`) runs thousands of them together; a test answers them by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from stepreward.core.keys import Key
from stepreward.core.types import Problem, Step
from stepreward.core.vocabulary import Flag

T = TypeVar("T")
MESSAGES, TOOLS, TOOL_CHOICE = "messages", "tools", "tool_choice"
TEMPLATE_KWARGS, EFFORT = "chat_template_kwargs", "reasoning_effort"
READ_BY_POLICIES = (MESSAGES, TOOLS, TOOL_CHOICE, TEMPLATE_KWARGS, EFFORT)
"""Keys of a problem's meta that a policy may read (`takes`): messages as a client sent them, which say more than text,
what may be called, and what a chat template reads beside the messages."""


@dataclass(frozen=True, slots=True)
class Propose:
    """Asks a policy for `n` continuations of a prefix; the answer is a `list[Continuation]` of length n.

    Sample `i` is drawn from `key.fold(first + i)`, so that asking for 8 at once or for 2 and then 6 draws the same.
    """

    problem: Problem
    prefix: tuple[Step, ...]
    key: Key
    n: int = 1
    until: Literal["step", "end"] = "end"
    """Stop after one step, or at the end of the solution."""
    max_tokens: int | None = None
    """Limit on the tokens of one continuation; None leaves it to the policy."""
    first: int = 0
    """Number of the first sample."""
    temperature: float | None = None
    """Of sampling; None leaves it to the policy."""
    top_p: float | None = None
    """Share of the probability that is sampled from; None leaves it to the policy."""
    top_k: int | None = None
    """Tokens that are sampled from, the likeliest; 0 is all, None leaves it to the policy."""
    min_p: float | None = None
    """Share of the likeliest token's probability below which none is sampled; None leaves it to the policy."""
    expert: bool = False
    """Asks the stronger policy, where there is one (`policies.expert`)."""
    partial: bool = False
    """Whether fewer than `n` continuations, or such as are cut short, are of use: where the budget ends or a sample
    fails, those that came are thrown into the flow with the error. Without it a question is answered whole or not."""

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
    """True if the policy left off since nobody waited any more: truncated, and no answer for whoever asks again."""


@dataclass(frozen=True, slots=True)
class Score:
    """Asks a scorer for the step scores of a trajectory; the answer is a float64 array of shape (len(steps),).

    Entries of observations are NaN.
    """

    problem: Problem
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Grade:
    """Asks a grader for the outcome of a finished trajectory; the answer is a float in [0, 1], NaN if unknown."""

    problem: Problem
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Extract:
    """Asks a grader for the final answer that a trajectory states; the answer is a str in a normal form, or None.

    Within a problem, equal strings are equal answers: votes count them.
    """

    problem: Problem
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Compare:
    """Asks a judge which of two solutions is better; the answer is the chance, in [0, 1], that it is the first.

    1/2 is a tie. The order in which the two are shown is part of the question: a flow that mistrusts it asks both.
    """

    problem: Problem
    first: tuple[Step, ...]
    second: tuple[Step, ...]


Question = Propose | Score | Compare | Grade | Extract
Answer = list[Continuation] | NDArray[np.float64] | float | str | None
Flow = Generator[Sequence[Question], list[Any], T]
"""Yields questions, is sent their answers in order, returns a T."""


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that one flow may spend; None is no limit.

    A flow is refused further continuations once it has spent what it may. What it has by then can still be scored and
    compared: a search ends with the best so far.

    Of a question that takes partial answers (`Propose.partial`) so many samples are drawn as `rollouts` leaves. Under a
    limit in tokens or money they are drawn in waves, each sample with the tokens that it may have
    (`core.runtime.rounds`), so that no more is spent than is left. Other questions are answered whole: the last one
    may overshoot all limits but `rollouts`.
    """

    rollouts: Annotated[int | None, Flag("--max-samples", low=1)] = None
    """Most continuations sampled for a problem."""
    tokens: Annotated[int | None, Flag("--max-tokens", low=1)] = None
    """Most tokens generated for a problem, the expert's among them; the best so far is its answer."""
    scored_tokens: Annotated[int | None, Flag("--max-scored-tokens", low=1)] = None
    """Most tokens that the reward model encodes for a problem, each shared prefix once, or that the judge uses."""
    seconds: Annotated[float | None, Flag("--max-seconds", low=0.0)] = None
    """Most seconds for a problem, from its first question; the best so far is its answer."""
    money: Annotated[float | None, Flag("--max-money", low=0.0)] = None
    """Most money for a problem, by the prices."""


@dataclass(frozen=True, slots=True)
class Prices:
    """What tokens cost, in any one currency."""

    generated: Annotated[float, Flag("--price-generated", low=0.0)] = 0.0
    """Price of a million generated tokens."""
    scored: Annotated[float, Flag("--price-scored", low=0.0)] = 0.0
    """Price of a million tokens that the reward model encodes or the judge uses."""
    expert: Annotated[float | None, Flag("--price-expert", low=0.0)] = None
    """Price of a million tokens of the expert; left out: that of all others."""

    def of(self, generated: int, scored: int, expert: int = 0) -> float:
        """What so many tokens cost; `expert` of the generated ones are the expert's."""
        return (self.generated * (generated - expert) + self.of_writing(True) * expert + self.scored * scored) / 1e6

    def of_writing(self, expert: bool) -> float:
        """Price of a million tokens of the policy or of the expert."""
        return self.generated if self.expert is None or not expert else self.expert


@dataclass(slots=True)
class Bill:
    """What was spent."""

    proposals: int = 0
    """Continuations asked for and generated (cache hits are free and are counted in `cached`)."""
    generated_tokens: int = 0
    expert_tokens: int = 0
    """Those of them that the expert generated."""
    prompt_tokens: int = 0
    """Tokens read before each continuation, as far as the policy knows."""
    drawn: int = 0
    """Continuations received, those from the log among them."""
    cut: int = 0
    """Those of them that the policy's own limit, or a filter, cut: `max_tokens`, or the end of the context."""
    failed: int = 0
    """Continuations that a policy could not give, where the flow went on without them."""
    scorings: int = 0
    """Solutions that the scorer was asked about."""
    scored_steps: int = 0
    scored_tokens: int = 0
    """Tokens encoded by the scorer with each shared prefix encoded once."""
    scored_tokens_unshared: int = 0
    """Tokens that scoring each trajectory by itself would have encoded."""
    comparisons: int = 0
    """Pairs judged."""
    judged_tokens: int = 0
    """Tokens that the judge read and wrote, or encoded, for them."""
    grades: int = 0
    ungraded: int = 0
    """Of them, those that could not be graded (NaN) although there is a reference; they are not counted as wrong."""
    cached: int = 0
    """Questions answered from the log."""
    cached_generated_tokens: int = 0
    """Tokens that those answers hold, which were paid before."""
    cached_scored_tokens: int = 0
    """Tokens that had been encoded for those answers."""

    @property
    def answered(self) -> int:
        """Questions to the policy, the scorer and the judge that have been answered, by them or by the log."""
        return self.proposals + self.scorings + self.comparisons + self.cached

    def add(self, other: Bill) -> None:
        """Adds another bill to this one in place."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Policy(Protocol):
    """Who proposes steps. Samples depend on the question's key alone, never on the batch."""

    @property
    def name(self) -> str:
        """Identity for caches and provenance: equal names promise equal samples."""

    @property
    def batch_size(self) -> int:
        """How many continuations make a full batch; 1 for a server that takes each request alone."""

    @property
    def concurrency(self) -> int:
        """How many batches may run at the same time; 1 for a local model."""

    def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
        """Answers the questions, in order."""


@runtime_checkable
class Asked(Protocol):
    """A policy that honours more of a question than every policy does."""

    @property
    def takes(self) -> frozenset[str]:
        """Of `top_k` and `min_p` of a question, and `READ_BY_POLICIES` of a problem's meta, those that it honours."""


def taken(policy: Policy | None) -> frozenset[str]:
    """What of a question a policy honours beyond what every policy does."""
    return policy.takes if isinstance(policy, Asked) else frozenset()


Wanted = Callable[[int], bool]
"""Whether anybody still waits for the answer to the question of this position; may be called from any thread."""


def always(position: int) -> bool:
    """Every answer is wanted."""
    return True


@runtime_checkable
class Interruptible(Protocol):
    """A policy that can leave off when nobody waits for its answers any more."""

    def propose_while(self, wanted: Wanted, questions: Sequence[Propose]) -> list[list[Continuation]]:
        """Answers the questions, in order; what is not wanted any more is left as it is, `interrupted`."""


@runtime_checkable
class Limited(Protocol):
    """A policy that says how long an answer may become, so that a budget in tokens knows how many it holds."""

    @property
    def max_tokens(self) -> int:
        """Most tokens of one continuation where the question sets no limit."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A scorer's answer to one question, with its cost."""

    scores: NDArray[np.float64]
    """(S,) one score a step, NaN at observations."""
    tokens: int = 0
    """Tokens encoded for this question that no earlier question of the batch, or cached prefix, had paid for."""
    tokens_unshared: int = 0
    """Tokens that encoding this trajectory by itself costs."""


class Scorer(Protocol):
    """Who scores steps."""

    @property
    def name(self) -> str:
        """Identity for caches and provenance."""

    @property
    def batch_size(self) -> int:
        """How many trajectories make a full batch."""

    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        """Scores of each question's steps, in order; shared prefixes within the batch are encoded once."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A judge's answer to one question, with its cost."""

    chance: float
    """That the first solution is the better one, in [0, 1]; 1/2 is a tie."""
    tokens: int = 0
    """Read and written, or encoded, for this question that no earlier one of the batch had paid for."""


class Judge(Protocol):
    """Who compares solutions."""

    @property
    def name(self) -> str:
        """Identity for caches and provenance."""

    @property
    def batch_size(self) -> int:
        """How many pairs make a full batch."""

    def compare_many(self, questions: Sequence[Compare]) -> list[Judged]:
        """The chance that the first solution of each question is the better one, in order."""


class Grader(Protocol):
    """Who decides outcomes. Where an engine has threads it is asked from several of them at once."""

    @property
    def name(self) -> str:
        """Identity for caches and provenance: equal names promise equal grades."""

    def grade(self, problem: Problem, steps: Sequence[Step]) -> float:
        """Outcome in [0, 1], NaN if it cannot tell."""

    def answer(self, problem: Problem, steps: Sequence[Step]) -> str | None:
        """The final answer stated by the steps, in a normal form; None if there is none."""
