"""The held-out curve of training in rounds, with intervals over problems and seeds, and its page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepreward.core.keys import Key
from stepreward.core.measure.aggregation import totals_of
from stepreward.core.measure.statistics import percentile_interval, resamples
from stepreward.core.measure.step_metrics import auroc, ragged
from stepreward.core.types import Floats, Trajectory
from stepreward.pipeline.run_report import INTERVAL, decimal
from stepreward.report.page import MISSING, Page, Section, Table
from stepreward.report.svg import Series, curves

SCHEMA = "stepreward/rounds/1"
_DRAWS = 300
MEASURES: Mapping[str, str] = {
    "steps": "AUROC of steps",
    "outcomes": "AUROC of solutions",
    "best_of_n": "best of N",
    "chance": "a solution at random",
}
"""What is measured on held-out data, and its name for people."""
Statistic = Callable[[NDArray[np.int64]], float]
"""From indices of problems, with repetition, to a number; NaN where it is not defined."""


def summarise(scored: Sequence[Sequence[Sequence[Trajectory]]], aggregate: str = "min") -> dict[str, Any]:
    """The held-out numbers of every round, and their differences to the first one's, each with a 95 % interval.

    Problems and seeds are drawn with replacement, independently and the same ones for every round, so that differences
    are paired. With one seed the interval says nothing of other seeds.

    Args:
        scored: by round and seed, the same solutions in the same order with the scores of that model.
        aggregate: total of a solution's scores.

    Returns:
        `curve`, by measure and round, and `versus_first`, differences to the first round, None for that round itself
        and not of chance, which no model changes.
    """
    key = Key.seed(0).fold("rounds", "held out")
    statistics = [[_statistics(rows, aggregate) for rows in some] for some in scored]
    problems = len({one.problem.id for one in scored[0][0]})
    draws = resamples(problems, _DRAWS, key.fold("problems"))
    seeds = resamples(len(scored[0]), _DRAWS, key.fold("seeds"))
    curve: dict[str, list[Any]] = {}
    versus: dict[str, list[Any]] = {}
    for name in MEASURES:
        if not all(name in one for some in statistics for one in some):
            continue
        # (R, K) the statistic itself, and (R, K, D) that of each draw of problems.
        value = np.array([[one[name](np.arange(problems)) for one in some] for some in statistics])
        drawn = np.array([[[one[name](d) for d in draws] for one in some] for some in statistics])
        mean = drawn[:, seeds.T, np.arange(_DRAWS)].mean(1)
        curve[name] = [
            percentile_interval(float(v), d, problems).to_json() for v, d in zip(value.mean(1), mean, strict=True)
        ]
        for k, row in enumerate(curve[name]):
            row["seeds"] = value[k].tolist()
        if name != "chance":
            versus[name] = [
                percentile_interval(float(v), d, problems, bounds=(-1.0, 1.0)).to_json() if k else None
                for k, (v, d) in enumerate(zip(value.mean(1) - value[0].mean(), mean - mean[0], strict=True))
            ]
    return {"schema": SCHEMA, "problems": problems, "curve": curve, "versus_first": versus}


def _statistics(rows: Sequence[Trajectory], aggregate: str) -> dict[str, Statistic]:
    """The measures that held-out solutions allow."""
    scores, labels = ragged([one.column("score") for one in rows]), ragged([one.labels for one in rows])
    totals, outcome = totals_of(scores, aggregate), np.array([one.outcome for one in rows])
    names, group = np.unique([one.problem.id for one in rows], return_inverse=True)
    members = [np.flatnonzero(group == g) for g in range(len(names))]
    made: dict[str, Statistic] = {}

    def area(a: Floats, b: Floats) -> Statistic:
        return lambda drawn: auroc(*(part[np.concatenate([members[i] for i in drawn])] for part in (a, b)))

    if len(np.unique(labels[~np.isnan(labels)] > 0.5)) == 2:
        made["steps"] = area(scores, labels)
    graded = outcome[~np.isnan(outcome)]
    if len(np.unique(graded > 0.5)) == 2:
        made["outcomes"] = area(totals[:, None], outcome[:, None])
    if graded.size and max(map(len, members)) > 1:
        of_best = np.array([outcome[rows[np.argmax(np.nan_to_num(totals[rows], nan=-np.inf))]] for rows in members])
        known = [outcome[rows][~np.isnan(outcome[rows])] for rows in members]
        at_random = np.array([some.mean() if some.size else np.nan for some in known])
        made |= {"best_of_n": _mean_known(of_best), "chance": _mean_known(at_random)}
    return made


def _mean_known(values: Floats) -> Statistic:
    """Mean over problems whose number is known."""

    def mean(drawn: NDArray[np.int64]) -> float:
        some = values[drawn][~np.isnan(values[drawn])]
        return float(some.mean()) if some.size else float("nan")

    return mean


def idle_rounds(rounds: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rounds that sought new solutions and found nothing to learn from, and why.

    Args:
        rounds: by round, what each seed did.
    """
    made = []
    for number, some in enumerate(rounds, 1):
        for seed, one in some.items():
            parts = {name: part for name, part in one["label"].items() if isinstance(part, dict)}
            if parts and all("idle" in part for part in parts.values()):
                why = "; ".join(part["idle"] for part in parts.values())
                place = f"round {number} of seed {seed}"
                model = one.get("model_of_round", number)
                made.append({"place": place, "round": number, "seed": int(seed), "model_of_round": model, "why": why})
    return made


