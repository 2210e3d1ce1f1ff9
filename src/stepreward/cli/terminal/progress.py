"""Progress of long work: a bar on a terminal, a line now and then elsewhere, nothing for JSON; speed and time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from types import TracebackType
from typing import Generic, TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, Task, TextColumn

from stepreward.cli.terminal.console import lines_above, plain_console
from stepreward.cli.terminal.plain_streams import printable

T = TypeVar("T")
SECONDS_BETWEEN_LINES = 10.0
SECONDS_TO_JUDGE = 1.0
"""A speed measured over less is noise."""
SHARE_TO_JUDGE = 0.1
"""Hundreds of searches run side by side and end together: the first few say nothing of the rest."""
SECONDS_TO_GUESS = 300.0
"""After so long an estimate is shown in any case."""
_PERIOD = 3600.0
"""Seconds over which speed is measured: answers of a slow model may come in batches, minutes apart."""


class StageProgress:
    """Shows stages as they advance; a context manager.

    Speed and time left are rich's: work done after the first news of a stage, over the time since then. So neither what
    a resumed stage found done counts, nor the first item of a batch as if the others took as long.

    Args:
        quiet: show nothing.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        console = plain_console(stderr=True)
        self.live = console.is_terminal and not quiet
        self.quiet = quiet
        self.bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:9}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[pace]}"),
            TextColumn("{task.fields[detail]}", markup=False),
            console=console,
            get_time=time.monotonic,
            redirect_stdout=False,
            redirect_stderr=False,
            speed_estimate_period=_PERIOD,
        )
        self._shown = ExitStack()
        self.tasks: dict[str, Task] = {}
        self.reported: dict[str, float] = {}
        self.began: dict[str, float] = {}

    def __enter__(self) -> StageProgress:
        if self.live:
            self._shown.enter_context(lines_above(self.bar.console))
            self._shown.enter_context(self.bar)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._shown.close()

    def __call__(self, stage: str, done: int, total: int, detail: str) -> None:
        """Advances a stage."""
        now = time.monotonic()
        task = self.tasks.get(stage)
        # A stage of the same name may begin anew: training's samples follow those to measure on.
        if task is None or done < task.completed or total != task.total:
            if task is not None:
                self.bar.remove_task(task.id)
            self.reported.pop(stage, None)
            self.began[stage] = now
            made = self.bar.add_task(printable(stage), total=total, detail="", pace="")
            task = self.tasks[stage] = next(one for one in self.bar.tasks if one.id == made)
        self.bar.update(task.id, completed=done, detail=printable(detail))
        # A speed says something of the rest once enough is done, or after so long that people want any estimate.
        seconds = now - self.began[stage]
        is_known = seconds >= SECONDS_TO_JUDGE and (done >= SHARE_TO_JUDGE * total or seconds >= SECONDS_TO_GUESS)
        says = pace(task) if is_known else ""
        self.bar.update(task.id, pace=says)
        if self.live or self.quiet:
            return
        if done == total or now - self.reported.get(stage, -1e9) > SECONDS_BETWEEN_LINES:
            self.reported[stage] = now
            print(f"{stage}: {done:,} of {total:,}{says and f' at {says},'} {detail}", file=sys.stderr, flush=True)


def pace(task: Task) -> str:
    """Speed and time left of a task, as rich estimates them; empty where not known yet."""
    if not task.speed:
        return ""
    left = task.time_remaining if task.remaining else None
    return speed(task.speed) + (f", {duration(left)} left" if left else "")


def speed(rate: float) -> str:
    """Items a second for people; empty where not known yet."""
    if not rate:
        return ""
    return f"{rate:,.1f}/s" if rate >= 1 else f"{1 / rate:,.1f} s each"


def duration(seconds: float) -> str:
    """A time span for people: `12 s`, `3 min 05 s`, `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class Watched(Generic[T]):
    """Counts the items of a stream and reports their speed on standard error, now and then.

    Args:
        items: the stream.
        stage: name in the report.
        quiet: report nothing.
    """

    def __init__(self, items: Iterable[T], stage: str, *, quiet: bool = False) -> None:
        self.items, self.stage, self.quiet, self.count = items, stage, quiet, 0
        self.began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Time since it was made."""
        return time.monotonic() - self.began

    def __iter__(self) -> Iterator[T]:
        reported = self.began
        for item in self.items:
            self.count += 1
            if not self.count % 1024 and not self.quiet and time.monotonic() - reported > SECONDS_BETWEEN_LINES:
                reported = time.monotonic()
                print(
                    f"{self.stage}: {self.count:,} at {speed(self.count / self.seconds)}", file=sys.stderr, flush=True
                )
            yield item
