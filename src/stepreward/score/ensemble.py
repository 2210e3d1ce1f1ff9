"""Several scorers as one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from stepreward.core.errors import InputError, ModelError
from stepreward.core.runtime.flows import Score, Scored, Scorer
from stepreward.core.types import Floats
from stepreward.score.short_call import ShortCall

Combine = Literal["mean", "median", "min", "lower"]
_COMBINE: Mapping[str, Callable[[Floats, float], Any]] = {
    "mean": lambda scores, _: scores.mean(axis=0),
    "median": lambda scores, _: np.median(scores, axis=0),
    "min": lambda scores, _: scores.min(axis=0),
    "lower": lambda scores, doubt: scores.mean(axis=0) - doubt * scores.std(axis=0),
}
"""From (scorers, S) scores and the doubt to (S,)."""


class EnsembleScorer(ShortCall):
    """Combines the scores that several scorers give to each step; a `core.runtime.flows.Scorer`.

    A search that maximises a score finds where it errs. Scorers that err elsewhere correct each other, the more so
    where disagreement counts: `min` takes the lowest score, `lower` the mean less `doubt` standard deviations.

    Args:
        scorers: at least one; their scores must be of one scale.
        combine: mean, median, min or lower.
        doubt: of `lower`, in standard deviations between the scorers.

    Raises:
        InputError: there is no scorer, or no such way to combine.
    """

    def __init__(self, scorers: Sequence[Scorer], *, combine: Combine = "mean", doubt: float = 1.0) -> None:
        if not scorers:
            raise InputError("an ensemble needs a scorer at least")
        if combine not in _COMBINE:
            raise InputError(f"combine must be mean, median, min or lower, got {combine!r}")
        self.scorers, self.combine, self.doubt = tuple(scorers), combine, doubt
        how = f"{combine}({doubt:g})" if combine == "lower" else combine
        self.name = f"{how} of {', '.join(scorer.name for scorer in scorers)}"
        self.batch_size = min(scorer.batch_size for scorer in scorers)

    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        """Combined scores of each question's steps, NaN where any scorer says NaN; the cost is the sum.

        Further numbers of scorer i are columns `i:NAME`, from 1 on.

        Raises:
            ModelError: a scorer does not answer one number a step.
        """
        scored = [scorer.score_many(questions) for scorer in self.scorers]
        made = []
        for question, answers in zip(questions, zip(*scored, strict=True), strict=True):
            if any(one.scores.shape != (len(question.steps),) for one in answers):
                raise ModelError(f"a scorer of {self.name} does not answer {len(question.steps)} numbers")
            stacked = np.stack([one.scores for one in answers])
            tokens, unshared = sum(one.tokens for one in answers), sum(one.tokens_unshared for one in answers)
            columns = {f"{i}:{name}": own for i, one in enumerate(answers, 1) for name, own in one.columns.items()}
            made.append(Scored(np.asarray(_COMBINE[self.combine](stacked, self.doubt)), tokens, unshared, columns))
        return made


def combined(scorers: Sequence[Scorer], *, combine: Combine = "mean", doubt: float = 1.0) -> Scorer | None:
    """Any number of scorers as one: None of none, a single one as it is, an ensemble of several.

    Raises:
        InputError: there is no such way to combine.
    """
    if len(scorers) < 2:
        return scorers[0] if scorers else None
    return EnsembleScorer(scorers, combine=combine, doubt=doubt)
