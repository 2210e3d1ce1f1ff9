"""Flows in an environment: what a flow proposes is executed turn by turn, without the flow's knowledge.

A policy's answer of one turn is one action. The environment executes it when something is wanted behind it, so that
actions that are scored and left alone cost nothing. A turn has what the environment showed before it and the action:
steps are scored before they are executed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, TypeVar

import numpy as np

from stepreward.core.errors import BudgetExhausted, Unanswered
from stepreward.core.prefix_names import Name, prefix_of
from stepreward.core.runtime.acts import Act, Episodes, Observation, episode_of
from stepreward.core.runtime.flows import Continuation, Flow, Grader, Propose, Question
from stepreward.core.runtime.wrapped_flows import each_round
from stepreward.core.segment.merging import joined
from stepreward.core.segment.tool_calls import CALLS, CONTENT, content_of
from stepreward.core.types import Problem, Step

T = TypeVar("T")
Seen = dict[tuple[str, Name], Observation]
"""What an environment showed after steps, by the id of the episode's problem and their name."""
REWARD = "reward"
"""Key of an observation's meta: the reward of the action before it."""


def acting(flow: Flow[T]) -> Flow[T]:
    """The same flow in an environment: continuations are actions with what the environment shows between them.

    A question for steps is answered by one action, one for the end by actions until the episode is over. An episode
    that is over has a finished continuation without steps. What the environment shows last is left out, so that a
    continuation ends in an action. Randomness of turn t of a sample is that of the question's key, folded with t.

    Args:
        flow: not started.
    """
    seen: Seen = {}

    def answer(questions: Sequence[Question]) -> Flow[list[Any]]:
        turns = _Turns(questions, seen)
        try:
            while asked := turns.questions():
                turns.receive((yield asked))
        except (BudgetExhausted, Unanswered) as error:
            turns.receive(error.answers)
            error.answers = turns.so_far()
            raise
        return turns.answers()

    return each_round(flow, answer)


class _Turns:
    """The questions of a flow's round, each sample of a `Propose` an episode of its own; all go on together.

    Args:
        questions: of the flow.
        seen: what the environment showed so far; it is added to.
    """

    def __init__(self, questions: Sequence[Question], seen: Seen) -> None:
        self._own, self._seen = questions, seen
        self._samples = [
            [_GrowingSample(one, i) for i in range(one.n)] if isinstance(one, Propose) and one.acts else None
            for one in questions
        ]
        self._plain: dict[int, Any] = {}
        self._asked: list[_GrowingSample | int | Act] = []
        """Who waits for each answer; a position is that of a question that the flow asked itself."""

    def questions(self) -> list[Question]:
        """The next questions; none where all is answered. An action that several samples share is asked once."""
        plain = [at for at, own in enumerate(self._samples) if own is None and at not in self._plain]
        asked: list[Question] = [self._own[at] for at in plain]
        self._asked = [*plain]
        acts = set[tuple[str, Name]]()
        for sample in chain.from_iterable(own for own in self._samples if own):
            question = sample.next(self._seen)
            if isinstance(question, Act):
                name = _name(question)
                if name in acts:
                    continue
                acts.add(name)
                self._asked.append(question)
            elif question is not None:
                self._asked.append(sample)
            if question is not None:
                asked.append(question)
        return asked

    def receive(self, answers: Sequence[Any]) -> None:
        """Takes the answers to the last questions; fewer, or None, where they did not come."""
        for who, answer in zip(self._asked, answers, strict=False):
            if isinstance(who, int):
                self._plain[who] = answer
                own = self._own[who]
                if isinstance(own, Act) and answer is not None:
                    self._seen[_name(own)] = answer
            elif isinstance(who, Act):
                if answer is not None:
                    self._seen[_name(who)] = answer
            elif answer:
                who.receive(answer[0])

    def answers(self) -> list[Any]:
        """The answers to the flow's questions."""
        return [
            self._plain[at] if own is None else [sample.made for sample in own] for at, own in enumerate(self._samples)
        ]

    def so_far(self) -> list[Any]:
        """What there is of the answers; of a question that takes no part of them none."""
        partial_ = all(one.partial for one in self._own if isinstance(one, Propose))
        return [
            self._plain.get(at) if own is None else [one for one in map(_GrowingSample.cut, own) if partial_ and one]
            for at, own in enumerate(self._samples)
        ]


