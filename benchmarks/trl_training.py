"""Training side by side with TRL's PRMTrainer: processor seconds, wall seconds, and AUROC on problems held out.

    python -m benchmarks.trl_training --trl-python ENVIRONMENT/bin/python [--quick] [--write]

The environment has `trl` 1.13, the last release with a PRMTrainer, and `torch` of this one's release. Both sides get
the same rows, the same randomly initialised Qwen2-shaped backbone, the same tokenizer, learning rate, schedule and
number of passes, one thread each, no activation checkpoints, and about as many steps of the optimizer: TRL with 8
solutions a forward pass, its default, and accumulation. They run in turns, in processes of their own, and the one that
begins alternates. Seconds are from rows in memory to weights on disk, tokenising included and imports left out.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer

from benchmarks import SKIPPED, need
from benchmarks.real_data import DATA, read
from benchmarks.real_training import by_problem
from stepreward.core.catalog import estimate
from stepreward.core.keys import Key
from stepreward.core.measure.statistics import resamples
from stepreward.core.measure.step_metrics import auroc
from stepreward.core.runtime.driver import Driver
from stepreward.core.runtime.flows import Score
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.policies import loading
from stepreward.policies.local import LocalPolicy
from stepreward.score.discriminative import DiscriminativeScorer
from stepreward.score.encode.record import EncoderRecord
from stepreward.score.model.step_reward_model import StepRewardModel
from stepreward.score.model.tiny_models import train_tokenizer
from stepreward.tasks.arithmetic import Difficulty, generate
from stepreward.tasks.arithmetic_truth import ArithmeticGrader, truth
from stepreward.train.data.labelled_trees import labelled_trees
from stepreward.train.data.training_set import TrainingSet
from stepreward.train.settings import TrainSettings
from stepreward.train.trainer import train

PAGE = Path(__file__).parents[1] / "docs" / "results" / "trl-training.md"
TEACHER = "qwen_prm"
BATCH = 8
"""TRL's own number of solutions in a forward pass."""
VOCABULARY = 4096
BATCH_TOKENS = 4096
SHAPES: dict[str, dict[str, int]] = {
    "30M": {"hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8, "num_key_value_heads": 8,
            "intermediate_size": 1408},
    "1M": {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 4,
           "intermediate_size": 384},
}  # fmt: skip
LEARNING_RATES = {"30M": 3e-4, "1M": 1e-3}
PROBLEMS = {"30M": {"N = 3": 6, "N = 16": 2, "search trees": 6}, "1M": {"N = 3": 80, "N = 16": 16, "search trees": 70}}
"""Problems to learn from."""
HELD_OUT = 60
"""Problems of the AUROC, three solutions each."""
ROUNDS = 3
TREE = {"n": 4, "searches": 6}
"""Settings of OmegaPRM, the Monte Carlo tree search that makes trees: rollouts a state, bisected solutions."""
Row = dict[str, Any]


def pool_rows(problems: Sequence[Sequence[Trajectory]], samples: int) -> list[Row]:
    """Rows of real solutions, labelled by whether a real reward model scored a step above 0.5."""
    return [
        as_row(one.problem, one.steps, np.asarray(one.scores[TEACHER]) > 0.5)
        for group in problems
        for one in group[:samples]
    ]


def searched_rows(problems: Sequence[Problem], policy: LocalPolicy, key: Key) -> list[list[Row]]:
    """Rows of each problem's search tree, labelled by the exact truth."""
    driver = Driver(policy=policy, grader=ArithmeticGrader())
    flows = [estimate["omegaprm"].take({"problem": one, "key": key.fold(one.id)}, **TREE) for one in problems]
    done = sorted(driver.run(flows), key=lambda finished: finished.index)
    return [
        [as_row(one.problem, one.steps, truth(one.problem, one.steps) > 0.5) for one in tree.trajectories() if len(one)]
        for tree in (finished.result for finished in done)
    ]


def as_row(problem: Problem, steps: Sequence[Step], labels: Any) -> Row:
    """A solution as both sides read it."""
    texts = [step.text.removesuffix("\n") for step in steps]
    return {"id": problem.id, "prompt": problem.text + "\n", "steps": texts, "labels": [int(one) for one in labels]}


