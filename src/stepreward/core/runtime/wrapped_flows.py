"""Wrappers of flows: the same flow with changed questions or answers, such as another sampling or a length limit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from stepreward.core.errors import BudgetExhausted, Unanswered
from stepreward.core.runtime.flows import Continuation, Flow, Propose, Question
from stepreward.core.types import Step

T = TypeVar("T")
AnswersBack = Callable[[Sequence[Any]], list[Any]]
"""Turns the answers to the questions that were sent into answers to the flow's own questions."""
SAMPLING = ("temperature", "top_p", "top_k", "min_p")
"""Fields of a `Propose` that say how its tokens are drawn."""


def each_round(flow: Flow[T], answer: Callable[[Sequence[Question]], Flow[list[Any]]]) -> Flow[T]:
    """The same flow, with each round of its questions answered by a flow of its own.

    The end of a budget, or an error of a question, that leaves the flow of a round is raised in the flow itself.

    Args:
        flow: not started.
        answer: from a round of the flow's questions to the flow that returns their answers, in order. It gives the
            errors that it lets pass the answers to the same questions.
    """
    resume: Callable[[], Sequence[Question]] = partial(next, flow)
    try:
        while True:
            try:
                questions = resume()
            except StopIteration as stop:
                result: T = stop.value
                return result
            try:
                resume = partial(flow.send, (yield from answer(questions)))
            except (BudgetExhausted, Unanswered) as error:
                resume = partial(flow.throw, error)
    finally:
        flow.close()


def wrapped(flow: Flow[T], change: Callable[[Sequence[Question]], tuple[Sequence[Question], AnswersBack]]) -> Flow[T]:
    """The same flow, with its questions changed on the way out and their answers on the way back.

    Partial answers, which come with the end of a budget or an error, are changed in the same way. Where no question is
    left to send, the flow gets its answers at once.

    Args:
        flow: not started.
        change: from a round of the flow's questions to those that are sent, and how their answers become its own.
    """

    def answer(questions: Sequence[Question]) -> Flow[list[Any]]:
        sent, back = change(questions)
        with answers_of_errors(back):
            given = (yield sent) if sent else []
        return back(given)

    return each_round(flow, answer)


@contextmanager
def answers_of_errors(back: AnswersBack) -> Iterator[None]:
    """Turns the partial answers of an error, where it has any, into answers to a flow's own questions."""
    try:
        yield
    except (BudgetExhausted, Unanswered) as error:
        error.answers = back(error.answers) if error.answers else []
        raise


def limited(flow: Flow[T], *, max_tokens: int | None = None, **sampling: float | None) -> Flow[T]:
    """The same flow, with the given sampling and with answers of at most `max_tokens`.

    A question that states its own sampling, such as a rollout at temperature 0, keeps it. For a prefix that has reached
    the limit no question is sent: its continuations are empty and truncated. The tokens of a continuation are divided
    among its steps by their token ids, or else by the length of their texts.

    Args:
        flow: not started.
        max_tokens: of a whole answer, prefix included; None is no limit.
        sampling: any of `SAMPLING`; None leaves one to the policy.
    """
    length: dict[tuple[object, ...], float] = {}
    """Tokens of each prefix so far, by the identities of its steps."""

    def change(questions: Sequence[Question]) -> tuple[Sequence[Question], AnswersBack]:
        sampled = [_with_sampling(q, sampling) for q in questions]
        lefts = [_tokens_left(q, length, max_tokens) for q in sampled]

        def back(answered: Sequence[Any]) -> list[Any]:
            answers = _with_empty(sampled, lefts, answered)
            if max_tokens is not None:
                _measure(length, sampled, answers)
            return answers

        sent = [
            replace(q, max_tokens=min(left, left if q.max_tokens is None else q.max_tokens))
            if isinstance(q, Propose) and left is not None
            else q
            for q, left in zip(sampled, lefts, strict=True)
            if left is None or left > 0
        ]
        return sent, back

    return wrapped(flow, change)


def _with_sampling(question: Question, sampling: Mapping[str, float | None]) -> Question:
    """The question, with the given sampling where it states none."""
    if not isinstance(question, Propose):
        return question
    open_: dict[str, Any] = {name: value for name, value in sampling.items() if getattr(question, name) is None}
    return replace(question, **open_)


def _with_empty(questions: Sequence[Question], lefts: Sequence[int | None], answered: Sequence[Any]) -> list[Any]:
    """The answers, with empty continuations for the questions that were not sent."""
    given = iter(answered)
    return [
        next(given) if left is None or left > 0 else [Continuation((), False, 0, truncated=True)] * q.n  # type: ignore[union-attr]
        for q, left in zip(questions, lefts, strict=True)
    ]


def _path(steps: Sequence[Step]) -> tuple[object, ...]:
    return tuple(step.identity for step in steps)


def _tokens_left(question: Question, length: Mapping[tuple[object, ...], float], max_tokens: int | None) -> int | None:
    """Tokens left for a continuation; None where there is no limit."""
    if max_tokens is None or not isinstance(question, Propose):
        return None
    return max(0, max_tokens - round(length.get(_path(question.prefix), 0.0)))


def _measure(length: dict[tuple[object, ...], float], questions: Sequence[Question], answers: Sequence[Any]) -> None:
    """Adds the lengths of new prefixes to `length`."""
    for question, made in zip(questions, answers, strict=True):
        if not isinstance(question, Propose):
            continue
        for continuation in made:
            steps, tokens = continuation.steps, continuation.n_tokens
            at, whole = length.get(_path(question.prefix), 0.0), sum(len(step.text) for step in steps) or 1
            for i, step in enumerate(steps, 1):
                at += tokens * len(step.text) / whole if step.tokens is None else len(step.tokens)
                length[_path((*question.prefix, *steps[:i]))] = at
