"""Which objective learns most from real solutions: the same problems, backbone and tokens for each.

    python -m benchmarks.objective_table [--quick]     prints the results as JSON; quick means nothing
    python -m benchmarks.objective_table --write       writes docs/results/objectives.md

Samples of GSM8K problems have the step scores of a real reward model (the teacher) and graded answers. A small
language model is trained on the solutions of the training problems, once. Each objective then trains it further, by
several seeds, for the same number of tokens: the objectives on steps from the teacher's scores, those on outcomes and
pairs from the graded answers. Problems are split, never solutions. Runs that are finished are kept in a folder, so that
an interrupted benchmark goes on where it stopped.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from transformers import AutoModelForCausalLM

from benchmarks import need
from benchmarks.real_data import DATA, ROOT, SEED, read
from benchmarks.real_data_page import beyond, decimal, difference, number, points, table
from benchmarks.real_training import RECORDED_AS, TEACHER, by_problem, position_control, scores_by
from stepreward.core.catalog import aggregate
from stepreward.core.files.atomic_files import write_json
from stepreward.core.keys import Key
from stepreward.core.measure.first_error import first_error
from stepreward.core.measure.selection import best_of_n
from stepreward.core.measure.statistics import bootstrap, percentile_interval
from stepreward.core.measure.step_metrics import auroc, best_threshold, harmonic, ragged
from stepreward.core.types import Floats, Trajectory
from stepreward.evaluate.data.solution_arrays import Pool, first_errors, pool_of_solutions, score_rows
from stepreward.evaluate.measures.selection_curves import hits
from stepreward.score.encode.record import PerStep
from stepreward.score.load import load
from stepreward.score.model.tiny_models import fresh_config, train_tokenizer
from stepreward.train.data.labelled_trees import labelled_trees
from stepreward.train.data.training_set import TrainingSet
from stepreward.train.scratch import starting_model
from stepreward.train.settings import TrainSettings
from stepreward.train.trainer import train

PAGE = ROOT / "docs" / "results" / "objectives.md"
WORK = ROOT / "runs" / "objective-table"
"""Where the backbone and finished runs are kept."""
BASE = "bce"
"""What the others are compared with."""
OBJECTIVES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    BASE: ("steps", {"labels": "right"}),
    "bce, soft labels": ("steps", {"objective": "bce", "labels": "teacher"}),
    "mse, soft labels": ("steps", {"objective": "mse", "labels": "teacher"}),
    "quantile, soft labels": ("steps", {"objective": "quantile", "labels": "teacher"}),
    "pqm": ("steps", {"objective": "pqm", "labels": "right"}),
    "first-error": ("steps", {"objective": "first-error", "labels": "right"}),
    "ensemble of 5": ("steps", {"objective": "ensemble", "labels": "right"}),
    "bce, merged steps (HRM)": ("steps", {"labels": "right", "merge_steps": 1.0}),
    "bce, both ways (BiPRM)": ("steps", {"labels": "right", "both_ways": True}),
    "step-and-trajectory": ("steps and outcome", {"objective": "step-and-trajectory", "labels": "right"}),
    "outcome": ("outcome", {"objective": "outcome"}),
    "return-decomposition": ("outcome", {"objective": "return-decomposition"}),
    "td": ("outcome", {"objective": "td"}),
    "bradley-terry": ("outcome", {"objective": "bradley-terry"}),
    "implicit-prm": ("outcome", {"objective": "implicit-prm"}),
    "dpo": ("outcome", {"objective": "dpo"}),
}
"""What each learns from, and its settings."""
CONTROLS = ("control: position", "control: shorter steps", "control: random")
PARTS = ("choose", "test", "bench")
"""The parts that are scored."""
DRAWS = 400
MEASURES = ("AUROC of steps", "rank within problems", "best of N", "ProcessBench F1")


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    train: int = 260
    """Problems to learn from."""
    valid: int = 40
    """Problems that choose the checkpoint and the threshold."""
    test: int = 150
    """Problems that everything is reported on."""
    samples: int = 6
    """Samples of a problem, in training and in the report."""
    characters: int = 7000
    """Of a problem and its samples, at most: pairs of solutions are compared in one batch."""
    batch_tokens: int = 3584
    language_tokens: int = 1_500_000
    """Tokens of the backbone's training on text."""
    tokens: int = 200_000
    """Tokens of each training on rewards."""
    seeds: int = 2
    vocabulary: int = 2048
    hidden: int = 128
    layers: int = 4


