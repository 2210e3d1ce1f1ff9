"""Ratings of solutions for evaluation harnesses: steps, step scores, and one score for each solution."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from stepreward.core.catalog import aggregate as aggregates
from stepreward.core.catalog import segment as segments
from stepreward.core.errors import InputError
from stepreward.core.measure.aggregation import totals_of
from stepreward.core.runtime.flows import Score, Scored, Scorer
from stepreward.core.runtime.refused_scores import scores_or_errors
from stepreward.core.segment import from_messages
from stepreward.core.types import Message, Problem, Step
from stepreward.score.load import load

_load_once = lru_cache(maxsize=4)(load)
"""Harnesses make their filters and scorers again for each task."""
AT_ONCE = 256
"""Solutions given to a scorer in one call."""


@dataclass(frozen=True, slots=True)
class Rating:
    """The step scores of a solution."""

    steps: tuple[str, ...] = ()
    """(S,) texts of the model's steps."""
    scores: tuple[float | None, ...] = ()
    """(S,) one score each; None where the scorer left a step out."""
    total: float = math.nan
    """Aggregate of the scores; NaN where no step has a score."""
    fault: str = ""
    """Why there is no total; "" where there is one."""

    @property
    def table(self) -> str:
        """The steps with their scores as a list in Markdown."""
        texts = ("none" if score is None else f"{score:.3f}" for score in self.scores)
        return "\n".join(f"- {score}: {step.strip()}" for score, step in zip(texts, self.steps, strict=True))


class Rater:
    """Rates solutions with any scorer; a solution that cannot be scored gets a rating with the reason.

    Args:
        scorer: a scorer, a checkpoint's folder or hub name, or `URL#NAME` for one in a vLLM server.
        aggregate: of step scores, by its registered name.
        segment: method that cuts the model's messages into steps, by its registered name; empty leaves them whole.
        device: torch device of a checkpoint.

    Raises:
        UnknownNameError: no such aggregate or segmentation.
        ModelError: there is no such checkpoint.
    """

    def __init__(
        self, scorer: Scorer | str | Path, *, aggregate: str = "min", segment: str = "blank-lines", device: str = "cpu"
    ) -> None:
        self._aggregate = aggregates[aggregate].name
        self._segment = segments[segment].name if segment else ""
        self.scorer: Scorer = _load_once(str(scorer), device=device) if isinstance(scorer, str | Path) else scorer
        self._lock = threading.Lock()

    def question(self, problem: Sequence[Message], said: Sequence[Message], reference: str = "") -> Score:
        """The question to a scorer for a conversation; equal problems share their encoding.

        Args:
            problem: the messages of the prompt.
            said: the messages that follow; those of the assistant are cut into steps to score, others are context.
            reference: gold answer.
        """
        given = tuple({"role": message["role"], "content": message["content"]} for message in problem)
        rated = Problem(repr(given), given, reference or None)
        return Score(rated, tuple(from_messages(said, inside=self._segment)))

    def rate(self, questions: Sequence[Score]) -> list[Rating]:
        """Ratings in the order of the questions; calls from several threads wait for each other."""
        found = [Rating(fault="the model wrote nothing")] * len(questions)
        real = [i for i, question in enumerate(questions) if any(step.text.strip() for step in _own(question))]
        # Harnesses rate samples in several threads, and a model on one device is used by one at a time.
        with self._lock:
            for at in range(0, len(real), AT_ONCE):
                rows = real[at : at + AT_ONCE]
                for row, answer in zip(rows, scores_or_errors(self.scorer, [questions[i] for i in rows]), strict=True):
                    found[row] = self._rating(questions[row], answer)
        return found

    def _rating(self, question: Score, answer: Scored | InputError) -> Rating:
        steps = tuple(step.text for step in _own(question))
        if isinstance(answer, InputError):
            return Rating(steps, (None,) * len(steps), fault=str(answer))
        row = answer.scores[[step.kind == "action" for step in question.steps]]
        known = ~np.isnan(row)
        total = float(totals_of(row[None], self._aggregate)[0])
        scores = tuple(float(score) if there else None for score, there in zip(row, known, strict=True))
        return Rating(steps, scores, total, "" if known.any() else "the scorer left every step out")


def _own(question: Score) -> list[Step]:
    return [step for step in question.steps if step.kind == "action"]
