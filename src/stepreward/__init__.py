"""stepreward: label, train, score, search and evaluate process rewards.

import stepreward
stepreward.load("runs/demo/model").score("1 + 1 = ?", ["1 + 1 = 2"])
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stepreward.core.keys import Key
from stepreward.core.optional import optional
from stepreward.core.tree import StepTree
from stepreward.core.types import Labels, Problem, Step, Trajectory

if TYPE_CHECKING:
    from stepreward.pipeline.compose import compose
    from stepreward.score.load import load

__all__ = ["Key", "Labels", "Problem", "Step", "StepTree", "Trajectory", "compose", "load"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Loads `load` and `compose`, and with them torch or scipy, only when they are asked for."""
    if name == "load":
        return optional("stepreward.score.load").load
    if name == "compose":
        return optional("stepreward.pipeline.compose").compose
    raise AttributeError(f"module 'stepreward' has no attribute {name!r}")
