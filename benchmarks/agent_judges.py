"""Recorded judges of agents against what people say of the same chats, beside the published numbers and blind judges.

    python -m benchmarks.agent_judges [--quick] [--write]

`--write` writes docs/results/agent-judges.md.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import need
from stepreward.cli.benchmark import measure
from stepreward.core.catalog import bench
from stepreward.core.measure.step_metrics import ragged
from stepreward.core.types import Floats, Problem, Step, Trajectory
from stepreward.evaluate.data.result import BenchResult
from stepreward.evaluate.data.scoring import RecordedScorer
from stepreward.evaluate.published import published
from stepreward.formats.registry import read

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data" / "agent_process_bench" / "judges"
EXPERTS = ROOT.parent / "shared" / "data" / "agent_reward_bench"
PAGE = ROOT / "docs" / "results" / "agent-judges.md"
SETS = {"hotpotqa": "HotpotQA", "gaia_dev": "GAIA", "bfcl": "BFCL", "tau2": "tau2-Bench", "": "all"}
METRICS = {"step_accuracy": "steps", "first_error_accuracy": "first error"}
ROUNDED = 0.0501
"""Points by which a number may differ from itself printed with one decimal."""
PLACE, RIGHT = "the commonest label at its place in the other chats", "every step is right"
BLIND: dict[str, Callable[[int], Floats]] = {
    "says nothing, or fails everywhere": lambda steps: np.full(steps, np.nan),
    RIGHT: np.ones,
    "every step is wrong": np.zeros,
}
HEAD = """# Judges of agents

