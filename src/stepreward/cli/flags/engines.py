"""Where the parts of a command's table are made: in this process, or by workers on this machine or a cluster."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from stepreward.connect.ray_engine import RayEngine, engine_of
from stepreward.core.errors import InputError
from stepreward.core.runtime.made_in_parts import Engine
from stepreward.core.vocabulary import Flag

ENGINES = ("ray",)
_DEFAULT = RayEngine()


@dataclass(frozen=True)
class EngineFlags:
    """An engine, and how many workers it has."""

    engine: Annotated[str, Flag(choices=ENGINES)] = ""
    """Where parts of the work are done: {choices}; left out: in this process. The result is the same."""
    workers: str | None = None
    """Workers of the engine: 4, or 4..32 where more start while parts wait. 2 if left out."""
    address: str | None = None
    """Cluster that runs, such as auto or ray://head:10001; left out: RAY_ADDRESS, or else this machine."""
    part_size: Annotated[int | None, Flag(low=1)] = None
    """Problems or solutions that a worker takes at a time; a worker that dies loses no more. 64 if left out; `score`
    takes multiples of 256."""
    worker_cpus: Annotated[float | None, Flag(low=0.0)] = None
    """Cores that each worker reserves. 1 if left out."""
    worker_gpus: Annotated[float | None, Flag(low=0.0)] = None
    """Accelerators that each worker reserves. 0 if left out."""

    def chosen(self) -> Engine | None:
        """The engine, None where the command's own process does the work.

        Raises:
            InputError: there is no engine that the flags could be of, or a number does not fit.
            UnknownNameError: there is no such engine.
        """
        names = {"workers": "workers", "address": "address", "part_size": "part", "worker_cpus": "cpus",
                 "worker_gpus": "gpus"}  # fmt: skip
        given = {short: value for name, short in names.items() if (value := getattr(self, name)) is not None}
        if given and not self.engine:
            first = next(name for name in names if getattr(self, name) is not None)
            raise InputError(f"--{first.replace('_', '-')} is of an engine", remedy="pass --engine ray, or drop it")
        return RayEngine(**given) if self.engine == "ray" else engine_of(self.engine)


def plain_paths(plan: Mapping[str, Any] | None) -> dict[str, Any]:
    """The plan of a folder as JSON values: paths among its flags are texts."""
    made: dict[str, Any] = json.loads(json.dumps(plan or {}, default=str))
    return made
