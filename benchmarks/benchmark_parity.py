"""Parity: every benchmark metric against an independent literal reading of its definition, on the same predictions.

    python -m benchmarks.benchmark_parity [--quick] [--write]

Predictions are random with many ties (seed 0), and, where the public data is here, recorded scores of real verifiers.
`--write` puts the table into docs/results/benchmark-parity.md. A difference above 1e-9 ends it with status 1.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import literal, literal_agents
from benchmarks.literal import Numbers, Row
from stepreward.core.catalog import bench
from stepreward.core.keys import Key
from stepreward.core.types import Comparison, Problem, Step, Trajectory
from stepreward.evaluate.comparison_benches import COUNTS, SECTIONS
from stepreward.evaluate.data.result import BenchResult
from stepreward.evaluate.data.scoring import RecordedScorer
from stepreward.evaluate.measures.attempts import all_at_k, pass_at_k
from stepreward.evaluate.measures.overoptimisation import overoptimisation
from stepreward.evaluate.measures.reward_distances import epic, starc
from stepreward.evaluate.prm_bench import GROUPS, PATTERNS
from stepreward.formats.registry import read, read_comparisons

DATA = Path(__file__).parents[2] / "shared" / "data"
PAGE = Path(__file__).parents[1] / "docs" / "results" / "benchmark-parity.md"
TOLERANCE = 1e-9
SCORES = (0.0, 0.2, 0.35, 0.5, 0.65, 0.8, 1.0)
RANDOM = "random"
Found = tuple[str, str, Mapping[str, float], Numbers]
"""Benchmark, data, our numbers, the literal ones."""


class Recorded:
    """Names whose recorded scores a comparison is judged by."""

    batch_size = 1

    def __init__(self, name: str) -> None:
        self.name = name


def solutions(rng: np.random.Generator, n: int, **meta: Sequence[str]) -> list[Trajectory]:
    """Random step scores and labels; right and wrong solutions about equally often."""
    made = []
    for i in range(n):
        steps = int(rng.integers(1, 7))
        labels = np.ones(steps) if rng.random() < 0.5 else rng.integers(0, 2, steps).astype(float)
        wrong = np.flatnonzero(labels == 0)
        named = {name: values[i % len(values)] for name, values in meta.items()}
        made.append(
            Trajectory(
                Problem(f"p{i}", "?"), tuple(Step(f"{i}.{k}\n") for k in range(steps)),
                first_error=int(wrong[0]) if wrong.size else -1,
                columns={"label": labels, "score:v": rng.choice(SCORES, steps)}, facts=named,
            )
        )  # fmt: skip
    return made


def plain(items: Sequence[Trajectory], name: str = "v") -> list[Row]:
    """What the literal readings see of solutions."""
    return [
        {
            **item.facts,
            "scores": [float(score) for score in item.scores[name]],
            "labels": [None if math.isnan(label) else float(label) for label in item.labels],
            "first": item.first_error,
            "problem": item.problem.id,
            "answer": item.answer,
            "right": item.outcome,
        }
        for item in items
    ]


def comparisons(
    rng: np.random.Generator, n: int, good: int, bad: int, subsets: Sequence[str], task: int = 3
) -> list[Comparison]:
    """Random scores of right and wrong candidates, with ties."""
    made = []
    for i in range(n):
        problem = Problem(f"c{i}", "?")
        candidates = tuple(Trajectory(problem, (Step(str(k)),)) for k in range(good + bad))
        scores = tuple(float(score) for score in rng.choice(SCORES, good + bad))
        meta = {"task_id": f"t{i // task}", "row_id": f"{i}"}
        preferred = (1.0,) * good + (0.0,) * bad
        made.append(Comparison(problem, candidates, preferred, subsets[i % len(subsets)], {"v": scores}, meta))
    return made


def ties(rng: np.random.Generator, n: int) -> list[Comparison]:
    """Rows of RewardBench 2's Ties: a reference and a tied row of each prompt."""
    refs, tied = comparisons(rng, n, 1, 3, ["Ties"]), comparisons(rng, n, 3, 2, ["Ties"])
    rows = [replace(one, meta={"row_id": f"ref:{i}"}) for i, one in enumerate(refs)]
    # Some prompts are told apart, so that margins take part.
    for i, one in enumerate(tied):
        scores = one.scores["v"] if i % 3 else tuple(s + (2.0 if k < 3 else 0.0) for k, s in enumerate(one.scores["v"]))
        rows.append(replace(one, scores={"v": scores}, meta={"row_id": f"tied:{i}"}))
    return rows


