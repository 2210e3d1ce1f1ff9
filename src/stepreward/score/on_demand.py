"""What scoring with weights or a calibrator needs, imported at its first use: this module loads no torch, no scipy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stepreward.core.on_demand import on_demand

if TYPE_CHECKING:
    from stepreward.score.by_recipe import ByRecipe as ByRecipe
    from stepreward.score.by_recipe import scorer_by_recipe as scorer_by_recipe
    from stepreward.score.calibrate.calibrated_scorer import CalibratedScorer as CalibratedScorer
    from stepreward.score.calibrate.calibrated_scorer import read_calibrator as read_calibrator
    from stepreward.score.model.devices import device_of as device_of

if not TYPE_CHECKING:  # a type checker then refuses names that are not above
    __getattr__ = on_demand(__file__)
