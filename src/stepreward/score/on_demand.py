"""What scoring with weights or a calibrator needs, imported at its first use: this module loads no torch, no scipy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stepreward.core.on_demand import on_demand

if TYPE_CHECKING:
    from stepreward.score.calibrate.calibrated_scorer import CalibratedScorer as CalibratedScorer
    from stepreward.score.calibrate.calibrated_scorer import read_calibrator as read_calibrator
    from stepreward.score.load import Loaded as Loaded
    from stepreward.score.load import is_address as is_address
    from stepreward.score.load import load as load
    from stepreward.score.load import own_record as own_record
    from stepreward.score.model.devices import device_of as device_of

__getattr__ = on_demand(__file__)
