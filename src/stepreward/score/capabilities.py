"""What a scorer may declare beyond its answers: how they are used, and the model in this process that gives them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from stepreward.core.runtime.flows import Scorer

if TYPE_CHECKING:
    from stepreward.score.model.step_reward_model import StepRewardModel


@dataclass(frozen=True, slots=True)
class ScoreUse:
    """How step scores are used where the caller does not say."""

    aggregate: str = "min"
    """Name of the aggregate that makes one number of a trajectory's scores."""
    threshold: float | None = None
    """Scores at or below it mean a wrong step; None leaves it to the protocol."""


@runtime_checkable
class StatesUse(Protocol):
    """A scorer that states how its scores are used."""

    @property
    def use(self) -> ScoreUse | None:
        """How its scores are used; None where nothing is known."""


@runtime_checkable
class HasModel(Protocol):
    """A scorer that may have its step reward model in this process."""

    @property
    def local_model(self) -> tuple[StepRewardModel, str] | None:
        """The model, in evaluation mode, and its device; None where it is elsewhere."""


def use_of(scorer: Scorer | None) -> ScoreUse | None:
    """How a scorer's scores are used, as far as it states that."""
    return scorer.use if isinstance(scorer, StatesUse) else None


def local_model_of(scorer: Scorer | None) -> tuple[StepRewardModel, str] | None:
    """The step reward model in this process that a scorer reads, and its device; None where there is none."""
    return scorer.local_model if isinstance(scorer, HasModel) else None
