"""Alarms for reward hacking: signs in training metrics that step rewards rise for the wrong reason."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass
class HackingAlarms:
    """Watches the trend of step rewards beside that of outcomes.

    A trend is the difference of means between the later and the earlier half of the last `window` observations, in
    units of its standard error.
    """

    window: int = 40
    """Observations compared; there are no alarms before so many."""
    threshold: float = 3.0
    """Standard errors from which a difference is a trend."""
    seen: dict[str, deque[float]] = field(default_factory=dict)

    def observe(self, numbers: Mapping[str, float]) -> dict[str, str]:
        """Adds the metrics of one training step; returns alarms by name, with what they mean.

        Args:
            numbers: `process` (mean step reward of a trajectory), `outcome`, `steps` (a trajectory), `repeated` (share
                of steps that repeat an earlier one of their trajectory).
        """
        for name, value in numbers.items():
            self.seen.setdefault(name, deque(maxlen=self.window)).append(value)
        trends = {name: self._trend(name) for name in self.seen}
        up = {name for name, trend in trends.items() if trend > self.threshold}
        better = trends.get("outcome", 0.0) > self.threshold
        worse = trends.get("outcome", 0.0) < -self.threshold
        made = {}
        if "process" in up and worse:
            made["diverging"] = "step rewards rise while outcomes fall: the policy learns the faults of the reward"
        if "steps" in up and not better:
            made["padding"] = "solutions grow longer and no better: steps are added for their own reward"
        if "repeated" in up and not better:
            made["repetition"] = "steps repeat earlier ones more and more, and outcomes do not rise"
        return made

    def _trend(self, name: str) -> float:
        values = np.array(self.seen[name])
        if len(values) < self.window:
            return 0.0
        early, late = values[: len(values) // 2], values[len(values) // 2 :]
        error = float(np.sqrt(early.var(ddof=1) / len(early) + late.var(ddof=1) / len(late)))
        difference = float(late.mean() - early.mean())
        return difference / error if error else np.sign(difference) * np.inf if difference else 0.0
