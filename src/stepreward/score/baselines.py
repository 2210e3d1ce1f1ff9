"""Scorers without a model: computing again, and what a reward model has to beat."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepreward.core.keys import Key
from stepreward.core.runtime.flows import Score, Scored
from stepreward.core.types import Floats, Problem, Step
from stepreward.score.short_call import ShortCall
from stepreward.score.tools.equations import ToolScorer

Rule = Callable[[Problem, tuple[Step, ...]], float]
"""Score of the last step of a prefix."""


class RuleScorer(ShortCall):
    """Scores each step by a rule on the prefix that ends in it; a `core.runtime.flows.Scorer` that encodes no tokens.

    Args:
        rule: called for each action, never for an observation.
        name: identity for caches and provenance; equal names must mean equal rules.
        batch_size: trajectories that make a full batch.
    """

    def __init__(self, rule: Rule, *, name: str, batch_size: int = 512) -> None:
        self.rule, self.name, self.batch_size = rule, name, batch_size

    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        """Scores of each question's steps, NaN at observations."""
        made = []
        for question in questions:
            prefixes = [question.steps[:n] for n in range(1, len(question.steps) + 1)]
            scores = [self.rule(question.problem, p) if p[-1].kind == "action" else np.nan for p in prefixes]
            made.append(Scored(np.array(scores, np.float64)))
        return made


def constant(value: float = 0.5) -> RuleScorer:
    """Gives every step the same score, so that a weighted vote becomes a majority vote.

    Args:
        value: in [0, 1].

    Raises:
        ValueError: `value` is outside [0, 1].
    """
    if not 0 <= value <= 1:
        raise ValueError(f"value must be in [0, 1], got {value}")
    return RuleScorer(lambda problem, prefix: value, name=f"constant:{value:g}")


def uniform(seed: int = 0) -> RuleScorer:
    """Gives every prefix its own uniform number in [0, 1): chance.

    The number follows from the seed, the problem's id and the texts alone, never from the batch.
    """
    root = Key.seed(seed).fold("uniform scorer")

    def rule(problem: Problem, prefix: tuple[Step, ...]) -> float:
        return float(root.fold(problem.id, *(step.text for step in prefix)).rng().random())

    return RuleScorer(rule, name=f"uniform:{seed}")


def length(scale: float = 100.0) -> RuleScorer:
    """Prefers short steps, the bias that a reward model may hide behind.

        s = 1 / (1 + characters / scale)

    Args:
        scale: characters at which the score is one half, > 0.

    Raises:
        ValueError: `scale` is not positive.
    """
    if not scale > 0:
        raise ValueError(f"scale must be positive, got {scale}")
    return RuleScorer(lambda problem, prefix: 1 / (1 + len(prefix[-1].text) / scale), name=f"length:{scale:g}")


class PositionScorer(ShortCall):
    """Scores a step by its place in the solution alone, which every step-level number has to beat.

        s_t = half / (half + x_t)        x_t = (t - 1/2) / T of the t-th of T actions

    Errors stand late in most data: within answers of PRMBench the place alone has an AUROC of 0.66.

    Args:
        half: share of the solution at which the score is one half, > 0. The default is about the best for PRMBench.

    Raises:
        ValueError: `half` is not positive.
    """

    batch_size = 1 << 16

    def __init__(self, half: float = 0.75) -> None:
        if not half > 0:
            raise ValueError(f"half must be positive, got {half}")
        self.half, self.name = half, f"position:{half:g}"

    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        """Scores of each question's steps, NaN at observations; its steps are taken as the whole solution."""
        actions = np.array([step.kind == "action" for question in questions for step in question.steps], bool)
        length = np.array([len(question.steps) for question in questions], np.int64)
        return [Scored(one) for one in np.split(self.scores_of(actions, length), np.cumsum(length))[:-1]]

    def scores_of(self, actions: NDArray[np.bool_], length: NDArray[np.integer[Any]]) -> Floats:
        """(N,) scores of solutions whose steps lie one after the other, NaN at observations.

        Args:
            actions: (N,) True at actions.
            length: (B,) number of steps of each solution.
        """
        count, end = np.concatenate([[0], np.cumsum(actions)]), np.cumsum(length)
        before = count[end - length]
        total = np.maximum(count[end] - before, 1)
        place = (count[1:] - np.repeat(before, length) - 0.5) / np.repeat(total, length)
        return np.where(actions, self.half / (self.half + place), np.nan)


POSITION = "position"
"""The baseline in every table of step scores."""
WithoutModel = ToolScorer | RuleScorer | PositionScorer
WITHOUT_MODEL: Mapping[str, Callable[[], WithoutModel]] = {
    "tool": ToolScorer,
    "random": uniform,
    "length": length,
    POSITION: PositionScorer,
    "constant": constant,
}
"""Scorers that need no weights, by the names under which they can replace a checkpoint."""
