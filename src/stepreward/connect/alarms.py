"""Alarms for reward hacking: signs that step rewards rise for the wrong reason, and what is done about them."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

OnAlarm = Literal["log", "gate", "stop"]
MEANINGS: Mapping[str, str] = {
    "diverging": "step rewards rise while outcomes fall: the policy learns the faults of the reward",
    "padding": "solutions grow longer and no better: steps are added for their own reward",
    "collapse": "solutions come down to fewer or shorter steps and no better: less is left to be found wrong",
    "repetition": "steps repeat earlier ones more and more, and outcomes do not rise",
    "hiding": "more and more steps are left unscored, and outcomes do not rise",
    "held-out": "held-out problems are solved less often than before: what is learned is not the task",
}
"""What each alarm means."""


@dataclass
class HackingAlarms:
    """Watches the trend of step rewards beside that of outcomes, and audits of held-out problems.

        alarms = HackingAlarms(on_alarm="gate")
        StepGRPOTrainer(..., alarms=alarms)      # or StepCredit(..., alarms=alarms) in any other engine

    A trend is the difference of means between the later and the earlier half of the last `window` observations, in
    units of its standard error.

    Raises:
        ValueError: `window` is below 4, `threshold` is not positive, or there is no such `on_alarm`.
    """

    window: int = 40
    """Observations compared; there are no alarms of trends before so many."""
    threshold: float = 3.0
    """Standard errors from which a difference is a trend."""
    on_alarm: OnAlarm = "log"
    """What an alarm does: `log` a warning; `gate`: step rewards count 0 for the next `window` updates, so that only the
    outcome is learned; `stop` the training."""
    seen: dict[str, deque[float]] = field(default_factory=dict)
    raised: dict[str, str] = field(default_factory=dict)
    """Alarms so far, with what they mean."""
    closed: int = 0
    """Updates for which step rewards still count 0."""
    best: NDArray[np.float64] | None = None
    """(H,) outcomes of the best audit so far."""

    def __post_init__(self) -> None:
        if self.window < 4 or self.threshold <= 0 or self.on_alarm not in get_args(OnAlarm):
            what = f"window {self.window}, threshold {self.threshold}, on_alarm {self.on_alarm!r}"
            raise ValueError(f"{what}: pass at least 4, more than 0, and one of {', '.join(get_args(OnAlarm))}")

    @property
    def gated(self) -> bool:
        """Whether step rewards count 0 at present."""
        return self.closed > 0

    @property
    def stopped(self) -> bool:
        """Whether training is to stop."""
        return self.on_alarm == "stop" and bool(self.raised)

    def observe(self, numbers: Mapping[str, float]) -> dict[str, str]:
        """Adds the metrics of one training step; returns alarms by name, with what they mean.

        Args:
            numbers: `process` (mean step reward of a trajectory), `outcome`, `steps` (a trajectory), `tokens` (a step),
                `repeated` (share of steps that repeat an earlier one of their trajectory), `unscored_steps` (share);
                what is not known is left out.
        """
        self.closed = max(self.closed - 1, 0)
        for name, value in numbers.items():
            self.seen.setdefault(name, deque(maxlen=self.window)).append(value)
        trends = {name: self._trend(name) for name in self.seen}
        up = {name for name, trend in trends.items() if trend > self.threshold}
        down = {name for name, trend in trends.items() if trend < -self.threshold}
        better, worse = "outcome" in up, "outcome" in down
        signs = {
            "diverging": "process" in up and worse,
            "padding": "steps" in up and not better,
            # Shorter solutions that are as good are no fault: either the reward pays for them, or outcomes do.
            "collapse": bool(down & {"steps", "tokens"}) and not better and ("process" in up or worse),
            "repetition": "repeated" in up and not better,
            "hiding": "unscored_steps" in up and not better,
        }
        return self._made([name for name, shows in signs.items() if shows])

    def audit(self, outcomes: Sequence[float]) -> dict[str, str]:
        """Compares outcomes on held-out problems with the best audit so far; returns the alarm where they are worse.

        The difference is paired by problem, in units of its standard error. The best of many audits is a little too
        good by chance, which the threshold must bear.

        Args:
            outcomes: (H,) of the same problems in the same order each time, NaN where not known.

        Raises:
            ValueError: another number of problems than before.
        """
        now = np.asarray(outcomes, np.float64)
        if self.best is None:
            self.best = now
            return {}
        if now.shape != self.best.shape:
            raise ValueError(f"{now.size} outcomes, {self.best.size} in the audit before: audit the same problems")
        change = (now - self.best)[~np.isnan(now - self.best)]
        if not change.size:
            return {}
        if change.mean() > 0:
            self.best = now
            return {}
        error = float(change.std(ddof=1) / np.sqrt(change.size)) if change.size > 1 else 0.0
        return self._made(["held-out"] if change.mean() < -self.threshold * error else [])

    def _made(self, names: Sequence[str]) -> dict[str, str]:
        made = {name: MEANINGS[name] for name in names}
        self.raised |= made
        if made and self.on_alarm == "gate":
            # What follows is another training: its trends begin anew.
            self.closed = self.window
            self.seen.clear()
        return made

    def _trend(self, name: str) -> float:
        values = np.array(self.seen[name])
        if len(values) < self.window:
            return 0.0
        early, late = values[: len(values) // 2], values[len(values) // 2 :]
        error = float(np.sqrt(early.var(ddof=1) / len(early) + late.var(ddof=1) / len(late)))
        difference = float(late.mean() - early.mean())
        return difference / error if error else np.sign(difference) * np.inf if difference else 0.0