@dataclass(frozen=True)
class Data:
    """Problems by part, and the teacher's judgement of all steps of those that are reported."""

    learn: list[Trajectory]
    choose: list[Trajectory]
    test: list[Trajectory]
    bench: list[Trajectory]
    """ProcessBench solutions of problems that no part to learn from or to choose by has."""


def prepared(sizes: Sizes) -> Data:
    """The parts, each solution with the columns `teacher`, `right` and `reward`."""
    groups = by_problem(read("bon_pools/gsm8k_scores.jsonl.gz", strip_prompt=True, separator="\n"))
    groups = [some for some in groups if _characters(some[: sizes.samples]) <= sizes.characters]
    order = Key.seed(SEED).fold("objective table").rng().permutation(len(groups))
    parts = []
    for at in np.split(order, np.cumsum([sizes.train, sizes.valid, sizes.test]))[:3]:
        rows = [item for i in at for item in groups[i][: sizes.samples]]
        parts.append([_with_columns(item) for item in rows])
    learn, choose, test = parts
    seen = {item.problem.text.strip() for item in (*learn, *choose)}
    bench = [one for one in read("processbench/gsm8k.json", separator="\n") if one.problem.text.strip() not in seen]
    return Data(learn, choose, test, bench)


def _characters(rows: Sequence[Trajectory]) -> int:
    return len(rows[0].problem.text) + sum(len(step.text) for row in rows for step in row.steps)


def _with_columns(item: Trajectory) -> Trajectory:
    scores = np.asarray(item.scores[TEACHER], np.float64)
    # A score at or below 1/2 says "wrong"; what is not scored is not known.
    right = np.where(np.isnan(scores), np.nan, scores > 0.5)
    return item.with_columns({"teacher": scores, "right": right, "reward": np.zeros(len(scores))})


