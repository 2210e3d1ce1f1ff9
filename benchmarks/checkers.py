"""Step checkers on real solutions whose first errors people marked: what they can say anything of, and how truly.

    python -m benchmarks.checkers [--quick] [--write]

`--write` writes docs/results/checkers.md.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import need
from stepreward import formats
from stepreward.core.measure.step_metrics import harmonic
from stepreward.core.types import Trajectory
from stepreward.verbs.label_rows import label

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"
PAGE = ROOT / "docs" / "results" / "checkers.md"
_OTHERS = ("dyck_languages", "logical_deduction", "tracking_shuffled_objects", "word_sorting")
SETS = {
    "ProcessBench GSM8K": ("processbench/gsm8k.json",),
    "ProcessBench MATH": ("processbench/math.json",),
    "MR-GSM8K": ("mr_gsm8k/mr_gsm8k_wrong_subset.jsonl.gz",),
    "BIG-Bench Mistake, arithmetic": ("bigbench_mistake/multistep_arithmetic.jsonl.gz",),
    "BIG-Bench Mistake, the others": tuple(f"bigbench_mistake/{name}.jsonl.gz" for name in _OTHERS),
}
COLUMNS = ("checker", "coverage", "wrong", "right", "F1", "named", "exact", "false alarm")
CHECKERS = ("equations", "algebra", "equations+algebra")
HEAD = """# Step checkers

Written by `python -m benchmarks.checkers --write`; no number in a table is typed by hand. The labels are those of
`stepreward label --data FILE --estimator checker --set checker=NAME`; a solution has its first error at the first step
labelled 0, and none where no step is. People marked the true first errors.

- *coverage*: share of steps of which the checker says anything.
- *wrong*, *right*: first-error accuracy on solutions with an error (the very step must be named) and without one
  (nothing may be called wrong); *F1* is their harmonic mean, as in ProcessBench.
- *named*: solutions in which it calls a step wrong; *exact*: share of those where that is the step that people marked;
  *false alarm*: share where people found no error up to and with that step.
"""
ADDED = """## What algebra adds

On ProcessBench MATH the checker of algebra, beside the one of equations, says something of {covered} % of the
steps in place of {before} %, and names the first error of {exact} % of the wrong solutions in place of
{exact_before} %. The first wrong steps of its {named} solutions by kind: {kinds}.
So letters mostly show what is right; what they show to be wrong is rare. On word
problems in plain text it adds next to nothing. No checker finds a wrong approach, which most first errors are: such
labels are for joining with others (a step that is false for sure), not for use alone."""


def solutions(name: str) -> list[Trajectory]:
    """Solutions of a set whose first error is stated."""
    read = chain.from_iterable(formats.read(need(DATA / file), strict=True) for file in SETS[name])
    return [one for one in read if isinstance(one, Trajectory) and one.first_error is not None]


def measured(rows: Sequence[Trajectory], checker: str) -> dict[str, Any]:
    """Shares of a checker's labels that agree with the stated first errors."""
    start = time.perf_counter()
    made = label(rows, method="checker", checker=checker, transform="soft")
    seconds = time.perf_counter() - start
    gold = np.array([one.first_error for one in rows])
    found = np.array([-1 if one.first_error is None else one.first_error for one in made])
    known = np.concatenate([~np.isnan(one.labels[one.action]) for one in made])
    wrong, right = (float(np.mean((found == gold)[part])) if part.any() else np.nan for part in (gold >= 0, gold < 0))
    named = found >= 0
    early = named & ((gold < 0) | (found < gold))
    kinds = Counter(one.facts["step_errors"][0]["kind"] for one in made if one.facts["step_errors"])
    return {
        "solutions": len(rows), "steps": len(known), "coverage": float(known.mean()), "wrong": wrong, "right": right,
        "f1": float(harmonic(wrong, right)), "named": int(named.sum()),
        "exact": float(np.mean((found == gold)[named])) if named.any() else None,
        "false_alarm": float(np.mean(early[named])) if named.any() else None,
        "kinds": dict(kinds), "milliseconds_a_step": 1000 * seconds / max(len(known), 1),
    }  # fmt: skip


def percent(share: float | None) -> str:
    """A share as text; a dash where there is none."""
    return "-" if share is None or np.isnan(share) else f"{100 * share:.1f}"


def page(found: dict[str, dict[str, Any]]) -> str:
    """The page of all results."""
    lines = [HEAD]
    for name, by in found.items():
        first = next(iter(by.values()))
        files = ", ".join(f"`{file}`" for file in SETS[name])
        lines += [f"## {name}", "", f"{files}: {first['solutions']:,} solutions, {first['steps']:,} steps.", ""]
        lines += [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
        for checker, one in by.items():
            shares = [percent(one[part]) for part in ("coverage", "wrong", "right", "f1")]
            rest = [f"{one['named']:,}", percent(one["exact"]), percent(one["false_alarm"])]
            lines.append(f"| {' | '.join([checker, *shares, *rest])} |")
        lines.append("")
    alone, joined = (found["ProcessBench MATH"][name] for name in ("equations", "equations+algebra"))
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(joined["kinds"].items()))
    lines += [
        ADDED.format(
            covered=percent(joined["coverage"]), before=percent(alone["coverage"]), exact=percent(joined["wrong"]),
            exact_before=percent(alone["wrong"]), named=joined["named"], kinds=kinds,
        ), "",
    ]  # fmt: skip
    return "\n".join(lines).rstrip("\n") + "\n"


def main(arguments: Sequence[str]) -> int:
    """Measures every checker on every set."""
    found: dict[str, dict[str, Any]] = {}
    for name in SETS:
        rows = solutions(name)[: 20 if "--quick" in arguments else None]
        found[name] = {checker: measured(rows, checker) for checker in CHECKERS}
    if "--write" in arguments:
        PAGE.write_text(page(found))
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
