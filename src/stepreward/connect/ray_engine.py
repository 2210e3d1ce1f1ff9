"""Ray: parts of a table are made by actors, on this machine or on a cluster.

Actors are handed one part each, so that whoever is free takes the next. An actor that dies costs its part, which
another one makes again; where there may be more actors, one more starts whenever a part waits, and idle ones end when
none does. Only parts and results travel: workers need no folder of the driver's.
"""

from __future__ import annotations

import logging
import math
import os
import re
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, redirect_stdout
from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import parse_qsl

from stepreward.core.errors import InputError, SteprewardError, UnknownNameError
from stepreward.core.optional import optional
from stepreward.core.runtime.made_in_parts import Build, Engine

DEATHS = 3
"""Workers that a part may end before the run fails: it may be what ends them, as by its need of memory."""
_NUMBERS = re.compile(r"(\d+)(?:\.\.(\d+))?")


@dataclass(frozen=True)
class RayEngine:
    """Makes parts in Ray actors; a `core.runtime.made_in_parts.Engine`.

    Raises:
        InputError: a number is out of its range.
    """

    workers: str = "2"
    """Actors: `4`, or `4..32` where more start while parts wait."""
    address: str = ""
    """Of a cluster that runs, such as `auto` or ray://head:10001; RAY_ADDRESS where empty, or else this machine."""
    part: int = 64
    """Items of a part: what a worker that dies loses at most."""
    cpus: float = 1.0
    """Cores that each actor reserves."""
    gpus: float = 0.0
    """Accelerators that each actor reserves."""

    def __post_init__(self) -> None:
        if self.part < 1:
            raise InputError(f"a part needs at least one item, got {self.part}")
        if self.cpus < 0 or self.gpus < 0:
            raise InputError(f"a worker cannot reserve {self.cpus} cores and {self.gpus} accelerators")
        found = _NUMBERS.fullmatch(self.workers.strip())
        if not found or not 1 <= int(found[1]) <= int(found[2] or found[1]):
            what = f"workers must be a number or a range such as 4..32, got {self.workers!r}"
            raise InputError(what, remedy="write at least 1, and the least first")

    @property
    def range(self) -> tuple[int, int]:
        """The least and the most workers."""
        found = _NUMBERS.fullmatch(self.workers.strip())
        assert found is not None
        return int(found[1]), int(found[2] or found[1])

    @contextmanager
    def open(self, build: Build[Any, Any]) -> Iterator[RayWorkers]:
        """Connects to the cluster, or starts one here, and ends the actors when the context is left.

        Raises:
            ModelError: Ray is not installed.
            SteprewardError: no cluster is at the address.
        """
        ray = optional("ray")
        if ray.is_initialized():
            with closing(RayWorkers(ray, self, build)) as workers:
                yield workers
            return
        # Ray tells of workers that die on standard output, which is for results.
        with redirect_stdout(sys.stderr):
            self._connect(ray)
            try:
                with closing(RayWorkers(ray, self, build)) as workers:
                    yield workers
            finally:
                ray.shutdown()

    def _connect(self, ray: Any) -> None:
        address = self.address or os.environ.get("RAY_ADDRESS", "")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Workers send what they warn of with their parts.
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
        try:
            if address and address != "local":
                ray.init(address=address, **quiet)
            else:
                cores = max(os.cpu_count() or 1, math.ceil(self.range[1] * self.cpus))
                ray.init(address="local", num_cpus=cores, include_dashboard=False, **quiet)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            what = f"no Ray cluster answers at {address or 'this machine'}: {str(error).splitlines()[0]}"
            raise SteprewardError(f"{what}; start one by `ray start --head`, or drop the address") from error


@dataclass(eq=False)
class _Asked:
    """What an actor is busy with."""

    actor: Any
    number: int = -1
    """Of the part; -1 while the actor loads its models."""
    part: Any = None
    deaths: int = 0
    """Actors that died over this part."""


