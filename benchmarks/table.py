"""Steps in bulk: `convert`, `score` and `evaluate` on a generated table, their speed, and their peak memory.

    python -m benchmarks.table [--steps 10000000] [--quick] [--write]

A generated file of JSON lines, ten steps a row, a twentieth of them wrong, becomes Parquet (`convert`), gets the scores
of `tool` (`score`) and is measured (`evaluate`), each by the command in a process of its own. Beside them, in the same
run, pyarrow reads the converted file: as columns, and as rows of Python objects, which every verb needs. Ratios are of
CPU seconds, which other work on the machine changes little. Peak memory is shown for a tenth of the steps too: where it
is bounded both are the same.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

STEPS_OF_A_ROW = 10
PAGE = Path(__file__).parents[1] / "docs" / "results" / "table.md"
READ = """
import sys
import pyarrow.parquet as pq
for batch in pq.ParquetFile(sys.argv[1]).iter_batches(batch_size=4096):
    {}
"""
READERS = {"pyarrow, columns": READ.format("batch"), "pyarrow, Python rows": READ.format("batch.to_pylist()")}
BASE = "pyarrow, Python rows"


@dataclass(frozen=True)
class Cost:
    """What a process took."""

    cpu_seconds: float
    peak_megabytes: float


def row(index: int) -> dict[str, Any]:
    """A labelled solution of ten steps; every second one is wrong at one step."""
    first_error = index % (2 * STEPS_OF_A_ROW) if index % (2 * STEPS_OF_A_ROW) < STEPS_OF_A_ROW else -1
    numbers = [(index % 9973 + 7 * at, index % 13 + at) for at in range(STEPS_OF_A_ROW)]
    return {
        "schema": "stepreward/trajectories/1",
        "problem": f"p{index // 4}",
        "prompt": f"Kai has {index % 9973} nuts and finds more, ten times. How many nuts does Kai have now?",
        "reference": str(index % 9973),
        "steps": [{"text": f"Kai then has {a} + {b} = {a + b + (at == first_error)} nuts.\n"}
                  for at, (a, b) in enumerate(numbers)],
        "outcome": float(first_error < 0),
        "first_error": first_error,
        "label": [float(first_error < 0 or at < first_error) for at in range(STEPS_OF_A_ROW)],
    }  # fmt: skip


def cost(words: Sequence[str], out: Path) -> Cost:
    """Runs a program to its end.

    Raises:
        SystemExit: it failed.
    """
    child = os.posix_spawn(
        sys.executable, [sys.executable, *words], os.environ,
        file_actions=[(os.POSIX_SPAWN_OPEN, 1, str(out), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)],
    )  # fmt: skip
    _, status, used = os.wait4(child, 0)
    if status:
        raise SystemExit(f"{' '.join(words[:4])} ended with status {os.waitstatus_to_exitcode(status)}")
    return Cost(round(used.ru_utime + used.ru_stime, 2), round(used.ru_maxrss / 1024, 1))


def costs(steps: int, folder: Path) -> dict[str, Cost]:
    """The cost of each verb and reader on so many steps."""
    lines, table, scored, out = (folder / name for name in ("rows.jsonl", "table.parquet", "scored.parquet", "out"))
    with lines.open("w") as file:
        for index in range(steps // STEPS_OF_A_ROW):
            file.write(json.dumps(row(index)) + "\n")
    verb = ["-m", "stepreward"]
    made = {
        "convert": cost([*verb, "convert", str(lines), str(table), "--json"], out),
        "score": cost([*verb, "score", "--model", "tool", "--data", str(table), "--out", str(scored)], out),
        "evaluate": cost([*verb, "evaluate", "--data", str(scored), "--threshold", "0.5", "--json"], out),
    }
    found = json.loads(out.read_text())["scorers"]["score"]["first_error"]["f1"]["value"]
    if found != 1.0:
        raise SystemExit(f"evaluate found an F1 of {found}: each wrong step is wrong arithmetic, which tool finds")
    return made | {name: cost(["-c", code, str(table)], out) for name, code in READERS.items()}


def page(steps: int, large: dict[str, Cost], small: dict[str, Cost]) -> str:
    """The page of results."""
    rows, base = steps // STEPS_OF_A_ROW, large[BASE].cpu_seconds
    more = large["evaluate"].peak_megabytes - small["evaluate"].peak_megabytes
    a_row = more * 1e6 / (0.9 * rows)
    body = "\n".join(
        f"| {name} | {one.cpu_seconds:,.1f} | {rows / one.cpu_seconds:,.0f} | {one.cpu_seconds / base:.1f} | "
        f"{small[name].peak_megabytes:,.0f} | {one.peak_megabytes:,.0f} |"
        for name, one in large.items()
    )
    return f"""# The table in bulk

Written by `python -m benchmarks.table --steps {steps} --write`; no number in a table is typed by hand.
{steps:,} generated steps, {STEPS_OF_A_ROW} a row: `convert` from JSON lines to Parquet, `score --model tool --out`,
`evaluate` of the recorded scores. Each is the command in a process of its own, start and imports included. Ratios are
of CPU seconds, to reading the same Parquet file into Python rows by pyarrow in the same run. The machine had other
work, so that speeds are lower than on a quiet one.

| what | CPU seconds | rows a CPU second | ratio | peak MB, a tenth of the steps | peak MB |
|---|---|---|---|---|---|
{body}

`convert` and `score` stream: a few thousand rows are in memory at a time. `evaluate` has the texts of 4,096 rows at a
time, and keeps arrays of the numbers of every row: 4 or 8 bytes a step for each column of scores or labels, some 40
bytes for the rest of a row. Its peak grew by {a_row:,.0f} bytes a row from the smaller table to the larger one.
"""


def main() -> None:
    """Measures, prints JSON, and writes the page where wanted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200_000)
    parser.add_argument("--quick", action="store_true", help="20,000 steps")
    parser.add_argument("--write", action="store_true", help="write the page of results")
    flags = parser.parse_args()
    steps = 20_000 if flags.quick else flags.steps
    with tempfile.TemporaryDirectory() as small, tempfile.TemporaryDirectory() as large:
        few, many = costs(steps // 10, Path(small)), costs(steps, Path(large))
    if flags.write:
        PAGE.write_text(page(steps, many, few))
    base, rows = many[BASE].cpu_seconds, steps // STEPS_OF_A_ROW
    print(
        json.dumps(
            {
                name: asdict(one)
                | {"rows_per_second": round(rows / one.cpu_seconds), "ratio": round(one.cpu_seconds / base, 2)}
                | {"peak_megabytes_of_a_tenth": few[name].peak_megabytes}
                for name, one in many.items()
            }
            | {"steps": steps},
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
