"""The short way into any scorer: a question and texts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stepreward.core.errors import InputError
from stepreward.core.runtime.flows import Score, Scorer
from stepreward.core.types import Problem, Step


def score_texts(scorer: Scorer, question: str, steps: Sequence[str]) -> NDArray[np.float64]:
    """(S,) one score a step.

    Raises:
        InputError: there is no step, one is blank, or the question or a step is no text.
    """
    if isinstance(steps, str) or not isinstance(steps, Sequence | np.ndarray):
        what = f"steps must be a list of texts, got {type(steps).__name__}"
        raise InputError(what, remedy="cut the solution into steps first: `stepreward.core.segment`")
    if not isinstance(question, str):
        raise InputError(f"the question must be a text, got {type(question).__name__}", remedy="pass its text")
    if not len(steps):
        raise InputError("there is no step to score", remedy="pass at least one step")
    alien = next((i for i, text in enumerate(steps) if not isinstance(text, str)), None)
    if alien is not None:
        what = f"step {alien} must be a text, got {type(steps[alien]).__name__}"
        raise InputError(what, remedy="pass steps as texts")
    blank = [i for i, text in enumerate(steps) if not text.strip()]
    if blank:
        raise InputError(f"step {blank[0]} has no text: every scored step needs some", remedy="drop empty steps")
    ask = Score(Problem("question", question), tuple(Step(text) for text in steps))
    return scorer.score_many([ask])[0].scores
