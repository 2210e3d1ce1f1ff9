"""Self-training in rounds and distillation: where they help a small model, with exact labels and on real data.

    python -m benchmarks.loops [--quick]     prints the results as JSON; quick takes a minute and means little
    python -m benchmarks.loops --write       writes docs/results/loops.md

Needs the recorded solutions of `benchmarks.real_data`. Problems are split, never solutions. Every number is of held-out
problems, with 95 % intervals over problems and seeds; differences are paired.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import need
from benchmarks.real_data import DATA, ROOT, SEED, read
from benchmarks.real_data_page import beyond, table
from benchmarks.real_training import TEACHER, by_problem
from stepreward.core.keys import Key
from stepreward.core.runtime.driver import Driver
from stepreward.core.table import read_table, write_table
from stepreward.core.types import Trajectory
from stepreward.label.samples import graded_samples
from stepreward.pipeline.rounds_report import MEASURES, measured_columns, summarise
from stepreward.pipeline.rounds_settings import RoundsSettings
from stepreward.tasks.arithmetic import generate
from stepreward.tasks.arithmetic_truth import ArithmeticGrader, truth
from stepreward.train.settings import TrainSettings
from stepreward.verbs.names import load, policy
from stepreward.verbs.score_rows import score
from stepreward.verbs.train_in_rounds import train_in_rounds
from stepreward.verbs.train_model import train

PAGE = ROOT / "docs" / "results" / "loops.md"
OBJECTIVES: Mapping[str, tuple[str, str, dict[str, Any]]] = {
    "hard labels, bce": ("hard", "bce", {}),
    "scores, bce": ("label", "bce", {}),
    "scores, mse": ("label", "mse", {}),
    "scores, distillation at T = 2": ("label", "distillation", {"temperature": 2.0}),
}
"""Column, objective and hyper-parameters of each student."""


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    labelled: int = 20
    """Problems with labels."""
    unlabelled: int = 40
    """Problems without."""
    held_out: int = 40
    samples: int = 3
    """Solutions of each problem."""
    rounds: int = 3
    seeds: int = 3
    epochs: float = 1.5


def arithmetic(sizes: Sizes) -> list[list[Trajectory]]:
    """Solutions of the built-in policy with exact labels: labelled, unlabelled and held-out ones."""
    n, key = sizes.labelled + sizes.unlabelled, Key.seed(SEED).fold("loops")
    problems = [*generate("train", n), *generate("held_out", sizes.held_out)]
    driver = Driver(policy=policy("builtin:arithmetic"), grader=ArithmeticGrader())
    flows = [graded_samples(one, key, n=sizes.samples) for one in problems]
    found = {one.index: one.result for one in driver.run(flows)}
    groups = [
        [row.with_columns({"label": truth(row.problem, row.steps)}) for row in found[i]] for i in range(len(problems))
    ]
    return _parts(groups, sizes)


def recorded(sizes: Sizes) -> list[list[Trajectory]]:
    """Recorded solutions of GSM8K with the step scores of a 7B reward model as labels, in the same three parts."""
    groups = by_problem(read("bon_pools/gsm8k_scores.jsonl.gz", strip_prompt=True, separator="\n"))
    order = Key.seed(SEED).fold("loops", "split").rng().permutation(len(groups))
    few = [[one.with_columns({"label": one.scores[TEACHER]}) for one in groups[i][: sizes.samples]] for i in order]
    return _parts(few, sizes)


def _parts(groups: Sequence[Sequence[Trajectory]], sizes: Sizes) -> list[list[Trajectory]]:
    ends = np.cumsum([sizes.labelled, sizes.unlabelled, sizes.held_out])
    return [[row for group in groups[a:b] for row in group] for a, b in zip([0, *ends[:-1]], ends, strict=True)]


def self_training(parts: list[list[Trajectory]], sizes: Sizes, training: TrainSettings, backbone: str) -> Any:
    """The rounds, and beside them a model that learns from the labels of all solutions."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = {what: folder / f"{what}.parquet" for what in ("labelled", "unlabelled", "held-out", "all")}
        for path, rows in zip(files.values(), [*parts, parts[0] + parts[1]], strict=True):
            write_table(path, rows)
        settings = RoundsSettings(
            files["held-out"], files["labelled"], files["unlabelled"], rounds=sizes.rounds, seeds=sizes.seeds,
            backbone=backbone, share_kept=0.0,
        )  # fmt: skip
        made = train_in_rounds(folder / "self", settings, training)
        train_in_rounds(folder / "all", replace(settings, labelled=files["all"], solutions=None, rounds=1), training)
        places = [folder / "self" / "seed-{}" / f"round-{k + 1}" for k in range(sizes.rounds)]
        places.append(folder / "all" / "seed-{}" / "round-1")
        scored = [
            [[*read_table(Path(str(one).format(seed)) / "held-out.parquet")] for seed in range(sizes.seeds)]
            for one in places
        ]
    labels = [[one["label"].get("pseudo", {}) for one in some.values()] for some in made["rounds"]]
    names = [f"round {k + 1}" for k in range(sizes.rounds)]
    return summarise(scored) | {"names": [*names, "labels of all solutions"], "labels": labels}


