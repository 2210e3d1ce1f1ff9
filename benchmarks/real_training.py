"""Learning from a real reward model: its step scores of real solutions as soft labels for a model of a million weights.

    python -m benchmarks.real_training [--quick]     prints the results as JSON; quick takes minutes and means little
    python -m benchmarks.real_training --write       writes docs/results/real-training.json

The page docs/results/real-data.md shows that file. Problems are split, never solutions: a student is trained on some
problems, its checkpoint and its threshold are chosen on others, and all that is reported is of the rest.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import pearsonr, spearmanr

from benchmarks import need
from benchmarks.real_data import DATA, SEED, TRAINING, plain, read
from stepreward.core.catalog import aggregate
from stepreward.core.keys import Key
from stepreward.core.measure.first_error import first_error
from stepreward.core.measure.statistics import Estimate, bootstrap, paired_difference, resamples
from stepreward.core.measure.step_metrics import auroc, best_threshold, ragged
from stepreward.core.runtime.flows import Score, Scorer
from stepreward.core.tree import StepTree
from stepreward.core.types import Floats, Trajectory
from stepreward.evaluate.data.solution_arrays import Pool, first_errors, pool_of_solutions, score_rows
from stepreward.evaluate.measures.selection_curves import hits
from stepreward.evaluate.measures.step_scores import first_error_f1
from stepreward.policies.model_sources import resolve
from stepreward.score.discriminative import DiscriminativeScorer
from stepreward.score.model.step_reward_model import StepRewardModel
from stepreward.train.data.labelled_trees import labelled_trees
from stepreward.train.data.training_set import TrainingSet
from stepreward.train.scratch import starting_model
from stepreward.train.settings import SCRATCH, TrainSettings
from stepreward.train.trainer import train
from stepreward.train.training_result import TrainResult

TEACHER = "skywork_prm"
RECORDED_AS = "Skywork-o1-Open-PRM-Qwen-2.5-7B"
"""The teacher's name among the verifiers recorded on ProcessBench."""
STARTS = {"from scratch": SCRATCH, "from the built-in policy": "builtin:arithmetic"}
CONTROL = "control: position of the step"
HOWS = ("min", "mean", "last", "product")
DRAWS = 500


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    train: int = 320
    """Problems to learn from."""
    valid: int = 60
    """Problems that choose the checkpoint and the threshold."""
    test: int = 120
    """Problems that everything is reported on, with all 32 samples."""
    samples: int = 12
    """Samples of a training problem; half as many of a validation problem."""
    tokens: int = 1_500_000
    """Tokens of training: the same for both starts, so fewer passes for the one whose tokenizer needs more of them."""
    vocabulary: int = 2048
    row_tokens: int = 768
    batch_tokens: int = 1536


def by_problem(items: Sequence[Trajectory]) -> list[list[Trajectory]]:
    """The samples of each problem, in the order of the file."""
    groups: dict[str, list[Trajectory]] = {}
    for item in items:
        groups.setdefault(item.problem.id, []).append(item)
    return list(groups.values())


def split(groups: Sequence[list[Trajectory]], sizes: Sizes, key: Key) -> dict[str, list[list[Trajectory]]]:
    """Problems by part, at random."""
    order = key.fold("split").rng().permutation(len(groups))
    ends = np.cumsum([sizes.train, sizes.valid, sizes.test])
    parts = np.split(order, ends)[:3]
    return {name: [groups[i] for i in at] for name, at in zip(("train", "valid", "test"), parts, strict=True)}


def trees_of(groups: Sequence[list[Trajectory]], samples: int) -> list[StepTree]:
    """Trees of the first samples of each problem, labelled by the teacher."""
    rows = [item.with_columns({"label": item.scores[TEACHER]}) for group in groups for item in group[:samples]]
    return labelled_trees(rows)


def fit(
    start: str, learn: Sequence[StepTree], choose: Sequence[StepTree], sizes: Sizes, folder: Path
) -> tuple[StepRewardModel, TrainResult]:
    """A student trained for `sizes.tokens` tokens from one of the starts."""
    source = start if start == SCRATCH else resolve(start)
    model = starting_model(source, learn, vocabulary=sizes.vocabulary, seed=SEED)
    assert isinstance(model, StepRewardModel)
    row, batch = sizes.row_tokens, sizes.batch_tokens
    once = TrainingSet(learn, model.encoder, row_tokens=row, batch_tokens=batch).tokens
    settings = TrainSettings(epochs=sizes.tokens / once, seed=SEED, row_tokens=row, batch_tokens=batch)
    return model, train(learn, model, folder, settings, held_out=choose)


