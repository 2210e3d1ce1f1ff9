"""What scoring with weights needs, imported at its first use: importing this module loads no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stepreward.core.on_demand import on_demand

if TYPE_CHECKING:
    from stepreward.score.load import Loaded as Loaded
    from stepreward.score.load import is_address as is_address
    from stepreward.score.load import load as load
    from stepreward.score.load import own_record as own_record
    from stepreward.score.model.devices import device_of as device_of

__getattr__ = on_demand(__file__)