def trajectories(rows: Sequence[Row]) -> list[Trajectory]:
    """The rows as solutions."""
    return [
        Trajectory(
            Problem(row["id"], row["prompt"].removesuffix("\n")), tuple(map(Step, row["steps"])),
            columns={"label": np.array(row["labels"], np.float64)},
        )
        for row in rows
    ]  # fmt: skip


def ours(folder: Path, kinds: Sequence[str], seed: int) -> None:
    """Trains on the rows of each kind in a folder and writes what it cost beside them."""
    tokenizer = AutoTokenizer.from_pretrained(folder / "backbone")
    for kind in kinds:
        work = json.loads((folder / f"{kind}.json").read_text())
        backbone = AutoModel.from_pretrained(folder / "backbone", dtype=torch.float32, attn_implementation="sdpa")
        model = StepRewardModel(backbone, tokenizer, EncoderRecord(), seed=seed)
        seconds, processor = time.perf_counter(), sum(os.times()[:2])
        with tempfile.TemporaryDirectory() as out:
            result = train(
                labelled_trees(trajectories(work["train"])), model, Path(out) / "model", settings(work, seed)
            )
        cost = {"seconds": time.perf_counter() - seconds, "processor": sum(os.times()[:2]) - processor}
        asked = [Score(one.problem, one.steps) for one in trajectories(work["test"])]
        scores = [answer.scores.tolist() for answer in DiscriminativeScorer(model).score_many(asked)]
        found = {**cost, "tokens": result.tokens, "steps": result.steps, "scores": scores}
        (folder / f"{kind}.ours.json").write_text(json.dumps(found))


def settings(work: Row, seed: int) -> TrainSettings:
    """Those of our side."""
    return TrainSettings(
        epochs=work["epochs"], learning_rate=work["learning_rate"], schedule="linear", warmup=0.0, seed=seed,
        batch_tokens=BATCH_TOKENS, row_tokens=BATCH_TOKENS, evaluations=1,
    )  # fmt: skip


def prepare(folder: Path, size: str, data: dict[str, tuple[list[Row], list[Row]]], texts: Sequence[str]) -> Row:
    """Writes the backbone and the rows; says how many tokens each kind has."""
    tokenizer = train_tokenizer(texts, VOCABULARY)
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "qwen2", vocab_size=len(tokenizer), tie_word_embeddings=True, bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, **SHAPES[size],
    )  # fmt: skip
    backbone = AutoModel.from_config(config, attn_implementation="sdpa")
    backbone.save_pretrained(folder / "backbone")
    tokenizer.save_pretrained(folder / "backbone")
    model = StepRewardModel(backbone, tokenizer, EncoderRecord())
    about: Row = {"parameters": sum(p.numel() for p in backbone.parameters())}
    for kind, (learn, test) in data.items():
        work = {"train": learn, "test": test, "epochs": 1, "batch": BATCH, "learning_rate": LEARNING_RATES[size]}
        chosen = settings(work, 0)
        trees = labelled_trees(trajectories(learn))
        batches = TrainingSet(trees, model.encoder, row_tokens=BATCH_TOKENS, batch_tokens=BATCH_TOKENS)
        # As many steps of the optimizer, or one more.
        work["accumulate"] = max(1, round(len(learn) / BATCH / len(batches)))
        (folder / f"{kind}.json").write_text(json.dumps(work))
        about[kind] = {"problems": len(trees), "solutions": len(learn), "tokens": batches.tokens,
                       "batches": len(batches), "epochs": chosen.epochs}  # fmt: skip
    return about


