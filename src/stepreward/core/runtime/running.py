"""A flow on its way: what it asked, what it spent, and what its budget still allows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from stepreward.core.runtime.flows import Bill, Budget, Compare, Flow, Grade, Judged, Prices, Propose, Score, Scored
from stepreward.core.runtime.grades import Graded, ungraded
from stepreward.core.runtime.queue import Asked, Lane, Open
from stepreward.core.runtime.rounds import Part, Round, generated

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Running(Generic[T]):
    """A flow between two answers."""

    flow: Flow[T]
    budget: Budget
    started: float
    index: int = 0
    round: Round | None = None
    """What it asked last; None before its first question."""
    open: list[tuple[Lane, Open, Asker]] = field(default_factory=list)
    """Its questions that are under way, and as whom it waits for each."""
    bill: Bill = field(default_factory=Bill)
    rollouts: int = 0
    tokens: int = 0
    expert: int = 0
    scored: int = 0
    longest: int = 0
    """Tokens of the longest continuation that it got."""
    stopped: str = ""
    """The limit of its budget that refused a question, or cut an answer, if any."""
    ended: bool = False
    dropped: bool = False
    """Whether it ended before its time, without a result."""
    result: Any = None
    """What it returned; set once it ended."""

    @property
    def end(self) -> float | None:
        """When its time is over."""
        return None if self.budget.seconds is None else self.started + self.budget.seconds

    @property
    def proposing(self) -> bool:
        """Whether it waits for continuations, so that the end of its budget can be told to it."""
        return (
            self.round is not None
            and not self.round.done
            and any(isinstance(entry.question, Propose) for _, entry, _ in self.open)
        )

    def receive(self, part: Part, answer: Any) -> None:
        """Notes an answer, whoever paid for it, and what it counts in the budget."""
        assert self.round is not None
        question = part.question
        if isinstance(question, Propose):
            tokens = generated(answer)
            self.rollouts += question.n
            self.tokens += tokens
            self.expert += tokens if question.expert else 0
            self.longest = max(self.longest, *(c.n_tokens for c in answer))
            if any(c.interrupted for c in answer):
                self.round.refused = "seconds"
            elif part.capped and any(c.truncated for c in answer):
                self.stopped = self.stopped or self.binding
        elif isinstance(question, Score | Compare):
            self.scored += answer.tokens
        self.round.receive(part, _told(answer))

    @property
    def binding(self) -> str:
        """Which of its limits on what is generated is there: tokens before money."""
        return "tokens" if self.budget.tokens is not None else "money"

    def over(self, now: float, prices: Prices) -> str:
        """The first limit of the budget that is used up; "" if none is."""
        limit = self.budget
        spent = {
            "rollouts": (limit.rollouts, self.rollouts),
            "tokens": (limit.tokens, self.tokens),
            "scored_tokens": (limit.scored_tokens, self.scored),
            "seconds": (limit.seconds, now - self.started),
            "money": (limit.money, prices.of(self.tokens, self.scored, self.expert)),
        }
        return next((name for name, (most, used) in spent.items() if most is not None and used >= most), "")

    def tokens_left(self, prices: Prices, *, expert: bool) -> int | None:
        """Tokens that it may still have generated, at least 1; None if no limit says how many."""
        limit, price = self.budget, prices.of_writing(expert)
        lefts = [] if limit.tokens is None else [limit.tokens - self.tokens]
        if limit.money is not None and price > 0:
            money = limit.money - prices.of(self.tokens, self.scored, self.expert)
            lefts.append(int(money * 1e6 / price))
        return max(1, min(lefts)) if lefts else None


Asker = tuple[Running[Any], Part]


def _told(answer: Any) -> Any:
    """What the flow gets of an answer."""
    if isinstance(answer, Scored):
        return answer.scores
    if isinstance(answer, Graded):
        return answer.answer
    return answer.chance if isinstance(answer, Judged) else answer


def charge(bill: Bill, question: Asked, answer: Any) -> None:
    """Adds what an answer cost."""
    if isinstance(question, Propose):
        _draw(bill, question, answer)
        bill.proposals += question.n
        bill.generated_tokens += generated(answer)
        bill.expert_tokens += generated(answer) if question.expert else 0
        bill.prompt_tokens += sum(continuation.n_prompt_tokens for continuation in answer)
    elif isinstance(question, Compare):
        bill.comparisons += 1
        bill.judged_tokens += answer.tokens
    elif isinstance(question, Grade):
        bill.grades += 1
        bill.ungraded += ungraded(question, answer.answer)
    elif isinstance(question, Score):
        bill.scorings += 1
        bill.scored_steps += len(question.steps)
        bill.scored_tokens += answer.tokens
        bill.scored_tokens_unshared += answer.tokens_unshared


def charge_cached(bill: Bill, question: Asked, answer: Any) -> None:
    """Adds an answer that was paid before."""
    bill.cached += 1
    if isinstance(question, Propose):
        _draw(bill, question, answer)
        bill.cached_generated_tokens += generated(answer)
    elif isinstance(question, Score):
        bill.cached_scored_tokens += answer.tokens
    elif isinstance(question, Grade):
        bill.ungraded += ungraded(question, answer.answer)


def _draw(bill: Bill, question: Propose, answer: Any) -> None:
    """Counts the continuations that came; a limit that the question itself set is no cut."""
    bill.drawn += len(answer)
    if question.max_tokens is None:
        bill.cut += sum(c.truncated and not c.interrupted for c in answer)
