"""Ends answers before certain texts, OpenAI's `stop`, and replaces invalid Unicode in them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from stepreward.core.runtime.flows import Continuation, Flow, Propose, Question
from stepreward.core.runtime.wrapped_flows import wrapped
from stepreward.core.segment.tool_calls import calls_of
from stepreward.core.types import Step

T = TypeVar("T")
_HALF = re.compile("[\ud800-\udfff]")


def ending_before(flow: Flow[T], stop: Sequence[str]) -> Flow[T]:
    """The same flow, with each continuation ended, as finished, where the first of some texts begins.

    A text may begin in one step and end in the next: then the earlier step stays whole.

    Args:
        flow: not started.
        stop: the texts, none of which is empty.
    """

    def ended(questions: Sequence[Question], answers: Iterable[Any]) -> list[Any]:
        return [
            [_cut(question.prefix, one, stop) for one in answer] if isinstance(question, Propose) and answer else answer
            for question, answer in zip(questions, answers, strict=True)
        ]

    return wrapped(flow, lambda questions: (questions, partial(ended, questions)))


def readable(flow: Flow[T]) -> Flow[T]:
    """The same flow, with U+FFFD in place of half a surrogate pair, as a cut emoji leaves it.

    Tokenizers and answers in UTF-8 cannot represent such a half.

    Args:
        flow: not started.
    """

    def whole(answer: Any) -> Any:
        if not isinstance(answer, list) or not any(_HALF.search(step.text) for one in answer for step in one.steps):
            return answer
        return [
            replace(one, steps=tuple(replace(step, text=_HALF.sub("\ufffd", step.text)) for step in one.steps))
            for one in answer
        ]

    return wrapped(flow, lambda questions: (questions, lambda answers: [*map(whole, answers)]))


def _cut(prefix: Sequence[Step], made: Continuation, stop: Sequence[str]) -> Continuation:
    """A continuation up to the first text of `stop` that ends in it."""
    # A text of `stop` may begin in the prefix: so many characters of that are looked at too.
    reach = max(map(len, stop)) - 1
    before = "".join(step.text for step in prefix)[-reach:] if reach else ""
    whole = before + "".join(step.text for step in made.steps)
    found = [at for at in (whole.find(text) for text in stop) if at >= 0]
    # A tool call is no text: its arguments may hold what is a stop text elsewhere.
    if not found or any(calls_of(step) for step in made.steps):
        return made
    left, steps = max(0, min(found) - len(before)), list[Step]()
    for step in made.steps:
        if len(step.text) > left:
            steps += [replace(step, text=step.text[:left], tokens=None, logprobs=None)] if left else []
            break
        steps.append(step)
        left -= len(step.text)
    return replace(made, steps=tuple(steps), finished=True, truncated=False)
