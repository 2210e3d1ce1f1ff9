"""Labels by judges, by votes of them and by what two sources agree on, against first errors that people marked.

    python -m benchmarks.judges [--quick] [--write]

Recorded verifiers stand in for judges. `--write` writes docs/results/judges.md.
"""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import need
from stepreward import formats
from stepreward.core.catalog import keep as filters
from stepreward.core.catalog import transform as transforms
from stepreward.core.measure.statistics import wilson
from stepreward.core.measure.step_metrics import harmonic
from stepreward.core.types import Trajectory
from stepreward.label.relabelling import relabelled, transformed
from stepreward.tasks.arithmetic import generate
from stepreward.tasks.arithmetic_truth import truth
from stepreward.verbs.label_rows import label
from stepreward.verbs.score_rows import score

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"
PAGE = ROOT / "docs" / "results" / "judges.md"
JUDGES = {
    "Qwen2.5-72B-Instruct": 72,
    "Llama-3.1-70B-Instruct": 70,
    "Qwen2.5-7B-Instruct": 7,
    "Llama-3.1-8B-Instruct": 8,
}
"""Language models that were asked of each step, and their billions of parameters."""
ROLLED = {"Llama3.1-8B-PRM-Mistral-Data": 8, "Llama3.1-8B-PRM-Deepseek-Data": 8, "Skywork-o1-Open-PRM-Qwen-2.5-7B": 7}
"""Reward models that learned from rollouts (Skywork: undisclosed labels), which stand in for labels of rollouts."""
PAIRS = (
    ("Llama3.1-8B-PRM-Mistral-Data", "Qwen2.5-72B-Instruct"),
    ("Llama3.1-8B-PRM-Deepseek-Data", "Qwen2.5-72B-Instruct"),
    ("Llama3.1-8B-PRM-Mistral-Data", "Qwen2.5-7B-Instruct"),
    ("Llama3.1-8B-PRM-Mistral-Data", "Llama3.1-8B-PRM-Deepseek-Data"),
    ("Qwen2.5-72B-Instruct", "Llama-3.1-70B-Instruct"),
    ("Qwen2.5-7B-Instruct", "Llama-3.1-8B-Instruct"),
)
MERGES = ("first-error-vote", "step-vote", "outcome-vote")
HEAD = """# Labels by judges, votes and consensus

Written by `python -m benchmarks.judges --write`; no number in a table is typed by hand.

- *kept*: share of the solutions that get labels at all.
- *exact*: of those, the share whose first error, or that there is none, is what people say; 95 % Wilson interval.
- *wrong*, *right*: the same on solutions with an error and without one; *F1* is their harmonic mean, as in
  ProcessBench.
- *named*, *clean*: what training sees. Of labels that name a step, the share that name the marked one; of labels that
  name none, the share of solutions without an error.
- *cost*: billions of parameters that read a solution once, all verifiers together; consensus pays for both sources.

What the tables say, in short: two sources of different kinds that agree are right more often than either of them, in
every pair here; two of the same kind gain less, as they make the same mistakes. What is left is mostly right
solutions: among those with an error the share that agrees with people may even fall (*wrong*), while what is labelled
wrong is mostly labelled at the right step more often (*named*). So balance what is kept (`--keep balance`), and do
not read the gain in *exact* alone. More votes of weaker judges can be worse than the best one alone.
"""
PROCESS = """
## ProcessBench

250 solutions each of gsm8k and math, with step scores of public verifiers that the FoVer project recorded; a score at
or below 1/2 calls a step wrong. The recording stops at the marked error and has the least score of all steps beside:
a verifier that first calls a step wrong behind it is taken to name the last step, which is wrong either way; where
two do so they count as agreeing. No labels of rollouts are in the files: reward models that learned from such labels
stand in for them, which smooths their noise.

The labels are those of `relabel --transform NAME --set 'votes=score:*'` and of `relabel --keep consensus`.
"""
MR = """
## MR-GSM8K

{solutions} wrong solutions with recorded scores of Math-Shepherd's reward model, which learned from rollouts, and of
ReasonEval, which learned from people (PRM800K); a step is wrong where Math-Shepherd's score is at or below 1/2, or
ReasonEval's chance of a valid step is. The answers of language models in the same file say nothing here: it has the
solutions in which one of them named the marked step. So these solutions are easier than most, for all rows alike, and
none is right.
"""
BUILT_IN = """
## The built-in world

Exact labels are known. {problems} problems, {samples} samples of the built-in policy each; rollouts are its own, the
judge is the program that computes equations again (`tool`; a step without an equation counts as right). Cost is in
rollouts a solution. The labels are those of `label --estimator math-shepherd --rollouts N`, of `score --model tool`,
and of `relabel --keep consensus`.
"""