def distillation(parts: list[list[Trajectory]], sizes: Sizes, training: TrainSettings) -> Any:
    """Students of the recorded scores, by objective."""
    rows = [one.with_columns({"hard": np.round(one.labels)}) for one in parts[0] + parts[1]]
    scored = []
    for column, objective, own in OBJECTIVES.values():
        students = []
        for seed in range(sizes.seeds):
            how = asdict(replace(training, objective=objective, objective_settings=own, labels=column, seed=seed))
            with tempfile.TemporaryDirectory() as folder:
                train(rows, folder, backbone="scratch", held_out=0.0, **how)
                students.append([*score(parts[2], load(folder), strict=True)])
        scored.append(students)
    return summarise(scored) | {"names": [*OBJECTIVES]}


def main(sizes: Sizes | None = None) -> dict[str, Any]:
    """Runs the three experiments."""
    start, sizes = time.process_time(), sizes or Sizes()
    training = TrainSettings(epochs=sizes.epochs, batch_tokens=1024, evaluations=1)
    own, real = replace(training, learning_rate=3e-4), recorded(sizes)
    made = {
        "arithmetic": self_training(arithmetic(sizes), sizes, own, "builtin:arithmetic"),
        "recorded": self_training(real, sizes, training, "scratch"),
        "distillation": distillation(real, sizes, training),
    }
    return {"seed": SEED, "sizes": asdict(sizes), **made, "seconds": time.process_time() - start}


def _table(made: Mapping[str, Any]) -> str:
    """The measures by row, and what the intervals say of them."""
    columns = {"trained on" if "labels" in made else "student": made["names"], **measured_columns(made)}
    first, *others = made["names"]
    said = ""
    for name, (_, *rest) in made["versus_first"].items():
        start = made["curve"][name][0]
        chance = "" if name == "best_of_n" or not start["low"] <= 0.5 <= start["high"] else ", whose interval holds 1/2"
        said += f"- {MEASURES[name]}, against {first}{chance}: {beyond(dict(zip(others, rest, strict=True)))}\n"
    return f"{table([*columns], zip(*columns.values(), strict=True))}\nBeyond the interval of the difference:\n\n{said}"


def _labels(made: Mapping[str, Any]) -> str:
    """What the last models labelled, by round, as means over seeds."""
    lines = []
    for k, some in enumerate(made["labels"]):
        if some and some[0] and not any(one["labelled"] for one in some):
            lines.append(f"- Round {k + 1}: no step had a score above 0.8 or below 0.2.\n")
        elif some and some[0]:
            share = np.mean([one["labelled"] / one["steps"] for one in some])
            right = np.mean([one["right"] / max(one["labelled"], 1) for one in some])
            agree = np.mean([one.get("agree", np.nan) for one in some])
            lines.append(
                f"- Round {k + 1}: {100 * share:.0f} % of the steps had a score above 0.8 or below 0.2, "
                f"{100 * right:.1f} % of these labels said right, {100 * agree:.1f} % agreed with the labels "
                "kept back.\n"
            )
    return "".join(lines)


def page(made: Mapping[str, Any]) -> str:
    """The page, Markdown."""
    sizes = made["sizes"]
    return f"""# Self-training and distillation, measured

Written by `python -m benchmarks.loops --write` (seed {made["seed"]}, {made["seconds"] / 60:.0f} CPU minutes).
Small on purpose: {sizes["labelled"]} problems with labels, {sizes["unlabelled"]} whose labels are kept back,
{sizes["held_out"]} held out, {sizes["samples"]} solutions of each, {sizes["seeds"]} seeds,
{sizes["epochs"]:g} passes, models of about a million weights.
Brackets are 95 % intervals over problems and seeds, too narrow with so few seeds;
differences to the first row are paired. More passes or larger models were not tried. A difference whose interval
holds 0 is no improvement.

## Self-training in a world with exact labels

Arithmetic of the built-in policy, whose model is the backbone. From the second round on the last model labels the
other solutions (`stepreward rounds --labelled ... --solutions ...`, confidence 0.8).

{_table(made["arithmetic"])}
{_labels(made["arithmetic"])}
## Self-training on recorded solutions

GSM8K solutions; labels are the step scores of `{TEACHER}`, a 7B model; the student starts from random weights.

{_table(made["recorded"])}
{_labels(made["recorded"])}
## Distillation of the recorded scores

The same solutions, all with the teacher's scores (or these rounded), one objective each. A step counts as right where
the teacher says more than 1/2; outcomes are graded answers.

{_table(made["distillation"])}"""


if __name__ == "__main__":
    need(DATA)
    few = Sizes(labelled=4, unlabelled=4, held_out=6, samples=2, rounds=2, seeds=1, epochs=1.0)
    found = main(few if "--quick" in sys.argv else None)
    sys.stdout.write(json.dumps(found, indent=1) + "\n")
    if "--write" in sys.argv and "--quick" not in sys.argv:
        PAGE.write_text(page(found))
