"""Benchmarks of traces' errors: where they are and of what category (TRAIL), and which failure modes (MAST)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stepreward.core.catalog import bench
from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.measure.statistics import Estimate, bootstrap
from stepreward.core.runtime.flows import Scorer
from stepreward.core.types import Floats, Trajectory
from stepreward.evaluate.data.result import BenchResult
from stepreward.evaluate.data.scoring import rows_by, rows_kept, step_scores, unmeasured
from stepreward.evaluate.measures.counts import bootstrap_sums, confusion, interval, ratio

Errors = Sequence[Sequence[str]]
"""Location and category of each error."""


@bench.method(
    "trail",
    paper="arXiv:2505.08638",
    equation="location and joint accuracy, weighted F1: calculate_scores.py, as two programs that follow it state it",
    note="categories match whole names, whatever their case and spaces; joint_f1 and location_f1, where errors that "
    "people did not name cost, are ours; neither the authors' files nor their program could be seen",
)
def trail(scorer: Scorer, data: Sequence[Trajectory], *, threshold: float = 0.5, seed: int = 0) -> BenchResult:
    """Finds the errors of a trace: by span (location), by span and category (joint), and which categories occur.

    Both accuracies are the share of the errors that people named which are found, the mean over traces: who blames
    every span finds all. A scorer blames the steps that it scores at or below the threshold; categories are known only
    of judges whose reports are recorded in the facts `errors:NAME`, and all but location is measured of them alone.

    Args:
        scorer: whose scores are measured.
        data: traces; the fact `errors` holds what people named, `meta["span"]` of a step its location.
        threshold: of the scores that blame.
        seed: of the bootstrap over traces.

    Raises:
        InputError: no trace has the fact `errors`.
    """
    data = [one for one in data if isinstance(one.facts.get("errors"), list)]
    if not data:
        raise InputError("no trace says which errors it has", remedy="pass rows of the format trail")
    reports = [one.facts.get(f"errors:{scorer.name}") for one in data]
    recorded = all(isinstance(one, list) for one in reports)
    lost = 0
    if recorded:
        said = [_pairs(one or []) for one in reports]
    else:
        scores = step_scores(scorer, data)
        gaps = unmeasured(scores, data)
        lost, kept = int(gaps.sum()), rows_kept(gaps)
        data, scores = [data[row] for row in kept], scores[kept]
        said = [
            {(str(one.steps[at].meta.get("span")), "") for at in np.flatnonzero(row <= threshold)}
            for one, row in zip(data, scores, strict=True)
        ]
    gold = [_pairs(one.facts["errors"]) for one in data]
    found = {f"location_{name}": values for name, values in _shares(*(map(_places, (gold, said)))).items()}
    if recorded:
        found |= {f"joint_{name}": values for name, values in _shares(gold, said).items()}
    categories = sorted({category for one in gold for _, category in one if category})
    present = np.array([[[any(of == name for _, of in one) for name in categories] for one in both]
                        for both in (gold, said)], bool)  # fmt: skip
    key = Key.seed(seed).fold("trail")

    def measured(rows: Sequence[int], fold: Key) -> dict[str, Estimate]:
        made = {name: bootstrap(values[rows], fold.fold(name)) for name, values in found.items()}
        if recorded and categories:
            tp, fp, fn, _ = np.moveaxis(bootstrap_sums(confusion(present[1][rows], present[0][rows]), fold), -1, 0)
            support = tp + fn
            weighted = (ratio(2 * tp, 2 * tp + fp + fn) * support).sum(axis=1)
            made["category_f1"] = interval(ratio(weighted, support.sum(axis=1), empty=np.nan), len(rows))
        return made

    protocol = (
        "Accuracy is the share of the spans, or of the pairs of span and category, that people named which are named, "
        "0 for a trace without any, and its mean over traces; F1 also counts what is named beside. category_f1 is the "
        "F1 of each category's presence in a trace, weighted by how many traces have it. Bootstrap over traces."
    )
    groups = {name: measured(rows, key.fold(name)) for name, rows in rows_by(data, "subset").items()}
    main = "joint_accuracy" if recorded else "location_accuracy"
    metrics = measured(range(len(data)), key)
    chosen = None if recorded else threshold
    return BenchResult("trail", main, metrics, protocol, groups, chosen, "" if recorded else "given", unscored=lost)


def _pairs(errors: Errors) -> set[tuple[str, str]]:
    return {(location, "".join(category.split()).casefold()) for location, category in errors}


def _places(pairs: Sequence[set[tuple[str, str]]]) -> list[set[tuple[str, str]]]:
    return [{(location, "") for location, _ in one} for one in pairs]


def _shares(gold: Sequence[set[tuple[str, str]]], said: Sequence[set[tuple[str, str]]]) -> dict[str, Floats]:
    """(B,) recall and F1 of each trace; 0 where nothing is to be found."""
    counts = np.array([[len(a & b), len(a), len(b)] for a, b in zip(gold, said, strict=True)], np.float64)
    both, right, named = counts.T
    return {"accuracy": ratio(both, right), "f1": ratio(2 * both, right + named) * (right > 0)}


@bench.method(
    "mast",
    paper="arXiv:2503.13657",
    equation="Cohen's kappa, accuracy, precision, recall and F1 of one annotator against another",
    note="pooled over traces and modes; a scorer without modes is measured by whether a trace fails at all",
)
def mast(scorer: Scorer, data: Sequence[Trajectory], *, threshold: float = 0.5, seed: int = 0) -> BenchResult:
    """Agreement on which failure modes a trace shows: Cohen's kappa, which chance alone brings to 0.

        kappa = (p_o - p_e) / (1 - p_e),    p_e = p_a p_b + (1 - p_a)(1 - p_b)

    Most modes are absent from most traces, so accuracy is high for whoever sees none. Groups are the modes.

    Args:
        scorer: whose scores are measured; a judge recorded in the facts `modes:NAME` is measured by mode, any other by
            whether a trace shows any mode, which it says by a score at or below the threshold.
        data: traces; the fact `modes` holds 0, 1 or None by mode.
        threshold: of the scores of scorers without modes.
        seed: of the bootstrap over traces.

    Raises:
        InputError: no trace has the fact `modes`, or nothing is known of both sides.
    """
    data = [one for one in data if isinstance(one.facts.get("modes"), Mapping)]
    if not data:
        raise InputError("no trace says which modes it shows", remedy="pass rows of the format mast")
    name = f"modes:{scorer.name}"
    recorded = any(isinstance(one.facts.get(name), Mapping) for one in data)
    names = list(dict.fromkeys(mode for one in data for mode in one.facts["modes"])) if recorded else ["any"]
    if recorded:
        gold, said = (np.array([_of(one.facts.get(of), names) for one in data]) for of in ("modes", name))
    else:
        total = step_scores(scorer, data)[:, -1:]
        said = np.where(np.isnan(total), np.nan, total <= threshold)
        gold = np.array([[_any(one.facts["modes"])] for one in data])
    known = ~(np.isnan(gold) | np.isnan(said))
    if not known.any():
        raise InputError(f"nothing is known of {scorer.name} and of the annotators", remedy="see what was left out")
    counts = confusion(said == 1, gold == 1) * known[..., None]
    key = Key.seed(seed).fold("mast")

    def measured(at: Sequence[int], fold: Key) -> dict[str, Estimate]:
        tp, fp, fn, tn = np.moveaxis(bootstrap_sums(counts[:, at].sum(axis=1), fold), -1, 0)
        n = int(known[:, at].any(axis=1).sum())
        shares = {
            "accuracy": ratio(tp + tn, tp + fp + fn + tn, empty=np.nan),
            "precision": ratio(tp, tp + fp),
            "recall": ratio(tp, tp + fn),
            "f1": ratio(2 * tp, 2 * tp + fp + fn),
        }
        kappa = {"kappa": interval(cohen_kappa(tp, fp, fn, tn), n, bounds=(-1.0, 1.0))}
        return kappa | {metric: interval(values, n) for metric, values in shares.items()}

    protocol = (
        "Each trace and mode is a decision; those that either side leaves open are left out. kappa, precision (0 where "
        "nothing is named) and recall are pooled over them. Bootstrap over traces."
    )
    decided = [(at, mode) for at, mode in enumerate(names) if recorded and known[:, at].any()]
    groups = {mode: measured([at], key.fold(mode)) for at, mode in decided}
    lost = int((~np.isnan(gold) & np.isnan(said)).any(axis=1).sum())
    every = measured(range(len(names)), key)
    return BenchResult("mast", "kappa", every, protocol, groups, None if recorded else threshold, unscored=lost)


def cohen_kappa(tp: Floats, fp: Floats, fn: Floats, tn: Floats) -> Floats:
    """Agreement beyond chance of two who decide alike often; NaN where both always say the same one thing."""
    total = tp + fp + fn + tn
    observed = ratio(tp + tn, total, empty=np.nan)
    chance = ratio((tp + fp) * (tp + fn) + (fn + tn) * (fp + tn), total**2, empty=np.nan)
    return ratio(observed - chance, 1 - chance, empty=np.nan)


def _of(modes: Any, names: Sequence[str]) -> list[float]:
    given = modes if isinstance(modes, Mapping) else {}
    return [float("nan") if given.get(name) is None else float(given[name]) for name in names]


def _any(modes: Mapping[str, int | None]) -> float:
    if 1 in modes.values():
        return 1.0
    return float("nan") if None in modes.values() else 0.0
