"""From a request to a search: which method, with which settings, and how its questions are shaped."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import stepreward.search as _search  # registers the searches
from stepreward.core.catalog import Method
from stepreward.core.catalog import search as searches
from stepreward.core.errors import BudgetExhausted, InputError, UnknownNameError
from stepreward.core.flows import Continuation, Flow, Propose, Question
from stepreward.core.settings import read_settings
from stepreward.core.types import Step
from stepreward.serve.errors import ApiError
from stepreward.serve.shapes import ChatRequest

assert _search
T = TypeVar("T")
MOST = 100_000
"""Of any whole-number setting: what a request spends is limited elsewhere, this keeps loops short."""


@dataclass(frozen=True)
class Plan:
    """A search with its settings."""

    method: Method[..., Any]
    settings: Mapping[str, Any]


def names(name: str) -> list[str]:
    """Every name under which a policy can be asked for."""
    return [name, *(f"{name}:{method.name}" for method in searches)]


def plan(request: ChatRequest, name: str, method: str, settings: Mapping[str, Any]) -> Plan:
    """The search that a request asks for.

    The model's suffix is read first, then the field `stepreward`, then `budget`; later ones win.

    Args:
        request: the request.
        name: under which the policy is served.
        method, settings: the search of a request that names none.

    Raises:
        ApiError: 404, there is no such model.
        InputError: a setting does not fit, or what is asked for cannot be searched.
        UnknownNameError: there is no such search or setting.
    """
    suffix, given = _suffix(request.model, name)
    chosen = searches[request.stepreward.method or suffix or method]
    own = dict(settings) if chosen.name == method else {}
    told = [f"{key}={value}" for key, value in given]
    own |= read_settings(told, chosen)[0]
    own |= read_settings([f"{k}={_text(v)}" for k, v in request.stepreward.settings.items()], chosen)[0]
    if request.budget is not None:
        own |= _of_budget(request.budget, {**chosen.settings, **own})
    large = next((k for k, v in own.items() if isinstance(v, int) and v > MOST), None)
    if large is not None:
        raise InputError(f"setting {large!r} may be at most {MOST:,}, got {own[large]:,}")
    return Plan(chosen, own)


def shaped(
    flow: Flow[T], *, temperature: float | None = None, top_p: float | None = None, max_tokens: int | None = None
) -> Flow[T]:
    """The same flow, its continuations sampled as told and its answers at most `max_tokens` long.

    A prefix that has reached the limit is not asked about: its continuations are cut before they begin. Tokens of the
    steps of one continuation are told apart by their ids, or by their share of its text.
    """
    length: dict[tuple[object, ...], float] = {}
    move: Callable[[], Sequence[Question]] = partial(next, flow)
    try:
        while True:
            try:
                questions = move()
            except StopIteration as stop:
                result: T = stop.value
                return result
            asked = [
                replace(q, temperature=temperature, top_p=top_p) if isinstance(q, Propose) else q for q in questions
            ]
            limits = [_left(q, length, max_tokens) for q in asked]
            open_ = [
                replace(q, max_tokens=_least(q.max_tokens, left)) if isinstance(q, Propose) else q
                for q, left in zip(asked, limits, strict=True)
                if left is None or left > 0
            ]
            try:
                answered = iter((yield open_) if open_ else ())
            except BudgetExhausted as error:
                move = partial(flow.throw, error)
                continue
            answers = [
                next(answered) if left is None or left > 0 else [Continuation((), False, 0, truncated=True)] * q.n  # type: ignore[union-attr]
                for q, left in zip(asked, limits, strict=True)
            ]
            if max_tokens is not None:
                _measure(length, asked, answers)
            move = partial(flow.send, answers)
    finally:
        flow.close()


def _suffix(model: str, name: str) -> tuple[str, list[tuple[str, str]]]:
    """The method and settings behind a served name."""
    if model == name:
        return "", []
    if not model.startswith(f"{name}:"):
        raise ApiError(404, str(UnknownNameError("model", model, names(name))), param="model", code="model_not_found")
    method, _, query = model.removeprefix(f"{name}:").partition("?")
    return method, parse_qsl(query, keep_blank_values=True)


def _of_budget(budget: int, settings: Mapping[str, Any]) -> dict[str, Any]:
    """So many candidates, in the words of a search."""
    if "n" in settings:
        return {"n": budget}
    for kept in ("beams", "trees"):
        if kept in settings:
            width = min(budget, int(settings["width"]))
            return {kept: budget // width, "width": width}
    many = "simulations" if "simulations" in settings else "width"
    return {many: budget}


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


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