def language_model(rows: Sequence[Trajectory], sizes: Sizes, folder: Path) -> None:
    """Trains a small language model on solutions and writes it with its tokenizer."""
    texts = [f"{one.problem.text}\n\n" + "".join(step.text for step in one.steps) for one in rows]
    tokenizer = train_tokenizer(texts, sizes.vocabulary)
    torch.manual_seed(SEED)
    model = AutoModelForCausalLM.from_config(fresh_config(tokenizer, hidden=sizes.hidden, layers=sizes.layers))
    width, height = 256, 8
    ids = [token for text in texts for token in [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]]
    blocks = torch.tensor(ids[: len(ids) // width * width]).view(-1, width)
    steps = max(sizes.language_tokens // (width * height), 1)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps, pct_start=0.05)
    rng = Key.seed(SEED).fold("language").rng()
    for _ in range(steps):
        batch = blocks[rng.integers(0, len(blocks), height)]
        model(batch, labels=batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def run(settings: Mapping[str, Any], seed: int, data: Data, sizes: Sizes, backbone: Path) -> dict[str, Any]:
    """Trains with one objective and one seed, and scores what is reported on."""
    # All samples of a problem fit a batch, so that pairs are seen together.
    size = sizes.batch_tokens
    chosen = TrainSettings(seed=seed, batch_tokens=size, row_tokens=size, evaluations=2, **settings).on(
        str(backbone), str
    )
    objective, begin = chosen.loss(), time.process_time()
    groups = by_problem(data.learn)
    learn = labelled_trees([row for group in groups for row in chosen.augmented(group)], objective)
    record = objective.record(PerStep(clean=("chomp",)), both_ways=chosen.both_ways)
    model = starting_model(backbone, record=record, seed=seed)
    once = TrainingSet(learn, model.encoder, objective, row_tokens=size, batch_tokens=size).tokens
    chosen = replace(chosen, epochs=sizes.tokens / once)
    with tempfile.TemporaryDirectory() as folder:
        train(learn, model, Path(folder) / "model", chosen, held_out=labelled_trees(data.choose, objective))
        seconds = time.process_time() - begin
        scorer = load(Path(folder) / "model")
        rows = {name: scores_by(scorer, getattr(data, name)) for name in PARTS}
    return {"aggregation": model.record.use.aggregate, "seconds": seconds, "epochs": chosen.epochs} | {
        name: [[None if np.isnan(x) else float(x) for x in row] for row in scores] for name, scores in rows.items()
    }


def controls(data: Data, seed: int) -> dict[str, dict[str, Any]]:
    """Scores without reading: by the index of the step, by its length, and at random."""
    rng = Key.seed(SEED).fold("control", seed).rng()
    learn = labelled_trees([row.with_columns({"label": row.column("teacher")}) for row in data.learn])
    made: dict[str, dict[str, Any]] = {name: {"aggregation": "mean"} for name in CONTROLS}
    for name in PARTS:
        length = ragged([-np.array([float(len(step.text)) for step in item.steps]) for item in getattr(data, name)])
        random = np.where(np.isnan(length), np.nan, rng.random(length.shape))
        for control, scores in zip(CONTROLS, (position_control(learn, length), length, random), strict=True):
            made[control][name] = scores
    return made


@dataclass(frozen=True)
class Measured:
    """What is said of one objective: each measure of one seed, of any choice of its units."""

    units: Mapping[str, int]
    of: Mapping[str, Sequence[Callable[[NDArray[np.int64]], float]]]
    """By measure, one function a seed."""

    def drawn(self, name: str, key: Key) -> tuple[float, Floats]:
        """The mean over seeds, and that of bootstrap samples of seeds and units: the same ones for each objective."""
        functions, n, rng = self.of[name], self.units[name], key.fold(name).rng()
        made = []
        for units in rng.integers(0, n, (DRAWS, n)):
            seeds = rng.integers(0, len(functions), len(functions))
            made.append(float(np.mean([functions[k](units) for k in seeds])))
        return float(np.mean([one(np.arange(n)) for one in functions])), np.array(made)


def measured(runs: Sequence[Mapping[str, Any]], data: Data) -> Measured:
    """The measures of one objective's runs."""
    teacher = score_rows(data.test, TEACHER)
    width = len(data.test) // len({item.problem.id for item in data.test})
    gold = first_errors(data.bench)
    chosen = first_error(score_rows(data.choose, TEACHER))
    of: dict[str, list[Callable[[NDArray[np.int64]], float]]] = {name: [] for name in MEASURES}
    for one in runs:
        scores, bench, choose = (np.array(one[name], np.float64) for name in ("test", "bench", "choose"))
        real = ~(np.isnan(scores) | np.isnan(teacher))
        problems = [slice(at, at + width) for at in range(0, len(scores), width)]
        steps = [(scores[rows][real[rows]], teacher[rows][real[rows]]) for rows in problems]
        ranks = np.array([spearmanr(*pair)[0] if all(np.ptp(side) > 0 for side in pair) else np.nan for pair in steps])
        pool = pool_of_solutions(data.test)
        totals = aggregate[one["aggregation"]](scores, ~np.isnan(scores))
        picked = best_of_n(totals, np.repeat(np.arange(len(problems)), width))
        right = pool.outcome.ravel()[picked]
        threshold = best_threshold(choose, chosen).threshold
        hit = first_error(bench, threshold) == gold
        of["AUROC of steps"].append(partial(_auroc, steps))
        of["rank within problems"].append(partial(_mean, ranks))
        of["best of N"].append(partial(_mean, right))
        of["ProcessBench F1"].append(partial(_harmonic, hit, gold >= 0))
    return Measured(dict(zip(MEASURES, (len(problems),) * 3 + (len(gold),), strict=True)), of)


def _auroc(steps: Sequence[tuple[Floats, Floats]], units: NDArray[np.int64]) -> float:
    scores, teacher = (np.concatenate([steps[i][side] for i in units]) for side in (0, 1))
    return auroc(scores, (teacher > 0.5).astype(np.float64))


def _mean(values: Floats, units: NDArray[np.int64]) -> float:
    known = values[units][~np.isnan(values[units])]
    return float(known.mean()) if known.size else np.nan


def _harmonic(hit: NDArray[np.bool_], wrong: NDArray[np.bool_], units: NDArray[np.int64]) -> float:
    return harmonic(float(hit[units][wrong[units]].mean()), float(hit[units][~wrong[units]].mean()))


def results(sizes: Sizes, data: Data, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Runs what is not finished, and measures all: the runs, and each measure with its difference to the base."""
    if not (folder / "backbone").exists():
        language_model(data.learn, sizes, folder / "draft")
        (folder / "draft").rename(folder / "backbone")
    runs: dict[str, list[Any]] = {name: [] for name in (*OBJECTIVES, *CONTROLS)}
    for seed in range(sizes.seeds):
        for place, (name, (_, settings)) in enumerate(OBJECTIVES.items()):
            file = folder / f"{place}-{seed}.json"
            if not file.exists():
                print(f"{name}, seed {seed}", file=sys.stderr, flush=True)
                write_json(file, run(settings, seed, data, sizes, folder / "backbone"))
            runs[name].append(json.loads(file.read_text()))
        for name, scored in controls(data, seed).items():
            runs[name].append(scored)
    every, key = {name: measured(some, data) for name, some in runs.items()}, Key.seed(SEED).fold("measures")
    drawn = {name: {measure: made.drawn(measure, key) for measure in MEASURES} for name, made in every.items()}
    estimates: dict[str, Any] = {}
    for name, found in drawn.items():
        estimates[name] = {}
        for measure, (value, draws) in found.items():
            n, (base, its) = every[name].units[measure], drawn[BASE][measure]
            apart = percentile_interval(value - base, draws - its, n, bounds=None)
            estimates[name][measure] = (percentile_interval(value, draws, n).to_json(), apart.to_json())
    return runs, estimates


def page(sizes: Sizes, data: Data, runs: Mapping[str, Any], estimates: Mapping[str, Any]) -> str:
    """The page of results."""
    random, teacher, oracle = map(number, references(data, Key.seed(SEED).fold("references")))
    shares = {name: name in ("best of N", "ProcessBench F1") for name in MEASURES}
    values, gaps, cost = [], [], []
    for name, one in estimates.items():
        learned = OBJECTIVES[name][0] if name in OBJECTIVES else "nothing"
        values.append([name, learned, *(_shown(number if shares[k] else decimal, one[k][0]) for k in MEASURES)])
        gaps.append([name, *(_shown(points if shares[k] else difference, one[k][1]) for k in MEASURES)])
    for name in OBJECTIVES:
        passes, seconds = (float(np.mean([one[k] for one in runs[name]])) for k in ("epochs", "seconds"))
        cost.append([name, f"{passes:.2f}", f"{seconds:.0f}"])
    others = [name for name in estimates if name != BASE]
    said = ""
    for k in MEASURES:
        best, reached = (
            max(some, key=lambda name: _value(estimates[name][k][0])) for some in (tuple(OBJECTIVES), CONTROLS)
        )
        said += f"- {k}: {beyond({name: estimates[name][k][1] for name in others})} "
        said += f"The best objective is `{best}`, the best of the controls is `{reached}`.\n"
    return f"""# Objectives on real data

Written by `python -m benchmarks.objective_table --write`. Real samples of {sizes.train + sizes.valid + sizes.test}
GSM8K problems, {sizes.samples} each, have the step scores of {RECORDED_AS}, the teacher,
and graded answers. One small language model ({sizes.hidden} wide, {sizes.layers} layers, {sizes.vocabulary} tokens of
vocabulary) learned {sizes.language_tokens:,} tokens of the solutions of {sizes.train} training problems.
Each objective trained it further
for {sizes.tokens:,} tokens, by {sizes.seeds} seeds; {sizes.valid} problems chose the checkpoint and the threshold.
Reported are {sizes.test} other problems with {len(data.test):,} solutions, and {len(data.bench)} solutions of
ProcessBench gsm8k whose problems were not seen.

- Hard labels are teacher scores above 1/2; `soft labels` are the scores. Outcomes are the graded answers.
- AUROC of steps: against the teacher's hard labels, all steps together.
- Rank within problems: Spearman's correlation with the teacher's scores among the steps of a problem, so that knowing
  which problems are hard does not count.
- Best of N: share of right answers among the best of {sizes.samples} by each model's own aggregation. A sample at
  random has {random}, the teacher's minimum {teacher}, the oracle {oracle}.
- Intervals are 95 % bootstrap intervals over seeds and problems (solutions of ProcessBench). {sizes.seeds} seeds show
  {sizes.seeds - 1} of {sizes.seeds} parts of the variance between seeds: the intervals are somewhat too narrow.

{table(["objective", "learns from", *MEASURES], values)}
Minus `{BASE}`, in the same bootstrap samples:

{table(["objective", *MEASURES], gaps)}
Beyond the interval of the difference to `{BASE}`:

{said}
What a run took, on one thread:

{table(["objective", "passes", "CPU seconds"], cost)}"""


def _value(estimate: dict[str, Any]) -> float:
    return -np.inf if estimate["value"] is None else float(estimate["value"])


def _shown(write: Callable[[dict[str, Any]], str], estimate: dict[str, Any]) -> str:
    """An estimate in a cell; a model that scores all steps alike has no ranks."""
    return "none" if estimate["value"] is None or estimate["low"] is None else write(estimate)


def references(data: Data, key: Key) -> list[dict[str, Any]]:
    """Selection without a student: at random, by the teacher, and the best that can be had."""
    pool, teacher = pool_of_solutions(data.test), score_rows(data.test, TEACHER)
    totals = pool.shaped(aggregate["min"](teacher, ~np.isnan(teacher)))
    rates = hits(Pool(pool.answers, pool.outcome, {"teacher": totals}), pool.outcome.shape[1], key)
    named = {"random": pool.outcome.mean(axis=1), "teacher": rates["best-of-n:teacher"], "oracle": rates["oracle"]}
    return [bootstrap(values, key.fold(name)).to_json() for name, values in named.items()]


def main(sizes: Sizes, work: Path) -> tuple[dict[str, Any], str]:
    """Runs all and returns each measure with its difference to the base, and the page."""
    data = prepared(sizes)
    folder = work / "-".join(str(value) for name, value in asdict(sizes).items() if name != "seeds")
    folder.mkdir(parents=True, exist_ok=True)
    runs, estimates = results(sizes, data, folder)
    return {"seed": SEED, "sizes": asdict(sizes), "measured": estimates}, page(sizes, data, runs, estimates)


QUICK = Sizes(
    50,
    30,
    20,
    samples=3,
    batch_tokens=4096,
    language_tokens=20_000,
    tokens=6_000,
    seeds=2,
    vocabulary=400,
    hidden=32,
    layers=1,
)

if __name__ == "__main__":
    need(DATA)
    found, text = main(QUICK if "--quick" in sys.argv else Sizes(), WORK)
    sys.stdout.write(json.dumps(found, indent=1) + "\n")
    if "--write" in sys.argv and "--quick" not in sys.argv:
        PAGE.write_text(text)
