"""Monitors of agents on real logs: does the bound of false alarms hold, what is saved, is the turn's number as good?

    python -m benchmarks.monitor [--quick] [--write]

Each log is split by problem many times; monitors are fitted on some problems and measured on others. `--write` makes
the page docs/results/monitor.md; logs that are absent are left out of it.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import need
from stepreward import formats
from stepreward.core.measure.false_alarms import Guarantee
from stepreward.core.types import Trajectory
from stepreward.evaluate.monitoring import MonitorResult, measure_monitor, measure_over_splits
from stepreward.score.monitor.monitor_fit import fitted
from stepreward.score.monitor.statistic import LEARNED, Reads
from stepreward.score.monitor.watched_runs import Good, watched_runs

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"
PAGE = ROOT / "docs" / "results" / "monitor.md"
ALPHA, RATES, SPLITS = 0.1, (0.05, 0.1, 0.2, 0.3), 200
OTHERS: tuple[Guarantee, ...] = ("confidence", "e-value")
HOTPOT = "hotpotqa_react/hotpotqa_dev_0_500_"


@dataclass(frozen=True)
class Log:
    """A public log of runs."""

    title: str
    path: str
    """A file, or a pattern of files."""
    about: str
    good: Good = "success"
    column: str = ""
    each: int = 0
    """Runs of each problem that are taken; 0 is all."""

    def read(self) -> list[Trajectory]:
        """Its runs."""
        taken = Counter[str]()
        kept = []
        for path in sorted(DATA.glob(self.path)):
            for item in formats.read(path, **self.options):
                taken[item.problem.id] += 1
                if not self.each or taken[item.problem.id] <= self.each:
                    kept.append(item)
        return kept

    @property
    def options(self) -> dict[str, Any]:
        """Of the reader."""
        return {"strip_prompt": True, "separator": "\n"} if self.column else {}


LOGS = (
    Log("tau-bench, airline", "tau_bench/gpt-4o-airline.jsonl.gz", "GPT-4o with tools, 50 tasks, 4 trials each"),
    Log("WebShop", "webshop_react/*.gz", "ReAct; a success is the full reward"),
    Log("FEVER", "fever_react/*.gz", "ReAct, one claim a run"),
    Log("HotpotQA, GPT-3.5", f"{HOTPOT}ft_gpt*.gz", "FireAct's fine-tuned GPT-3.5"),
    Log("HotpotQA, Llama 13B", f"{HOTPOT}llama_models_lora_llama-2-13b*.gz", "FireAct's Llama 2 13B"),
    Log("HotpotQA, Llama 7B", f"{HOTPOT}llama_models_lora_llama-2-7b*.gz", "FireAct's Llama 2 7B"),
    Log("Who&When", "who_when/*.gz", "failed runs of several agents; alarms are false before the decisive step",
        good="before-error"),
    Log("GSM8K, a PRM's scores", "bon_pools/gsm8k_scores.jsonl.gz", "no agent: solutions step by step, watched by "
        "recorded scores of Qwen2.5-Math-PRM-7B, 8 solutions a problem", column="score:qwen_prm", each=8),
)  # fmt: skip
MOVES = (
    ("HotpotQA, Llama 7B", "HotpotQA, Llama 7B"), ("HotpotQA, Llama 7B", "HotpotQA, GPT-3.5"),
    ("HotpotQA, GPT-3.5", "HotpotQA, Llama 7B"), ("WebShop", "FEVER"), ("FEVER", "WebShop"),
)  # fmt: skip
"""Monitors that move to another log: the first is fitted on, the second watched, at other problems."""


def measured(log: Log, runs: Sequence[Trajectory], splits: int) -> dict[str, Any]:
    """Everything of one log."""
    watched = watched_runs(runs, column=log.column, good=log.good)
    reads: list[Reads] = ["min-score", LEARNED] if log.column else [LEARNED]
    main = measure_over_splits(watched, reads, alpha=ALPHA, splits=splits)
    others = {
        guarantee: measure_over_splits(watched, reads[:1], alpha=ALPHA, splits=splits, guarantee=guarantee).to_json()
        for guarantee in OTHERS
    }
    rates = {
        str(rate): measure_over_splits(watched, reads[:1], alpha=rate, splits=splits).measures[reads[0]]
        for rate in RATES
    }
    return {
        "about": log.about, "good": log.good, "reads": reads[0], "result": main.to_json(),
        "others": others,
        "rates": {rate: row["false_alarms"].to_json() for rate, row in rates.items()},
        "verdict": verdict(main, reads[0]),
    }  # fmt: skip


def verdict(made: MonitorResult, reads: str) -> str:
    """Whether it beats the turn's number, by the intervals of the differences."""
    said = []
    for measure, name in (("recall", "recall"), ("saved", "what is saved")):
        one = made.versus_turn[reads][measure]
        how = "beats" if one.low > 0 else "is beaten by" if one.high < 0 else "does not beat"
        said.append(f"{how} the turn's number in {name} ({100 * one.value:+.1f} [{100 * one.low:+.1f}, "
                    f"{100 * one.high:+.1f}] points)")  # fmt: skip
    return " and ".join(said)