def raw_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a compressed file as they are."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def process_bench(subset: str) -> list[Trajectory]:
    """Recorded solutions with each verifier's scores as far as they decide its first error."""
    path = need(DATA / "processbench_prm_scores" / f"{subset}.jsonl.gz")
    least = [row["min_all"] for row in raw_rows(path)]
    made = []
    for one, lowest in zip(formats.read(path, strict=True), least, strict=True):
        assert isinstance(one, Trajectory)
        columns = {}
        for name, scores in one.scores.items():
            known = np.where(np.isnan(scores), 1.0, scores)
            if not (known <= 0.5).any() and lowest[name] <= 0.5:
                known[-1] = 0.0
            columns[f"score:{name}"] = known
        made.append(replace(one, columns=columns))
    return made


def by_vote(rows: Sequence[Trajectory], merge: str, names: Sequence[str]) -> list[Trajectory]:
    """The labels of a merge of some verifiers' scores."""
    kept = [replace(one, columns={f"score:{name}": one.columns[f"score:{name}"] for name in names}) for one in rows]
    return [*transformed(kept, transforms[merge], {"votes": "score:*"})]


def agreed(first: Sequence[Trajectory], second: Sequence[Trajectory]) -> list[Trajectory]:
    """The solutions that two sources agree on."""
    return relabelled(first, None, [(filters["consensus"], {})], [second])


def measured(made: Sequence[Trajectory], gold: Mapping[Any, int], cost: float) -> dict[str, Any]:
    """Shares of labels whose first error is the one that people marked.

    Args:
        made: labelled solutions; those without labels do not count.
        gold: the first error of every solution, by `name_of` it; -1 for none.
        cost: of a solution.
    """
    made = [one for one in made if not np.isnan(one.labels).all()]
    said = np.array([-1 if one.first_error is None else one.first_error for one in made], int)
    true = np.array([gold[name_of(one)] for one in made], int)
    right = said == true
    low, high = wilson(right.sum(), right.size)
    kinds = (true >= 0, true < 0, said >= 0, said < 0)
    parts = [float(right[some].mean()) if some.any() else float("nan") for some in kinds]
    return {
        "kept": len(made) / len(gold), "exact": float(right.mean()) if right.size else float("nan"),
        "low": float(low), "high": float(high), "wrong": parts[0], "right": parts[1],
        "f1": float(harmonic(*parts[:2])), "named": parts[2], "clean": parts[3], "cost": cost,
    }  # fmt: skip


def name_of(one: Trajectory) -> tuple[str, str]:
    """What a solution is known by."""
    return one.problem.id, one.text


def verdicts(rows: Sequence[Trajectory]) -> dict[str, dict[str, Any]]:
    """Single verifiers, merges of judges and pairs that agree, on recorded scores."""
    gold = {name_of(one): int(one.first_error) for one in rows if one.first_error is not None}
    size = JUDGES | ROLLED
    alone = {name: by_vote(rows, "first-error-vote", [name]) for name in size}
    made = {name: measured(some, gold, size[name]) for name, some in alone.items()}
    for number in (2, 4):
        names = [*JUDGES][:number]
        cost = sum(JUDGES[name] for name in names)
        for merge in [*MERGES, "unanimous-vote"][: 4 if number > 2 else 3]:  # of two it is consensus
            made[f"{merge} of {number} judges"] = measured(by_vote(rows, merge, names), gold, cost)
    for first, second in PAIRS:
        both = agreed(alone[first], alone[second])
        made[f"consensus of {first} and {second}"] = measured(both, gold, size[first] + size[second])
    return made


def mr_gsm8k() -> tuple[dict[str, dict[str, Any]], int]:
    """Reward models, and pairs of them that agree, on wrong solutions of GSM8K, and their number."""
    path = need(DATA / "mr_gsm8k" / "mr_gsm8k_wrong_subset.jsonl.gz")
    raw = [row["prm_scores"] for row in raw_rows(path)]
    rows = []
    for one, recorded in zip(formats.read(path, strict=True), raw, strict=True):
        assert isinstance(one, Trajectory)
        columns = {"score:Math-Shepherd": one.column("score:math_shepherd")}
        for size in ("7b", "34b"):
            # Chances of a wrong, a neutral and a good step.
            valid = 1 - np.array(recorded[f"reasoneval_{size}"], np.float64)[:, 0]
            if len(valid) == len(one):
                columns[f"score:ReasonEval-{size.upper()}"] = valid
        if len(columns) == 3 and not any(np.isnan(some).any() for some in columns.values()):
            rows.append(replace(one, columns=columns))
    gold = {name_of(one): int(one.first_error) for one in rows if one.first_error is not None}
    size_of = {"Math-Shepherd": 7, "ReasonEval-7B": 7, "ReasonEval-34B": 34}
    alone = {name: by_vote(rows, "first-error-vote", [name]) for name in size_of}
    made = {name: measured(some, gold, size_of[name]) for name, some in alone.items()}
    made["first-error-vote of all"] = measured(by_vote(rows, "first-error-vote", [*size_of]), gold, 48)
    for first, second in combinations(size_of, 2):
        both = agreed(alone[first], alone[second])
        made[f"consensus of {first} and {second}"] = measured(both, gold, size_of[first] + size_of[second])
    made["unanimous-vote of all"] = measured(by_vote(rows, "unanimous-vote", [*size_of]), gold, 48)
    return made, len(rows)


