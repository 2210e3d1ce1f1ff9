"""Benchmarks' definitions read literally: plain loops over plain rows, sharing no code with `stepreward.evaluate`.

A row of a solution is a dictionary with `scores`, `labels` (None where unlabelled), `first` (first wrong step, -1 for
none), `subset`, and what the benchmark needs besides. A row of a comparison has `good` and `bad` scores. Each function
returns the metrics of its benchmark by name.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

Row = Mapping[str, Any]
Numbers = dict[str, float]


def mean(values: Iterable[float]) -> float:
    """Sum over number; NaN of nothing."""
    found = [float(value) for value in values]
    return math.fsum(found) / len(found) if found else math.nan


def by(rows: Sequence[Row], name: str) -> dict[str, list[Row]]:
    """Rows of each value."""
    made: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        made[row[name]].append(row)
    return made


def named_step(scores: Sequence[float], threshold: float, *, strict: bool = False) -> int:
    """The first step at or below the threshold, or below it by the strict rule; -1 if none is."""
    for step, score in enumerate(scores):
        if score < threshold or (score == threshold and not strict):
            return step
    return -1


def process_f1(rows: Sequence[Row], threshold: float, *, strict: bool = False) -> float:
    """Harmonic mean of the accuracies on wrong and on right solutions."""
    wrong = mean(named_step(r["scores"], threshold, strict=strict) == r["first"] for r in rows if r["first"] != -1)
    right = mean(named_step(r["scores"], threshold, strict=strict) == -1 for r in rows if r["first"] == -1)
    return 2 * wrong * right / (wrong + right) if wrong + right else 0.0


def process_bench(rows: Sequence[Row], threshold: float | None, *, strict: bool = False) -> Numbers:
    """ProcessBench; without a threshold, the score with the best F1 on gsm8k is tried by hand."""
    subsets = by(rows, "subset")
    if threshold is None:
        candidates = [-math.inf, *sorted({score for row in subsets["gsm8k"] for score in row["scores"]})]
        threshold = max(candidates, key=lambda t: process_f1(subsets["gsm8k"], t))
    made = {f"{name}/f1": process_f1(part, threshold, strict=strict) for name, part in subsets.items()}
    return {**made, "average_f1": mean(made.values())}


def mcc(tp: int, fp: int, fn: int, tn: int) -> float:
    """Matthews' correlation, 0 where undefined."""
    below = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    return (tp * tn - fp * fn) / math.sqrt(below) if below else 0.0


def mr_score(rows: Sequence[Row], threshold: float) -> Numbers:
    """MR-GSM8K and MR-Ben without reasons."""
    tp = fp = fn = tn = located = 0
    for row in rows:
        found = named_step(row["scores"], threshold)
        if row["first"] == -1:
            tp, fn = tp + (found == -1), fn + (found != -1)
        else:
            fp, tn = fp + (found == -1), tn + (found != -1)
            located += found == row["first"]
    step, correlation = located / (fp + tn), mcc(tp, fp, fn, tn)
    return {"mcc": correlation, "step_accuracy": step, "mr_score": 0.2 * max(0.0, correlation) + 0.3 * step}


def first_error_accuracy(rows: Sequence[Row], threshold: float) -> Numbers:
    """BIG-Bench Mistake."""
    return {"accuracy": mean(named_step(row["scores"], threshold) == row["first"] for row in rows)}


def step_cells(rows: Sequence[Row], threshold: float) -> tuple[int, int, int, int]:
    """Positive: valid. True positives, false positives, false negatives, true negatives."""
    tp = fp = fn = tn = 0
    for row in rows:
        for score, label in zip(row["scores"], row["labels"], strict=True):
            if label is None:
                continue
            if label > 0.5:
                tp, fn = tp + (score > threshold), fn + (score <= threshold)
            else:
                fp, tn = fp + (score > threshold), tn + (score <= threshold)
    return tp, fp, fn, tn


