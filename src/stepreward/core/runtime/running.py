"""A running flow: the round of questions that it waits for, what it has spent, and what its budget still allows.

A question for many samples goes to its policy in parts of at most one batch, so that a slow or failing sample delays or
costs no other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from stepreward.core.runtime.acts import Act
from stepreward.core.runtime.flows import (
    Compare,
    Continuation,
    Flow,
    Grade,
    Graded,
    Judged,
    Propose,
    Question,
    Score,
    Scored,
)
from stepreward.core.runtime.queue import PendingQuestion, QuestionQueue
from stepreward.core.runtime.spending import Bill, Budget, Prices

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class QuestionPart:
    """What is sent to a queue: a whole question, or some samples of a `Propose`; also the receiver of the answer."""

    flow: RunningFlow[Any]
    slot: int
    """Position of the question in its round."""
    question: Question
    first: int = 0
    """Position, in the answer, of its first sample."""
    capped: bool = False
    """Whether the budget allows its samples fewer tokens than they may need."""


class Round:
    """The questions that a flow yielded together, and their answers so far."""

    def __init__(self, questions: Sequence[Question]) -> None:
        self.questions = questions
        self.answers: list[Any] = [[None] * q.n if isinstance(q, Propose) else None for q in questions]
        self.pending = 0
        """Parts that were sent and not answered."""
        self.unsent: deque[tuple[int, int]] = deque(
            (slot, 0) for slot, q in enumerate(questions) if isinstance(q, Propose) and q.n
        )
        """Slots of questions with samples that were not sent, and the position of the first such sample."""
        self.limit = ""
        """The limit of the budget that ended the round early; "" while none did."""
        self.error: Exception | None = None
        """Why samples failed."""

    @property
    def partial(self) -> bool:
        """Whether the flow can use part of the answers."""
        return all(q.partial for q in self.questions if isinstance(q, Propose))

    @property
    def done(self) -> bool:
        """Whether all parts were sent and answered."""
        return not (self.pending or self.unsent)

    def unsent_samples(self) -> Iterator[tuple[Propose, int]]:
        """The questions with unsent samples, and how many of each."""
        for slot, first in self.unsent:
            question = self.questions[slot]
            assert isinstance(question, Propose)
            yield question, question.n - first

    def so_far(self) -> list[Any]:
        """The answers so far. A `Propose` without `partial` counts as not answered until all samples are there."""
        return [
            ([one for one in answer if one is not None] if self.partial else []) if isinstance(q, Propose) else answer
            for q, answer in zip(self.questions, self.answers, strict=True)
        ]


@dataclass(slots=True, eq=False)
class RunningFlow(Generic[T]):
    """A flow that has started, or is about to."""

    flow: Flow[T]
    budget: Budget
    started: float
    """By the clock of the dispatcher."""
    index: int = 0
    """Position among the flows given to `Driver.run`."""
    round: Round | None = None
    """Its newest questions; None before the first."""
    sent: list[tuple[QuestionQueue, PendingQuestion, QuestionPart]] = field(default_factory=list)
    """Parts of the round that were put into a queue."""
    bill: Bill = field(default_factory=Bill)
    rollouts: int = 0
    """Continuations received, also those that other flows paid; so are the three counts of tokens below."""
    tokens: int = 0
    expert_tokens: int = 0
    scored_tokens: int = 0
    actions: int = 0
    asked_money: float = 0.0
    longest: int = 0
    """Tokens of the longest continuation so far."""
    stopped: str = ""
    """The limit of the budget that refused a question or cut an answer; "" while none did."""
    ended: bool = False
    dropped: bool = False
    """Whether it was given up before its end, without a result."""
    result: Any = None
    """What it returned; set at its end."""

    @property
    def deadline(self) -> float | None:
        """When its seconds are over."""
        return None if self.budget.seconds is None else self.started + self.budget.seconds

    @property
    def awaits_samples(self) -> bool:
        """Whether it waits for continuations; only then the end of its seconds interrupts the wait."""
        return (
            self.round is not None
            and not self.round.done
            and any(isinstance(pending.question, Propose) for _, pending, _ in self.sent)
        )

    def plain_parts(self) -> list[QuestionPart]:
        """The questions of the round that are no `Propose`."""
        assert self.round is not None
        return [QuestionPart(self, i, q) for i, q in enumerate(self.round.questions) if not isinstance(q, Propose)]

    def sample_parts(self, prices: Prices, token_limit: int | None, size: int | None) -> list[QuestionPart]:
        """The next samples of the round to send: as many as the budget allows at once.

        Args:
            prices: of tokens, for a budget in money.
            token_limit: most tokens of a continuation where the question sets no limit; None where the policy has none.
            size: most samples of one part; None is no limit.
        """
        assert self.round is not None
        waiting = list(self.round.unsent_samples())
        rows, cap = sum(n for _, n in waiting), None
        size = size or rows
        if self.round.partial:
            if self.budget.rollouts is not None:
                rows = min(rows, self.budget.rollouts - self.rollouts)
            left = self._tokens_left(prices, expert=any(question.expert for question, _ in waiting))
            if left is not None:
                limits = [one.max_tokens or token_limit or left for one, n in waiting for _ in range(n)]
                rows, cap = wave(limits[:rows], left, self.longest)
        parts: list[QuestionPart] = []
        while rows and self.round.unsent:
            slot, first = self.round.unsent.popleft()
            question = self.round.questions[slot]
            assert isinstance(question, Propose)
            total = question.n
            n = min(rows, size, total - first)
            most = token_limit if question.max_tokens is None else question.max_tokens
            capped = cap is not None and (most is None or cap < most)
            # A part has the keys of its own samples, so that how a question is cut changes no sample.
            if n < total or capped:
                limit = cap if capped else question.max_tokens
                question = replace(question, n=n, first=question.first + first, max_tokens=limit)
            parts.append(QuestionPart(self, slot, question, first, capped))
            rows -= n
            if first + n < total:
                self.round.unsent.appendleft((slot, first + n))
        return parts

    def receive(self, part: QuestionPart, answer: Any) -> None:
        """Stores an answer, and counts it against the budget, also where another flow paid for it."""
        assert self.round is not None
        question = part.question
        if isinstance(question, Propose):
            tokens = generated(answer)
            self.rollouts += question.n
            self.tokens += tokens
            self.expert_tokens += tokens if question.expert else 0
            self.longest = max(self.longest, *(c.n_tokens for c in answer))
            if any(c.interrupted for c in answer):
                self.round.limit = "seconds"
            elif part.capped and any(c.truncated for c in answer):
                self.stopped = self.stopped or ("tokens" if self.budget.tokens is not None else "money")
            self.round.answers[part.slot][part.first : part.first + question.n] = answer
            return
        if isinstance(question, Score | Compare):
            self.scored_tokens += answer.tokens
        elif isinstance(question, Act):
            self.actions += question.acts
            self.asked_money += answer.cost
        # The flow gets the value alone; what it cost is on the bill.
        name = {Scored: "scores", Graded: "answer", Judged: "chance"}.get(type(answer))
        whole = isinstance(question, Score) and question.whole
        self.round.answers[part.slot] = getattr(answer, name) if name and not whole else answer

    def limit_reached(self, clock: Callable[[], float], prices: Prices) -> str:
        """The first limit of the budget that is used up; "" if none is."""
        limit = self.budget
        spent = {
            "rollouts": (limit.rollouts, self.rollouts),
            "tokens": (limit.tokens, self.tokens),
            "scored_tokens": (limit.scored_tokens, self.scored_tokens),
            "seconds": (limit.seconds, clock() - self.started),
            "money": (limit.money, self._cost(prices)),
            "actions": (limit.actions, self.actions),
        }
        return next((name for name, (most, used) in spent.items() if most is not None and used >= most), "")

    def limit_for(self, questions: Sequence[Question], clock: Callable[[], float], prices: Prices) -> str:
        """The limit for which these questions must be refused; "" if none must be.

        Only samples and actions are refused: what a flow has by then can still be scored, compared and graded.
        """
        proposed = [question for question in questions if isinstance(question, Propose) and question.n]
        acts = [question for question in questions if isinstance(question, Act) and question.acts]
        if not proposed and not acts:
            return ""
        actions = len(acts)
        if self.budget.actions is not None and self.actions + actions > self.budget.actions:
            return "actions"
        whole = 0 if all(q.partial for q in proposed) else sum(q.n for q in proposed)
        if self.budget.rollouts is not None and self.rollouts + whole > self.budget.rollouts:
            return "rollouts"
        limit = self.limit_reached(clock, prices)
        scoring = not proposed and all(act.scores for act in acts)
        return "" if scoring and limit in ("rollouts", "tokens", "scored_tokens") else limit

    def _cost(self, prices: Prices) -> float:
        return prices.of(self.tokens, self.scored_tokens, self.expert_tokens, self.actions) + self.asked_money

    def _tokens_left(self, prices: Prices, *, expert: bool) -> int | None:
        """Tokens that may still be generated, at least 1; None if no limit says how many."""
        limit, price = self.budget, prices.per_million_generated(expert=expert)
        lefts = [] if limit.tokens is None else [limit.tokens - self.tokens]
        if limit.money is not None and price > 0:
            money = limit.money - self._cost(prices)
            lefts.append(int(money * 1e6 / price))
        return max(1, min(lefts)) if lefts else None


def wave(limits: Sequence[int], left: int, seen: int) -> tuple[int, int]:
    """How many samples to request at once, and the tokens of each, so that together they stay within `left`.

    A sample may need its own limit, or twice the longest answer so far, whichever is less. As many samples as then fit
    share what is left; at least one, which may have it all. The result depends on earlier answers of the same flow
    alone, so that a run repeats.

    Args:
        limits: most tokens of each waiting sample, at least one sample.
        left: tokens that may be spent, at least 1.
        seen: tokens of the longest answer so far; 0 where there is none.
    """
    need = max(limits) if seen == 0 else min(max(limits), 2 * seen)
    rows = max(1, min(len(limits), left // need))
    return rows, left // rows


def generated(continuations: Sequence[Continuation]) -> int:
    """Tokens of an answer to a `Propose`."""
    return sum(continuation.n_tokens for continuation in continuations)


def charge(bill: Bill, question: Question, answer: Any) -> None:
    """Adds the cost of a new answer."""
    if isinstance(question, Propose):
        _count_samples(bill, question, answer)
        bill.proposals += question.n
        bill.generated_tokens += generated(answer)
        bill.expert_tokens += generated(answer) if question.expert else 0
        bill.prompt_tokens += sum(continuation.n_prompt_tokens for continuation in answer)
    elif isinstance(question, Compare):
        bill.comparisons += 1
        bill.judged_tokens += answer.tokens
    elif isinstance(question, Act):
        bill.actions += question.acts
        bill.acting_seconds += answer.seconds
        bill.asked_tokens += answer.tokens
        bill.asked_money += answer.cost
    elif isinstance(question, Grade):
        bill.grades += 1
        bill.ungraded += question.is_ungraded(answer.answer)
    elif isinstance(question, Score):
        bill.scorings += 1
        bill.scored_steps += len(question.steps)
        bill.scored_tokens += answer.tokens
        bill.scored_tokens_unshared += answer.tokens_unshared


def charge_cached(bill: Bill, question: Question, answer: Any) -> None:
    """Adds an answer of the log, which was paid before."""
    bill.cached += 1
    if isinstance(question, Propose):
        _count_samples(bill, question, answer)
        bill.cached_generated_tokens += generated(answer)
    elif isinstance(question, Score):
        bill.cached_scored_tokens += answer.tokens
    elif isinstance(question, Grade):
        bill.ungraded += question.is_ungraded(answer.answer)


def _count_samples(bill: Bill, question: Propose, answer: Any) -> None:
    bill.drawn += len(answer)
    if question.max_tokens is None:  # a limit that the question itself sets is no cut
        bill.cut += sum(c.truncated and not c.interrupted for c in answer)
