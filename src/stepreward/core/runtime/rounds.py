"""Rounds: what a flow asks together, and in which parts it is asked, so that a budget holds and no sample is lost.

A question for many samples goes to its policy in parts of at most a batch, so that what one sample costs in time, or by
failing, is not paid by the others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from stepreward.core.runtime.flows import Continuation, Propose, Question

Longest = Callable[[Propose], int | None]
"""Most tokens of a continuation; None where the policy does not say."""


@dataclass(frozen=True, slots=True)
class Part:
    """A question as it is asked: whole, or some samples of a `Propose`."""

    slot: int
    """Position of the question among those of its round."""
    question: Question
    first: int = 0
    """Number, in the answer, of its first sample."""
    capped: bool = False
    """Whether the budget allows its samples less than they may need."""


class Round:
    """The questions that a flow asked together, and what of them is answered."""

    def __init__(self, questions: Sequence[Question]) -> None:
        self.questions = questions
        self.answers: list[Any] = [[None] * q.n if isinstance(q, Propose) else None for q in questions]
        self.under_way = 0
        """Parts that were asked and not answered."""
        self.waiting: deque[tuple[int, int]] = deque(
            (slot, 0) for slot, q in enumerate(questions) if isinstance(q, Propose) and q.n
        )
        """Questions with samples that nobody was asked for yet, and the number of the first of those."""
        self.refused = ""
        """The limit of the flow's budget that ended the round early; "" while none did."""
        self.fault: Exception | None = None
        """Why samples could not be had."""

    @property
    def partial(self) -> bool:
        """Whether part of the answers is of use to the flow."""
        return all(q.partial for q in self.questions if isinstance(q, Propose))

    @property
    def done(self) -> bool:
        """Whether nothing is open any more."""
        return not (self.under_way or self.waiting)

    @property
    def rows(self) -> int:
        """Samples that nobody was asked for yet."""
        return sum(n for _, n in self.samples())

    def samples(self) -> Iterator[tuple[Propose, int]]:
        """The questions with samples that wait, and how many of each."""
        for slot, first in self.waiting:
            question = self.questions[slot]
            assert isinstance(question, Propose)
            yield question, question.n - first

    def plain(self) -> Iterator[Part]:
        """The questions that are no `Propose`."""
        return (Part(slot, q) for slot, q in enumerate(self.questions) if not isinstance(q, Propose))

    def take(self, rows: int, cap: int | None, longest: Longest, size: int) -> list[Part]:
        """The next samples, in parts of at most `size`, each sample at most `cap` tokens long."""
        parts: list[Part] = []
        while rows and self.waiting:
            slot, first = self.waiting.popleft()
            question = self.questions[slot]
            assert isinstance(question, Propose)
            n = min(rows, size, question.n - first)
            parts.append(_part(slot, question, first, n, cap, longest))
            rows -= n
            if first + n < question.n:
                self.waiting.appendleft((slot, first + n))
        return parts

    def receive(self, part: Part, answer: Any) -> None:
        """Notes the answer to a part."""
        if isinstance(part.question, Propose):
            self.answers[part.slot][part.first : part.first + part.question.n] = answer
        else:
            self.answers[part.slot] = answer

    def so_far(self) -> list[Any]:
        """The answers as far as they came; none of questions that are answered whole or not."""
        return [
            ([one for one in answer if one is not None] if self.partial else []) if isinstance(q, Propose) else answer
            for q, answer in zip(self.questions, self.answers, strict=True)
        ]


def _part(slot: int, question: Propose, first: int, n: int, cap: int | None, longest: Longest) -> Part:
    most = None if cap is None else longest(question)
    capped = cap is not None and (most is None or cap < most)
    if n == question.n and not capped:
        return Part(slot, question)
    own = replace(question, n=n, first=question.first + first, max_tokens=cap if capped else question.max_tokens)
    return Part(slot, own, first, capped)


def wave(limits: Sequence[int], left: int, seen: int) -> tuple[int, int]:
    """How many of these samples to ask for at once, and the tokens of each, so that all together stay within `left`.

    A sample may need its limit, or twice the longest that the flow has got yet, whichever is less: so many are asked
    for as then fit, and they share what is left. At least one, which may have it all. It depends on what the flow got
    in its earlier waves alone, so that a run repeats.

    Args:
        limits: most tokens of each sample that waits, at least one of them.
        left: tokens that may be spent, at least 1.
        seen: tokens of the longest answer so far; 0 where there is none.
    """
    need = max(limits) if seen == 0 else min(max(limits), 2 * seen)
    rows = max(1, min(len(limits), left // need))
    return rows, left // rows


def generated(continuations: Sequence[Continuation]) -> int:
    """Tokens of an answer to a `Propose`."""
    return sum(continuation.n_tokens for continuation in continuations)