def scores_by(scorer: Scorer, items: Sequence[Trajectory]) -> Floats:
    """(B, S) scores of a student, NaN at padding.

    One sample of each problem at a time: 32 of them are one tree of 10,000 tokens, whose attention costs the square,
    and the samples share little but the prompt.
    """
    made: dict[int, Floats] = {}
    for part in _turns(items):
        asked = [Score(items[i].problem, items[i].steps) for i in part]
        made.update(zip(part, (answer.scores for answer in scorer.score_many(asked)), strict=True))
    return ragged([made[i] for i in range(len(items))])


def _turns(items: Sequence[Trajectory]) -> list[list[int]]:
    """Indices of the solutions, one of a problem in each part."""
    parts: dict[int, list[int]] = {}
    count: dict[str, int] = {}
    for i, item in enumerate(items):
        problem = item.problem.id
        parts.setdefault(count.get(problem, 0), []).append(i)
        count[problem] = count.get(problem, 0) + 1
    return list(parts.values())


def position_control(learn: Sequence[StepTree], like: Floats) -> Floats:
    """(B, S) the teacher's mean training score at each step's index: what can be known without reading."""
    flat = [tree.step_column("label") for tree in learn]
    width = max(like.shape[1], *(labels.shape[1] for labels in flat))
    together = np.concatenate([np.pad(a, ((0, 0), (0, width - a.shape[1])), constant_values=np.nan) for a in flat])
    real = ~np.isnan(together)
    count = real.sum(axis=0)
    mean = np.where(count > 0, np.nansum(together, axis=0) / np.maximum(count, 1), np.nansum(together) / real.sum())
    return np.where(np.isnan(like), np.nan, mean[: like.shape[1]])


def over_problems(
    statistic: Callable[[Floats, Floats], float], student: Floats, teacher: Floats, group: NDArray[np.int64], key: Key
) -> Estimate:
    """A statistic of all steps, with a 95 % percentile bootstrap over problems."""
    real = ~(np.isnan(student) | np.isnan(teacher))
    pairs = [(student[group == g][real[group == g]], teacher[group == g][real[group == g]]) for g in np.unique(group)]

    def of(chosen: Sequence[int] | NDArray[np.int64]) -> float:
        return statistic(*(np.concatenate([pairs[i][side] for i in chosen]) for side in (0, 1)))

    drawn = [of(chosen) for chosen in resamples(len(pairs), DRAWS, key)]
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return Estimate(of(range(len(pairs))), float(low), float(high), len(pairs))


def agreement(student: Floats, teacher: Floats, group: NDArray[np.int64], key: Key) -> dict[str, Estimate]:
    """How far a student's step scores go with the teacher's.

    "within problems" is the mean over problems of Spearman's correlation of a problem's own steps: what is left when
    knowing which problems are hard does not count.
    """
    statistics: Mapping[str, Callable[[Floats, Floats], float]] = {
        "pearson": lambda a, b: float(pearsonr(a, b)[0]),
        "spearman": lambda a, b: float(spearmanr(a, b)[0]),
        "auroc": auroc,
    }
    made = {name: over_problems(one, student, teacher, group, key.fold(name)) for name, one in statistics.items()}
    inside = []
    for g in np.unique(group):
        a, b = student[group == g].ravel(), teacher[group == g].ravel()
        real = ~(np.isnan(a) | np.isnan(b))
        if np.ptp(a[real]) > 0 and np.ptp(b[real]) > 0:
            inside.append(float(spearmanr(a[real], b[real])[0]))
    return {**made, "spearman within problems": bootstrap(inside, key.fold("inside"))}


def selection(items: Sequence[Trajectory], scores: Mapping[str, Floats], key: Key) -> dict[str, Any]:
    """Accuracy of every selector with all samples, and paired differences to majority."""
    samples = pool_of_solutions(items)
    totals = {
        f"{name}: {how}": samples.shaped(aggregate[how](rows, ~np.isnan(rows)))
        for name, rows in scores.items()
        for how in HOWS
    }
    rates = hits(Pool(samples.answers, samples.outcome, totals), samples.outcome.shape[1], key)
    return {
        name: {
            "accuracy": bootstrap(rate, key.fold("accuracy", name)),
            "minus majority": paired_difference(rate, rates["majority"], key.fold("gap", name)),
        }
        for name, rate in {**rates, "a sample at random": samples.outcome.mean(axis=1)}.items()
    }


