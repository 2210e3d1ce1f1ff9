"""Every search that needs a policy and step scores alone, side by side on the built-in world at several budgets.

    python -m benchmarks.searches [--quick] [--write]

Needs the reward model of `make demo`, in runs/demo/model. What was answered is kept in runs/searches: a run goes on
where it was stopped, and a search added later is paid for alone. `--write` writes docs/results/search.md.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks import need
from benchmarks.real_data_page import Row, number, points, table
from stepreward.pipeline.compare import REFERENCE, comparable, compare, verdict
from stepreward.policies.local import LocalPolicy
from stepreward.score.discriminative import DiscriminativeScorer
from stepreward.tasks.arithmetic import generate
from stepreward.tasks.arithmetic_truth import ArithmeticGrader

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "runs" / "demo" / "model"
PAGE = ROOT / "docs" / "results" / "search.md"
PROBLEMS, BUDGETS = 200, (4, 8, 16)
CACHE = "1GiB"
AGGREGATE = "min"
"""Of all searches that have a total: what is compared is searches, not totals."""
SETTINGS: dict[str, dict[str, Any]] = {"early-rejection": {"tokens": 4}, "ets": {"coverage": 0.0}}
"""Steps here have some nine tokens: a start must be shorter. Each has its numbers, a meaning of its own to `ets`."""
HEAD = """# Searches

Written by `python -m benchmarks.searches --write`; no number in a table is typed by hand.

{problems} held-out problems of the built-in world, its policy, and the reward model that `make demo` trained on one
machine (training is not equal to the last bit between machines, so other models give other digits). A budget is
a number of solutions, samples of a step, or walks, as each search declares; what that costs differs between searches,
so each is held against **weighted best-of-n** (`{reference}`) *at equal generated tokens*: its accuracy between two of
its runs lies on the line between them. Intervals are 95 % bootstrap over problems, paired where they are of
differences, and not corrected for
{searches} searches: of so many, some would seem to win or lose by chance alone. Tokens are those of a problem; scored
tokens count each shared prefix once. A solution's total is the `{aggregate}` of its step scores in every search that
has one. Settings beside the plan of `stepreward search --compare`: {settings}.

{said}

A perfect choice among {k} samples would be right in {bound:.1f} % (pass@{k}).
"""


def _said(results: Row) -> str:
    """Which searches beat the reference and which lose, by budgets; and which do worse the more they spend."""
    made = []
    for what, word in (("beats", "beat"), ("loses to", "lose to")):
        budgets: dict[str, list[str]] = {}
        for point in results["points"]:
            if verdict(point["gain"]) == what:
                budgets.setdefault(point["algorithm"], []).append(f"{point['budget']:g}")
        count = sum(map(len, budgets.values()))
        listed = "; ".join(f"`{name}` at {', '.join(at)}" for name, at in budgets.items())
        made.append(
            f"**{count} of {len(results['points'])} runs {word}** `{REFERENCE}`" + (f": {listed}." if listed else ".")
        )
    worse = [(a, b) for a, b in _first_and_last(results) if b["accuracy"]["high"] < a["accuracy"]["low"]]
    falls = "; ".join(
        f"`{a['algorithm']}` from {100 * a['accuracy']['value']:.1f} to {100 * b['accuracy']['value']:.1f} %"
        for a, b in worse
    )
    if falls:
        why = "for what maximises a score finds where it errs"
        made.append(f"**Worse the more they spend**, beyond both intervals, {why}: {falls}.")
    return "\n\n".join(made)


def _first_and_last(results: Row) -> list[tuple[Row, Row]]:
    """Each search at its smallest and at its largest budget."""
    by: dict[str, list[Row]] = {}
    for point in results["points"]:
        by.setdefault(point["algorithm"], []).append(point)
    return [(min(rows, key=_budget), max(rows, key=_budget)) for rows in by.values()]


def _budget(point: Row) -> float:
    return float(point["budget"])


def page(results: Row) -> str:
    """The page, Markdown."""
    bound = results["oracle"][-1]
    own = [f"`{name}.{k}={v}`" for name, some in results["settings"].items() for k, v in some.items()]
    head = HEAD.format(
        problems=results["problems"], reference=REFERENCE, searches=len(_first_and_last(results)), said=_said(results),
        aggregate=results["aggregate"], settings=", ".join(own), k=bound["k"], bound=100 * bound["pass_at_k"],
    )  # fmt: skip
    rows = [
        [
            f"`{point['algorithm']}`", f"{point['budget']:g}", f"{point['cost']['value']:,.0f}",
            f"{point['scored_tokens']:,.0f}", number(point["accuracy"]),
            "" if point["gain"] is None or point["gain"]["value"] is None else points(point["gain"]),
            "" if point["algorithm"] == REFERENCE else verdict(point["gain"]), "front" if point["on_front"] else "",
        ]
        for point in results["points"]
    ]  # fmt: skip
    columns = [
        "search", "budget", "generated tokens", "scored tokens", "accuracy %", f"points over {REFERENCE}", "", "Pareto",
    ]  # fmt: skip
    return f"{head}\n{table(columns, rows)}"


def main(problems: int, budgets: tuple[int, ...], methods: tuple[str, ...], out: Path) -> dict[str, Any]:
    """The comparison's summary."""

    def tell(_: str, done: int, total: int, what: str) -> None:
        print(f"{done}/{total} {what}", file=sys.stderr)

    return compare(
        list(generate("held_out", problems)), out, policy=LocalPolicy.load("builtin:arithmetic", device="cpu"),
        scorer=DiscriminativeScorer.load(MODEL, cache_bytes=CACHE), grader=ArithmeticGrader(), methods=methods,
        budgets=budgets, aggregate=AGGREGATE, settings=SETTINGS, on_progress=tell,
    )  # fmt: skip


if __name__ == "__main__":
    need(MODEL)
    quick = "--quick" in sys.argv
    out = ROOT / "runs" / ("searches-quick" if quick else "searches")
    results = main(4, (4,), ("beam", "majority"), out) if quick else main(PROBLEMS, BUDGETS, tuple(comparable()), out)
    sys.stdout.write(json.dumps(results, indent=1) + "\n")
    if "--write" in sys.argv and not quick:
        PAGE.write_text(page(results))
