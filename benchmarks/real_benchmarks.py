"""Public benchmarks on real data: recorded verifiers, and scorers that need no weights, by each benchmark's protocol.

    python -m benchmarks.real_benchmarks [--quick] [--write]

`--write` puts the tables into docs/results/benchmarks.md.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import SKIPPED
from stepreward.cli.benchmark import measure, published_line
from stepreward.core.errors import InputError

DATA = Path(__file__).parents[2] / "shared" / "data"
PAGE = Path(__file__).parents[1] / "docs" / "results" / "benchmarks.md"
PLAIN = ("tool", "length", "random")
"""Beside `position`, which every benchmark of steps adds by itself."""


@dataclass(frozen=True)
class Run:
    """One command of the page."""

    benchmark: str
    data: str
    """File or folder below the public data."""
    scorers: tuple[str, ...]
    """All recorded ones where empty."""
    metrics: tuple[str, ...]
    """Columns of the table."""
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def command(self) -> str:
        """What a user types for the same numbers."""
        named = "".join(f" --scorer {name}" for name in self.scorers)
        set_ = "".join(f" --set {name}={value}" for name, value in self.settings.items())
        return f"stepreward evaluate --benchmark {self.benchmark} --data {self.data}{named}{set_}"


FIRST = ("average_f1", "erroneous", "correct")
CHOICE = ("best_of_n", "weighted_vote", "majority", "one_sample", "pass_at_n", "best_of_n_gain")
POOL = "bon_pools/gsm8k_scores.jsonl.gz"
CALIBRATION = ("brier", "positive_brier", "ece", "adaptive_ece", "auroc")
RUNS: tuple[Run, ...] = (
    Run("process-bench", "processbench", PLAIN, FIRST, {"threshold": 0.5}),
    Run("process-bench", "processbench_prm_scores", (), FIRST, {"threshold": 0.5}),
    Run("prm-bench", "prmbench/prmbench.jsonl.gz", PLAIN, ("prm_score", "simplicity", "soundness", "sensitivity")),
    Run("mr-score", "mr_gsm8k", PLAIN, ("mr_score", "mcc", "step_accuracy")),
    Run("mr-score", "mr_ben", PLAIN, ("mr_score", "mcc", "step_accuracy")),
    Run("first-error-accuracy", "bigbench_mistake", PLAIN, ("accuracy", "erroneous", "correct")),
    Run("hard2verify", "prm800k", PLAIN, ("balanced_f1", "response_balanced_f1", "error_id_balanced_f1")),
    Run("reason-eval", "prm800k", PLAIN, ("step_f1", "solution_f1", "step_auc", "solution_auc")),
    Run("calibration", "prm800k", PLAIN, CALIBRATION),
    Run("rewardmath", "rewardmath/rewardmath_scores.jsonl.gz", (), ("accuracy", "mrr", "accuracy_with_ties")),
    Run("pairs", "llmbar", ("length", "random"), ("accuracy", "macro_accuracy")),
    Run("pairs", "plan_rewardbench", ("length", "random"), ("accuracy", "macro_accuracy")),
    Run("who-and-when", "who_when", ("length", "random"), ("step_accuracy", "agent_accuracy", "step_within_5")),
    Run("best-of-n", POOL, (), CHOICE, {"aggregate": "last"}),
    Run("best-of-n", POOL, (), CHOICE, {"aggregate": "product"}),
    Run("best-of-n", POOL, ("tool", "length", "random"), CHOICE, {"aggregate": "min"}),
    Run("outcome-calibration", POOL, (), CALIBRATION, {"aggregate": "last"}),
    Run("best-of-n", "qwen_rm_maj", (), CHOICE),
)
INTRODUCTION = """# Public benchmarks

Written by `python -m benchmarks.real_benchmarks --write` (seed 0); no number in a table is typed by hand. Numbers are
in percent, brackets are 95 % intervals. Scorers: `tool` computes the equations of a step again, `length` prefers short
steps, `position` knows nothing but a step's place in its solution, `random` is chance, and all others are verifiers
whose scores the data records. `majority` and `one_sample` do not look at scores. Above each table stands its command,
with paths below the folder of public data.