def process_bench(
    students: Mapping[str, tuple[StepRewardModel, float]], seen: set[str], key: Key
) -> dict[str, dict[str, Any]]:
    """First errors of ProcessBench gsm8k, solutions of problems seen in training or choosing left out.

    Args:
        students: model and threshold by name.
        seen: texts of the problems seen.
        key: randomness.
    """

    def unseen(items: Sequence[Trajectory]) -> list[Trajectory]:
        return [item for item in items if item.problem.text.strip() not in seen]

    items = unseen(read("processbench/gsm8k.json", separator="\n"))
    gold = first_errors(items)
    made = {}
    for name, (model, threshold) in students.items():
        scores = scores_by(DiscriminativeScorer(model), items)
        made[name] = first_error_f1(scores, gold, key.fold("student", name), threshold=threshold)
    lengths = np.array([len(item) for item in items])
    guess = key.fold("guess").rng().integers(-1, lengths)
    scores = np.where(np.arange(lengths.max()) < lengths[:, None], 1.0, np.nan)
    scores[np.arange(len(guess))[guess >= 0], guess[guess >= 0]] = 0.0
    made["a step at random"] = first_error_f1(scores, gold, key.fold("random"))
    recorded = unseen(read("processbench_prm_scores/gsm8k.jsonl.gz"))
    made["teacher, where recorded"] = first_error_f1(
        score_rows(recorded, RECORDED_AS), first_errors(recorded), key.fold("teacher")
    )
    return {name: one.to_json() for name, one in made.items()}


def main(sizes: Sizes | None = None) -> dict[str, Any]:
    """Trains both students and measures them."""
    sizes, key, start = sizes or Sizes(), Key.seed(SEED).fold("real training"), time.perf_counter()
    items = read("bon_pools/gsm8k_scores.jsonl.gz", strip_prompt=True, separator="\n")
    parts = split(by_problem(items), sizes, key)
    learn, choose = trees_of(parts["train"], sizes.samples), trees_of(parts["valid"], sizes.samples // 2)
    valid = [item for group in parts["valid"] for item in group[: sizes.samples // 2]]
    test = [item for group in parts["test"] for item in group]
    teacher, chooses = score_rows(test, TEACHER), score_rows(valid, TEACHER)
    group = np.repeat(np.arange(len(parts["test"])), [len(one) for one in parts["test"]])
    scores, students, trained = {"teacher": teacher, CONTROL: position_control(learn, teacher)}, {}, {}
    for name, source in STARTS.items():
        with tempfile.TemporaryDirectory() as folder:
            model, result = fit(source, learn, choose, sizes, Path(folder) / "student")
        scores[name] = scores_by(DiscriminativeScorer(model), test)
        threshold = best_threshold(scores_by(DiscriminativeScorer(model), valid), first_error(chooses)).threshold
        students[name] = (model, threshold)
        trained[name] = {
            "weights": sum(p.numel() for p in model.parameters()), "vocabulary": len(model.tokenizer),
            "tokens of a pass": result.tokens, "passes": sizes.tokens / result.tokens, "steps": result.steps,
            "seconds": result.seconds, "loss": result.metrics["loss"], "threshold": threshold,
        }  # fmt: skip
    seen = {one[0].problem.text.strip() for name in ("train", "valid") for one in parts[name]}
    agreed = {
        name: agreement(rows, teacher, group, key.fold("agreement", name))
        for name, rows in scores.items()
        if name != "teacher"
    }
    real = teacher[~np.isnan(teacher)]
    return {
        "seed": SEED,
        "equal to the threshold": "wrong",
        "teacher": TEACHER,
        "sizes": asdict(sizes),
        "trained": trained,
        "steps": {"test": real.size, "above 0.5": float((real > 0.5).mean())},
        "agreement": plain(agreed),
        "selection": plain(selection(test, scores, key.fold("selection"))),
        "process bench": process_bench(students, seen, key.fold("process bench")),
        "seconds": time.perf_counter() - start,
        "threads": torch.get_num_threads(),
    }


if __name__ == "__main__":
    need(DATA)
    quick = Sizes(train=12, valid=6, test=12, samples=4, tokens=20_000, vocabulary=400)
    text = json.dumps(main(quick if "--quick" in sys.argv else None), indent=1) + "\n"
    sys.stdout.write(text)
    if "--write" in sys.argv and "--quick" not in sys.argv:
        TRAINING.write_text(text)
