"""Parts by Ray workers: what two buy over one, what a part costs, and where a simulation of many more saturates.

    python -m benchmarks.scale [--quick] [--write]

`--write` writes docs/results/scale.md.
"""

from __future__ import annotations

import heapq
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks import SKIPPED
from stepreward.connect.ray_engine import RayEngine
from stepreward.core.runtime.flows import Continuation, Policy, Propose
from stepreward.core.runtime.made_in_parts import MadePart, PartItems, make_parts
from stepreward.core.runtime.spending import Budget
from stepreward.core.types import Problem, Trajectory
from stepreward.label.many_problems import LabelPlan
from stepreward.policies.named import policy_at
from stepreward.tasks.arithmetic import generate
from stepreward.tasks.graders import grader_by_name
from stepreward.verbs.label_rows import LabelPart

PAGE = Path(__file__).parents[1] / "docs" / "results" / "scale.md"
PROBLEMS = 10_000_000
PART = 64
WORKERS = (10, 100, 300, 1000, 3000, 10_000)
SLOWER = (1, 10)
"""Times the measured seconds of a part, in the simulation."""
LIFE, AGAIN = 24 * 3600.0, 60.0
"""Mean seconds until a simulated worker dies, and until another one has loaded its models."""


@dataclass
class Far:
    """The built-in policy behind a wait of so many seconds for each batch, as for a server's answer."""

    wait: float
    batch_size: int = 64
    concurrency: int = 1
    inner: Policy | None = None
    name: str = "far"

    def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
        """Answers after the wait."""
        time.sleep(self.wait)
        assert self.inner is not None
        return self.inner.propose(questions)


@dataclass(frozen=True)
class Loads:
    """Makes the policy where it is called."""

    wait: float = 0.0

    def __call__(self) -> Policy:
        """The policy."""
        built = policy_at("builtin:arithmetic")
        return Far(self.wait, inner=built) if self.wait else built


@dataclass(frozen=True)
class Grades:
    """Makes the grader where it is called."""

    def __call__(self) -> Any:
        """The grader."""
        return grader_by_name("arithmetic")


@dataclass(frozen=True)
class Timed:
    """Notes the seconds of each part beside what is made."""

    part: LabelPart

    def __call__(self) -> Callable[[PartItems], tuple[MadePart, float]]:
        """What makes a part."""
        work = self.part()

        def made(items: PartItems) -> tuple[MadePart, float]:
            start = time.perf_counter()
            return work(items), time.perf_counter() - start

        return made


@dataclass(frozen=True)
class Echo:
    """Answers each part with the same rows at once: what is left is the cost of parts."""

    rows: list[Trajectory]

    def __call__(self) -> Callable[[list[Problem]], MadePart]:
        """What makes a part."""
        return lambda items: MadePart(self.rows)


def parts_of(problems: Sequence[Problem], size: int) -> list[PartItems]:
    """Consecutive problems."""
    return [PartItems(problems[at : at + size]) for at in range(0, len(problems), size)]


def labelled(wait: float, count: int, parts: Sequence[PartItems], samples: int) -> dict[str, Any]:
    """Seconds that so many workers take for parts, their models loaded, and those of each part."""
    part = LabelPart(LabelPlan("bisection", {"n": 8}, 0, Budget()), samples, Grades(), Loads(wait))
    start = time.perf_counter()
    with RayEngine(workers=str(count)).open(Timed(part)) as workers:
        # Models are loaded with the first part of each.
        warm = [PartItems(parts[0][:1])] * (2 * count)
        list(workers.made(warm))
        begun = time.perf_counter()
        each = [seconds for _, (_, seconds) in workers.made(parts)]
        wall = time.perf_counter() - begun
    return {"workers": count, "start": begun - start, "seconds": wall, "parts": len(parts), "each": each}


