"""Answers that end before a text, held against cutting the whole text of a solution."""

from __future__ import annotations

import random

import pytest

from stepreward.core.errors import BudgetExhausted
from stepreward.core.keys import Key
from stepreward.core.runtime.flows import Continuation, Flow, Propose
from stepreward.core.segment.tool_calls import calling_step
from stepreward.core.types import Problem, Step
from stepreward.serve.gateway.stop_words import ending_before

PROBLEM = Problem("p", "?")


def asked(prefix: tuple[Step, ...], made: list[Continuation], stop: list[str]) -> list[Continuation]:
    """What a flow is given that asks one question."""

    def flow() -> Flow[list[Continuation]]:
        (given,) = yield [Propose(PROBLEM, prefix, Key.seed(0))]
        return list(given)

    run = ending_before(flow(), stop)
    next(run)
    with pytest.raises(StopIteration) as end:
        run.send([made])
    found: list[Continuation] = end.value.value
    return found


def test_whole_solutions_are_cut_as_their_text_is() -> None:
    draw = random.Random(0)
    for _ in range(500):
        steps = tuple(Step("".join(draw.choices("ab\n", k=draw.randrange(1, 4))), tokens=(1,)) for _ in range(4))
        stop = ["".join(draw.choices("ab\n", k=draw.randrange(1, 4))) for _ in range(2)]
        text = "".join(step.text for step in steps)
        expected = min((text.split(one)[0] for one in stop), key=len)
        (made,) = asked((), [Continuation(steps, False, 9, truncated=True)], stop)
        assert "".join(step.text for step in made.steps) == expected
        assert made.finished is not made.truncated is (expected == text)
        assert made.n_tokens == 9
        kept = [step for step in made.steps if step.tokens is not None]
        assert kept == list(steps[: len(kept)]), "tokens stay with whole steps alone"


def test_steps_asked_one_by_one_end_where_the_solution_does() -> None:
    draw = random.Random(1)
    for _ in range(500):
        steps = [Step("".join(draw.choices("ab", k=draw.randrange(0, 3))) + "\n") for _ in range(4)]
        stop = ["".join(draw.choices("ab\n", k=draw.randrange(1, 5)))]
        text, prefix = "".join(step.text for step in steps), tuple[Step, ...]()
        for step in steps:
            (made,) = asked(prefix, [Continuation((step,), False, 1)], stop)
            prefix += made.steps
            if made.finished:
                break
        written = "".join(step.text for step in prefix)
        at = text.find(stop[0])
        assert made.finished is (at >= 0)
        # The step in which it begins is whole where it ends in another.
        assert written.startswith(text[:at] if at >= 0 else text)
        assert stop[0] not in written
        assert len(written) - max(at, 0) < len(stop[0]) or at < 0


def test_tool_calls_are_not_cut() -> None:
    call = calling_step("stop here", [{"name": "f", "arguments": {"x": "stop"}}])
    (made,) = asked((), [Continuation((call,), True, 3)], ["stop"])
    assert made.steps == (call,)


def test_the_end_of_a_budget_reaches_the_flow() -> None:
    def flow() -> Flow[str]:
        try:
            yield [Propose(PROBLEM, (), Key.seed(0))]
        except BudgetExhausted:
            return "best so far"
        return ""

    run = ending_before(flow(), ["x"])
    next(run)
    with pytest.raises(StopIteration) as end:
        run.throw(BudgetExhausted("over"))
    assert end.value.value == "best so far"