def moved(source: Sequence[Trajectory], target: Sequence[Trajectory]) -> dict[str, Any]:
    """A monitor fitted on one half of the problems of a log, and what it is worth on the other half of another log."""
    halves = []
    for rows, side in ((source, 0), (target, 1)):
        numbers = {name: at for at, name in enumerate(sorted({row.problem.id for row in rows}))}
        halves.append([row for row in rows if numbers[row.problem.id] % 2 == side])
    monitor = fitted(halves[0], alpha=ALPHA)
    made = measure_monitor(monitor, watched_runs(halves[1]))
    return {"measures": {k: v.to_json() for k, v in made.measures["monitor"].items()}, "drift": made.drift}


def main(splits: int) -> dict[str, Any]:
    """Results of every log that is here."""
    need(DATA)
    rows = {log.title: log.read() for log in LOGS}
    absent = [title for title, some in rows.items() if not some]
    made = {log.title: measured(log, rows[log.title], splits) for log in LOGS if rows[log.title]}
    moves = [
        {"from": a, "to": b, **moved(rows[a], rows[b])} for a, b in MOVES if rows.get(a) and rows.get(b)
    ]  # fmt: skip
    swe = [item for path in sorted(DATA.glob("swe_agent/*.gz")) for item in formats.read(path)]
    unknown = sum(bool(np.isnan(item.outcome)) for item in swe)
    return {
        "splits": splits, "alpha": ALPHA, "logs": made, "moves": moves, "absent": absent,
        "swe_agent": {"runs": len(swe), "without_outcome": unknown},
    }  # fmt: skip


HEAD = """# Monitors on real logs

Written by `python -m benchmarks.monitor --write`, {splits} splits of each log; no number is typed by hand.
[Watch agents](../guides/monitor.md) says what a monitor is, what it reads and what its bound assumes.

Each split tests on a third of the problems; of the others, `features` is fitted on half and bounded by the other half,
and all other statistics are bounded by all of them. No problem is ever on two sides. `turn` watches the number of the
turn alone, runs at the same turn told apart by chance, so that it uses its rate of false alarms as fully as a finer
statistic; `random` stops a run at a random one of its turns. `confidence` and `e-value` are the other two guarantees,
at the same rate and with a confidence of 0.9. Two defaults, the ridge penalty and the tilt of
e-values, were set after one look at five of these logs, and are the same for all. Intervals are bootstraps
over problems. *Saved* is the share of what failing runs wrote, in characters where a log records no tokens.
"""


