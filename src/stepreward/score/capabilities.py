"""What a scorer may declare beyond its answers: how they are used, and the model in this process that gives them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

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
    whole: bool = False
    """Whether scores depend on later steps, so that only whole solutions may be scored."""
    reference: bool = False
    """Whether problems must have a reference answer, which the scorer reads."""


def use_of(scorer: Scorer | None) -> ScoreUse | None:
    """How a scorer's scores are used: its attribute `use`; None where it has none."""
    use: ScoreUse | None = getattr(scorer, "use", None)
    return use


def local_model_of(scorer: Scorer | None) -> tuple[StepRewardModel, str] | None:
    """The model of a scorer in this process, in evaluation mode, and its device: its attribute `local_model`.

    None where the scorer has no such attribute, or its model is elsewhere.
    """
    found: tuple[StepRewardModel, str] | None = getattr(scorer, "local_model", None)
    return found
