"""An agent for questions of retrieval that knows what their answers rest on, and errs at known rates."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from stepreward.core.segment.tool_calls import calling_step
from stepreward.core.types import Problem, Step
from stepreward.environments.retrieval.fact_world import SUPPORT
from stepreward.environments.retrieval.retrieval_calls import ARGUMENTS

NextTurns = Callable[[Problem, tuple[Step, ...]], Sequence[tuple[Step, float, bool]]]


def seeker(*, stray: float = 0.2, guess: float = 0.1, tools: bool = False) -> NextTurns:
    """A table for `testing.TabularPolicy`: the chances of each turn, so that all values can be worked out.

    It looks for the first supporting sentence that was not shown, reads its document where a search listed it, and
    answers once all were shown. It strays by words that are only a part of the title, and guesses by that title.

    Args:
        stray, guess: chances of either error; not negative, and at most 1 together.
        tools: act by tool calls instead of text.

    Raises:
        ValueError: a chance is out of range.
    """
    if min(stray, guess) < 0 or stray + guess > 1:
        raise ValueError(f"expected chances that sum to at most 1, got stray={stray} and guess={guess}")

    def turns(problem: Problem, prefix: tuple[Step, ...]) -> Sequence[tuple[Step, float, bool]]:
        right, astray, guessed = _moves(problem, prefix)
        chances = {right: 1 - stray - guess}
        for move, chance in ((astray, stray), (guessed, guess)):
            chances[move] = chances.get(move, 0.0) + chance
        return [(_turn(*move, tools), chance, True) for move, chance in chances.items() if chance > 0]

    return turns


def _moves(problem: Problem, prefix: Sequence[Step]) -> list[tuple[str, str]]:
    """The right move, one that strays and one that guesses."""
    shown = "".join(step.text for step in prefix if step.kind == "observation")
    support = problem.meta[SUPPORT]
    needed = next((one for one in support if one["text"] not in shown), None)
    title = support[-1]["title"] if needed is None else needed["title"]
    errors = [("search", title.rpartition(" ")[2]), ("answer", title)]
    if needed is None:
        return [("answer", str(problem.reference)), *errors]
    listed = any(line.startswith(f"{needed['document']}: ") for line in shown.splitlines())
    return [("read", needed["document"]) if listed else ("search", title), *errors]


def _turn(name: str, argument: str, tools: bool) -> Step:
    if tools:
        return calling_step("", [{"name": name, "arguments": {ARGUMENTS[name]: argument}}])
    return Step(f"{name.capitalize()}[{argument}]\n")
