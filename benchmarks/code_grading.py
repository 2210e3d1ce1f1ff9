"""The grader of programs on 16,400 public samples: pass@k beside the published one, and programs a second.

    python -m benchmarks.code_grading [--quick] [--write]

`--write` writes docs/results/code-grading.md. The samples are CodeGen-16B-mono's, 100 of each HumanEval problem, from
the repository of CodeT (microsoft/CodeT). Every program runs in a sandbox, its tests in another one.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import need
from stepreward.core.program_text import program_of
from stepreward.formats.problems import problem_of

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data" / "humaneval_samples" / "humaneval_codegen16b_100.jsonl.gz"
PAGE = ROOT / "docs" / "results" / "code-grading.md"
EVERY = 1
PUBLISHED = {"1": 29.28, "10": 49.86, "100": 75.00}
"""CodeGen-mono 16.1B on HumanEval, 200 samples at the best of three temperatures for each k (arXiv:2203.13474)."""
PAGE_TEXT = """# Grading of programs

Written by `python -m benchmarks.code_grading --write`; no number in a table is typed by hand.

{samples:,} samples of CodeGen-16B-mono, {each} of each of {problems} HumanEval problems, by

```
{command}
```

Each program runs in a sandbox without network or files, its tests in another one; a program cannot pass by what it
prints, patches or raises. {ungraded:,} samples could not be graded.

| | pass@1 | pass@10 | pass@100 |
|---|---|---|---|
| these samples, 95 % interval over problems | {own} |
| published, 200 samples at the best temperature for each k | {published} |

The published numbers are of other samples: 200 of each problem, at the temperature that is best for each k.

{rate:.1f} programs a second on {cores} cores ({seconds:,.0f} s in all; {load}). A bare interpreter
that runs a right program with its tests, without any isolation, takes {plain:.0f} ms; programs that do not end run
until their limit of time.
"""


def rows() -> list[dict[str, Any]]:
    """The problems with their samples."""
    with gzip.open(need(DATA), "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file][::EVERY]


def plain_milliseconds(some: list[dict[str, Any]]) -> float:
    """Time of a solution with its tests in an interpreter of its own, as an evaluation without a sandbox does."""
    programs = [
        f"{program_of(problem_of(row, 1), row['canonical_solution'])}\n{row['test']}\ncheck({row['entry_point']})\n"
        for row in some[:40]
    ]
    start = time.perf_counter()
    for program in programs:
        subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    return 1000 * (time.perf_counter() - start) / len(programs)


def main() -> dict[str, Any]:
    """Grades all samples by the command line."""
    problems, before = rows(), os.getloadavg()[0]
    samples = sum(len(row["samples"]) for row in problems)
    with TemporaryDirectory() as folder:
        data = Path(folder) / "samples.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in problems))
        words = ["evaluate", "--data", str(data), "--grader", "unit-tests", "--json"]
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "stepreward", *words], check=True, stdout=subprocess.PIPE, text=True
        )
        seconds = time.perf_counter() - start
    found = json.loads(done.stdout)
    return {
        "command": f"stepreward evaluate --data {DATA.name} --grader unit-tests --json",
        "samples": samples, "problems": len(problems), "each": samples // len(problems),
        "attempts": found["attempts"], "ungraded": found.get("ungraded", 0), "published": PUBLISHED,
        "seconds": seconds, "programs_a_second": samples / seconds,
        "plain_milliseconds": plain_milliseconds(problems),
        "cores": len(os.sched_getaffinity(0)),
        "load": f"load of the machine {before:.1f} before, {os.getloadavg()[0]:.1f} after",
    }  # fmt: skip


def page(found: dict[str, Any]) -> str:
    """The page of the result."""
    passed = found["attempts"]["pass_at"]
    own = [f"{100 * one['value']:.1f} ({100 * one['low']:.1f} to {100 * one['high']:.1f})" for one in passed.values()]
    return PAGE_TEXT.format(
        **{**found, "published": " | ".join(f"{value:.1f}" for value in PUBLISHED.values())}, own=" | ".join(own),
        rate=found["programs_a_second"], plain=found["plain_milliseconds"],
    )  # fmt: skip


if __name__ == "__main__":
    EVERY = 41 if "--quick" in sys.argv else 1
    result = main()
    if "--write" in sys.argv:
        PAGE.write_text(page(result))
    print(json.dumps(result, indent=2))