class _GrowingSample:
    """One continuation that grows turn by turn.

    Args:
        question: of the flow.
        number: of the sample among the question's.
    """

    def __init__(self, question: Propose, number: int) -> None:
        self._question, self._number = question, number
        self._prefix = prefix_of(question.prefix)
        self._start, self._turn, self._tokens, self._read = len(self._prefix), 0, 0, 0
        self.made: Continuation | None = None
        """Once it is whole."""

    def next(self, seen: Seen) -> Question | None:
        """What it asks next; None where it is whole."""
        if self.made is not None:
            return None
        question, problem = self._question, self._question.problem
        shown = seen.get((episode_of(problem), self._prefix.name))
        if shown is None:
            return Act(problem, self._prefix)
        if shown.done:
            self._end(finished=True)
            return None
        if shown.steps:
            self._prefix = self._prefix.then(_with_reward(shown))
            seen[episode_of(problem), self._prefix.name] = replace(shown, steps=())
        left = None if question.max_tokens is None else question.max_tokens - self._tokens
        if left is not None and left < 1:
            self._end(truncated=True)
            return None
        key = question.key.fold("turn", self._turn) if self._turn else question.key
        return replace(
            question, prefix=self._prefix, key=key, n=1, first=question.first + self._number, until="end",
            max_tokens=left,
        )  # fmt: skip

    def receive(self, turn: Continuation) -> None:
        """Takes an action."""
        self._turn, self._tokens = self._turn + 1, self._tokens + turn.n_tokens
        self._read += turn.n_prompt_tokens
        said = [step for step in turn.steps if step.text or step.images]
        if said:
            self._prefix = self._prefix.then([_one_turn(said)])
        if turn.truncated:
            self._end(truncated=True, interrupted=turn.interrupted)
        elif not said:
            # Who says nothing has given up.
            self._end(finished=True)
        elif self._question.until == "step":
            self._end()

    def cut(self) -> Continuation | None:
        """What there is of it: whole, or cut behind its last action; None where it has none."""
        if self.made is None and self._turn and self._question.until == "end":
            self._end(truncated=True)
        return self.made

    def _end(self, **how: bool) -> None:
        steps = self._prefix[self._start :]
        while steps and steps[-1].kind == "observation":
            steps = steps[:-1]
        ended = how.pop("finished", False)
        self.made = Continuation(tuple(steps), ended, self._tokens, n_prompt_tokens=self._read, **how)


class GradedEpisodes:
    """A grader for flows in an environment: the environment decides, and another grader where it cannot tell.

    Args:
        episodes: of the environment.
        grader: who decides where the environment gives no outcome, or states no answer.
    """

    def __init__(self, episodes: Episodes, grader: Grader | None = None) -> None:
        self._episodes, self._grader = episodes, grader
        self.name = f"{episodes.name}, then {grader.name}" if grader is not None else episodes.name

    def grade(self, problem: Problem, steps: Sequence[Step]) -> float:
        """Outcome in [0, 1] of the episode that ends with these steps, NaN if unknown."""
        (last,) = self._episodes.act_many([Act(problem, tuple(steps))])
        if np.isnan(last.outcome) and self._grader is not None:
            return self._grader.grade(problem, steps)
        return last.outcome

    def answer(self, problem: Problem, steps: Sequence[Step]) -> str | None:
        """The final answer stated by the actions; None if there is none."""
        (last,) = self._episodes.act_many([Act(problem, tuple(steps))])
        if last.answer is None and self._grader is not None:
            return self._grader.answer(problem, steps)
        return last.answer


def _name(question: Act) -> tuple[str, Name]:
    return episode_of(question.problem), prefix_of(question.steps).name


def _with_reward(shown: Observation) -> list[Step]:
    first, *others = shown.steps
    meta = first.meta if np.isnan(shown.reward) else {**first.meta, REWARD: shown.reward}
    return [replace(first, meta=meta), *others]


def _one_turn(steps: Sequence[Step]) -> Step:
    """The steps of a policy's answer as one action, with all of its tool calls."""
    turn = joined(steps)
    calls = [call for step in steps for call in step.meta.get(CALLS) or ()]
    return replace(turn, meta={**turn.meta, CALLS: calls, CONTENT: "".join(map(content_of, steps))}) if calls else turn
