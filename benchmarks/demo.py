"""The headline of the demo for five training seeds, on two settings of threads and two sets of problems.

    python -m benchmarks.demo [--quick] [--write]

Runs `stepreward run` on the built-in world twice, in processes of their own: with the default settings on one thread,
and with another seed on two threads, so that its problems, samples and labels are others too. `--write` makes the page
docs/results/demo.md. It fails if, in either run, some training seed does not gain, or all together gain less than 5
points.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from stepreward.pipeline.run_report import percent, points

PAGE = Path(__file__).parents[1] / "docs" / "results" / "demo.md"
SEEDS = 5
LEAST = 0.05
"""Points over the majority that the headline claims."""
RUNS = ((1, 0), (2, 100))
"""Threads and seed of each."""


def run(out: Path, *, threads: int, seed: int, flags: tuple[str, ...]) -> dict[str, Any]:
    """One run of the demo: its summary, and the CPU seconds that it took."""
    command = [sys.executable, "-m", "stepreward", "run", "--json", "--out", str(out), "--seed", str(seed), *flags]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": str(threads)}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed: {done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = sum(getattr(after, name) - getattr(before, name) for name in ("ru_utime", "ru_stime"))
    return {"threads": threads, "cpu_seconds": spent, "summary": json.loads(done.stdout)}


def holds(summary: dict[str, Any]) -> bool:
    """Whether every training seed gains, and all together at least `LEAST` with an interval above 0."""
    headline = summary["evaluate"]["headline"]
    gain = headline["versus_majority"]
    each = all(one["versus_majority"]["low"] > 0 for one in headline["seeds"])
    return bool(each and gain["low"] > 0 and gain["value"] >= LEAST)


HEAD = """# The demo's headline

Written by `python -m benchmarks.demo --write`, which with `--quick` takes fewer problems. Each section is a run of
`stepreward run` on the built-in world, with {seeds} reward models trained on the same labels of {training} problems:
how much the vote of {samples} samples gains over the plain majority of the same samples if each sample weighs as much
as its worst step scores. Intervals are 95 %: of a training seed over the {problems} held-out problems, of all over
training seeds and problems. Runs with different seeds share neither problems nor samples nor labels.

The world is built so that step scores have something to teach: its policy reads problems well and errs by lost carries
(`58 + 27 = 75`). A lost carry depends on the numbers alone, so wrong samples agree and often outvote the right answer,
while rollouts from the step before the slip still reach it. The demo shows that the parts work together; evidence is
[real data](real-data.md).
"""


def page(results: list[dict[str, Any]]) -> str:
    """The page, Markdown."""
    settings = results[0]["summary"]["settings"]
    parts = [
        HEAD.format(
            seeds=settings["seeds"],
            training=settings["train_problems"],
            samples=settings["held_out_samples"],
            problems=settings["held_out_problems"],
        )
    ]
    for made in results:
        summary, threads = made["summary"], made["threads"]
        evaluation = summary["evaluate"]
        headline = evaluation["headline"]
        title = f"Seed {summary['settings']['seed']}, {threads} thread{'s' if threads > 1 else ''}"
        rows = [(str(one["seed"]), one) for one in headline["seeds"]] + [("all", headline)]
        parts += [
            f"## {title}\n",
            f"Majority {percent(evaluation['curves']['majority'][-1])}, oracle "
            f"{percent(evaluation['curves']['oracle'][-1])}. The run took {made['cpu_seconds']:.0f} CPU seconds. "
            f"The headline {'holds' if holds(summary) else 'does not hold for every training seed'}.\n",
            "| training seed | step-weighted vote | points over majority |\n|---|---|---|",
            *(f"| {name} | {percent(one['accuracy'])} | {points(one['versus_majority'])} |" for name, one in rows),
            "",
        ]
    return "\n".join(parts)


def main(*, quick: bool = False) -> list[dict[str, Any]]:
    """Both runs, with fewer problems where quick."""
    flags = ("--seeds", str(SEEDS), *(["--quick"] if quick else []))
    with tempfile.TemporaryDirectory() as folder:
        return [run(Path(folder) / str(seed), threads=threads, seed=seed, flags=flags) for threads, seed in RUNS]


if __name__ == "__main__":
    found = main(quick="--quick" in sys.argv)
    if "--write" in sys.argv:
        PAGE.write_text(page(found), encoding="utf-8")
    print(json.dumps(found, indent=2))
    if not all(holds(made["summary"]) for made in found):
        sys.exit("the headline does not hold")