def split(items: Sequence[Comparison], name: str = "v") -> list[Row]:
    """What the literal readings see of comparisons."""
    rows: list[Row] = []
    for item in items:
        totals = [math.prod(row) for row in item.step_scores[name]] if name in item.step_scores else item.scores[name]
        both = list(zip(item.preferred, totals, strict=True))
        best = max(item.preferred)
        rows.append(
            {
                "good": [score for worth, score in both if worth == best],
                "bad": [score for worth, score in both if worth < best],
                "subset": item.subset,
                "task": item.meta.get("task_id"),
                "row_id": item.meta.get("row_id"),
                "language": item.meta.get("language"),
            }
        )
    return rows


def flat(made: BenchResult) -> dict[str, float]:
    """All numbers of a result, those of groups as `group/metric`."""
    numbers = {name: one.value for name, one in made.metrics.items()}
    for group, metrics in made.groups.items():
        numbers |= {f"{group}/{name}": one.value for name, one in metrics.items()}
    return numbers


def measured(
    benchmark: str, items: Sequence[Trajectory] | Sequence[Comparison], name: str = "v", **settings: Any
) -> Any:
    """Our numbers."""
    first = items[0]
    scorer: Any = RecordedScorer(items, name) if isinstance(first, Trajectory) else Recorded(name)  # type: ignore[arg-type]
    return flat(bench[benchmark].take({"scorer": scorer, "data": items}, **settings))


def of_steps(rng: np.random.Generator, n: int) -> Iterator[Found]:
    """Benchmarks that label steps or locate errors."""
    items = solutions(rng, n, subset=["gsm8k", "math", "omnimath"], paradigm=["steps"])
    for threshold in (None, 0.5):
        name = f"{RANDOM}, threshold {'chosen' if threshold is None else threshold}"
        yield (
            "process-bench",
            name,
            measured("process-bench", items, threshold=threshold),
            literal.process_bench(plain(items), threshold),
        )
    rows = plain(items)
    strict = measured("process-bench", items, threshold=0.5, ties="right")
    yield "process-bench", f"{RANDOM}, below 0.5", strict, literal.process_bench(rows, 0.5, strict=True)
    missed = measured("reason-eval", items, threshold=0.5, ties="missed")
    yield "reason-eval", f"{RANDOM}, ties missed", missed, literal.reason_eval(rows, 0.5, ties_missed=True)
    simple = {
        "mr-score": literal.mr_score, "first-error-accuracy": literal.first_error_accuracy,
        "hard2verify": literal.hard2verify, "mp-bench": literal.mp_bench, "visual-process-bench": literal.visual,
        "reason-eval": literal.reason_eval,
    }  # fmt: skip
    for benchmark, reading in simple.items():
        yield benchmark, RANDOM, measured(benchmark, items, threshold=0.5), reading(rows, 0.5)
    gaps = [one.with_columns({"label": np.where(rng.random(len(one)) < 0.2, np.nan, one.labels)}) for one in items]
    yield (
        "visual-process-bench",
        "random, neutral steps",
        measured("visual-process-bench", gaps),
        literal.visual(plain(gaps), 0.5),
    )
    for benchmark, groups in {"prm-bench": GROUPS, "socratic-prm-bench": PATTERNS}.items():
        classed = solutions(rng, n, classification=[name for members in groups.values() for name in members])
        right = "multi_solutions"
        kept = [
            one.with_columns({"label": np.ones(len(one))}) if one.facts["classification"] == right else one
            for one in classed
        ]
        yield benchmark, RANDOM, measured(benchmark, kept), literal.classes_of(plain(kept), 0.5, groups)