def f1(hit: int, said: int, there: int) -> float:
    """By precision and recall, 0 where undefined."""
    precision, recall = hit / said if said else 0.0, hit / there if there else 0.0
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def both_f1(cells: tuple[int, int, int, int]) -> tuple[float, float]:
    """Of valid and of wrong steps."""
    tp, fp, fn, tn = cells
    return f1(tp, tp + fp, tp + fn), f1(tn, tn + fn, tn + fp)


def prm_score(rows: Sequence[Row], threshold: float) -> float:
    """PRMBench's: half of each F1; of valid steps alone where no step is wrong."""
    cells = step_cells(rows, threshold)
    positive, negative = both_f1(cells)
    return 0.5 * positive + 0.5 * negative if cells[1] + cells[3] else positive


def classes_of(rows: Sequence[Row], threshold: float, groups: Mapping[str, Sequence[str]]) -> Numbers:
    """PRMScore overall, by class, by group of classes."""
    classes = {name: prm_score(part, threshold) for name, part in by(rows, "classification").items()}
    made = {"prm_score": prm_score(rows, threshold), **{f"{name}/prm_score": one for name, one in classes.items()}}
    return made | {group: mean(classes[name] for name in members) for group, members in groups.items()}


def harmonic(a: float, b: float) -> float:
    """0 where both are."""
    return 2 * a * b / (a + b) if a + b else 0.0


def hard2verify(rows: Sequence[Row], threshold: float) -> Numbers:
    """Balanced F1 of steps, of responses, of first errors."""
    tp, fp, fn, tn = step_cells(rows, threshold)
    right, wrong, named = [], [], []
    for row in rows:
        calls = [score <= threshold for score in row["scores"]]
        errors = [label <= 0.5 for label in row["labels"]]
        if any(errors):
            wrong.append(any(calls))
            named.append(any(calls) and calls.index(True) == errors.index(True))
        else:
            right.append(not any(calls))
    return {
        "balanced_f1": harmonic(tp / (tp + fn), tn / (tn + fp)),
        "response_balanced_f1": harmonic(mean(right), mean(wrong)),
        "error_id_balanced_f1": harmonic(mean(right), mean(named)),
    }


def visual(rows: Sequence[Row], threshold: float) -> Numbers:
    """VisualProcessBench: macro F1."""
    return {"macro_f1": mean(both_f1(step_cells(rows, threshold)))}


def mp_bench(rows: Sequence[Row], threshold: float) -> Numbers:
    """MPBench's judging of steps."""
    cells = step_cells(rows, threshold)
    return {"prm_score": prm_score(rows, threshold), "f1": both_f1(cells)[0], "mcc": mcc(*cells)}


def area(scored: Sequence[tuple[float, bool]]) -> float:
    """Chance that a right one outscores a wrong one, ties one half, over all pairs."""
    right, wrong = [s for s, ok in scored if ok], [s for s, ok in scored if not ok]
    return mean((a > b) + 0.5 * (a == b) for a in right for b in wrong)


def reason_eval(rows: Sequence[Row], threshold: float, *, ties_missed: bool = False) -> Numbers:
    """MR-MATH by ReasonEval: a solution's score is its lowest; the authors count one at the threshold as missed."""
    cells = {"right": [0, 0], "wrong": [0, 0]}  # called so, not called so
    for row in rows:
        lowest = min(row["scores"])
        kind = "wrong" if any(label is not None and label <= 0.5 for label in row["labels"]) else "right"
        called = (
            lowest > threshold if kind == "right" else lowest < threshold or (lowest == threshold and not ties_missed)
        )
        cells[kind][not called] += 1
    (tp, fn), (tn, fp) = cells["right"], cells["wrong"]
    wholes = [(min(r["scores"]), all(one is None or one > 0.5 for one in r["labels"])) for r in rows]
    steps = [(s, y > 0.5) for r in rows for s, y in zip(r["scores"], r["labels"], strict=True) if y is not None]
    return {
        "solution_f1": mean(both_f1((tp, fp, fn, tn))),
        "step_f1": mean(both_f1(step_cells(rows, threshold))),
        "solution_auc": area(wholes),
        "step_auc": area(steps),
    }


def pairs(rows: Sequence[Row]) -> Numbers:
    """All preferred above all others."""
    return {"accuracy": mean(min(row["good"]) > max(row["bad"]) for row in rows)}


