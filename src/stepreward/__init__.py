"""stepreward: label, train, score, search and evaluate process rewards.

import stepreward
stepreward.load("runs/demo/model").score("1 + 1 = ?", ["1 + 1 = 2"])
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stepreward.core.keys import Key
from stepreward.core.on_demand import on_demand
from stepreward.core.tree import StepTree
from stepreward.core.types import Problem, Provenance, Step, Trajectory

if TYPE_CHECKING:  # imported at the first use: they load torch or scipy
    from stepreward.pipeline.compose import compose
    from stepreward.score.load import load

__all__ = ["Key", "Problem", "Provenance", "Step", "StepTree", "Trajectory", "compose", "load"]
__version__ = "0.1.0"


__getattr__ = on_demand(__file__)