def of_comparisons(rng: np.random.Generator, n: int) -> Iterator[Found]:
    """Benchmarks that compare candidates."""
    subsets = [name for members in SECTIONS.values() for name in members]
    one = comparisons(rng, n, 1, 1, subsets)
    yield "pairs", RANDOM, measured("pairs", one), literal.pairs(split(one))
    other = np.random.default_rng(1)
    orders = [
        replace(row, meta={"better_first": first}, scores={"v": tuple(other.choice([*SCORES, math.nan], 2).tolist())})
        for first in (True, False)
        for row in one
    ]
    seen = [(row.scores["v"][0], row.scores["v"][1], row.subset) for row in orders]
    yield "both-orders", RANDOM, measured("both-orders", orders), literal_agents.both_orders(seen)
    yield "tool-comp", RANDOM, measured("tool-comp", one), literal.tool_comp(split(one))
    yield "reward-bench", RANDOM, measured("reward-bench", one), literal.reward_bench(split(one), SECTIONS)
    tongues = [
        replace(row, meta={"language": tongue})
        for tongue in ("deu", "ces")
        for row in comparisons(rng, n, 1, 1, subsets)
    ]
    reading = literal.m_reward_bench(split(tongues), SECTIONS, COUNTS)
    yield "m-reward-bench", RANDOM, measured("m-reward-bench", tongues), reading
    six = comparisons(rng, n, 3, 3, ["chat", "math", "code", "safety"])
    yield "rm-bench", RANDOM, measured("rm-bench", six), literal.rm_bench(split(six))
    ten = comparisons(rng, n, 1, 9, ["math"])
    yield "rewardmath", RANDOM, measured("rewardmath", ten), literal.rewardmath(split(ten))
    four = [*comparisons(rng, n, 1, 3, ["Factuality", "Focus", "Math", "Precise IF", "Safety"]), *ties(rng, n // 4)]
    yield "reward-bench-2", RANDOM, measured("reward-bench-2", four), literal.reward_bench_2(split(four))
    web = comparisons(rng, n, 1, 4, ["mind2web", "webarena"])
    yield "web-reward-bench", RANDOM, measured("web-reward-bench", web), literal.web_reward_bench(split(web))
    yield "web-prm-bench", RANDOM, measured("web-prm-bench", web), literal.web_prm_bench(split(web))


def of_samples(rng: np.random.Generator, n: int) -> Iterator[Found]:
    """Choice among samples, calibration, bounds, selection by a proxy."""
    graded = [
        replace(
            one,
            problem=Problem(f"p{i // 8}", "?"),
            outcome=float(rng.integers(0, 2)),
            answer=str(rng.integers(0, 4)),
        )
        for i, one in enumerate(solutions(rng, n))
    ]
    graded = [replace(one, outcome=float(one.answer == "1")) for one in graded]
    totals: dict[str, Callable[[Sequence[float]], float]] = {
        "last": lambda s: s[-1],
        "min": min,
        "product": math.prod,
        "mean": literal.mean,
    }
    for name, total in totals.items():
        yield (
            "best-of-n",
            f"{RANDOM}, {name}",
            measured("best-of-n", graded, aggregate=name),
            literal.best_of_n(plain(graded), total),
        )
    items = solutions(rng, n)
    pairs = [(s, y) for row in plain(items) for s, y in zip(row["scores"], row["labels"], strict=True)]
    yield "calibration", RANDOM, measured("calibration", items), literal.calibration(pairs, 10)
    ends = [(min(row["scores"]), row["right"]) for row in plain(graded)]
    ours = measured("outcome-calibration", graded, aggregate="min")
    yield "outcome-calibration", RANDOM, ours, literal.calibration(ends, 10)
    outcomes = rng.random((12, 9)) < rng.random((12, 1))
    c, k = outcomes.sum(axis=1), 4
    bounds = {"pass@k": float(pass_at_k(c, 9, k).mean()), "pass^k": float(all_at_k(c, 9, k).mean())}
    yield "attempts", RANDOM, bounds, literal.pass_at_k(outcomes.tolist(), k)
    proxy, gold = rng.normal(size=(8, 9)), rng.normal(size=(8, 9))
    curve = overoptimisation(proxy, gold, (1, 3, 9), Key.seed(0), draws=10)
    read_ = {f"gold at {s}": literal.overoptimisation(proxy.tolist(), gold.tolist(), s) for s in (1, 3, 9)}
    yield "overoptimisation", RANDOM, dict(zip(read_, (e.value for e in curve.gold), strict=True)), read_


def of_agents(rng: np.random.Generator, n: int) -> Iterator[Found]:
    """Benchmarks of agents' steps."""
    failed = []
    for one in solutions(rng, n):
        agents = [str(name) for name in rng.choice(["ann", "bob"], len(one.labels))]
        steps = tuple(replace(s, agent=a) for s, a in zip(one.steps, agents, strict=True))
        first = int(rng.integers(len(steps)))
        meta = {"mistake_agent": agents[first]}
        failed.append(replace(one, steps=steps, first_error=first, facts=meta))
    rows = [
        {**row, "agents": [step.agent for step in one.steps], "agent": one.facts["mistake_agent"]}
        for row, one in zip(plain(failed), failed, strict=True)
    ]
    yield "who-and-when", RANDOM, measured("who-and-when", failed), literal.who_and_when(rows)
    chats = [one.with_columns({"label": rng.choice([0.0, 0.5, 1.0], len(one))}) for one in solutions(rng, n)]
    ours = measured("agent-process-bench", chats, threshold=0.35, right_above=0.65)
    yield "agent-process-bench", RANDOM, ours, literal.agent_process_bench(plain(chats), 0.35, 0.65)


def of_rewards(rng: np.random.Generator) -> Iterator[Found]:
    """Distances of reward functions."""
    transition, policy = rng.dirichlet(np.ones(4), size=(4, 3)), rng.dirichlet(np.ones(3), size=4)
    first, second = rng.normal(size=(2, 4, 3, 4))
    given = (first.tolist(), second.tolist(), transition.tolist(), policy.tolist())
    ours = {
        "starc": starc(first, second, transition, policy=policy, discount=0.9),
        "epic": epic(first, second, discount=0.9),
    }
    yield "distances", RANDOM, ours, {"starc": literal.starc(*given, 0.9), "epic": literal.epic(*given[:2], 0.9)}


def of_runs(rng: np.random.Generator, n: int) -> Iterator[Found]:
    """Benchmarks of agents' whole runs, and of reports of errors and failure modes."""
    runs = [replace(one, outcome=float(rng.random() < 0.4)) for one in solutions(rng, n)]
    ours = measured("agent-reward-bench", runs, threshold=0.35)
    yield "agent-reward-bench", RANDOM, ours, literal_agents.agent_reward_bench(plain(runs), 0.35)

    def errors(spans: int) -> list[list[str]]:
        return [[str(rng.integers(spans)), str(rng.choice(["tool", "goal", "form"]))] for _ in range(rng.integers(5))]

    traces = [replace(one, facts={"errors": errors(len(one)), "errors:v": errors(len(one))}) for one in runs]
    named = [
        ([(at, of) for at, of in one.facts["errors"]], [(at, of) for at, of in one.facts["errors:v"]]) for one in traces
    ]
    yield "trail", RANDOM, measured("trail", traces), literal_agents.trail(named)

    def modes() -> dict[str, int | None]:
        return {mode: (None, 0, 0, 1)[rng.integers(4)] for mode in ("1.1", "2.3", "3.2")}

    failures = [replace(one, facts={"modes": modes(), "modes:v": modes()}) for one in runs]
    both = [(one.facts["modes"], one.facts["modes:v"]) for one in failures]
    yield "mast", RANDOM, measured("mast", failures), literal_agents.mast(both)


def of_real_verifiers() -> Iterator[Found]:
    """Recorded scores of real verifiers."""
    folder = DATA / "processbench_prm_scores"
    items = [
        replace(one, facts={"subset": path.name.split(".")[0]})
        for path in sorted(folder.glob("*.jsonl*"))
        for one in read(path, strict=True)
    ]
    for name in ("Qwen2.5-Math-PRM-7B", "Skywork-o1-Open-PRM-Qwen-2.5-7B", "Llama3.1-8B-PRM-Deepseek-Data"):
        mine = [one for one in items if name in one.scores]
        for threshold in (None, 0.5):
            how = "chosen" if threshold is None else threshold
            ours = measured("process-bench", mine, name, threshold=threshold)
            yield "process-bench", f"{name}, threshold {how}", ours, literal.process_bench(plain(mine, name), threshold)
    judged = list(read_comparisons(DATA / "rewardmath" / "rewardmath_scores.jsonl.gz", strict=True))
    for name in sorted({name for one in judged for name in (*one.scores, *one.step_scores)}):
        rated = [one for one in judged if name in one.scores or name in one.step_scores]
        yield "rewardmath", name, measured("rewardmath", rated, name), literal.rewardmath(split(rated, name))
    pool = list(read(DATA / "bon_pools" / "gsm8k_scores.jsonl.gz", strict=True))[: 32 * 200]
    for name in ("qwen_prm", "skywork_prm", "math_shepherd"):
        ours = measured("best-of-n", pool, name, aggregate="product")
        yield "best-of-n", f"{name}, product", ours, literal.best_of_n(plain(pool, name), math.prod)
    eight = list(read(DATA / "qwen_rm_maj" / "math_cot_100.jsonl.gz", strict=True))
    name = "Qwen2.5-Math-RM-72B"
    numbers = literal.best_of_n(plain(eight, name), lambda scores: scores[-1])
    del numbers["weighted_vote"]  # rewards are negative too, so a vote weighted by them is left out
    yield "best-of-n", f"{name}, 100 x 8", measured("best-of-n", eight, name), numbers


def table(*, quick: bool = False) -> list[dict[str, Any]]:
    """One row a benchmark, data and metric: our number, the literal one, their distance."""
    rng, n = np.random.default_rng(0), 96 if quick else 240
    parts = [of_steps(rng, n), of_comparisons(rng, n), of_samples(rng, n), of_agents(rng, n), of_rewards(rng)]
    parts.append(of_runs(rng, n))
    if not quick and DATA.exists():
        parts.append(of_real_verifiers())
    return [
        {
            "benchmark": benchmark, "data": data, "metric": metric, "ours": ours[metric], "literal": number,
            "difference": abs(ours[metric] - number),
        }
        for part in parts
        for benchmark, data, ours, numbers in part
        for metric, number in numbers.items()
    ]  # fmt: skip


def page(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table in Markdown, one line a benchmark and data."""
    parts = [
        "# Parity of benchmark metrics\n\n"
        "Written by `python -m benchmarks.benchmark_parity --write` (seed 0). Each metric of each benchmark beside an\n"
        "independent reading of its definition in plain loops (`benchmarks/literal.py`, which shares no code with\n"
        "`stepreward.evaluate`), on the same predictions: random ones with many ties, and recorded scores of real\n"
        f"verifiers. The largest of {len(rows):,} differences is {max(row['difference'] for row in rows):.1e};\n"
        "above 1e-9 the command fails.\n\n"
        "| benchmark | predictions | metrics | ours | literal | largest difference |\n"
        "|---|---|---|---|---|---|\n"
    ]
    lines: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        lines.setdefault((row["benchmark"], row["data"]), []).append(row)
    for (benchmark, data), mine in lines.items():
        shown = [row for row in mine if "/" not in row["metric"]] or mine
        cells = (
            ", ".join(row["metric"] for row in shown),
            ", ".join(f"{row['ours']:.6f}" for row in shown),
            ", ".join(f"{row['literal']:.6f}" for row in shown),
        )
        worst = max(row["difference"] for row in mine)
        parts.append(f"| {benchmark} | {data} | {' | '.join(cells)} | {worst:.0e} |\n")
    return "".join(parts)


def main(*, quick: bool = False) -> list[dict[str, Any]]:
    """The table."""
    return table(quick=quick)


if __name__ == "__main__":
    found = main(quick="--quick" in sys.argv)
    if "--write" in sys.argv:
        PAGE.write_text(page(found), encoding="utf-8")
    print(json.dumps(found))
    sys.exit(int(any(not row["difference"] <= TOLERANCE for row in found)))
