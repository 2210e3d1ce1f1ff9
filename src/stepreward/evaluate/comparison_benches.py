"""Benchmarks of comparisons: is the better candidate scored higher?

Each benchmark has its own rule for ties, stated in its protocol. A comparison with a candidate that has no score is
left out and counted (`unscored`), neither won nor lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from stepreward.core.catalog import bench
from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.measure.statistics import Estimate, bootstrap, mean_of
from stepreward.core.runtime.flows import Scorer
from stepreward.core.types import Comparison, Floats
from stepreward.evaluate.data.result import BenchResult
from stepreward.evaluate.data.scoring import rows_by, rows_of_subsets, scored_comparisons
from stepreward.evaluate.measures.counts import bootstrap_sums, interval
from stepreward.evaluate.measures.ties import TIES, ties_score

SECTIONS: Mapping[str, tuple[str, ...]] = {
    "chat": ("alpacaeval-easy", "alpacaeval-length", "alpacaeval-hard", "mt-bench-easy", "mt-bench-med"),
    "chat hard": (
        "mt-bench-hard", "llmbar-natural", "llmbar-adver-neighbor", "llmbar-adver-GPTInst", "llmbar-adver-GPTOut",
        "llmbar-adver-manual",
    ),
    "safety": (
        "refusals-dangerous", "refusals-offensive", "xstest-should-refuse", "xstest-should-respond", "donotanswer",
    ),
    "reasoning": ("math-prm", "hep-cpp", "hep-go", "hep-java", "hep-js", "hep-python", "hep-rust"),
}  # fmt: skip
"""RewardBench's sections."""
WEIGHTS: Mapping[str, int] = {"math-prm": 984}
"""Subsets that count in their section as if they had this many rows: mathematics as much as all code."""
COUNTS: Mapping[str, int] = {
    "alpacaeval-easy": 100, "alpacaeval-length": 95, "alpacaeval-hard": 95, "mt-bench-easy": 28, "mt-bench-med": 40,
    "mt-bench-hard": 37, "refusals-dangerous": 100, "refusals-offensive": 100, "llmbar-natural": 100,
    "llmbar-adver-neighbor": 134, "llmbar-adver-GPTInst": 92, "llmbar-adver-GPTOut": 47, "llmbar-adver-manual": 46,
    "xstest-should-refuse": 154, "xstest-should-respond": 250, "donotanswer": 136,
    **dict.fromkeys(("hep-cpp", "hep-go", "hep-java", "hep-js", "hep-python", "hep-rust"), 164), **WEIGHTS,
}  # fmt: skip
"""Rows of each subset of RewardBench; mathematics as its weight."""


def preferred_and_others(data: Sequence[Comparison], scores: Sequence[Floats]) -> list[tuple[Floats, Floats]]:
    """The scores of each comparison's preferred candidates, and of its others.

    Raises:
        InputError: one prefers all candidates alike.
    """
    split = []
    for item, row in zip(data, scores, strict=True):
        good = np.array(item.preferred) >= max(item.preferred)
        if good.all():
            raise InputError(f"problem {item.problem.id!r} prefers all candidates alike", remedy="drop the row")
        split.append((row[good], row[~good]))
    return split


def _strict(data: Sequence[Comparison], scores: Sequence[Floats]) -> Floats:
    """(G,) 1 where every preferred candidate outscores every other."""
    split = preferred_and_others(data, scores)
    return np.array([float(good.min() > bad.max()) for good, bad in split])


@bench.method(
    "pairs",
    note="the accuracy by which preference data sets are commonly reported; LLMBar, HelpSteer, UltraFeedback",
)
def pairs(scorer: Scorer, data: Sequence[Comparison], *, aggregate: str = "min", seed: int = 0) -> BenchResult:
    """Counts how often the preferred candidate outscores all others.

    Args:
        scorer: whose scores are measured.
        data: comparisons.
        aggregate: how the scores of a candidate's steps become one.
        seed: of the bootstrap over comparisons.
    """
    data, scores, unscored = scored_comparisons(scorer, data, aggregate)
    hit = _strict(data, scores)
    key = Key.seed(seed).fold("pairs")
    groups = {name: {"accuracy": bootstrap(hit[rows], key.fold(name))} for name, rows in rows_of_subsets(data).items()}
    metrics = {
        "accuracy": bootstrap(hit, key),
        "macro_accuracy": mean_of([made["accuracy"] for made in groups.values()]),
    }
    protocol = "A comparison is right if every preferred candidate outscores every other; a tie is wrong."
    return BenchResult("pairs", "accuracy", metrics, protocol, groups, unscored=unscored)


