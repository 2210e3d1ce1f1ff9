"""Real solutions, labels by people, recorded scores of public reward models, and the tool scorer beside them.

    python -m benchmarks.real_data              prints the results as JSON; --quick changes nothing, half a minute
    python -m benchmarks.real_data --write      writes docs/results/real-data.md

Every number in that page comes from `main()`; the seed and the code decide them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import need
from benchmarks.real_data_page import page
from benchmarks.real_training_page import section
from stepreward import formats
from stepreward.core.catalog import aggregate, calibrate
from stepreward.core.keys import Key
from stepreward.core.measure.selection import best_of_n, majority, oracle, weighted_vote
from stepreward.core.measure.statistics import Estimate, bootstrap, paired_difference
from stepreward.core.measure.step_metrics import brier, expected_calibration_error, ragged
from stepreward.core.runtime.flows import Score
from stepreward.core.types import Floats, Trajectory
from stepreward.evaluate.data.solution_arrays import Pool, first_errors, pool_of_solutions, score_rows
from stepreward.evaluate.measures.selection_curves import curves
from stepreward.evaluate.measures.step_scores import FirstErrorResult, first_error_f1
from stepreward.formats.rows import written_by
from stepreward.score.tools.equations import ToolScorer, equations

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"
PAGE = ROOT / "docs" / "results" / "real-data.md"
TRAINING = ROOT / "docs" / "results" / "real-training.json"
"""What `python -m benchmarks.real_training --write` measured; the page shows it."""
SEED = 0
CONTROL = "control: 0.8 at every step"
SIZES = (1, 2, 4, 8, 16, 32)

# ProcessBench F1 in percent, (gsm8k, math), on all 400 and 1000 solutions.
PUBLISHED: Mapping[str, tuple[float, float, str]] = {
    "Qwen2.5-Math-PRM-7B": (82.4, 77.6, "arXiv:2501.07301, Table 7"),
    "Qwen2.5-Math-7B-PRM800K": (68.2, 62.6, "arXiv:2501.07301, Table 7"),
    "Skywork-o1-Open-PRM-Qwen-2.5-7B": (70.8, 53.6, "arXiv:2501.07301, Table 7"),
    "Llama3.1-8B-PRM-Deepseek-Data": (38.8, 33.8, "arXiv:2501.07301, Table 7"),
    "Llama3.1-8B-PRM-Mistral-Data": (50.4, 33.4, "arXiv:2501.07301, Table 7"),
}


def read(path: str, **options: Any) -> list[Trajectory]:
    """All solutions of a file of the data folder."""
    return list(formats.read(DATA / path, strict=True, **options))


def tool_rows(items: Sequence[Trajectory], scorer: ToolScorer) -> Floats:
    """(B, S) scores of the tool scorer, NaN at padding."""
    asked = [Score(item.problem, item.steps) for item in items]
    return ragged([answer.scores for answer in scorer.score_many(asked)])


def verifiers(key: Key) -> dict[str, dict[str, FirstErrorResult]]:
    """First-error F1 of every recorded verifier on both subsets, at 0.5 and at the threshold chosen on gsm8k."""
    easy, hard = (read(f"processbench_prm_scores/{name}.jsonl.gz") for name in ("gsm8k", "math"))
    gold_easy, gold_hard = first_errors(easy), first_errors(hard)
    made = {}
    for name in easy[0].scores:
        a, b = score_rows(easy, name), score_rows(hard, name)
        fold = key.fold("verifier", name)
        made[name] = {
            "gsm8k at 0.5": first_error_f1(a, gold_easy, fold.fold("gsm8k")),
            "gsm8k tuned": first_error_f1(a, gold_easy, fold.fold("gsm8k tuned"), tune_on=(a, gold_easy)),
            "math at 0.5": first_error_f1(b, gold_hard, fold.fold("math")),
            "math tuned on gsm8k": first_error_f1(b, gold_hard, fold.fold("math tuned"), tune_on=(a, gold_easy)),
        }
    return made


def tool_first_error(key: Key) -> dict[str, dict[str, Any]]:
    """The tool scorer on ProcessBench: the protocol, what it finds, and two baselines that know nothing."""
    made: dict[str, dict[str, Any]] = {}
    for subset in ("gsm8k", "math"):
        items = read(f"processbench/{subset}.json")
        gold = first_errors(items)
        scores = tool_rows(items, ToolScorer())
        labels = ragged([item.labels for item in items])
        rng = key.fold("random", subset).rng()
        lengths = (~np.isnan(scores)).sum(axis=1)
        guess = rng.integers(-1, lengths)
        # A score of 0 at the guessed step makes the guess a first error.
        random = np.where(np.isnan(scores), np.nan, (np.arange(scores.shape[1]) != guess[:, None]).astype(np.float64))
        seen = {
            "wrong": scores[labels == 0],
            "right": scores[labels == 1],
        }
        recorded = {item.problem.id for item in read(f"processbench_prm_scores/{subset}.jsonl.gz")}
        same = np.array([item.problem.id in recorded for item in items])
        made[subset] = {
            "tool": first_error_f1(scores, gold, key.fold("tool", subset)),
            "tool, the verifiers' 250": first_error_f1(scores[same], gold[same], key.fold("tool 250", subset)),
            "a step at random": first_error_f1(random, gold, key.fold("random", subset)),
            "steps": {
                kind: {
                    "judged false": int((values == 0).sum()),
                    "judged true": int((values == 1).sum()),
                    "nothing to judge": int(((values > 0) & (values < 1)).sum()),
                }
                for kind, values in seen.items()
            },
            "equations": sum(len(equations(step.text)) for item in items for step in item.steps),
        }
    return made


def totals_of(scores: Floats, *, negative: bool = True) -> dict[str, Floats]:
    """(B,) totals by every aggregation."""
    mask = ~np.isnan(scores)
    return {m.name: m(scores, mask) for m in aggregate if negative or m.name != "log-odds"}


def pool_curves(key: Key) -> tuple[dict[str, dict[str, list[Estimate]]], dict[str, Any], Pool, list[Trajectory]]:
    """Accuracy against N of every selector under every aggregation of every verifier, and gaps to majority at 32."""
    items = read("bon_pools/gsm8k_scores.jsonl.gz", strip_prompt=True)
    samples = pool_of_solutions(items)
    rows = {name: score_rows(items, name) for name in items[0].scores}
    rows["tool scorer"] = tool_rows(items, ToolScorer())
    # Knows nothing but the number of steps: what product aggregation gains by length alone.
    rows[CONTROL] = np.where(np.isnan(rows["tool scorer"]), np.nan, 0.8)
    made, gaps = {}, {}
    for name, scores in rows.items():
        totals = {how: samples.shaped(total) for how, total in totals_of(scores).items()}
        pool = Pool(samples.answers, samples.outcome, totals)
        # One key for all verifiers: they choose among the same subsets.
        made[name] = curves(pool, SIZES, key.fold("pool"))
        gaps[name] = _gaps(samples, totals, key.fold("gap", name))
    gaps["tool minus control"] = _against_control(samples, rows, key.fold("control"))
    return made, gaps, samples, items


def _against_control(samples: Pool, rows: Mapping[str, Floats], key: Key) -> dict[str, Estimate]:
    """What the equations add to knowing the number of steps: paired differences with product totals, all samples."""
    problems, size = samples.outcome.shape
    group = np.repeat(np.arange(problems), size)
    answers, outcome = samples.answers.ravel(), samples.outcome.ravel()
    tool, control = (totals_of(rows[name])["product"] for name in ("tool scorer", CONTROL))
    votes = [outcome[weighted_vote(total, answers, group)] for total in (tool, control)]
    best = [outcome[best_of_n(total, group)] for total in (tool, control)]
    return {
        "weighted-vote:product": paired_difference(votes[0], votes[1], key.fold("vote")),
        "best-of-n:product": paired_difference(best[0], best[1], key.fold("best")),
    }


def _gaps(samples: Pool, totals: Mapping[str, Floats], key: Key) -> dict[str, Estimate]:
    """Paired differences of weighted vote and best-of-N to majority, all samples."""
    problems, size = samples.outcome.shape
    group = np.repeat(np.arange(problems), size)
    answers, outcome = samples.answers.ravel(), samples.outcome.ravel()
    base = outcome[majority(answers, group)]
    made = {}
    for how, total in totals.items():
        if how != "log-odds":
            voted = outcome[weighted_vote(total.ravel(), answers, group)]
            made[f"weighted-vote:{how}"] = paired_difference(voted, base, key.fold("vote", how))
        best = outcome[best_of_n(total.ravel(), group)]
        made[f"best-of-n:{how}"] = paired_difference(best, base, key.fold("best", how))
    return made


def calibration(items: Sequence[Trajectory], samples: Pool, key: Key) -> dict[str, dict[str, Any]]:
    """Brier score and ECE of each verifier's last-step score as the chance to be right, before and after a fit.

    The fit uses a random half of the problems and is measured on the other half.
    """
    problems = len(samples.outcome)
    fit = np.zeros(problems, bool)
    fit[key.fold("split").rng().permutation(problems)[: problems // 2]] = True
    made = {}
    for name in items[0].scores:
        scores = score_rows(items, name)
        last = samples.shaped(aggregate["last"](scores, ~np.isnan(scores)))
        made[name] = _calibrated(last, samples.outcome, fit, key.fold("calibration", name))
    return made


def _calibrated(scores: Floats, outcome: Floats, fit: np.ndarray[Any, Any], key: Key) -> dict[str, Any]:
    held, truth = scores[~fit], outcome[~fit]
    made = {m.name: m().fit(scores[fit], outcome[fit]).predict(held) for m in calibrate if m().unbiased}
    made["base rate"] = np.full(held.shape, outcome[fit].mean())
    before = ((made["identity"] - truth) ** 2).mean(axis=1)
    rows = {}
    for how, predicted in made.items():
        after = ((predicted - truth) ** 2).mean(axis=1)
        pairs = np.stack([predicted, truth], axis=-1)
        rows[how] = {
            "brier": bootstrap(after, key.fold("brier", how)),
            "change": paired_difference(after, before, key.fold("change", how)),
            "ece": bootstrap(pairs, key.fold("ece", how), statistic=_ece, draws=200),
        }
        assert abs(rows[how]["brier"].value - brier(predicted, truth)) < 1e-9
    return rows


def _ece(pairs: Floats) -> Floats:
    return np.array([expected_calibration_error(one[..., 0], one[..., 1], bins=10) for one in pairs])


def four_solutions(key: Key) -> dict[str, Estimate]:
    """Choosing among the four model solutions of each GSM8K test problem, with ties broken at random.

    With four votes ties are the rule, and the file lists its models in one order: each selector is averaged over random
    orders. "more steps" is a control that knows only the number of steps.
    """
    items = read("gsm8k/example_model_solutions.jsonl.gz")
    samples = pool_of_solutions(items)
    totals = totals_of(tool_rows(items, ToolScorer()), negative=False)
    totals = {f"tool:{how}": samples.shaped(total) for how, total in totals.items()}
    totals["more steps"] = samples.shaped(np.array([len(item) for item in items], np.float64))
    rates = {"a solution at random": samples.outcome.mean(axis=1)}
    policies = [written_by(item) for item in items[: samples.outcome.shape[1]]]
    rates |= {f"always {name}": samples.outcome[:, i] for i, name in enumerate(policies)}
    rates |= _shuffled(samples, totals, key.fold("four", "orders"))
    made = {name: bootstrap(rate, key.fold("four", name)) for name, rate in rates.items()}
    for how in ("min", "mean"):
        gap = rates[f"weighted-vote tool:{how}"] - rates["majority"]
        made[f"weighted-vote tool:{how} minus majority"] = bootstrap(gap, key.fold("four gap", how))
    gap = rates["weighted-vote tool:mean"] - rates["weighted-vote more steps"]
    made["weighted-vote tool:mean minus weighted-vote more steps"] = bootstrap(gap, key.fold("four gap", "steps"))
    return made


def _shuffled(samples: Pool, totals: Mapping[str, Floats], key: Key, *, orders: int = 32) -> dict[str, Floats]:
    """(G,) rate of each selector over random orders of the samples."""
    problems, size = samples.outcome.shape
    group = np.repeat(np.arange(problems), size)
    sums: dict[str, Floats] = {}
    for order in range(orders):
        at = key.fold(order).rng().random((problems, size)).argsort(axis=1) + size * np.arange(problems)[:, None]
        answers, outcome = samples.answers.ravel()[at.ravel()], samples.outcome.ravel()[at.ravel()]
        chosen = {"majority": majority(answers, group)}
        for name, values in totals.items():
            total = values.ravel()[at.ravel()]
            chosen[f"best-of-4 {name}"] = best_of_n(total, group)
            chosen[f"weighted-vote {name}"] = weighted_vote(total, answers, group)
        chosen["oracle"] = oracle(outcome, group)
        for name, rows in chosen.items():
            sums[name] = sums.get(name, 0.0) + outcome[rows] / orders
    return sums


def main() -> dict[str, Any]:
    """Everything that the page shows."""
    key = Key.seed(SEED)
    pool, gaps, samples, items = pool_curves(key)
    return {
        "seed": SEED,
        "verifiers": verifiers(key),
        "tool": tool_first_error(key),
        "pool": pool,
        "gaps": gaps,
        "calibration": calibration(items, samples, key),
        "four_solutions": four_solutions(key),
    }


def plain(value: Any) -> Any:
    """The results as JSON values."""
    if isinstance(value, Estimate | FirstErrorResult):
        return value.to_json()
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, list) else value


if __name__ == "__main__":
    need(DATA)
    results = main()
    if "--write" in sys.argv:
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text(page(plain(results), PUBLISHED, section(json.loads(TRAINING.read_text()))))
    else:
        sys.stdout.write(json.dumps(plain(results), indent=1) + "\n")
