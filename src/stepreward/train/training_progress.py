"""Callbacks of training: progress reports, checkpoints at intervals, an end to diverging training."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from stepreward.core.errors import ModelError

OnProgress = Callable[[int, int, str], None]
"""Called with steps done, steps in all, and a line such as "loss 0.310, 12,400 tokens/s"."""

_SECONDS = 0.5


class Progress(TrainerCallback):  # type: ignore[misc]
    """Reports progress at most twice a second, and at the end.

    Args:
        report: receives each line of progress.
        sizes: tokens of each batch.
        accumulate: batches to a step, of all processes.
    """

    def __init__(self, report: OnProgress, sizes: NDArray[np.int64], accumulate: int) -> None:
        self.report, self.accumulate = report, accumulate
        self.tokens = np.r_[0, np.cumsum(sizes)]
        self.loss = math.nan
        self.first = 0
        self.started = self.reported = time.perf_counter()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Starts the clock, at the step that a resumed training starts from."""
        self.first = state.global_step
        self.started = time.perf_counter()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        """Notes the last loss."""
        self.loss = logs.get("loss", self.loss)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Reports, if it is time."""
        if time.perf_counter() - self.reported >= _SECONDS:
            self._report(state)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Reports the last step."""
        self._report(state)

    def _report(self, state: Any) -> None:
        self.reported = time.perf_counter()
        # `tokens` has sums over batches, and a step of the optimizer is several of them.
        done, first = (
            self.tokens[min(step * self.accumulate, len(self.tokens) - 1)] for step in (state.global_step, self.first)
        )
        speed = (done - first) / max(self.reported - self.started, 1e-9)
        line = "" if math.isnan(self.loss) else f"loss {self.loss:.3f}, "
        self.report(state.global_step, state.max_steps, f"{line}{speed:,.0f} tokens/s")


class Clock(TrainerCallback, ExportableState):  # type: ignore[misc]
    """Counts the seconds of a training over all its resumes, and logs the loss at each checkpoint.

    Without that log a checkpoint would lose the losses since the last one.
    """

    def __init__(self) -> None:
        self.before = 0.0
        self.started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Since the training began, the time between a kill and its resume left out."""
        return self.before + time.perf_counter() - self.started

    def state(self) -> dict[str, Any]:
        """The part of a checkpoint that belongs to it."""
        return {"args": {}, "attributes": {"before": self.seconds}}

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Starts the clock."""
        self.started = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Requests a log entry before a checkpoint, and at the end."""
        if control.should_save or state.global_step >= state.max_steps:
            control.should_log = True


class SaveInTime(TrainerCallback):  # type: ignore[misc]
    """Requests a checkpoint when the last one is older than some seconds."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.saved = seconds, time.perf_counter()

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Restarts the clock."""
        self.saved = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Requests a checkpoint, if it is time."""
        if time.perf_counter() - self.saved >= self.seconds:
            control.should_save = True


class EverySomeSteps(TrainerCallback):  # type: ignore[misc]
    """Calls a function after every so many steps, with the number of the call from 0."""

    def __init__(self, every: int, call: Callable[[int], None]) -> None:
        self.every, self.call = every, call

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Calls it, if it is its turn."""
        if state.global_step % self.every == 0:
            self.call(state.global_step // self.every - 1)


class StopIfDiverged(TrainerCallback):  # type: ignore[misc]
    """Ends a training whose loss is not finite any more."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        """Checks the loss.

        Raises:
            ModelError: it is infinite or NaN.
        """
        loss = logs.get("loss", 0.0)
        if not math.isfinite(loss):
            raise ModelError(f"training diverged: the loss is {loss} at step {state.global_step}; lower learning_rate")
