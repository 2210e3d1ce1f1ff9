"""The short way into any scorer: a question and texts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stepreward.core.errors import InputError
from stepreward.core.runtime.flows import Score, Scored
from stepreward.core.types import Problem, Step


class ShortCall(ABC):
    """Gives a scorer the method `score`, beside `score_many` of `core.runtime.flows.Scorer`."""

    @abstractmethod
    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        """Scores of each question's steps, in order; NaN at observations."""

    def score(self, question: str, steps: Sequence[str], *, reference: str | None = None) -> NDArray[np.float64]:
        """One score a step, as `score_many` gives them.

        Args:
            question: the problem's text.
            steps: texts of the steps so far.
            reference: the problem's reference answer, for scorers that read it.

        Returns:
            (S,) scores.

        Raises:
            InputError: there is no step, one is blank, the question or a step is no text, or a reference is missing.
        """
        if isinstance(steps, str) or not isinstance(steps, Sequence | np.ndarray):
            what = f"steps must be a list of texts, got {type(steps).__name__}"
            raise InputError(what, remedy="cut the solution into steps first: `stepreward.core.segment`")
        if not isinstance(question, str):
            raise InputError(f"the question must be a text, got {type(question).__name__}", remedy="pass its text")
        if not len(steps):
            raise InputError("there is no step to score", remedy="pass at least one step")
        for i, text in enumerate(steps):
            if not isinstance(text, str):
                raise InputError(f"step {i} must be a text, got {type(text).__name__}", remedy="pass steps as texts")
        for i, text in enumerate(steps):
            if not text.strip():
                raise InputError(f"step {i} has no text: every scored step needs some", remedy="drop empty steps")
        whole = Score(Problem("question", question, reference), tuple(Step(text) for text in steps))
        return self.score_many([whole])[0].scores
