"""PRMBench and Socratic-PRMBench: solutions with errors put in, every step judged, results by class of error.

Solutions with a labelled step that has no score are left out and counted (`unscored`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from stepreward.core.catalog import bench
from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.measure.first_error import first_error
from stepreward.core.measure.statistics import Estimate, bootstrap, proportion
from stepreward.core.runtime.flows import Scorer
from stepreward.core.types import LABEL, Floats, Trajectory
from stepreward.evaluate.data.result import BenchResult
from stepreward.evaluate.data.scoring import labelled_scores, rows_by
from stepreward.evaluate.measures.counts import bootstrap_sums, interval, prm_score, ratio, step_counts, step_metrics_of

GROUPS: Mapping[str, tuple[str, ...]] = {
    "simplicity": ("redundency", "circular"),
    "soundness": ("counterfactual", "step_contradiction", "domain_inconsistency", "confidence"),
    "sensitivity": ("missing_condition", "deception", "multi_solutions"),
}
"""PRMBench's groups of classes; a group's score is the mean of its classes'. The spelling is the file's."""
PATTERNS: Mapping[str, tuple[str, ...]] = {
    "transformation": ("repeat_inconsistency", "repeat_counterfactual"),
    "decomposition": ("decomposition_unsoundness", "decomposition_redundancy", "decomposition_incompleteness"),
    "regather": ("regather_imprecision", "regather_redundancy", "regather_incompleteness"),
    "deduction": (
        "premise_unsoundness", "premise_incompleteness", "premise_redundancy", "conclusion_invalidity",
        "conclusion_inconsistency", "conclusion_counterfactual",
    ),
    "verification": ("detection_error", "correction_error"),
    "integration": (
        "integration_inconsistency", "integration_incompleteness", "integration_redundancy", "integration_unsoundness",
    ),
}  # fmt: skip
"""Socratic-PRMBench's reasoning patterns and the names that its files give to their errors."""
ORIGINALS = "redundency"
"""The class whose original solutions represent all right ones."""


def _without_repeats(data: Sequence[Trajectory]) -> list[Trajectory]:
    """The first of each class and number: the files repeat five solutions, and the authors count each once."""
    seen: set[tuple[str, str, str]] = set()
    kept = []
    for item in data:
        if "idx" in item.facts:
            key = (str(item.facts.get("side", "")), _class(item), str(item.facts["idx"]))
            if key in seen:
                continue
            seen.add(key)
        kept.append(item)
    return kept


def _class(item: Trajectory) -> str:
    return str(item.facts.get("classification", ""))


@bench.method(
    "prm-bench",
    paper="arXiv:2501.03124",
    equation="Eqs. 3 and 4; task.py and the tables' notebook of the authors",
    note="0 where the authors put -1 for 0/0; redundency and circular take the same scores as all, without a score of "
    "redundancy of their own",
)
def prm_bench(scorer: Scorer, data: Sequence[Trajectory], *, threshold: float = 0.5, seed: int = 0) -> BenchResult:
    """Scores every step of solutions with errors put in: PRMScore over all, by class, and by groups of classes.

        PRMScore = (F1 + F1_negative) / 2

    Args:
        scorer: whose scores are measured.
        data: modified solutions with labels; `meta["classification"]` names the class. Original solutions
            (`meta["side"]`), where the reader gives them, serve for `similarity` alone.
        threshold: steps scored above it are called valid; 0.5 is the authors' for scores that are probabilities.
        seed: of the bootstrap over solutions.

    Raises:
        InputError: there is no modified solution, or none whose labelled steps have scores.
    """
    return _by_class("prm-bench", GROUPS, scorer, data, threshold, seed)


@bench.method(
    "socratic-prm-bench",
    paper="arXiv:2505.23474",
    equation="section 3.3: PRMScore",
    note="a pattern's score is the mean of its classes', as in PRMBench; the authors publish no code for it",
)
def socratic(scorer: Scorer, data: Sequence[Trajectory], *, threshold: float = 0.5, seed: int = 0) -> BenchResult:
    """PRMScore on Socratic-PRMBench: overall, by its six patterns of reasoning, and by class of error.

    Args:
        scorer: whose scores are measured.
        data: solutions with labels; `meta["classification"]` names the class.
        threshold: steps scored above it are called valid.
        seed: of the bootstrap over solutions.

    Raises:
        InputError: there is no modified solution, or none whose labelled steps have scores.
    """
    return _by_class("socratic-prm-bench", PATTERNS, scorer, data, threshold, seed)


