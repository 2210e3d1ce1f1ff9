"""Scores by execution: what a flow scores is executed, and its scores are what the environment says of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np

from stepreward.core.errors import BudgetExhausted, ModelError, Unanswered
from stepreward.core.prefix_names import Name, Prefix, prefix_of
from stepreward.core.runtime.acts import Act, Observation
from stepreward.core.runtime.flows import Flow, Propose, Question, Score, Scored, Scorer
from stepreward.core.runtime.wrapped_flows import answers_of_errors, each_round
from stepreward.core.types import Floats

T = TypeVar("T")
Measure = Literal["return", "reward", "outcome"]
"""A number of an executed action: the sum of the rewards so far, its own reward, or the grade if it ended there."""


@dataclass(frozen=True, slots=True)
class Execution:
    """How scores come of execution."""

    by: Measure = "return"
    """What of an observation is the score."""
    otherwise: Scorer | None = None
    """Who scores what does not end the episode; None where execution scores all."""


def execution_of(scorer: Scorer | None) -> Execution | None:
    """How a scorer's scores come of execution: its attribute `execution`; None where it scores by itself."""
    found: Execution | None = getattr(scorer, "execution", None)
    return found


def executed(flow: Flow[T], by: Measure, *, otherwise: bool = False) -> Flow[T]:
    """The same flow, with the actions that it scores executed and scored by what they came to.

    Where the budget does not hold an execution, what was not executed has the score NaN and the flow goes on.

    Args:
        flow: not started.
        by: what of an observation is the score.
        otherwise: whether a scorer scores the actions that do not end the episode, so that only an end is scored by
            execution.

    Raises:
        ModelError: an episode ended, and the environment gave no such number.
    """
    seen: dict[tuple[str, Name], Observation] = {}

    def answer(questions: Sequence[Question]) -> Flow[list[Any]]:
        scoring = _ExecutedRound(questions, seen, by, otherwise)
        with answers_of_errors(scoring.answers):
            try:
                given = (yield scoring.sent) if scoring.sent else []
            except (BudgetExhausted, Unanswered):
                if any(isinstance(question, Propose) for question in questions):
                    raise
                others = scoring.without_acts()
                given = (yield others) if others else []
        return scoring.answers(given)

    return each_round(flow, answer)


class _ExecutedRound:
    """The questions of a flow's round, with acts in place of the scores.

    Args:
        questions: of the flow.
        seen: what the environment showed behind each action; it is added to.
        by: what of an observation is the score.
        otherwise: whether a scorer scores what does not end the episode.
    """

    def __init__(
        self, questions: Sequence[Question], seen: dict[tuple[str, Name], Observation], by: Measure, otherwise: bool
    ) -> None:
        self._own, self._seen, self._by, self._otherwise = questions, seen, by, otherwise
        asked = {
            (one.problem.id, prefix.name): Act(one.problem, prefix, scores=True)
            for one in questions
            if isinstance(one, Score)
            for prefix in _actions(one)
            if (one.problem.id, prefix.name) not in seen
        }
        self._acts = [*asked]
        self._others = [one for one in questions if otherwise or not isinstance(one, Score)]
        self.sent: list[Question] = [*asked.values(), *self._others]
        """The questions to ask."""

    def without_acts(self) -> list[Question]:
        """The questions to ask where nothing more may be executed."""
        self._acts = []
        return self._others

    def answers(self, given: Sequence[Any]) -> list[Any]:
        """The answers to the flow's questions; what was not executed has no score."""
        acts, others = given[: len(self._acts)], iter(given[len(self._acts) :])
        self._seen |= {place: shown for place, shown in zip(self._acts, acts, strict=False) if shown is not None}
        made: list[Any] = []
        for question in self._own:
            answer = next(others, None) if self._otherwise or not isinstance(question, Score) else None
            made.append(self._scored(question, answer) if isinstance(question, Score) else answer)
        return made

    def _scored(self, question: Score, answer: Scored | Floats | None) -> Scored | Floats:
        """Scores of a question's steps: those of execution, and else those of the scorer's answer."""
        given = answer.scores if isinstance(answer, Scored) else answer
        scores = np.full(len(question.steps), np.nan) if given is None else np.array(given, np.float64)
        gained = float("nan")
        for prefix in _actions(question):
            shown = self._seen.get((question.problem.id, prefix.name))
            if shown is None:
                break
            gained = shown.reward if np.isnan(gained) else gained + np.nan_to_num(shown.reward)
            if shown.done or not self._otherwise:
                scores[len(prefix) - 1] = self._number(question, shown, gained)
        if not question.whole:
            return scores
        return Scored(scores, columns=answer.columns if isinstance(answer, Scored) else {})

    def _number(self, question: Score, shown: Observation, gained: float) -> float:
        number = {"return": gained, "reward": shown.reward, "outcome": shown.outcome}[self._by]
        if shown.done and np.isnan(number):
            what = f"the environment gives no {self._by} where an episode of {question.problem.id!r} ends"
            raise ModelError(f"{what}; name another by=, or score by a reward model")
        return float(number)


def _actions(question: Score) -> list[Prefix]:
    """The prefixes of a question's steps that end in an action."""
    steps = prefix_of(question.steps)
    return [steps.first(at) for at, step in enumerate(steps, 1) if step.kind == "action"]