def page(results: dict[str, Any]) -> str:
    """The page, Markdown."""
    alpha, logs = results["alpha"], results["logs"]
    parts = [HEAD.format(splits=results["splits"]), "## In short\n"]
    parts += [f"- **{title}**: the monitor (`{made['reads']}`) {made['verdict']}." for title, made in logs.items()]
    swe = results["swe_agent"]
    if swe["runs"]:
        what = f"{swe['without_outcome']} of {swe['runs']} runs have no outcome, so that nothing can be said"
        parts.append(f"- **SWE-agent**: {what}.")
    if results["absent"]:
        parts.append(f"- Absent: {', '.join(results['absent'])}.")
    parts.append(f"\n## At a rate of false alarms of at most {alpha:g}\n")
    for title, made in logs.items():
        result = made["result"]
        units = f"{result['runs']:,} runs of {result['problems']:,} problems, {result['bad']:,} bad"
        parts += [
            f"### {title}\n", f"{made['about'][0].upper()}{made['about'][1:]}; {units}.\n",
            f"| watches | false alarms | recall | turns left | share left | {result['unit']} saved "
            "| splits with a rate above |\n|---|---|---|---|---|---|---|",
        ]  # fmt: skip
        for name, row in result["measures"].items():
            parts.append(f"| `{name}` | {cells(row)} | {result['above'][name]:.0%} |")
        name = made["reads"]
        for guarantee, other in made["others"].items():
            row, above = other["measures"][name], other["above"][name]
            parts.append(f"| `{name}`, {guarantee} | {cells(row)} | {above:.0%} |")
        parts.append("")
    parts += [
        "## The bound at other rates\n",
        "False alarms of the monitor, the mean over all splits: each must not lie clearly above its rate.\n",
        f"| log | {' | '.join(f'at most {rate:g}' for rate in RATES)} |\n|---|{'---|' * len(RATES)}",
    ]
    for title, made in logs.items():
        parts.append(f"| {title} | {' | '.join(percent(made['rates'][str(rate)]) for rate in RATES)} |")
    parts += [
        "\nThe bound is over the draw of the calibration runs and the watched one together: the last column of the "
        "tables above is how often the rate was above it in a split, by the draw of the calibration and the problems "
        "tested on. With few problems that succeeded it stays well below: of K of them, only multiples of 1 / (K + 1) "
        "can be kept.\n",
        "## On another log than its own\n",
        "A monitor fitted on half of the problems of one log watches the other half of another: another policy behind "
        "the same tasks, or other tasks. *Evidence* is the conformal test martingale's against exchangeability; by "
        "chance it reaches 20 at most once in 20. It grows where good runs look worse than before, which is where "
        "false alarms become more.\n",
        "| fitted on | watches | false alarms | recall | saved | evidence |\n|---|---|---|---|---|---|",
    ]
    for move in results["moves"]:
        row = move["measures"]
        cell = " | ".join(percent(row[name]) for name in ("false_alarms", "recall", "saved"))
        parts.append(f"| {move['from']} | {move['to']} | {cell} | {move['drift']:.3g} |")
    return "\n".join(parts) + "\n"


def cells(row: dict[str, Any]) -> str:
    """The measures of one monitor, as cells of a table."""
    lead = row["lead_turns"]
    turns = "-" if lead["value"] is None else f"{lead['value']:.1f} [{lead['low']:.1f}, {lead['high']:.1f}]"
    made = [percent(row[name]) for name in ("false_alarms", "recall", "lead_share", "saved")]
    return " | ".join([*made[:2], turns, *made[2:]])


def percent(one: dict[str, Any]) -> str:
    """A share with its interval."""
    if one["value"] is None:
        return "-"
    value, low, high = (100 * one[name] for name in ("value", "low", "high"))
    return f"{value:.1f} % [{low:.1f}, {high:.1f}]"


if __name__ == "__main__":
    found = main(10 if "--quick" in sys.argv else SPLITS)
    if "--write" in sys.argv:
        PAGE.write_text(page(found), encoding="utf-8")
    print(json.dumps(found, indent=1))