def tool_comp(rows: Sequence[Row]) -> Numbers:
    """ToolComp: a win 1, a tie 1/2, a loss 0."""
    won = [1.0 if row["good"][0] > row["bad"][0] else 0.5 if row["good"][0] == row["bad"][0] else 0.0 for row in rows]
    return {"accuracy": mean(won)}


def reward_bench(rows: Sequence[Row], sections: Mapping[str, Sequence[str]]) -> Numbers:
    """RewardBench: subsets weighted by size, mathematics as 984."""
    right = {name: (len(part), pairs(part)["accuracy"]) for name, part in by(rows, "subset").items()}
    made = {}
    for section, subsets in sections.items():
        total = weight = 0.0
        for name in subsets:
            if name in right:
                size = 984 if name == "math-prm" else right[name][0]
                total, weight = total + size * right[name][1], weight + size
        if weight:
            made[section] = total / weight
    return {**made, "score": mean(made.values())}


def m_reward_bench(rows: Sequence[Row], sections: Mapping[str, Sequence[str]], counts: Mapping[str, int]) -> Numbers:
    """M-RewardBench: each language by RewardBench's sizes, then the plain mean."""
    made = {}
    for language, part in by(rows, "language").items():
        right = {name: pairs(mine)["accuracy"] for name, mine in by(part, "subset").items()}
        found = []
        for subsets in sections.values():
            there = [name for name in subsets if name in right]
            if there:
                found.append(sum(counts[n] * right[n] for n in there) / sum(counts[n] for n in there))
        made[f"{language}/score"] = mean(found)
    return {**made, "score": mean(made.values()), "lowest": min(made.values())}


def rm_bench(rows: Sequence[Row]) -> Numbers:
    """RM-Bench: three by three styles of each domain."""
    domains: dict[str, list[float]] = {}
    for name, part in by(rows, "subset").items():
        table = [[mean(row["good"][i] > row["bad"][j] for row in part) for j in range(3)] for i in range(3)]
        hard = (table[0][1] + table[0][2] + table[1][2]) / 3
        normal = (table[0][0] + table[1][1] + table[2][2]) / 3
        easy = (table[1][0] + table[2][0] + table[2][1]) / 3
        domains[name] = [hard, normal, easy, (hard + normal + easy) / 3]
    names = ("hard", "normal", "easy", "average")
    return {name: mean(numbers[at] for numbers in domains.values()) for at, name in enumerate(names)}


def rewardmath(rows: Sequence[Row]) -> Numbers:
    """RewardMATH: sorted by score, then "rej" before "cho"."""
    ranks = []
    for row in rows:
        order = sorted([(row["good"][0], "cho"), *((score, "rej") for score in row["bad"])], reverse=True)
        ranks.append(1 + [kind for _, kind in order].index("cho"))
    tied = mean(row["good"][0] >= max(row["bad"]) for row in rows)
    return {"accuracy": mean(r == 1 for r in ranks), "mrr": mean(1 / r for r in ranks), "accuracy_with_ties": tied}


def reward_bench_2(rows: Sequence[Row]) -> Numbers:
    """RewardBench 2: a shared top shares the point; Ties by accuracies and margins."""
    made: Numbers = {}
    for name, part in by(rows, "subset").items():
        if name != "Ties":
            made[name] = mean(
                1 / [*row["good"], *row["bad"]].count(row["good"][0]) if row["good"][0] >= max(row["bad"]) else 0.0
                for row in part
            )
    tables: dict[str, dict[str, Row]] = {"ref": {}, "tied": {}}
    for row in rows:
        if row["subset"] == "Ties":
            kind, number = row["row_id"].split(":")
            tables[kind][number] = row
    gap = {kind: {n: min(r["good"]) - max(r["bad"]) for n, r in table.items()} for kind, table in tables.items()}
    shared = sorted(gap["ref"].keys() & gap["tied"].keys())
    preferred, hard, margin = [], [], []
    for number in shared:
        row = tables["tied"][number]
        spread, low = max(row["good"]) - min(row["good"]), min(gap["ref"][number], gap["tied"][number])
        preferred.append(gap["tied"][number] > spread)
        hard.append(low > spread)
        if spread:
            margin.append(math.tanh(low / spread - 1))
        else:
            margin.append(0.0 if low == 0 else math.copysign(1.0, low))
    made["Ties"] = (
        0.30 * mean(one > 0 for one in gap["tied"].values())
        + 0.30 * mean(one > 0 for one in gap["ref"].values())
        + 0.20 * mean(preferred)
        + 0.20 * mean(hard)
        + 0.01 * mean(margin)
    )
    return {"score": mean(made.values()), "Ties/score": made["Ties"]}