def turn(side: str, folder: Path, kinds: Sequence[str], seed: int, trl_python: str) -> Row:
    """One side in a process of its own; what it wrote, by kind."""
    code = {
        "ours": "from pathlib import Path; from benchmarks.trl_training import ours; ours(Path(sys.argv[1]), {}, {})",
        "trl": "from benchmarks.trl_side import run; run(sys.argv[1], {}, {})",
    }[side].format(list(kinds), seed)
    python = sys.executable if side == "ours" else trl_python
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1",
                   "HF_DATASETS_CACHE": str(folder / "cache")}  # fmt: skip
    if side == "trl":
        environment["PYTHONPATH"] = str(Path(__file__).parents[1])
    done = subprocess.run(
        [python, "-c", f"import sys; {code}", str(folder)], cwd=Path(__file__).parents[1], env=environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{side} failed:\n{done.stderr[-3000:]}")
    return {kind: json.loads((folder / f"{kind}.{side}.json").read_text()) for kind in kinds}


def quality(rows: Sequence[Row], runs: Sequence[Row], key: Key) -> dict[str, Any]:
    """AUROC of both sides on held-out problems, and 95 % of the differences of single runs over draws of problems."""
    problems = sorted({row["id"] for row in rows})
    of_problem = [[i for i, row in enumerate(rows) if row["id"] == one] for one in problems]

    def one(side: str, run: Row, chosen: Sequence[int]) -> float:
        at = [i for p in chosen for i in of_problem[p]]
        scores = np.concatenate([run[side]["scores"][i] for i in at])
        return float(auroc(scores, np.concatenate([rows[i]["labels"] for i in at]).astype(np.float64)))

    whole = range(len(problems))
    found = {side: float(np.mean([one(side, run, whole) for run in runs])) for side in ("ours", "trl")}
    gaps = [
        one("ours", run, chosen) - one("trl", run, chosen)
        for chosen in resamples(len(problems), 200, key)
        for run in runs
    ]
    low, high = np.nanquantile(gaps, [0.025, 0.975])
    return {**found, "difference": found["ours"] - found["trl"], "low": float(low), "high": float(high)}


def compared(runs: Sequence[Row]) -> Row:
    """Ratios of TRL's cost to ours: the median of all rounds, the least and the largest."""
    made: Row = {"tokens": {side: runs[0][side]["tokens"] for side in ("ours", "trl")}}
    made["steps"] = {side: runs[0][side]["steps"] for side in ("ours", "trl")}
    for cost in ("processor", "seconds"):
        ratios = [run["trl"][cost] / run["ours"][cost] for run in runs]
        made[cost] = {side: [run[side][cost] for run in runs] for side in ("ours", "trl")}
        made[cost] |= {"ratio": float(np.median(ratios)), "low": min(ratios), "high": max(ratios)}
    return made


def measure(trl_python: str, sizes: Sequence[str], problems: dict[str, dict[str, int]], rounds: int) -> Row:
    """All sizes and kinds of rows."""
    key = Key.seed(0)
    groups = by_problem(read("bon_pools/gsm8k_scores.jsonl.gz", strip_prompt=True, separator="\n"))
    order = key.fold("split").rng().permutation(len(groups))
    held, pool = [groups[i] for i in order[:HELD_OUT]], [groups[i] for i in order[HELD_OUT:]]
    # The tokenizer is learned from problems that nobody is tested on.
    texts = [one.problem.text for group in pool for one in group[:1]]
    texts += [step.text for group in pool for one in group[:2] for step in one.steps]
    policy = LocalPolicy(*loading.load("builtin:arithmetic", "cpu", "float32"))
    most = max(one["search trees"] for one in problems.values())
    some = list(generate("held_out", most + HELD_OUT, difficulty=Difficulty(operations=(5, 8))))
    searched = searched_rows(some, policy, key)
    texts += [row["prompt"] + "\n".join(row["steps"]) for tree in searched[HELD_OUT:] for row in tree[:4]]
    made: Row = {}
    for size in sizes:
        n = problems[size]
        test = pool_rows(held, 3)
        data = {
            "N = 3": (pool_rows(pool[: n["N = 3"]], 3), test),
            "N = 16": (pool_rows(pool[: n["N = 16"]], 16), test),
            "search trees": (
                [row for tree in searched[HELD_OUT : HELD_OUT + n["search trees"]] for row in tree],
                [row for tree in searched[:HELD_OUT] for row in tree[:3]],
            ),
        }
        with tempfile.TemporaryDirectory() as temporary:
            folder, runs = Path(temporary), []
            about = prepare(folder, size, data, texts)
            for number in range(rounds):
                sides = ("ours", "trl") if number % 2 == 0 else ("trl", "ours")
                runs.append({side: turn(side, folder, [*data], number, trl_python) for side in sides})
        made[size] = {"parameters": about["parameters"], "kinds": {}}
        for kind, (_, held_rows) in data.items():
            mine = [{side: run[side][kind] for side in ("ours", "trl")} for run in runs]
            made[size]["kinds"][kind] = {**about[kind], **compared(mine), "auroc": quality(held_rows, mine, key)}
    return {"rounds": rounds, "load": os.getloadavg()[0], "sizes": made}


def page(found: Row, trl_version: str) -> str:
    """The page of results."""
    costs, qualities = [], []
    for one in found["sizes"].values():
        for kind, row in one["kinds"].items():
            tokens, cpu, wall = row["tokens"], row["processor"], row["seconds"]
            costs.append(
                f"| {one['parameters'] / 1e6:.1f}M | {kind} | {row['solutions']} of {row['problems']} | "
                f"{tokens['trl']:,} | {tokens['ours']:,} | {tokens['trl'] / tokens['ours']:.2f} | "
                f"{np.median(cpu['trl']):.1f} | {np.median(cpu['ours']):.1f} | "
                f"**{cpu['ratio']:.2f}** ({cpu['low']:.2f} to {cpu['high']:.2f}) | "
                f"{wall['ratio']:.2f} ({wall['low']:.2f} to {wall['high']:.2f}) | "
                f"{row['steps']['trl']} / {row['steps']['ours']} |"
            )
            gap = row["auroc"]
            qualities.append(
                f"| {one['parameters'] / 1e6:.1f}M | {kind} | {gap['trl']:.3f} | {gap['ours']:.3f} | "
                f"{gap['difference']:+.3f} [{gap['low']:+.3f}, {gap['high']:+.3f}] |"
            )
    steps = [row["steps"] for one in found["sizes"].values() for row in one["kinds"].values()]
    apart = max(abs(one["trl"] - one["ours"]) for one in steps)
    return f"""# Training side by side with TRL

Written by `python -m benchmarks.trl_training --trl-python PYTHON --write` on {platform.machine()}, one thread,
PyTorch {torch.__version__}, TRL {trl_version}, {found["rounds"]} rounds in turns. Other work shared the processor (load
{found["load"]:.0f} at the end), so that processor seconds say more than wall seconds. No number is typed by hand.

`N` is the number of real solutions of each GSM8K problem; a step is right where a public reward model scored it above
0.5. Search trees are OmegaPRM's, grown by the built-in policy on its own problems. Tokens are those of one pass,
padding left out: TRL's are each solution by itself, ours each shared prefix once. A ratio above 1 means that this
project needs less; in brackets are the least and the largest of all rounds.

| weights | data | solutions | tokens, TRL | ours | fewer | CPU s, TRL | ours | CPU ratio | wall ratio | steps |
|---|---|---|---|---|---|---|---|---|---|---|
{chr(10).join(costs)}

AUROC of step scores on {HELD_OUT} problems that neither side saw, a mean over rounds, and its difference. In brackets
are 95 % of the differences of single rounds over bootstrap samples of the problems, more than those of a mean:

| weights | data | TRL | ours | difference |
|---|---|---|---|---|
{chr(10).join(qualities)}

Both sides learn little from so few solutions and steps, and the intervals are wide: this table shows neither that the
two are equally good nor that they differ. That they train on the same thing is held elsewhere: packed scores and
gradients equal those of single solutions (`tests/score/test_packing.py`, `tests/train/test_data.py`).

What decides the ratio is how many tokens solutions share, which the column `fewer` says. Sampled solutions of GSM8K
share the prompt and little more; trees of a search share most of their tokens. Where the CPU ratio is larger, the
likely reason is padding, which TRL's batches of {BATCH} solutions in random order have and packed rows almost lack;
where it is smaller, costs that do not depend on tokens, such as steps of the optimizer. Neither was measured by itself.
Steps of the optimizer differ by up to {apart} on the two sides, as the last column says.
"""


def main() -> None:
    """Measures, prints JSON, and writes the page where wanted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trl-python", default=os.environ.get("TRL_PYTHON", ""), help="python of TRL's environment")
    parser.add_argument("--quick", action="store_true", help="a small model and few rows")
    parser.add_argument("--write", action="store_true", help="write the page of results")
    flags = parser.parse_args()
    if not flags.trl_python:
        sys.stderr.write("needs a Python with trl 1.13: pass --trl-python or set TRL_PYTHON\n")
        raise SystemExit(SKIPPED)
    need(DATA)
    quick = {"1M": {"N = 3": 6, "N = 16": 2, "search trees": 4}}
    problems = quick if flags.quick else PROBLEMS
    found = measure(flags.trl_python, [*problems], problems, 1 if flags.quick else ROUNDS)
    if flags.write:
        asked = [flags.trl_python, "-c", "import importlib.metadata as m; print(m.version('trl'))"]
        version = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
        PAGE.write_text(page(found, version))
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
