"""A guided agent against the plain one in the shop, over training seeds: what the reward model adds at equal actions.

    python -m benchmarks.agents [--write]

Runs `stepreward run --world tools` with 200 held-out problems and three training seeds. `--write` makes the page
docs/results/agents.md.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.demo import run
from stepreward.pipeline.run_report import decimal, number, percent, points

PAGE = Path(__file__).parents[1] / "docs" / "results" / "agents.md"
FLAGS = ("--world", "tools", "--seeds", "3", "--held-out-problems", "200", "--held-out-samples", "8")
TEXT = """# Agents

Written by `python -m benchmarks.agents --write`; no number in a table is typed by hand. It runs
`stepreward run --world tools`: {train} problems of the shop are sampled {samples} times each by the built-in agent,
which calls tools and slips; rollouts from forks label its actions; {seeds} reward models are trained on the labels; and
{held_out} held-out problems are solved.

## Guided against plain

*Plain*: one action is proposed and executed, turn by turn; its share is over {each} episodes of each problem. *Guided*:
{width} actions are proposed, the best-scored is executed, in one episode a problem and training seed. So both execute
one action a turn; the guided agent generates {width} times the tokens of a turn.

| agent | episodes won | actions an episode |
|---|---|---|
| plain | {plain} | {plain_actions:.1f} |
| guided | {guided} | {guided_actions:.1f} |

Guided minus plain, paired by problem, interval over training seeds and problems: **{gain} points**.

## Its labels and scores against the truth

The shop knows after every action how many more are needed, so that an action is right if it is one of these.

| | against the truth |
|---|---|
| labels by rollouts: first wrong action named | {label} |
| reward model: first-error F1 | {f1} |
| reward model: AUROC of actions | {auroc} |

Majority of {each} episodes: {majority}; weighted by the worst action score: {weighted}
({versus} points over the majority).
{verdict}
"""


def page(summary: dict[str, Any]) -> str:
    """The page, Markdown."""
    s, acting, evaluation = summary["settings"], summary["acting"], summary["evaluate"]
    gain = acting["gain"]
    verdict = "" if gain["low"] > 0 else "\nThe interval holds 0: here guidance is not shown to help.\n"
    return TEXT.format(
        train=s["train_problems"], samples=s["train_samples"], seeds=s["seeds"], held_out=s["held_out_problems"],
        each=s["held_out_samples"], width=s["width"], plain=percent(acting["plain"]["accuracy"]),
        plain_actions=acting["plain"]["actions"], guided=percent(acting["guided"]["accuracy"]),
        guided_actions=acting["guided"]["actions"], gain=points(gain),
        label=number(summary["label"]["against_truth"]["first_error_accuracy"]),
        f1=decimal(evaluation["first_error"]["f1"]), auroc=number(evaluation["steps"]["auroc"]),
        majority=percent(evaluation["curves"]["majority"][-1]), weighted=percent(evaluation["headline"]["accuracy"]),
        versus=points(evaluation["headline"]["versus_majority"]), verdict=verdict,
    )  # fmt: skip


def main() -> None:
    """Runs, prints and writes."""
    with tempfile.TemporaryDirectory() as folder:
        made = run(Path(folder) / "run", threads=1, seed=0, flags=FLAGS)
    print(json.dumps(made["summary"]["acting"], indent=1))
    if "--write" in sys.argv:
        PAGE.write_text(page(made["summary"]), encoding="utf-8")


if __name__ == "__main__":
    main()