Written by `python -m benchmarks.agent_judges --write`; no number in a table is typed by hand but the published ones,
which are the table of results of [arXiv:2603.14465](https://arxiv.org/abs/2603.14465).

AgentProcessBench holds 250 tool-using chats of each of four data sets, whose assistant messages people rated right,
neutral or wrong. Its authors recorded what 20 language models say of each message. *steps* is the share of all rated
steps that get the label that people gave, pooled; *first error* the share of chats whose first wrong step, or that
there is none, is named. A step about which a judge says nothing is never right. A judge that says nothing at all names
the first error of every chat without one: that alone is worth more than a quarter of the chats of each set, and more
than half in HotpotQA. Read *first error* against that row, and no number as a distance from 0.

The files are read as they were published, a folder a judge, with people's ratings in a folder above:

```console
$ stepreward evaluate --benchmark agent-process-bench --data eval/results
```

The same command measures predictions of your own in that layout, `RUN/bfcl__RUN.jsonl`: of several verdicts on a chat
the latest counts, and chats without one count as silent.
"""
SUCCESS = """
## AgentRewardBench

Experts said of runs of web agents whether they succeeded, and 13 judges said the same. The judgments are published with
the runs, outside the authors' repository, which is what could be read. So the judges' numbers below are the published
ones ([arXiv:2504.08942](https://arxiv.org/abs/2504.08942)), and ours, from the experts' own file, are what to read them
against. Of the {runs:,} runs of the test split {share:.1f} % succeeded: the precision of a judge that always says so.
Of the {both} of them that a second expert saw the two agree on {agreed:.1f} %. *F1 of both* is the harmonic mean of the
printed precision and recall.

```console
$ stepreward evaluate --benchmark agent-reward-bench --data trajectories/judgments
```

measures judgments in the authors' folders, with their `annotations.csv` and `splits.csv` in a folder above. It was
tried on folders made by hand in that layout, which the authors' programs write and read.

Precision by site; in percent.

"""


def main(*, quick: bool = False) -> dict[str, Any]:
    """Every judge, and what needs no judge."""
    need(DATA)
    need(EXPERTS)
    made = measure("agent-process-bench", DATA / "GPT-5.2" if quick else DATA, [], {})
    return {**made, "blind": blind(), "agent_reward_bench": experts()}


def blind() -> dict[str, Any]:
    """Judges that do not look."""
    chats = [one for path in sorted((DATA / "GPT-5.2").iterdir()) for one in read(path, strict=True)]
    found = {}
    for name, says in BLIND.items():
        said = [one.with_columns({f"score:{name}": says(len(one))}) for one in chats]
        found[name] = bench["agent-process-bench"].take({"scorer": RecordedScorer(said, name), "data": said}).to_json()
    found[PLACE] = commonest(chats)
    return found


def commonest(chats: list[Trajectory]) -> dict[str, Any]:
    """The label that is the commonest at a step's place in the other chats: what a step's place alone can say."""
    values = ragged([one.labels for one in chats])
    given = np.array([values == label for label in (0.0, 0.5, 1.0)])
    best = (given.sum(axis=1, keepdims=True) - given).argmax(axis=0) / 2
    said = [one.with_columns({"score:place": best[row, : len(one)]}) for row, one in enumerate(chats)]
    made: BenchResult = bench["agent-process-bench"].take({"scorer": RecordedScorer(said, "place"), "data": said})
    return made.to_json()


def experts() -> dict[str, Any]:
    """AgentRewardBench's experts as judges: one who always says success, and the second expert of a run."""
    with (EXPERTS / "splits.csv").open(newline="") as file:
        splits = {row["task_id"]: row["split"] for row in csv.DictReader(file)}
    verdicts: dict[tuple[str, ...], list[float]] = {}
    with (EXPERTS / "annotations.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            said = {"Successful": 1.0, "Unsuccessful": 0.0}.get(row["trajectory_success"], float("nan"))
            verdicts.setdefault((row["benchmark"], row["model_name"], row["task_id"]), []).append(said)
    runs = []
    for (site, agent, task), given in verdicts.items():
        subset = "workarena++" if site == "workarena" and "l2" in task.lower() else site
        split = splits[task.replace(".resized", "").replace(".improved", "")]
        second = given[1] if len(given) > 1 else float("nan")
        columns = {"score:second": np.array([second]), "score:yes": np.ones(1)}
        run = Trajectory(Problem(task, ""), (Step(f"{agent}\n"),), given[0], columns=columns)
        runs.append(replace(run, facts={"subset": subset, "split": split}))
    found = {}
    for name in ("yes", "second"):
        made: BenchResult = bench["agent-reward-bench"].take({"scorer": RecordedScorer(runs, name), "data": runs})
        found[name] = made.to_json()
    return found


def page(made: dict[str, Any]) -> str:
    """The tables in Markdown."""
    printed = {(one["model"], one["group"], one["metric"]): one["percent"] for one in made["published"]}
    apart = {key: abs(100 * _value(made["scorers"][key[0]], *key[1:]) - value) for key, value in printed.items()}
    near = {name: [gap for key, gap in apart.items() if key[2] == name] for name in METRICS}
    parts = [HEAD, "\n## Ours beside the published numbers\n\n"]
    for name, about in METRICS.items():
        gaps = near[name]
        same = sum(gap <= ROUNDED for gap in gaps)
        parts.append(
            f"- *{about}*: {same} of {len(gaps)} numbers are the published ones to their one decimal; the largest "
            f"difference is {max(gaps):.2f} points.\n"
        )
    parts.append(
        "\nDifferences of that size come from rounding to two decimals first, as the authors' program prints them, and "
        "then to one, or from a single rated step.\n"
    )
    judges = [_value(one, "", "step_accuracy") for name, one in made["scorers"].items() if name != "position"]
    place = _value(made["blind"][PLACE], "", "step_accuracy")
    right = _value(made["blind"][RIGHT], "", "step_accuracy")
    parts.append(
        f"\nOf {len(judges)} judges, {sum(one < right for one in judges)} get fewer labels right than calling every "
        f"step right, and {sum(one < place for one in judges)} fewer than the label that is the commonest at a step's "
        "place in the other chats, for which no word of the chat is read.\n"
    )
    ranked = sorted(made["scorers"].items(), key=lambda pair: -_value(pair[1], "", "step_accuracy"))
    for name, about in METRICS.items():
        parts.append(
            f"\n### {about[0].upper()}{about[1:]}\n\nOurs / published, in percent; brackets: 95 % interval.\n\n"
        )
        parts.append(f"| judge | {' | '.join(SETS.values())} | silent |\n|---|{'---|' * (len(SETS) + 1)}\n")
        for judge, one in ranked:
            if judge != "position":
                cells = [_beside(one, printed, (judge, group, name)) for group in SETS]
                parts.append(f"| {judge} | {' | '.join(cells)} | {100 * _value(one, '', 'silent'):.1f} |\n")
        for judge, one in [*made["blind"].items(), ("`position`", made["scorers"]["position"])]:
            cells = [f"{100 * _value(one, group, name):.1f}" for group in SETS]
            parts.append(f"| {judge} | {' | '.join(cells)} | {100 * _value(one, '', 'silent'):.1f} |\n")
    parts.append(f"\n{made['rows']:,} chats. {next(iter(made['scorers'].values()))['protocol']}\n")
    return "".join([*parts, *_experts(made["agent_reward_bench"])])


def _experts(found: dict[str, Any]) -> Iterator[str]:
    """What experts alone say of AgentRewardBench, beside the published numbers of its judges."""
    yes, second = found["yes"], found["second"]
    yield SUCCESS.format(
        agreed=100 * _value(second, "", "accuracy"), both=second["metrics"]["accuracy"]["n"],
        runs=yes["metrics"]["precision"]["n"], share=100 * _value(yes, "", "success"),
    )  # fmt: skip
    printed: dict[str, dict[tuple[str, str], float]] = {}
    for one in published("agent-reward-bench"):
        printed.setdefault(one.model, {})[one.group, one.metric] = one.value
    sites = list(yes["groups"])
    yield f"| judge | precision | recall | F1 | F1 of both | {' | '.join(sites)} |\n|{'---|' * (5 + len(sites))}\n"
    for judge, of in sorted(printed.items(), key=lambda pair: -pair[1]["", "precision"]):
        precision, recall, f1 = (of["", name] for name in ("precision", "recall", "f1"))
        cells = [f"{of[site, 'precision']:.1f}" for site in sites]
        both = 2 * precision * recall / (precision + recall)
        yield f"| `{judge}` | {precision:.1f} | {recall:.1f} | {f1:.1f} | {both:.1f} | {' | '.join(cells)} |\n"
    for name, one in (("ours: the second expert", second), ("ours: always says success", yes)):
        whole = [f"{100 * _value(one, '', metric):.1f}" for metric in ("precision", "recall", "f1")]
        # The second expert saw too few runs of most sites.
        cells = [f"{100 * _value(one, site, 'precision'):.1f}" if one is yes else "" for site in sites]
        yield f"| {name} | {' | '.join(whole)} | | {' | '.join(cells)} |\n"


def _value(one: dict[str, Any], group: str, metric: str) -> float:
    return float((one["groups"][group] if group else one["metrics"])[metric]["value"])


def _beside(one: dict[str, Any], printed: dict[tuple[str, str, str], float], key: tuple[str, str, str]) -> str:
    _, group, metric = key
    found = (one["groups"][group] if group else one["metrics"])[metric]
    said = f"{100 * found['value']:.1f} / {printed[key]:.1f}"
    return said if group else f"{said} [{100 * found['low']:.1f}, {100 * found['high']:.1f}]"


if __name__ == "__main__":
    results = main(quick="--quick" in sys.argv)
    if "--write" in sys.argv:
        PAGE.write_text(page(results), encoding="utf-8")
    print(json.dumps(results, indent=1))
