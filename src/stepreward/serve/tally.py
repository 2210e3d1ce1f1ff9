"""What a search was given, whoever paid for it: answers that equal searches share are billed to one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, TypeVar

from stepreward.core.errors import SteprewardError
from stepreward.core.flows import Bill, Flow, Propose, Question

T = TypeVar("T")


class Given:
    """Tokens of the continuations that a flow was given."""

    def __init__(self) -> None:
        self.tokens = 0

    def add(self, questions: Sequence[Question], answers: Iterable[Any]) -> None:
        """Counts the answers to questions."""
        pairs = zip(questions, answers, strict=False)
        made = [one for question, answer in pairs if isinstance(question, Propose) for one in answer or ()]
        self.tokens += sum(one.n_tokens for one in made)

    def shared(self, bill: Bill) -> int:
        """Generated tokens that another flow paid for."""
        return max(0, self.tokens - bill.generated_tokens)


def tallied(flow: Flow[T], given: Given) -> Flow[T]:
    """The same flow; what it is given is counted.

    Args:
        flow: not started.
        given: where it is counted.
    """
    move: Callable[[], Sequence[Question]] = partial(next, flow)
    try:
        while True:
            try:
                questions = move()
            except StopIteration as stop:
                result: T = stop.value
                return result
            try:
                answers = yield questions
            except SteprewardError as error:
                # The end of a budget may bring what there was by then.
                given.add(questions, getattr(error, "answers", ()))
                move = partial(flow.throw, error)
            else:
                given.add(questions, answers)
                move = partial(flow.send, answers)
    finally:
        flow.close()