def web_reward_bench(rows: Sequence[Row]) -> Numbers:
    """WebRewardBench: place in descending order, plus the wrong ones with an equal score."""
    ranks, tasks = [], defaultdict(list)
    for row in rows:
        good = row["good"][0]
        order = sorted([good, *row["bad"]], reverse=True)
        ranks.append(1 + order.index(good) + sum(score == good for score in row["bad"]))
        tasks[row["task"]].append(ranks[-1] == 1)
    return {
        "mrr": mean(1 / rank for rank in ranks),
        "step_accuracy": mean(rank == 1 for rank in ranks),
        "trajectory_accuracy": mean(all(steps) for steps in tasks.values()),
    }


def web_prm_bench(rows: Sequence[Row]) -> Numbers:
    """WebPRMBench: the right action against each wrong one, and against all."""
    good = [row["good"][0] for row in rows]
    return {
        "pairwise_accuracy": mean(mean(g > bad for bad in row["bad"]) for g, row in zip(good, rows, strict=True)),
        "best_of_n_accuracy": mean(all(g > bad for bad in row["bad"]) for g, row in zip(good, rows, strict=True)),
    }


def best_of_n(rows: Sequence[Row], total: Callable[[Sequence[float]], float]) -> Numbers:
    """Per problem: the highest total, the answer given most, the answer with the highest sum, any, one at random."""
    found: dict[str, list[float]] = defaultdict(list)
    for samples in by(rows, "problem").values():
        totals = [total(row["scores"]) for row in samples]
        right = [float(row["right"]) for row in samples]
        found["best_of_n"].append(right[totals.index(max(totals))])
        found["one_sample"].append(mean(right))
        found["pass_at_n"].append(max(right))
        votes: dict[str, float] = {}
        weights: dict[str, float] = {}
        first: dict[str, int] = {}
        for at, row in enumerate(samples):
            first.setdefault(row["answer"], at)
            votes[row["answer"]] = votes.get(row["answer"], 0) + 1
            weights[row["answer"]] = weights.get(row["answer"], 0) + totals[at]
        # Dictionaries keep the order in which answers came, and max takes the first of equals.
        found["majority"].append(right[first[max(votes, key=lambda a: votes[a])]])
        found["weighted_vote"].append(right[first[max(weights, key=lambda a: weights[a])]])
    return {name: mean(values) for name, values in found.items()}