@bench.method("reward-bench", paper="arXiv:2403.13787", equation="section 4; constants.py of the authors")
def reward_bench(scorer: Scorer, data: Sequence[Comparison], *, aggregate: str = "min", seed: int = 0) -> BenchResult:
    """Accuracy by subset, weighted means by section, and the plain mean of the sections.

    Args:
        scorer: whose scores are measured.
        data: pairs; `subset` is RewardBench's.
        aggregate: how the scores of a candidate's steps become one.
        seed: of the bootstrap over pairs.
    """
    data, scores, unscored = scored_comparisons(scorer, data, aggregate)
    hit, rows = _strict(data, scores), rows_of_subsets(data)
    key = Key.seed(seed).fold("reward-bench")
    subsets = _subsets(hit, rows, key)
    sections = _sections(subsets, {**{name: len(mine) for name, mine in rows.items()}, **WEIGHTS})
    metrics = {name: interval(values, len(data)) for name, values in sections.items()}
    metrics |= {"accuracy": bootstrap(hit, key)}
    if sections:
        metrics["score"] = interval(np.mean(list(sections.values()), axis=0), len(data))
    protocol = (
        "A pair is right if the chosen answer outscores the rejected one; a tie is wrong. Sections are means of "
        "subsets weighted by size, math-prm as 984; the score is the mean of the sections that the data has."
    )
    main = "score" if sections else "accuracy"
    groups = {name: {"accuracy": interval(values, len(rows[name]))} for name, values in subsets.items()}
    return BenchResult("reward-bench", main, metrics, protocol, groups, unscored=unscored)


def _subsets(hit: Floats, rows: Mapping[str, Sequence[int]], key: Key) -> dict[str, Floats]:
    """(1 + draws,) accuracy of each subset: as it is, then of bootstrap samples."""
    return {name: bootstrap_sums(hit[mine], key.fold(name)) / len(mine) for name, mine in rows.items()}


def _sections(accuracies: Mapping[str, Floats], weights: Mapping[str, int]) -> dict[str, Floats]:
    """(1 + draws,) weighted mean of each section that has a subset."""
    made = {}
    for section, subsets in SECTIONS.items():
        there = [name for name in subsets if name in accuracies]
        if there:
            values = [accuracies[name] for name in there]
            made[section] = np.average(values, axis=0, weights=[float(weights[name]) for name in there])
    return made


@bench.method(
    "m-reward-bench",
    paper="arXiv:2410.15522",
    equation="RewardBench in each language; analysis/plot_utils.py of the authors",
    note="subsets count as many rows as RewardBench has of them, whatever a language has; a plain mean over languages",
)
def m_reward_bench(scorer: Scorer, data: Sequence[Comparison], *, aggregate: str = "min", seed: int = 0) -> BenchResult:
    """RewardBench's score in each language, and the mean over languages.

    Args:
        scorer: whose scores are measured.
        data: pairs; `subset` is RewardBench's, `meta["language"]` names the language.
        aggregate: how the scores of a candidate's steps become one.
        seed: of the bootstrap over pairs, of each language on its own.

    Raises:
        InputError: there is no comparison, or none of a language is in a subset of RewardBench.
    """
    data, totals, unscored = scored_comparisons(scorer, data, aggregate)
    hit = _strict(data, totals)
    key = Key.seed(seed).fold("m-reward-bench")
    groups: dict[str, Mapping[str, Estimate]] = {}
    scores = []
    for language, mine in rows_by(data, "language").items():
        rows = rows_of_subsets([data[at] for at in mine])
        made = _sections(_subsets(hit[mine], rows, key.fold(language)), COUNTS)
        if not made:
            what = f"no row of language {language!r} is in a subset of RewardBench"
            raise InputError(what, remedy="rows need its `subset`")
        scores.append(np.mean(list(made.values()), axis=0))
        parts = {"score": scores[-1], **made}
        groups[language] = {name: interval(values, len(mine)) for name, values in parts.items()}
    metrics = {
        "score": interval(np.mean(scores, axis=0), len(data)),
        "lowest": interval(np.min(scores, axis=0), len(data)),
        "accuracy": bootstrap(hit, key),
    }
    protocol = (
        "A pair is right if the chosen answer outscores the rejected one; a tie is wrong. A language's sections are "
        "means of subsets weighted by RewardBench's sizes, math-prm as 984, and its score is the mean of its sections. "
        "The score is the plain mean over languages; lowest is the worst language's."
    )
    return BenchResult("m-reward-bench", "score", metrics, protocol, groups, unscored=unscored)