class RayWorkers:
    """Actors that are given parts; a `core.runtime.made_in_parts.Workers`.

    Args:
        ray: the package, connected.
        engine: how many actors, and what each reserves.
        build: makes, in each actor, what makes a part.
    """

    def __init__(self, ray: Any, engine: RayEngine, build: Build[Any, Any]) -> None:
        self._ray, (self._least, self._most) = ray, engine.range
        self._actor = ray.remote(_PartMaker).options(num_cpus=engine.cpus, num_gpus=engine.gpus, max_restarts=0)
        self._build = ray.put(build)
        self._idle: list[Any] = []
        self._busy: dict[Any, _Asked] = {}
        """What was asked of actors, by the reference to the answer."""
        self._told: set[tuple[type[Warning], str]] = set()
        self._never_loaded = 0
        """Actors that died while they loaded, since one answered."""

    @property
    def _starting(self) -> int:
        return sum(job.number < 0 for job in self._busy.values())

    def made(self, parts: Iterable[Any]) -> Iterator[tuple[int, Any]]:
        """The result of each part with its number, in the order in which they are done.

        Raises:
            SteprewardError: a part ended several workers.
            Exception: what the work raised.
        """
        source, waiting = enumerate(parts), deque[_Asked]()

        def waits() -> bool:
            if not waiting and (new := next(source, None)):
                waiting.append(_Asked(None, *new))
            return bool(waiting)

        while True:
            while waits() and self._idle:
                self._hand_out(waiting.popleft())
            self._fit(bool(waiting))
            if not waiting and len(self._busy) == self._starting:
                return
            (answered,), _ = self._ray.wait([*self._busy], num_returns=1)
            job = self._busy.pop(answered)
            try:
                made, caught = self._ray.get(answered)
            except self._ray.exceptions.RayTaskError as error:
                raise (error.cause if isinstance(error.cause, Exception) else error) from None
            except self._ray.exceptions.RayError as error:
                self._end(job.actor)
                self._never_loaded += job.number < 0
                again = _again(job, error, self._never_loaded)
                waiting.extendleft([again] if job.number >= 0 else [])
                continue
            self._never_loaded = 0
            self._idle.append(job.actor)
            self._warn(caught)
            if job.number >= 0:
                yield job.number, made

    def close(self) -> None:
        """Ends all actors."""
        for actor in [*self._idle, *(job.actor for job in self._busy.values())]:
            self._end(actor)
        self._idle.clear()
        self._busy.clear()

    def _hand_out(self, job: _Asked) -> None:
        job.actor = self._idle.pop()
        self._busy[job.actor.make.remote(job.part)] = job

    def _fit(self, waits: bool) -> None:
        """Starts actors while a part waits, and ends idle ones that are more than the least where none does."""
        there = len(self._idle) + len(self._busy)
        if waits:
            # Beyond the least one at a time: the next when this one is there, and a part waits still.
            more = self._least - there if there < self._least else int(there < self._most and not self._starting)
            for _ in range(more):
                actor = self._actor.remote(self._build)
                self._busy[actor.load.remote()] = _Asked(actor)
            return
        for _ in range(min(len(self._idle), there - self._least)):
            self._end(self._idle.pop())

    def _end(self, actor: Any) -> None:
        self._ray.kill(actor)

    def _warn(self, caught: Iterable[Warning]) -> None:
        """Passes on what workers warn of, each text once."""
        for one in caught:
            if (said := (type(one), str(one))) not in self._told:
                self._told.add(said)
                warnings.warn(one, stacklevel=2)


class _PartMaker:
    """The actor: loads what makes parts once, and makes them one by one."""

    def __init__(self, build: Build[Any, Any]) -> None:
        self._build = build
        self._work: Callable[[Any], Any] | None = None

    def load(self) -> tuple[None, list[Warning]]:
        """Loads models: after the start, so that errors are those of a call."""
        with warnings.catch_warnings(record=True) as caught:
            self._work = self._build()
        return None, [one.message for one in caught if isinstance(one.message, Warning)]

    def make(self, part: Any) -> tuple[Any, list[Warning]]:
        """The result of a part, and what was warned of."""
        assert self._work is not None
        with warnings.catch_warnings(record=True) as caught:
            made = self._work(part)
        return made, [one.message for one in caught if isinstance(one.message, Warning)]


def _again(job: _Asked, error: Exception, never_loaded: int) -> _Asked:
    """The part of an actor that died, for another one.

    Raises:
        SteprewardError: too many died, over this part or while they loaded.
    """
    said = str(error).strip().splitlines() or [type(error).__name__]
    if never_loaded == DEATHS:
        what = f"{DEATHS} workers died while they loaded their models, one after the other: {said[-1].strip()}"
        raise SteprewardError(f"{what}; can they import and find all that this process can?") from error
    if job.deaths + 1 == DEATHS:
        what = f"part {job.number} ended {DEATHS} workers, one after the other: {said[0]}"
        raise SteprewardError(f"{what}; is a worker's memory enough? a smaller part needs less") from error
    return _Asked(None, job.number, job.part, job.deaths + 1)


def engine_of(engine: str | Engine | None) -> Engine | None:
    """An engine by name: `ray`, or `ray?workers=4..32&address=auto&part=64&cpus=1&gpus=0`; "" and None are none.

    Raises:
        InputError: a setting does not fit.
        UnknownNameError: there is no such engine or setting.
    """
    if not isinstance(engine, str):
        return engine
    name, _, query = engine.partition("?")
    if not name and not query:
        return None
    if name != "ray":
        raise UnknownNameError("engine", name, ["ray"])
    known = [one.name for one in fields(RayEngine)]
    settings = dict[str, Any]()
    for setting, text in parse_qsl(query, keep_blank_values=True):
        if setting not in known:
            raise UnknownNameError("setting of the engine ray", setting, known)
        kind = {"part": int, "cpus": float, "gpus": float}.get(setting, str)
        try:
            settings[setting] = kind(text)
        except ValueError:
            raise InputError(f"{setting} must be a number, got {text!r}", source=engine) from None
    return RayEngine(**settings)