def calibration(pairs_: Sequence[tuple[float, float]], bins: int) -> Numbers:
    """Of (score, label): squared errors, and mean distance over bins of equal width and of equal counts."""
    width: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for score, label in pairs_:
        at = next((b for b in range(bins) if score <= (b + 1) / bins), bins - 1)
        width[at].append((score, label))
    order = sorted(range(len(pairs_)), key=lambda i: pairs_[i][0])
    counts: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for place, i in enumerate(order):
        # Equal scores share their label: which of them falls into which bin does not matter.
        shared = mean(label for score, label in pairs_ if score == pairs_[i][0])
        counts[place * bins // len(pairs_)].append((pairs_[i][0], shared))

    def error(cells: Mapping[int, list[tuple[float, float]]]) -> float:
        return sum(
            len(cell) / len(pairs_) * abs(mean(s for s, _ in cell) - mean(y for _, y in cell))
            for cell in cells.values()
        )

    return {
        "brier": mean((s - y) ** 2 for s, y in pairs_),
        "positive_brier": mean(max(0.0, s - y) ** 2 for s, y in pairs_),
        "ece": error(width),
        "adaptive_ece": error(counts),
        "auroc": area([(s, y > 0.5) for s, y in pairs_]),
    }


def who_and_when(rows: Sequence[Row]) -> Numbers:
    """The step with the lowest score is blamed, of equals the earliest."""
    agent, step, near = [], [], []
    for row in rows:
        blamed = row["scores"].index(min(row["scores"]))
        agent.append(row["agents"][blamed] == row["agent"])
        step.append(blamed == row["first"])
        near.append(abs(blamed - row["first"]) <= 5)
    return {"agent_accuracy": mean(agent), "step_accuracy": mean(step), "step_within_5": mean(near)}


def agent_process_bench(rows: Sequence[Row], threshold: float, right_above: float) -> Numbers:
    """Three labels pooled over steps; the first wrong one exactly, or none."""
    same, first = [], []
    for row in rows:
        said = [0.0 if s <= threshold else 1.0 if s > right_above else 0.5 for s in row["scores"]]
        same += [a == b for a, b in zip(said, row["labels"], strict=True)]
        named, marked = ([*labels, 0.0].index(0.0) for labels in (said, row["labels"]))
        first.append(named == marked)
    return {"step_accuracy": mean(same), "first_error_accuracy": mean(first)}


def pass_at_k(outcomes: Sequence[Sequence[bool]], k: int) -> Numbers:
    """Over all subsets of k samples: any right, all right."""
    subsets = [list(combinations(samples, k)) for samples in outcomes]
    return {
        "pass@k": mean(mean(any(one) for one in parts) for parts in subsets),
        "pass^k": mean(mean(all(one) for one in parts) for parts in subsets),
    }


def overoptimisation(proxy: Sequence[Sequence[float]], gold: Sequence[Sequence[float]], n: int) -> float:
    """Mean gold reward of the best by proxy, over all subsets of n samples."""
    parts = []
    for scores, worths in zip(proxy, gold, strict=True):
        subsets = combinations(range(len(scores)), n)
        parts.append(mean(worths[max(chosen, key=scores.__getitem__)] for chosen in subsets))
    return mean(parts)


Table = Sequence[Sequence[Sequence[float]]]
"""Numbers by state, action, next state."""


def levelled(reward: Table, transition: Table, policy: Sequence[Sequence[float]], discount: float) -> list[float]:
    """STARC's canonical form of a reward, flat; values by sweeping until nothing moves."""
    states, actions = range(len(reward)), range(len(reward[0]))
    value = [0.0 for _ in states]
    for _ in range(2000):
        value = [
            sum(
                policy[s][a] * transition[s][a][t] * (reward[s][a][t] + discount * value[t])
                for a in actions
                for t in states
            )
            for s in states
        ]
    flat = []
    for s in states:
        for a in actions:
            expected = sum(transition[s][a][t] * (reward[s][a][t] - value[s] + discount * value[t]) for t in states)
            flat += [expected for _ in states]
    return flat


def starc(first: Table, second: Table, transition: Table, policy: Sequence[Sequence[float]], discount: float) -> float:
    """Half the Euclidean distance of both canonical forms at length one."""
    units = []
    for reward in (first, second):
        flat = levelled(reward, transition, policy, discount)
        length = math.sqrt(sum(x * x for x in flat))
        units.append([x / length for x in flat])
    return math.dist(*units) / 2


def epic(first: Table, second: Table, discount: float) -> float:
    """Pearson distance of canonically shaped rewards under uniform states and actions."""
    states, actions = range(len(first)), range(len(first[0]))
    shaped = []
    for reward in (first, second):
        level = [mean(reward[s][a][t] for a in actions for t in states) for s in states]
        shaped.append(
            [
                reward[s][a][t] + discount * level[t] - level[s] - discount * mean(level)
                for s in states
                for a in actions
                for t in states
            ]
        )
    (x, y), (mx, my) = shaped, map(mean, shaped)
    both = sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True))
    rho = both / math.sqrt(sum((a - mx) ** 2 for a in x) * sum((b - my) ** 2 for b in y))
    return math.sqrt((1 - rho) / 2)