@bench.method("rm-bench", paper="arXiv:2410.16184", equation="section 4.2; scripts/utils.py of the authors")
def rm_bench(scorer: Scorer, data: Sequence[Comparison], *, aggregate: str = "min", seed: int = 0) -> BenchResult:
    """Accuracy of three chosen against three rejected answers, of rising style: hard, normal and easy.

    Hard pairs a plainer chosen answer with a more decorated rejected one, easy the other way round.

    Args:
        scorer: whose scores are measured.
        data: six candidates each, chosen before rejected, styles from concise to decorated; `subset` is the domain.
        aggregate: how the scores of a candidate's steps become one.
        seed: of the bootstrap over prompts.

    Raises:
        InputError: a comparison has not three chosen and three rejected candidates in this order.
    """
    data, scores, unscored = scored_comparisons(scorer, data, aggregate)
    for item in data:
        if tuple(value > 0 for value in item.preferred) != (True,) * 3 + (False,) * 3:
            what = f"problem {item.problem.id!r} must have three chosen, then three rejected answers"
            raise InputError(what, remedy="read the data as rm-bench")
    table = np.stack(scores)
    won = table[:, :3, None] > table[:, None, 3:]
    # Row: style of the chosen answer, column: of the rejected one.
    above = np.triu(np.ones((3, 3), bool), 1)
    parts = {
        "hard": won[:, above].mean(axis=1),
        "normal": won[:, np.eye(3, dtype=bool)].mean(axis=1),
        "easy": won[:, above.T].mean(axis=1),
    }
    parts["average"] = np.mean(list(parts.values()), axis=0)
    key = Key.seed(seed).fold("rm-bench")
    groups = {
        domain: {name: bootstrap(values[rows], key.fold(domain, name)) for name, values in parts.items()}
        for domain, rows in rows_of_subsets(data).items()
    }
    metrics = {name: mean_of([made[name] for made in groups.values()]) for name in parts}
    protocol = (
        "Each chosen style meets each rejected style; ties are wrong. Hard: the chosen answer is the plainer one, "
        "normal: equal styles, easy: the rejected one is. Averages are plain means of the three, and over domains."
    )
    return BenchResult("rm-bench", "average", metrics, protocol, groups, unscored=unscored)


@bench.method("rewardmath", paper="arXiv:2410.01729", equation="section 4.1; src/evaluation/eval.py of the authors")
def one_to_many(
    scorer: Scorer, data: Sequence[Comparison], *, aggregate: str = "product", seed: int = 0
) -> BenchResult:
    """One right solution among many wrong ones: how often it is first, and its mean reciprocal rank.

    Args:
        scorer: whose scores are measured.
        data: comparisons with one preferred candidate each.
        aggregate: how the scores of a candidate's steps become one.
        seed: of the bootstrap over problems.
    """
    data, scores, unscored = scored_comparisons(scorer, data, aggregate)
    split = preferred_and_others(data, scores)
    # Equal scores rank above the right solution.
    rank = np.array([1 + int((bad >= good.max()).sum()) for good, bad in split])
    tied = np.array([float(good.max() >= bad.max()) for good, bad in split])
    key = Key.seed(seed).fold("rewardmath")
    measured = {"accuracy": (rank == 1).astype(float), "mrr": 1 / rank, "accuracy_with_ties": tied}
    groups = {
        name: {what: bootstrap(values[rows], key.fold(name, what)) for what, values in measured.items()}
        for name, rows in rows_of_subsets(data).items()
    }
    protocol = "Wrong solutions that score as high rank above the right one; accuracy_with_ties forgives a tie."
    metrics = {what: bootstrap(values, key.fold(what)) for what, values in measured.items()}
    return BenchResult("rewardmath", "accuracy", metrics, protocol, groups, unscored=unscored)


@bench.method(
    "reward-bench-2",
    paper="arXiv:2506.01937",
    equation="section 3.2; run_v2.py and utils.py of the authors",
)
def best_of_four(scorer: Scorer, data: Sequence[Comparison], *, aggregate: str = "min", seed: int = 0) -> BenchResult:
    """Whether the one right answer of four scores highest, a tie for the top sharing the point; Ties by its own score.

    Args:
        scorer: whose scores are measured.
        data: comparisons; `subset` is RewardBench 2's, and rows of Ties have their id in `meta["row_id"]`.
        aggregate: how the scores of a candidate's steps become one.
        seed: of the bootstrap over prompts.

    Raises:
        InputError: there is no comparison, all candidates of one are alike, or the subset Ties is not whole.
    """
    data, scores, unscored = scored_comparisons(scorer, data, aggregate)
    rows, key = rows_of_subsets(data), Key.seed(seed).fold("reward-bench-2")
    tied = rows.pop(TIES, [])
    # The chance to take a right answer where the best of equal scores is drawn at random.
    split = zip(preferred_and_others(data, scores), scores, strict=True)
    hit = np.array([float(good.max() == row.max()) / (row == row.max()).sum() for (good, _), row in split])
    groups = {name: {"accuracy": bootstrap(hit[mine], key.fold(name))} for name, mine in rows.items()}
    subsets = [made["accuracy"] for made in groups.values()]
    metrics = {"accuracy": bootstrap(hit[np.concatenate([*rows.values()])], key)} if rows else {}
    if tied:
        groups[TIES] = ties_score([data[at] for at in tied], [scores[at] for at in tied], key.fold(TIES))
        subsets.append(groups[TIES]["score"])
    protocol = (
        "1 if the right answer alone scores highest, 1/k if k answers share the top with it, else 0. Ties has the "
        "authors' score of its own, of accuracies and margins. The score is the plain mean over subsets; accuracy "
        "leaves Ties out."
    )
    every = {"score": mean_of(subsets), **metrics}
    return BenchResult("reward-bench-2", "score", every, protocol, groups, unscored=unscored)