def _by_class(
    name: str, groups: Mapping[str, tuple[str, ...]], scorer: Scorer, data: Sequence[Trajectory], threshold: float,
    seed: int,
) -> BenchResult:  # fmt: skip
    every = _without_repeats(data)
    kept = [item for item in every if item.facts.get("side") != "original"]
    if not kept:
        raise InputError("there is no modified solution to measure on", remedy="read the data with which=modified")
    kept, scores, labels, unscored = labelled_scores(scorer, kept)
    counts, key = step_counts(scores, labels, threshold), Key.seed(seed).fold(name)
    rows = rows_by(kept, "classification")
    pooled = {of: bootstrap_sums(counts[mine], key.fold(of)) for of, mine in rows.items()}
    metrics = step_metrics_of(bootstrap_sums(counts, key), len(kept))
    for group, members in groups.items():
        # The mean over some of its classes would not compare with published ones.
        if pooled.keys() >= set(members):
            mean = np.mean([prm_score(pooled[of]) for of in members], axis=0)
            metrics[group] = interval(mean, sum(len(rows[of]) for of in members))
    first = _first_error_called(scores, labels, threshold)
    metrics["first_error_accuracy"] = _share(first)
    originals = [item for item in every if item.facts.get("side") == "original" and _class(item) == ORIGINALS]
    if originals:
        metrics["similarity"] = _similarity(scorer, kept, counts, originals, threshold, key.fold("similarity"))
    by_class = {of: step_metrics_of(made, len(rows[of])) for of, made in pooled.items()}
    for of, mine in rows.items():
        by_class[of]["first_error_accuracy"] = _share(first[mine])
    protocol = (
        "PRMScore is the mean of the F1 of valid and of wrong steps, pooled over the solutions of a class, F1 alone "
        "where no step is wrong; overall it is pooled over all, and a group's is the mean of its classes'. Steps "
        "scored above the threshold are called valid. Repeated solutions count once."
    )
    return BenchResult(name, "prm_score", metrics, protocol, by_class, threshold, "given", unscored)


def _first_error_called(scores: Floats, labels: Floats, threshold: float) -> Floats:
    """(B,) 1 if the first wrong step is called wrong, 0 if not, NaN where no step is wrong."""
    first = first_error(labels)
    # Without an error the index is -1 and reads the last score: NaN replaces it.
    called = scores[np.arange(len(scores)), first] <= threshold
    return np.where(first >= 0, called, np.nan)


def _share(hits: Floats) -> Estimate:
    known = hits[~np.isnan(hits)]
    return proportion(int(known.sum()), known.size)


def _similarity(
    scorer: Scorer, kept: Sequence[Trajectory], counts: Floats, originals: Sequence[Trajectory], threshold: float,
    key: Key,
) -> Estimate:  # fmt: skip
    """Mean distance between the shares of steps called valid in a modified solution and in its original.

    As with the authors, originals without a step called valid take no part.
    """
    plain = [item.with_columns({LABEL: np.ones(len(item))}) for item in originals]
    plain, scores, labels, _ = labelled_scores(scorer, plain)
    made = step_counts(scores, labels, threshold)
    valid = dict(zip((str(item.facts.get("idx", "")) for item in plain), _held_valid(made).tolist(), strict=True))
    pairs = [
        (share, valid[str(item.facts["idx"])])
        for item, share in zip(kept, _held_valid(counts).tolist(), strict=True)
        if valid.get(str(item.facts.get("idx", "")), 0.0) > 0
    ]
    if not pairs:
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    return bootstrap([abs(one - other) for one, other in pairs], key)


def _held_valid(counts: Floats) -> Floats:
    return ratio(counts[:, 0] + counts[:, 1], counts.sum(axis=1))
