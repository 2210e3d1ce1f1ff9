"""A policy that answers from a script, for exhaustive tests of flows in milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from stepreward.core.errors import PolicyError
from stepreward.core.runtime.flows import Continuation, Propose
from stepreward.core.types import Step

Line = str | Continuation
"""A line of a script: a continuation, or its text, one step a line of text, which then ends the solution."""
Script = Mapping[str, Sequence[Line]] | Callable[[Propose, int], Line]
"""From the text of the prefix to its continuations, or a function of the question and the sample's index."""


class ScriptedPolicy:
    """Answers from a script, whatever the key, and records the questions.

    Sample `i` of a question is line `i` of the script's list for the text of the prefix; a list that is too short
    starts over. With `until="step"` the answer is the first step of the line, and the solution is finished if the line
    has no other. A step costs one token, and `max_tokens` cuts accordingly.

    Args:
        script: the lines by prefix text ("" for the bare problem), or a function `(question, i) -> line`.
        name: identity for caches.
    """

    batch_size = 1024
    concurrency = 1

    def __init__(self, script: Script, name: str = "scripted") -> None:
        self._script = script
        self._name = name
        self.questions: list[Propose] = []
        """Every question so far, in the order of arrival."""

    @property
    def name(self) -> str:
        """Identity for caches and provenance."""
        return self._name

    def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
        """Answers the questions, in order.

        Raises:
            PolicyError: the script has no line for a prefix.
        """
        self.questions.extend(questions)
        return [
            [_cut(self._line(question, question.first + i), question) for i in range(question.n)]
            for question in questions
        ]

    def _line(self, question: Propose, i: int) -> Continuation:
        line = self._script(question, i) if callable(self._script) else self._look_up(self._script, question, i)
        if isinstance(line, Continuation):
            return line
        steps = tuple(Step(text) for text in line.splitlines(keepends=True))
        return Continuation(steps, finished=True, n_tokens=len(steps))

    def _look_up(self, script: Mapping[str, Sequence[Line]], question: Propose, i: int) -> Line:
        prefix = "".join(step.text for step in question.prefix)
        lines = script.get(prefix)
        if not lines:
            known = ", ".join(repr(text) for text in script)
            raise PolicyError(f"{self._name}: the script has no line after {prefix!r}; it has lines after {known}")
        return lines[i % len(lines)]


def _cut(line: Continuation, question: Propose) -> Continuation:
    wanted = 1 if question.until == "step" else len(line.steps)
    allowed = wanted if question.max_tokens is None else min(wanted, question.max_tokens)
    if allowed >= len(line.steps):
        return line
    return Continuation(line.steps[:allowed], finished=False, n_tokens=allowed, truncated=allowed < wanted)