What comes close to published numbers, and why it differs where it does:

- ProcessBench: published averages are over four subsets, of which two are here, so published numbers stand below by
  subset, and only where all its solutions were measured. Recorded verifiers scored 250 solutions of each, run by the
  project that recorded them.
- RewardMATH: the same scores that its authors published; accuracy and mrr are what their own evaluation computes from
  them (17.18 and 34.68 for Math-Shepherd by product).
- Qwen's example of rm@8: 94 by reward, 93 by majority, as its `rm_maj_eval.py` counts.
- The GSM8K pool is regraded: its published flags were wrong for 458 of 16,000 solutions, so its own numbers differ.
- PRMBench: scorers that only prefer short steps, or early ones, reach the PRMScore of published models: quote them
  beside any PRMScore. The 5 repeated solutions of the file count once, as with the authors.

[Parity](benchmark-parity.md) holds every metric against an independent reading of its definition. A reward model that
was trained here on one of these verifiers' scores is measured in [Real data](real-data.md), on problems it never saw.
"""


def main(*, quick: bool = False) -> dict[str, Any]:
    """Every benchmark whose data is here."""
    made: dict[str, Any] = {}
    for run in RUNS:
        if not (DATA / run.data).exists() or (quick and run.benchmark != "rewardmath"):
            continue
        start = time.perf_counter()
        try:
            outcome = measure(run.benchmark, DATA / run.data, run.scorers, dict(run.settings))
        except InputError as error:
            made[run.command] = {"refused": str(error), "title": _title(run)}
            continue
        made[run.command] = {**outcome, "shown": run.metrics, "title": _title(run)}
        print(f"{run.command}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    return made


def _title(run: Run) -> str:
    how = "".join(f", {name} {value}" for name, value in run.settings.items() if name == "aggregate")
    return f"{run.benchmark} on {run.data.split('/')[0]}{how}"


def page(made: dict[str, Any]) -> str:
    """The tables in Markdown."""
    parts = [INTRODUCTION]
    for command, outcome in made.items():
        parts.append(f"\n## {outcome['title']}\n\n```console\n$ {command}\n```\n\n")
        if "refused" in outcome:
            parts.append(f"Refused: {outcome['refused']}\n")
            continue
        shown = outcome["shown"]
        parts += [f"| scorer | {' | '.join(shown)} |\n", f"|---{'|---' * len(shown)}|\n"]
        # Errors rank from the smallest, all other metrics from the largest.
        worse = 1 if shown[0] in CALIBRATION else -1
        ranked = sorted(
            outcome["scorers"].items(), key=lambda pair: worse * (pair[1]["metrics"][shown[0]]["value"] or 0)
        )
        for name, one in ranked:
            parts.append(f"| `{name}` | {' | '.join(_cell(one['metrics'].get(metric)) for metric in shown)} |\n")
        first = next(iter(outcome["scorers"].values()))
        origin = "" if first["threshold"] is None else f" Threshold {first['threshold']:.3g}."
        parts.append(f"\n{outcome['rows']:,} rows. {first['protocol']}{origin}\n")
        printed = [row for row in outcome["published"] if row["group"] or row["metric"] == shown[0]]
        shown_in = dict.fromkeys((row["metric"], row["group"]) for row in printed)
        parts += [f"\n{published_line(printed, metric, group)}\n" for metric, group in shown_in]
    return "".join(parts)


def _cell(numbers: dict[str, Any] | None) -> str:
    if numbers is None or numbers["value"] is None:
        return ""
    return f"{100 * numbers['value']:.1f} [{100 * numbers['low']:.1f}, {100 * numbers['high']:.1f}]"


if __name__ == "__main__":
    if not DATA.exists():
        print(f"needs the public data in {DATA}", file=sys.stderr)
        sys.exit(SKIPPED)
    found = main(quick="--quick" in sys.argv)
    if "--write" in sys.argv:
        PAGE.write_text(page(found), encoding="utf-8")
    print(json.dumps(found))
