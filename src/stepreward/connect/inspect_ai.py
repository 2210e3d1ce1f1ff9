"""Step scores in Inspect: a scorer, step scores beside another scorer's verdict, and reducers that choose an epoch.

    Task(..., scorer=step_scores("runs/demo/model"), epochs=Epochs(8, "stepreward/best_of_n"))

Inspect finds them by the entry point `inspect_ai`, as `stepreward/` and the name.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import anyio.to_thread
import numpy as np
from inspect_ai import scorer as scoring
from inspect_ai.scorer import Score, ScoreReducer, Target
from inspect_ai.solver import TaskState

from stepreward.connect.ratings import Rater, Rating
from stepreward.core.catalog import select as selections
from stepreward.core.errors import InputError
from stepreward.core.measure.selection import answer_ids
from stepreward.core.method import Method
from stepreward.core.runtime.flows import Scorer
from stepreward.core.types import Message
from stepreward.formats.agents.messages import MODEL, Reasoning, Turn, turns_of

TOTAL = "step_total"
"""Key of a score's metadata: the aggregate score of the solution, by which reducers choose; None where unscored."""
Verdict = Callable[[TaskState, Target], Awaitable[Score | None]]
"""A scorer of Inspect's, as `match()` returns one."""


@scoring.scorer(metrics=[scoring.mean(), scoring.stderr()])  # type: ignore[untyped-decorator]  # where Inspect is absent
def step_scores(
    scorer: Scorer | str | Path,
    aggregate: str = "min",
    segment: str = "blank-lines",
    reasoning: Reasoning = "keep",
    device: str = "cpu",
) -> Verdict:
    """Scores each step of the model's answer; with tools, the steps of all its messages.

    The value is the aggregate. `metadata` holds `steps`, `step_scores` and `step_total`, the explanation shows them. A
    sample whose steps cannot be scored is left unscored, with the reason.

    Args:
        scorer: a scorer, a checkpoint's folder or hub name, or `URL#NAME` for one in a vLLM server.
        aggregate: of step scores, by its registered name.
        segment: method that cuts messages into steps, by its registered name; empty makes each message one step.
        reasoning: whether reasoning that the provider returned apart from the answer is scored too.
        device: torch device of a checkpoint.

    Raises:
        InputError: `reasoning` is neither keep nor drop.
        UnknownNameError: no such aggregate or segmentation.
        ModelError: there is no such checkpoint.
    """
    rate = _Rate(Rater(scorer, aggregate=aggregate, segment=segment, device=device), reasoning)

    async def score(state: TaskState, target: Target) -> Score:
        rating = await rate(state, target)
        answer, metadata = state.output.completion, _metadata(rating)
        if rating.fault:
            reason = "scoring_failed" if rating.steps else "no_response"
            return Score.unscored(reason=reason, answer=answer, explanation=rating.fault, metadata=metadata)
        return Score(value=rating.total, answer=answer, explanation=rating.table, metadata=metadata)

    return score


@scoring.scorer(metrics=[scoring.accuracy(), scoring.stderr()])  # type: ignore[untyped-decorator]
def with_step_scores(
    verdict: Verdict,
    scorer: Scorer | str | Path,
    aggregate: str = "min",
    segment: str = "blank-lines",
    reasoning: Reasoning = "keep",
    device: str = "cpu",
) -> Verdict:
    """Another scorer's verdict with step scores in its metadata, so that a reducer can choose the epoch that counts.

        Task(..., scorer=with_step_scores(match(), "runs/demo/model"), epochs=Epochs(8, "stepreward/weighted_vote"))

    is the accuracy of voting with step scores: Inspect reduces the epochs of each scorer separately, so that verdict
    and step scores must come from one scorer.

    Args:
        verdict: a scorer of Inspect's.
        scorer: as in `step_scores`, like all that follows.
        aggregate: of step scores.
        segment: method that cuts messages into steps.
        reasoning: whether reasoning that the provider returned apart is scored too.
        device: torch device of a checkpoint.

    Raises:
        InputError: `verdict` is no scorer, as on a command line, which has only names; or `reasoning` is unknown.
        UnknownNameError: no such aggregate or segmentation.
        ModelError: there is no such checkpoint.
    """
    if not callable(verdict):
        raise InputError(f"verdict must be a scorer of Inspect's, got {verdict!r}", remedy="pass match() or another")
    rate = _Rate(Rater(scorer, aggregate=aggregate, segment=segment, device=device), reasoning)

    async def score(state: TaskState, target: Target) -> Score | None:
        grade = await verdict(state, target)
        if grade is None:
            return None
        rating = await rate(state, target)
        return grade.model_copy(update={"metadata": {**(grade.metadata or {}), **_metadata(rating)}})

    return score


class _Rate:
    """Rates the conversation of a sample, outside the event loop."""

    def __init__(self, rater: Rater, reasoning: Reasoning) -> None:
        if reasoning not in ("keep", "drop"):
            raise InputError(f"reasoning must be keep or drop, got {reasoning!r}")
        self._rater, self._reasoning = rater, reasoning

    async def __call__(self, state: TaskState, target: Target) -> Rating:
        given, said = _conversation(state, self._reasoning)
        question = self._rater.question(given, said, target.text)
        (rating,) = await anyio.to_thread.run_sync(self._rater.rate, [question])
        return rating


def _conversation(state: TaskState, reasoning: Reasoning) -> tuple[list[Message], list[Message]]:
    """The messages before the model's first, few-shot examples included, and those from it on."""
    messages = list(state.messages)
    start = next((i for i, m in enumerate(messages) if m.role == MODEL and m.source != "input"), len(messages))
    said = messages[start:] or ([state.output.message] if state.output.choices else [])
    turns = turns_of([message.model_dump(exclude_none=True) for message in [*messages[:start], *said]])
    given = [_message(turn, reasoning) for turn in turns if turn.place < start]
    return given, [_message(turn, reasoning) for turn in turns if turn.place >= start]


def _message(turn: Turn, reasoning: Reasoning) -> Message:
    thought = turn.reasoning if reasoning == "keep" else ""
    made = {"role": turn.role, "content": "\n\n".join(part for part in (thought, turn.said) if part)}
    return made if turn.agent is None else {**made, "name": turn.agent}


def _metadata(rating: Rating) -> dict[str, Any]:
    total = None if math.isnan(rating.total) else rating.total
    return {"steps": list(rating.steps), "step_scores": list(rating.scores), TOTAL: total}


def _reducer(method: Method[..., Any]) -> Callable[[], ScoreReducer]:
    """A reducer that keeps the score of the epoch that the method chooses."""

    def make() -> ScoreReducer:
        def reduce(scores: list[Score]) -> Score:
            totals = np.array([(score.metadata or {}).get(TOTAL) for score in scores], np.float64)
            if np.isnan(totals).all():
                why = f"no epoch has a total of step scores: {method.name} chooses among those of stepreward's scorers"
                return Score.unscored(reason="scoring_failed", explanation=why)
            group = np.zeros(len(scores), np.int64)
            answers = answer_ids([(score.answer or "").strip() or None for score in scores], [0] * len(scores))
            (row,) = method.take({"totals": totals, "answers": answers, "group": group})
            return scores[row]

        return reduce

    made: Callable[[], ScoreReducer] = scoring.score_reducer(name=f"stepreward/{method.name.replace('-', '_')}")(make)
    return made


REDUCERS: Sequence[Callable[[], ScoreReducer]] = [
    _reducer(method) for method in selections if {"totals"} <= set(method.data) <= {"totals", "answers", "group"}
]
"""A reducer for each selection that needs only step scores and answers."""
