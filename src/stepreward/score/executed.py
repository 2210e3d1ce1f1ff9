"""Scores of an agent's actions by executing them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar, get_args
from urllib.parse import parse_qsl

from stepreward.core.errors import InputError, UnknownNameError
from stepreward.core.runtime.executing import Execution, Measure
from stepreward.core.runtime.flows import Score, Scored, Scorer
from stepreward.score.capabilities import ScoreUse, use_of
from stepreward.score.short_call import ShortCall

T = TypeVar("T", bound=Scorer)
MEASURES: tuple[Measure, ...] = get_args(Measure)
EXECUTED = "executed"
"""Name of the scorer; settings may follow, as `executed?by=outcome&model=MODEL`."""


@dataclass
class ExecutedScorer(ShortCall):
    """Scores an agent's actions by what its environment says once they are executed.

    In a search every candidate is executed, and the search goes on from a copy of the episode. An environment that
    grades by the reference shows the truth: such a search is an upper bound.

    Raises:
        ValueError: there is no such number.
    """

    by: Measure = "return"
    """The score: the sum of the rewards so far (`return`), the action's own `reward`, or the `outcome` if the episode
    ended there."""
    otherwise: Scorer | None = None
    """Who scores actions that do not end the episode, so that finished candidates compete by what they came to, as in
    QLASS (arXiv:2502.02584, the released code); None where execution scores all."""
    batch_size: int = 1
    name: str = field(init=False)
    """Identity for caches and provenance."""

    def __post_init__(self) -> None:
        if self.by not in MEASURES:
            raise ValueError(f"by must be one of {', '.join(MEASURES)}, got {self.by!r}")
        self.name = f"{EXECUTED}(by={self.by}{'' if self.otherwise is None else f', else {self.otherwise.name}'})"

    @property
    def execution(self) -> Execution:
        """What the driver of an agent reads (`core.runtime.executing.execution_of`)."""
        return Execution(self.by, self.otherwise)

    @property
    def use(self) -> ScoreUse | None:
        """What is so far is in the last score; where a model scores too, its own use."""
        return ScoreUse("sum" if self.by == "reward" else "last") if self.otherwise is None else use_of(self.otherwise)

    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        """Refuses: the driver of an agent executes the actions.

        Raises:
            InputError: always.
        """
        remedy = "pass --environment, and no further reward model: one beside it is executed?model=MODEL"
        raise InputError(f"scorer {self.name} needs an agent", remedy=remedy)


def with_execution(name: str | Path, load: Callable[[str | Path], T]) -> T | ExecutedScorer:
    """The scorer of a name: by execution where the name says so, and else as it is loaded.

    Args:
        name: such as `executed?by=outcome`, or `executed?model=MODEL` with the name of a scorer.
        load: makes a scorer of any other name.

    Raises:
        InputError: `by` is none.
        UnknownNameError: there is no such setting.
    """
    head, _, query = str(name).partition("?")
    if head != EXECUTED:
        return load(name)
    given = dict(parse_qsl(query, keep_blank_values=True))
    for setting in given:
        if setting not in ("by", "model"):
            raise UnknownNameError(f"setting of {EXECUTED}", setting, ["by", "model"])
    by = given.get("by", "outcome" if "model" in given else "return")
    measure = next((one for one in MEASURES if one == by), None)
    if measure is None:
        raise InputError(f"by must be one of {', '.join(MEASURES)}, got {by!r}", source=str(name))
    return ExecutedScorer(measure, load(given["model"]) if "model" in given else None)
