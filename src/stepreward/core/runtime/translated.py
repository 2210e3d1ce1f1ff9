"""Flows between whom somebody stands: who changes what they ask, or what they are told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from stepreward.core.errors import BudgetExhausted, Unanswered
from stepreward.core.runtime.flows import Flow, Question

T = TypeVar("T")
Tell = Callable[[Sequence[Any]], list[Any]]
"""From the answers to the questions that were asked on, to those of the flow's own."""


def translated(flow: Flow[T], ask: Callable[[Sequence[Question]], tuple[Sequence[Question], Tell]]) -> Flow[T]:
    """The same flow under somebody who asks on for it and tells it what came of that.

    Partial answers, which come with the end of a budget or a fault, are told in the same way. Where nothing is to be
    asked on, the flow is told at once.

    Args:
        flow: not started.
        ask: of a round of its questions, those that are asked on, and how their answers become its own.
    """
    move: Callable[[], Sequence[Question]] = partial(next, flow)
    try:
        while True:
            try:
                questions = move()
            except StopIteration as stop:
                result: T = stop.value
                return result
            asked, tell = ask(questions)
            try:
                move = partial(flow.send, tell((yield asked) if asked else []))
            except (BudgetExhausted, Unanswered) as error:
                error.answers = tell(error.answers) if error.answers else []
                move = partial(flow.throw, error)
    finally:
        flow.close()