def built_in(problems: int, samples: int, rollouts: Sequence[int]) -> dict[str, dict[str, Any]]:
    """Labels of rollouts, of the program and of both, against exact labels."""
    made: dict[str, dict[str, Any]] = {}
    gold: dict[tuple[str, str], int] = {}
    tokens: dict[int, float] = {}
    labelled: dict[int, list[Trajectory]] = {}
    for n in rollouts:
        labelled[n] = [*label(
            [*generate("train", problems, seed=0)], policy="builtin:arithmetic", grader="arithmetic",
            method="math-shepherd", transform="hard", samples=samples, n=n,
        )]  # fmt: skip
        for one in labelled[n]:
            exact = truth(one.problem, one.steps)
            wrong = np.flatnonzero(exact <= 0.5)
            gold[name_of(one)] = int(wrong[0]) if wrong.size else -1
        tokens[n] = float(n * np.mean([len(one) for one in labelled[n]]))
    tool = relabelled(score(labelled[rollouts[0]], "tool"), (transforms["pseudo-label"], {"above": 0.5, "below": 0.5}))
    made["tool"] = measured(tool, gold, 0)
    for n, some in labelled.items():
        made[f"math-shepherd, {n} rollouts a step"] = measured(some, gold, tokens[n])
        made[f"consensus of tool and {n} rollouts a step"] = measured(agreed(some, tool), gold, tokens[n])
    if len(rollouts) > 1:
        first, second = rollouts[:2]
        both = agreed(labelled[first], labelled[second])
        made[f"consensus of {first} and {second} rollouts a step"] = measured(
            both, gold, tokens[first] + tokens[second]
        )
    return made


def table(found: Mapping[str, Mapping[str, Any]], cost: str) -> list[str]:
    """Rows of a Markdown table."""
    parts = ("wrong", "right", "f1", "named", "clean")
    lines = [f"| labels | kept | exact | wrong | right | F1 | named | clean | {cost} |", f"|{'---|' * 9}"]
    for name, one in found.items():
        exact = f"{percent(one['exact'])} [{percent(one['low'])}, {percent(one['high'])}]"
        shares = [percent(one["kept"]), exact, *(percent(one[part]) for part in parts)]
        lines.append(f"| {name} | {' | '.join(shares)} | {one['cost']:,.0f} |")
    return [*lines, ""]


def percent(share: float) -> str:
    """A share in percent; a dash where there is none."""
    return "-" if np.isnan(share) else f"{100 * share:.1f}"


def page(found: Mapping[str, Any]) -> str:
    """The page of all results."""
    lines = [HEAD, PROCESS.lstrip("\n")]
    for subset, some in found["process_bench"].items():
        lines += [f"### {subset}", "", *table(some, "cost (10⁹ parameters)")]
    lines += [MR.format(**found["sizes"]), *table(found["mr_gsm8k"], "cost (10⁹ parameters)")]
    lines += [BUILT_IN.format(**found["sizes"]), *table(found["built_in"], "cost (rollouts)")]
    return "\n".join(lines).rstrip("\n") + "\n"


def main(arguments: Sequence[str]) -> int:
    """Measures all of it."""
    quick = "--quick" in arguments
    sizes = {"problems": 8 if quick else 100, "samples": 4}
    of_gsm8k, solutions = mr_gsm8k()
    found: dict[str, Any] = {
        "process_bench": {subset: verdicts(process_bench(subset)) for subset in ("gsm8k", "math")},
        "mr_gsm8k": of_gsm8k,
        "sizes": sizes | {"solutions": solutions},
        "built_in": built_in(**sizes, rollouts=(2,) if quick else (4, 8)),
    }
    if "--write" in arguments:
        PAGE.write_text(page(found), encoding="utf-8")
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