def overhead(rows: list[Trajectory], parts: int) -> dict[str, float]:
    """Seconds of the driver for each part, from its name to its file: by the clock, and of cores."""
    problems = [*generate("train", PART)]
    many = (replace(one, id=f"{one.id}-{i}") for i in range(parts) for one in problems)
    with TemporaryDirectory() as folder:
        marks = list[tuple[float, float]]()
        make_parts(
            Path(folder), "labels", many, Echo(rows), RayEngine(part=PART), {},
            on_part=lambda done, so_far: marks.append((time.perf_counter(), time.process_time())),
        )  # fmt: skip
        size = sum(path.stat().st_size for path in Path(folder).glob("*.parquet")) / parts
    skipped = max(parts // 10, 1)
    wall, cores = (np.subtract(marks[-1], marks[skipped]) / (len(marks) - 1 - skipped)).tolist()
    return {"wall": wall, "cores": cores, "bytes": size, "rows": len(rows)}


def simulated(workers: int, parts: int, each: Sequence[float], driver: float, seed: int = 0) -> dict[str, float]:
    """Hours and shares of a run of many workers under one driver, event by event.

    A worker that is free waits for the driver, which serves one at a time, `driver` seconds a part; then it works on
    the part for seconds drawn from `each`. It may die over it, at a rate of 1/`LIFE`; then the part is made again.
    """
    draws = np.random.default_rng(seed)
    tries = iter(
        zip(draws.choice(each, 2 * parts + 100).tolist(), draws.exponential(LIFE, 2 * parts + 100), strict=True)
    )
    free = [(0.0, number) for number in range(workers)]
    heapq.heapify(free)
    clock, left, busy, last, died = 0.0, parts, 0.0, 0.0, 0
    while left:
        ready, number = heapq.heappop(free)
        clock = max(clock, ready) + driver
        seconds, life = next(tries)
        if life < seconds:
            died += 1
            heapq.heappush(free, (clock + life + AGAIN, number))
            continue
        left -= 1
        busy += seconds
        last = max(last, clock + seconds)
        heapq.heappush(free, (clock + seconds, number))
    return {
        "hours": last / 3600, "efficiency": busy / (workers * last), "driver": parts * driver / last, "died": died,
        "problems_per_second": parts * PART / last,
    }  # fmt: skip


HEAD = """# Many workers

Written by `python -m benchmarks.scale --write`; no number in a table is typed by hand. `label --estimator bisection`
with 8 rollouts a prefix, {samples} solutions of each problem by the built-in policy, in parts of {problems_a_part}
problems, by Ray workers on this machine: {cores} cores, load average {load:.1f} at the end.
Models are loaded before the clock starts.

## Two workers against one

*On the cores*: the policy computes here. *Behind a wait*: each batch waits 0.2 s first, as for a server. Efficiency is
the seconds of one worker over twice those of two.

| policy | workers | start, s | parts | seconds | efficiency |
|---|---|---|---|---|---|
"""
CROWDED = """**The cores were held by others**: more processes ran than twice the cores, so that a second worker that
computes took its time from the first. These efficiencies are a lower bound, and the milliseconds below an upper one."""
DRIVER = """
## What a part costs the driver

Parts of {part} problems with {rows:,} labelled rows each, {kilobytes:.0f} KB of Parquet, whose workers answer at once:
the driver names a part by the digest of its items, hands it out, takes its rows and writes them to the disk.
**{wall:.1f} ms a part** by the clock, {cores:.1f} ms of the driver's process with all of its threads. {part} problems
take a worker {each:.1f} s as above: the driver is {share:.2%} of that.

## 1,000 workers and {problems:,} problems

A simulation, event by event, of one driver that serves one worker at a time with the milliseconds above, and of workers
whose parts take seconds drawn from the {measured} measured ones (*times 1*), or as many times more, as with larger
models. A worker dies once in {life:.0f} hours on average; its part is made again, and another worker is there a minute
later. *Efficiency* is the share of all workers' time that went into parts that were kept.

| part, times | workers | hours | problems a second | efficiency | driver busy | parts lost |
|---|---|---|---|---|---|---|
"""
TAIL = """
The driver saturates where workers take parts faster than it serves them: at {knee:,.0f} workers for times 1, and at
{slower} times as many for times {slower}. Beyond that more workers change nothing. Below it, what is lost is the end,
where the last parts are waited for, and the parts of workers that died.

What the simulation leaves out: the network between machines, a store of objects that is full, and servers that become
slower under load. It was not held against a cluster. Of the runs above it says
{check}.
"""


def page(found: dict[str, Any]) -> str:
    """The page of all results."""
    lines = [HEAD.format(**found).rstrip("\n")]
    for name, (one, two) in found["runs"].items():
        for run in (one, two):
            share = one["seconds"] / (run["workers"] * run["seconds"])
            numbers = f"{run['workers']} | {run['start']:.1f} | {run['parts']} | {run['seconds']:.1f} | {share:.0%}"
            lines.append(f"| {name} | {numbers} |")
    if found["load"] > 2 * found["cores"]:
        lines += ["", CROWDED]
    driver, mean = found["driver"], float(np.mean(found["part_seconds"]))
    lines.append(
        DRIVER.format(
            part=PART, rows=driver["rows"], kilobytes=driver["bytes"] / 1024, wall=1000 * driver["wall"],
            cores=1000 * driver["cores"], each=mean, share=driver["wall"] / mean, problems=found["problems"],
            measured=len(found["part_seconds"]), life=LIFE / 3600,
        ).rstrip("\n")
    )  # fmt: skip
    for run in found["simulations"]:
        shares = f"{run['problems_per_second']:,.0f} | {run['efficiency']:.1%} | {run['driver']:.1%}"
        lines.append(f"| {run['slower']} | {run['workers']:,} | {run['hours']:,.2f} | {shares} | {run['died']:,} |")
    lines.append(TAIL.format(knee=mean / driver["wall"], slower=SLOWER[-1], check=checked(found)))
    return "\n".join(lines).rstrip("\n") + "\n"


def checked(found: dict[str, Any]) -> str:
    """What the simulation says of the runs behind a wait, beside what was measured."""
    said = []
    for run in found["runs"]["behind a wait"]:
        made = simulated(run["workers"], run["parts"], run["each"], found["driver"]["wall"])
        said.append(f"{3600 * made['hours']:.1f} s for {run['workers']} worker{'s' * (run['workers'] > 1)}")
    return f"{' and '.join(said)} behind a wait"


def main(arguments: Sequence[str]) -> int:
    """Measures and simulates."""
    if importlib.util.find_spec("ray") is None:
        print("Ray is not installed: pip install 'stepreward[ray]'", file=sys.stderr)
        return SKIPPED
    quick = "--quick" in arguments
    size, count, samples = (2, 4, 2) if quick else (8, 6, 4)
    parts = parts_of([*generate("train", size * count)], size)
    cases = {"on the cores": 0.0, "behind a wait": 0.2}
    runs = {name: [labelled(wait, n, parts, samples) for n in (1, 2)] for name, wait in cases.items()}
    with RayEngine(workers="1").open(
        LabelPart(LabelPlan("bisection", {"n": 8}, 0, Budget()), samples, Grades(), Loads())
    ) as one:
        ((_, sample),) = one.made(parts_of([*generate("train", 4 if quick else 16)], PART))
    cost = overhead(sample.rows, 10 if quick else 60)
    # A part of PART problems, from parts of `size`.
    each = [PART / size * seconds for seconds in runs["on the cores"][0]["each"]]
    problems = PROBLEMS // 1000 if quick else PROBLEMS
    simulations = [
        {"slower": slower, "workers": n, **simulated(n, -(-problems // PART), [slower * s for s in each], cost["wall"])}
        for slower in SLOWER for n in WORKERS
    ]  # fmt: skip
    found = {
        "cores": os.cpu_count(), "load": os.getloadavg()[0], "problems_a_part": size, "samples": samples, "runs": runs,
        "driver": cost, "part_seconds": each, "problems": problems, "simulations": simulations,
    }  # fmt: skip
    if "--write" in arguments:
        PAGE.write_text(page(found))
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
