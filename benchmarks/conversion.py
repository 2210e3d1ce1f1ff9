"""Conversion of labelled steps: rows a second beside a `datasets` map, and peak memory on a file far over a limit.

    python -m benchmarks.conversion [--rows 100000] [--megabytes 640] [--limit 256] [--quick]

Speed: a generated file of Math-Shepherd rows becomes TRL rows in three ways, in turns, each in a process of its own
that times the work alone, without imports: `stepreward.formats`, which checks every row; `datasets` (load, map and
to_json, with an empty cache), where it is installed; and a plain loop of json. All three must write the same rows.
Memory: files of two sizes are converted under a hard limit on the process's data, which the larger one exceeds.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from stepreward import formats
from stepreward.core.files.row_files import write_rows

REPEATS = 3
TAG = "ки"
PIPES = {"jsonl": "in.jsonl", "json array": "in.json", "parquet": "in.parquet"}


def row(index: int) -> dict[str, Any]:
    """A Math-Shepherd row of 3 to 8 steps, as long as the published ones are."""
    question = f"Janet has {index} ducks that lay 16 eggs a day each. She eats three. How many dollars does she make?"
    steps = [
        f"Step {i}: Janet sells {index * i} eggs at the farmers' market for $ {i} each, so she makes {index * i * i}."
        for i in range(1, 4 + index % 6)
    ]
    signs = ["-" if (index + i) % 5 == 0 else "+" for i in range(len(steps))]
    return {
        "input": f"{question} " + "\n".join(f"{step} {TAG}" for step in steps),
        "label": f"{question} " + "\n".join(f"{step} {sign}" for step, sign in zip(steps, signs, strict=True)),
        "task": "GSM8K",
    }


def plain(source: dict[str, Any]) -> dict[str, Any]:
    """The same row as TRL's, by the shortest code that is right on this file."""
    first, *rest = source["input"].split(f" {TAG}")[:-1]
    question, mark, text = first.partition(" Step 1:")
    steps = [mark.strip() + text, *(step.removeprefix("\n") for step in rest)]
    labels = [line[-1] == "+" for line in source["label"].split("\n")]
    return {"prompt": question, "completions": steps, "labels": labels}


def by_stepreward(source: Path, out: Path) -> None:
    """Converts with checks."""
    refused = formats.write(out, formats.read(source, "math-shepherd"), "trl")
    assert not refused


def by_loop(source: Path, out: Path) -> None:
    """Converts line by line."""
    with source.open(encoding="utf-8") as lines, out.open("w", encoding="utf-8") as made:
        for line in lines:
            made.write(json.dumps(plain(json.loads(line)), ensure_ascii=False) + "\n")


def by_datasets(source: Path, out: Path) -> None:
    """Converts with `datasets` in one process, with nothing cached from before."""
    datasets = import_module("datasets")
    datasets.disable_progress_bars()
    cache = str(source.parent / f"cache-{time.time_ns()}")
    loaded = datasets.load_dataset("json", data_files=str(source), split="train", cache_dir=cache)
    loaded.map(plain, remove_columns=loaded.column_names).to_json(out, force_ascii=False)


WAYS: dict[str, Callable[[Path, Path], None]] = {"stepreward": by_stepreward, "datasets": by_datasets, "loop": by_loop}


def work(way: str, source: Path, out: Path, limit: int) -> dict[str, float]:
    """Runs one way in this process; seconds of the work and peak resident memory."""
    if limit:
        resource.setrlimit(resource.RLIMIT_DATA, (limit << 20, limit << 20))
    if way == "datasets":
        import_module("datasets")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start = time.perf_counter()
    WAYS[way](source, out)
    seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "megabytes_before": before,
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def apart(way: str, source: Path, out: Path, limit: int = 0) -> dict[str, float]:
    """`work` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.conversion", "--work", way, str(source), str(out), str(limit)]
    # Arrow's own allocator reserves a gigabyte of addresses, which a limit on data counts.
    environment = {**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system"} if limit else None
    where = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{way} on {source.name} failed: {(done.stderr.strip().splitlines() or ['killed'])[-1]}")
    made: dict[str, float] = json.loads(done.stdout)
    return made


def same_rows(paths: list[Path]) -> None:
    """Ends the benchmark if two files hold different rows."""
    opened = [map(json.loads, path.open(encoding="utf-8")) for path in paths]
    for rows in zip(*opened, strict=True):
        if any(one != rows[0] for one in rows):
            raise SystemExit(f"the ways differ: {rows}")


def speed(folder: Path, rows: int) -> dict[str, Any]:
    """Rows a second of every way and their ratios, the median of turns."""
    source = folder / "speed.jsonl"
    write_rows(source, map(row, range(rows)))
    ways = [way for way in WAYS if way != "datasets" or find_spec("datasets")]
    outs = {way: folder / f"{way}.jsonl" for way in ways}
    turns = [{way: apart(way, source, outs[way])["seconds"] for way in ways} for _ in range(REPEATS)]
    same_rows(list(outs.values()))
    return {
        "rows": rows,
        "megabytes": source.stat().st_size / 2**20,
        "rows_per_second": {way: rows / statistics.median(turn[way] for turn in turns) for way in ways},
        "stepreward_over": {
            way: statistics.median(turn[way] / turn["stepreward"] for turn in turns) for way in ways[1:]
        },
    }


def endless(megabytes: float) -> Iterator[dict[str, Any]]:
    """Rows that fill about so many megabytes as JSON lines."""
    one = len(json.dumps(row(2), ensure_ascii=False).encode()) + 150
    return map(row, range(int(megabytes * 2**20 / one)))


def memory(folder: Path, megabytes: int, limit: int) -> dict[str, Any]:
    """Peak memory on a file of an eighth of the size and of the size, in each container, under the limit."""
    made: dict[str, Any] = {"limit_megabytes": limit}
    for name, file in PIPES.items():
        sizes = []
        for size in (megabytes / 8, megabytes):
            source, out = folder / file, folder / f"out{Path(file).suffix}"
            write_rows(source, endless(size))
            written = source.stat().st_size / 2**20
            sizes.append({"file_megabytes": written, **apart("stepreward", source, out, limit)})
            source.unlink()
            out.unlink()
        small, large = sizes
        made[name] = {
            "file_megabytes": large["file_megabytes"],
            "peak_megabytes": large["megabytes"],
            "grown_over_eight_times_smaller": large["megabytes"] - small["megabytes"],
        }
    return made


def main() -> None:
    """Prints the results as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--megabytes", type=int, default=640, help="size of the large file as JSON lines")
    parser.add_argument("--limit", type=int, default=256, help="megabytes of data that the process may have")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it runs")
    parser.add_argument("--work", nargs=4, metavar=("WAY", "SOURCE", "OUT", "LIMIT"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.work:
        way, source, out, limit = asked.work
        print(json.dumps(work(way, Path(source), Path(out), int(limit))))
        return
    rows, megabytes = (2_000, 16) if asked.quick else (asked.rows, asked.megabytes)
    with tempfile.TemporaryDirectory() as folder:
        print(
            json.dumps(
                {"speed": speed(Path(folder), rows), "memory": memory(Path(folder), megabytes, asked.limit)}, indent=1
            )
        )


if __name__ == "__main__":
    main()
