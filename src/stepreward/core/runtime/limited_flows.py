"""Flows whose continuations are sampled and limited as somebody else says: a server's client, a user's settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from stepreward.core.runtime.flows import Continuation, Flow, Propose, Question
from stepreward.core.runtime.translated import Tell, translated
from stepreward.core.types import Step

T = TypeVar("T")
SAMPLING = ("temperature", "top_p", "top_k", "min_p")
"""What a question may say of how its tokens are drawn."""


def shaped(flow: Flow[T], *, max_tokens: int | None = None, **sampling: float | None) -> Flow[T]:
    """The same flow, its continuations sampled as given and its answers at most `max_tokens` long.

    A question that says itself how it is sampled, such as a roll-out at temperature 0, stays as it is. A prefix that
    has reached the limit is not asked about: its continuations are cut before they begin. Tokens of the steps of one
    continuation are told apart by their ids, or by their share of its text.

    Args:
        flow: not started.
        max_tokens: of a whole answer; None is no limit.
        sampling: any of `SAMPLING`; None leaves one to the policy.
    """
    length: dict[tuple[object, ...], float] = {}

    def ask(questions: Sequence[Question]) -> tuple[Sequence[Question], Tell]:
        asked = [_sampled(q, sampling) for q in questions]
        limits = [_left(q, length, max_tokens) for q in asked]

        def tell(answered: Sequence[Any]) -> list[Any]:
            answers = _whole(asked, limits, answered)
            if max_tokens is not None:
                _measure(length, asked, answers)
            return answers

        open_ = [
            replace(q, max_tokens=_least(q.max_tokens, left)) if isinstance(q, Propose) else q
            for q, left in zip(asked, limits, strict=True)
            if left is None or left > 0
        ]
        return open_, tell

    return translated(flow, ask)


def _whole(asked: Sequence[Question], limits: Sequence[int | None], answered: Sequence[Any]) -> list[Any]:
    """The answers with those to questions that nothing was left for, which nobody was asked."""
    given = iter(answered)
    return [
        next(given) if left is None or left > 0 else [Continuation((), False, 0, truncated=True)] * q.n  # type: ignore[union-attr]
        for q, left in zip(asked, limits, strict=True)
    ]


def _sampled(question: Question, sampling: Mapping[str, float | None]) -> Question:
    """The question with what it does not say of its sampling."""
    if not isinstance(question, Propose):
        return question
    open_: dict[str, Any] = {name: value for name, value in sampling.items() if getattr(question, name) is None}
    return replace(question, **open_)


def _least(one: int | None, other: int | None) -> int | None:
    return min((limit for limit in (one, other) if limit is not None), default=None)


def _path(steps: Sequence[Step]) -> tuple[object, ...]:
    return tuple(step.identity for step in steps)


def _left(question: Question, length: Mapping[tuple[object, ...], float], limit: int | None) -> int | None:
    """Tokens left to a continuation; None where there is no limit."""
    if limit is None or not isinstance(question, Propose):
        return None
    return max(0, limit - round(length.get(_path(question.prefix), 0.0)))


def _measure(length: dict[tuple[object, ...], float], asked: Sequence[Question], answers: Sequence[Any]) -> None:
    """Notes how long each path is that came about."""
    for question, made in zip(asked, answers, strict=True):
        if not isinstance(question, Propose):
            continue
        for continuation in made:
            steps, tokens = continuation.steps, continuation.n_tokens
            at, whole = length.get(_path(question.prefix), 0.0), sum(len(step.text) for step in steps) or 1
            for i, step in enumerate(steps, 1):
                at += tokens * len(step.text) / whole if step.tokens is None else len(step.tokens)
                length[_path((*question.prefix, *steps[:i]))] = at