def measured_columns(summary: Mapping[str, Any]) -> dict[str, list[str]]:
    """Columns of a table over rounds, by their heads: each measure, and how far it is from the first round's."""
    made = {}
    for name, rows in summary["curve"].items():
        made[MEASURES[name]] = [decimal(one) for one in rows]
        if name in summary["versus_first"]:
            beside = summary["versus_first"][name]
            made[f"{MEASURES[name]}, less the first"] = [MISSING if one is None else decimal(one) for one in beside]
    return made


def rows_of_table(summary: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table over rounds: what each added, what it measured, how far from the first."""
    columns = measured_columns(summary)
    rows, drawn = [], list[str]()
    for k, some in enumerate(summary["rounds"]):
        parts = [part for one in some.values() for part in one["label"].values() if isinstance(part, dict)]
        counts = [f"{sum(part[name] for part in parts):,}" for name in ("solutions", "labelled")]
        # A seed may choose another temperature than the others.
        chosen = sorted({part["temperature"] for part in parts if "temperature" in part})
        drawn.append(", ".join(f"{one:g}" for one in chosen))
        rows.append([str(k + 1), *counts, *(column[k] for column in columns.values())])
    head = ["round", "new solutions", "new labels", *columns]
    if any(drawn):
        head, rows = [*head, "temperature"], [[*row, one or MISSING] for row, one in zip(rows, drawn, strict=True)]
    return head, rows


def build_page(summary: Mapping[str, Any]) -> Page:
    """The report: each measure over the rounds, and the table."""
    curve = summary["curve"]
    at = [k + 1.0 for k in range(len(summary["rounds"]))]
    series = [Series(MEASURES[n], at, *([e[part] for e in rows] for part in INTERVAL)) for n, rows in curve.items()]
    head, rows = rows_of_table(summary)
    settings, n = summary["settings"], summary["problems"]
    caption = f"{settings['seeds']} seeds, {n:,} held-out problems; 95 % intervals over both, differences paired."
    last = [(decimal(rows[-1]), MEASURES[name], f"round {len(at)}") for name, rows in curve.items()]
    text = (
        "Every round trains a model anew on what it has, and all models score the same held-out solutions. A "
        "difference whose interval holds 0 is no improvement."
    )
    if summary["idle"]:
        text += " Without anything new to learn from, a round has the model of an earlier one: " + "; ".join(
            f"{one['place']} that of round {one['model_of_round']} ({one['why']})" for one in summary["idle"]
        )
        text += "."
    figures = [curves(series, x_label="round", y_label="held out")] if series else []
    return Page(
        "Training in rounds",
        f"from {settings['backbone']}",
        [(value.partition(" [")[0], what, context) for value, what, context in last],
        [Section("Held-out curve", text, figures, [Table(head, rows, caption)])],
        details={name: str(value) for name, value in settings.items()},
    )
